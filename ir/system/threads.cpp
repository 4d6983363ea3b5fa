#include "ir/system/threads.h"

#include <cstdint>
#include <memory>
#include <new>
#include <sys/resource.h>
#include <unistd.h>

namespace lathe::core {

bool start_thread(pthread_t &thread, void *(*run)(void *), void *context, size_t stack) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  const bool started = (stack == 0 || pthread_attr_setstacksize(&attributes, stack) == 0) &&
                       pthread_create(&thread, &attributes, run, context) == 0;
  pthread_attr_destroy(&attributes);
  return started;
}

namespace {

struct Stack {
  uintptr_t low = 0, high = 0;
};

Stack own_stack() {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return {};
  void *low = nullptr;
  size_t bytes = 0, guard = 0;
  pthread_attr_getstack(&attributes, &low, &bytes);
  pthread_attr_getguardsize(&attributes, &guard);
  pthread_attr_destroy(&attributes);
  const auto begin = reinterpret_cast<uintptr_t>(low);
  return {begin + guard, begin + bytes};
}

} // namespace

size_t stack_left() {
  // Where the dynamic linker makes a thread's variables at their first use, that may end the
  // program for want of memory: these are there from the thread's start.
  static thread_local constinit Stack stack __attribute__((tls_model("initial-exec"))) = {};
  if (stack.high == 0) stack = own_stack();
  const auto here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  return here > stack.low && here < stack.high ? here - stack.low : 0;
}

namespace {

// The stack of a process's first thread grows as it is used, and where the address space is limited
// the process ends when it cannot; those of other threads are there from the start.
bool may_fail_to_grow() {
  rlimit limit{};
  return gettid() == getpid() && getrlimit(RLIMIT_AS, &limit) == 0 &&
         limit.rlim_cur != RLIM_INFINITY;
}

} // namespace

bool on_enough_stack(void (*body)(void *), void *context) {
  if (stack_left() >= enough_stack && !may_fail_to_grow()) {
    body(context);
    return true;
  }
  struct Call {
    void (*body)(void *);
    void *context;
  } call{body, context};
  auto run = [](void *data) -> void * {
    const Call &c = *static_cast<Call *>(data);
    c.body(c.context);
    return nullptr;
  };
  pthread_t thread;
  if (!start_thread(thread, run, &call, large_stack) &&
      !start_thread(thread, run, &call, 2 * enough_stack))
    return false;
  pthread_join(thread, nullptr);
  return true;
}

void on_threads(int threads, void (*work)(void *context, int number), void *context) {
  struct Other {
    void (*work)(void *, int);
    void *context;
    int number;
    pthread_t thread;
  };
  const std::unique_ptr<Other[]> others(threads > 1 ? new (std::nothrow) Other[size_t(threads - 1)]
                                                    : nullptr);
  auto run = [](void *data) -> void * {
    const Other &o = *static_cast<Other *>(data);
    o.work(o.context, o.number);
    return nullptr;
  };
  int started = 0;
  for (; others && started < threads - 1; ++started) {
    Other &other = others[size_t(started)];
    other = {work, context, started + 1, {}};
    if (!start_thread(other.thread, run, &other, large_stack)) break;
  }
  work(context, 0);
  for (int i = 0; i < started; ++i) pthread_join(others[size_t(i)].thread, nullptr);
}

} // namespace lathe::core
