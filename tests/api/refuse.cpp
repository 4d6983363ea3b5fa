#include "tests/api/refuse.h"

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>

namespace refuse {
namespace {

std::atomic<int> armed = -1; // what; none
std::atomic<int> how = 0;
std::atomic<long> counts[4];
std::atomic<long> refused_from = 0;
std::atomic<long> in_use = 0, room = 0; // bytes of memory
std::atomic<bool> measuring = false;

bool refuses(What what, long bytes = 0) {
  if (armed.load(std::memory_order_relaxed) < 0) return false;
  const long n = ++counts[int(what)];
  if (armed != int(what)) return false;
  switch (How(how.load())) {
  case How::once:
    return n == refused_from;
  case How::on:
    return n >= refused_from;
  case How::full:
    if (n == refused_from) room = in_use.load(), measuring = true;
    return measuring && in_use + bytes > room;
  }
  return false;
}

void *kept(void *memory) {
  if (memory) in_use += long(malloc_usable_size(memory));
  return memory;
}

template <typename F> F next(const char *name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

} // namespace

void arm(What what, How the_how, long n) {
  for (auto &c : counts) c = 0;
  how = int(the_how), refused_from = n, measuring = false;
  armed = int(what);
}
void disarm() { armed = -1; }
long counted(What what) { return counts[int(what)]; }

} // namespace refuse

using namespace refuse;

extern "C" {

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static void *out_of_memory() {
  errno = ENOMEM;
  return nullptr;
}

void *malloc(size_t size) {
  return refuses(What::memory, long(size)) ? out_of_memory() : kept(__libc_malloc(size));
}
void *calloc(size_t count, size_t size) {
  return refuses(What::memory, long(count * size)) ? out_of_memory()
                                                   : kept(__libc_calloc(count, size));
}
void *realloc(void *old, size_t size) {
  const long before = old ? long(malloc_usable_size(old)) : 0;
  if (refuses(What::memory, long(size) - before)) return out_of_memory();
  void *memory = __libc_realloc(old, size);
  if (memory || size == 0) in_use -= before;
  return kept(memory);
}
void free(void *memory) {
  if (memory) in_use -= long(malloc_usable_size(memory));
  __libc_free(memory);
}
int posix_memalign(void **result, size_t alignment, size_t size) {
  if (refuses(What::memory, long(size))) return ENOMEM;
  *result = kept(__libc_memalign(alignment, size));
  return *result ? 0 : ENOMEM;
}
void *aligned_alloc(size_t alignment, size_t size) {
  return refuses(What::memory, long(size)) ? out_of_memory()
                                           : kept(__libc_memalign(alignment, size));
}

void *mmap(void *address, size_t size, int protection, int flags, int file, off_t offset) noexcept {
  static auto real = next<void *(*)(void *, size_t, int, int, int, off_t)>("mmap");
  if (!refuses(What::pages)) return real(address, size, protection, flags, file, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}
int mprotect(void *address, size_t size, int protection) noexcept {
  static auto real = next<int (*)(void *, size_t, int)>("mprotect");
  if (!refuses(What::pages)) return real(address, size, protection);
  errno = EACCES;
  return -1;
}
int madvise(void *address, size_t size, int advice) noexcept {
  static auto real = next<int (*)(void *, size_t, int)>("madvise");
  if (!refuses(What::pages)) return real(address, size, advice);
  errno = EAGAIN;
  return -1;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *context) noexcept {
  static auto real = next<int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)>(
      "pthread_create");
  return refuses(What::threads) ? EAGAIN : real(thread, attributes, run, context);
}

static int no_more_files() {
  errno = EMFILE;
  return -1;
}
static mode_t mode_of(int flags, va_list list) {
  return flags & (O_CREAT | O_TMPFILE) ? mode_t(va_arg(list, int)) : 0;
}
#define REFUSE_OPEN(name)                                                                          \
  int name(const char *path, int flags, ...) {                                                     \
    static auto real = next<int (*)(const char *, int, mode_t)>(#name);                            \
    va_list list;                                                                                  \
    va_start(list, flags);                                                                         \
    const mode_t mode = mode_of(flags, list);                                                      \
    va_end(list);                                                                                  \
    return refuses(What::files) ? no_more_files() : real(path, flags, mode);                       \
  }
REFUSE_OPEN(open)
REFUSE_OPEN(open64)
#define REFUSE_OPENAT(name)                                                                        \
  int name(int folder, const char *path, int flags, ...) {                                         \
    static auto real = next<int (*)(int, const char *, int, mode_t)>(#name);                       \
    va_list list;                                                                                  \
    va_start(list, flags);                                                                         \
    const mode_t mode = mode_of(flags, list);                                                      \
    va_end(list);                                                                                  \
    return refuses(What::files) ? no_more_files() : real(folder, path, flags, mode);               \
  }
REFUSE_OPENAT(openat)
REFUSE_OPENAT(openat64)
FILE *fopen(const char *path, const char *mode) {
  static auto real = next<FILE *(*)(const char *, const char *)>("fopen");
  return refuses(What::files) ? no_more_files(), nullptr : real(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
  static auto real = next<FILE *(*)(const char *, const char *)>("fopen64");
  return refuses(What::files) ? no_more_files(), nullptr : real(path, mode);
}
DIR *fdopendir(int file) {
  static auto real = next<DIR *(*)(int)>("fdopendir");
  return refuses(What::files) ? no_more_files(), nullptr : real(file);
}

#ifdef REFUSE_PRELOADED
// For whole programs: REFUSE="memory once 17" in the environment, counted from main on. "count" in
// place of a number: says at the end how many there were.
static int (*real_main)(int, char **, char **);
static int counted_main(int argc, char **argv, char **environment) {
  char kind[16] = "", way[16] = "", number[32] = "";
  const char *given = getenv("REFUSE");
  if (!given || sscanf(given, "%15s %15s %31s", kind, way, number) != 3)
    return real_main(argc, argv, environment);
  What what = What::memory;
  How how = How::once;
  for (int i = 0; i < 4; ++i)
    if (strcmp(kind, names[i]) == 0) what = What(i);
  for (int i = 0; i < 3; ++i)
    if (strcmp(way, how_names[i]) == 0) how = How(i);
  arm(what, how, strcmp(number, "count") == 0 ? INTPTR_MAX : atol(number));
  const int code = real_main(argc, argv, environment);
  disarm();
  if (strcmp(number, "count") == 0) fprintf(stderr, "counted %ld\n", counted(what));
  return code;
}
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(),
                      void (*fini)(), void (*rtld_fini)(), void *stack_end) {
  real_main = main;
  return next<int (*)(int (*)(int, char **, char **), int, char **, void (*)(), void (*)(),
                      void (*)(), void *)>("__libc_start_main")(counted_main, argc, argv, init,
                                                                fini, rtld_fini, stack_end);
}
#endif
}
