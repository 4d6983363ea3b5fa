// The linker sends what asks for memory in a program or library through these functions (--wrap:
// ld(1)), which ask once more when this thread had something to give up. A file of its own: who
// links without --wrap does not need it, and has no __real functions.
#include "codegen/llvm_memory.h"

#include <new>

static bool give_up() { return lathe::core::LlvmReserve::give_up(); }

extern "C" {
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real__Znwm(size_t bytes);
void *__real__Znam(size_t bytes);
void *__real__ZnwmSt11align_val_t(size_t bytes, std::align_val_t alignment);

void *__wrap_malloc(size_t bytes) {
  void *memory = __real_malloc(bytes);
  return memory || !give_up() ? memory : __real_malloc(bytes);
}
void *__wrap_calloc(size_t count, size_t bytes) {
  void *memory = __real_calloc(count, bytes);
  return memory || !give_up() ? memory : __real_calloc(count, bytes);
}
void *__wrap_realloc(void *old, size_t bytes) {
  void *memory = __real_realloc(old, bytes);
  return memory || !give_up() ? memory : __real_realloc(old, bytes);
}
void *__wrap__Znwm(size_t bytes) try {
  return __real__Znwm(bytes);
} catch (const std::bad_alloc &) {
  if (!give_up()) throw;
  return __real__Znwm(bytes);
}
void *__wrap__Znam(size_t bytes) try {
  return __real__Znam(bytes);
} catch (const std::bad_alloc &) {
  if (!give_up()) throw;
  return __real__Znam(bytes);
}
void *__wrap__ZnwmSt11align_val_t(size_t bytes, std::align_val_t alignment) try {
  return __real__ZnwmSt11align_val_t(bytes, alignment);
} catch (const std::bad_alloc &) {
  if (!give_up()) throw;
  return __real__ZnwmSt11align_val_t(bytes, alignment);
}
}
