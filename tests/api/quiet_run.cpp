// `run` allocates nothing, takes no lock and makes no system call, with one thread and in a host's
// parallel_for; with a pool it only wakes and waits. Everything of the kind is counted here: this
// program's functions come before those of the C library.
#include <lathe/lathe.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

namespace {
std::atomic<bool> counting = false;
std::atomic<long> allocations = 0, locks = 0, system_calls = 0;
void count(std::atomic<long> &what) {
  if (counting.load(std::memory_order_relaxed)) ++what;
}
template <typename F> F next(const char *name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}
} // namespace

extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void *malloc(size_t size) {
  count(allocations);
  return __libc_malloc(size);
}
void *calloc(size_t count_of, size_t size) {
  count(allocations);
  return __libc_calloc(count_of, size);
}
void *realloc(void *old, size_t size) {
  count(allocations);
  return __libc_realloc(old, size);
}
int posix_memalign(void **result, size_t alignment, size_t size) {
  count(allocations);
  *result = __libc_memalign(alignment, size);
  return *result ? 0 : 12;
}
void *aligned_alloc(size_t alignment, size_t size) {
  count(allocations);
  return __libc_memalign(alignment, size);
}
int pthread_mutex_lock(pthread_mutex_t *mutex) noexcept {
  static auto real = next<int (*)(pthread_mutex_t *)>("pthread_mutex_lock");
  count(locks);
  return real(mutex);
}
int pthread_mutex_trylock(pthread_mutex_t *mutex) noexcept {
  static auto real = next<int (*)(pthread_mutex_t *)>("pthread_mutex_trylock");
  count(locks);
  return real(mutex);
}
long syscall(long number, ...) noexcept {
  static auto real = next<long (*)(long, ...)>("syscall");
  count(system_calls);
  va_list list;
  va_start(list, number);
  long a[6];
  for (long &x : a) x = va_arg(list, long);
  va_end(list);
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
}

namespace {

int failures = 0;
void expect_none(const char *what, const char *who, long found) {
  if (found == 0) return;
  std::printf("FAILED: %s: %ld %s in run()\n", who, found, what);
  ++failures;
}

void check(const lathe::Executable &network, const lathe::Threads &threads, const char *who,
           bool may_wait) {
  lathe::Request request = network.request(1, threads).value();
  request.run(); // what the C library sets up at first use is not ours
  allocations = locks = system_calls = 0;
  counting = true;
  for (int i = 0; i < 20; ++i) request.run();
  counting = false;
  expect_none("allocations", who, allocations);
  expect_none("locks", who, locks);
  if (!may_wait) expect_none("system calls", who, system_calls);
}

} // namespace

int main() {
  // That the counters count.
  counting = true;
  std::free(std::malloc(1));
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&mutex);
  pthread_mutex_unlock(&mutex);
  syscall(SYS_gettid);
  counting = false;
  if (allocations != 1 || locks != 1 || system_calls != 1) {
    std::printf("FAILED: the counters are not called\n");
    return 1;
  }
  lathe::Model model = lathe::Model::load("squeezenet1_1").value();
  model.randomise_weights(1).value();
  const lathe::Executable network = lathe::compile(model).value();
  check(network, lathe::Threads::pool(1), "one thread", false);
  auto in_turn = [](void *, int jobs, void (*job)(void *, int), void *context) {
    for (int i = 0; i < jobs; ++i) job(context, i);
  };
  check(network, lathe::Threads::host(in_turn, nullptr, 4), "a host's parallel_for", false);
  check(network, lathe::Threads::pool(3), "a pool", true);
  std::printf(failures ? "failed\n" : "run() is quiet\n");
  return failures != 0;
}
