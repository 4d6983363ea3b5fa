// Threads for one piece of work, such as compiling. What runs again and again has a ThreadPool.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <pthread.h>

namespace lathe::core {

// What compiling and reading files may take of a stack. Threads for them have as much.
constexpr size_t large_stack = 8 << 20;
// With so much left of the caller's, work is done there.
constexpr size_t enough_stack = 512 << 10;

// False where the system gives no thread. `stack`: bytes; 0: what is usual.
bool start_thread(pthread_t &thread, void *(*run)(void *), void *context, size_t stack);

// Bytes below here on this thread's stack; 0 where that is not known (stacks of a program's own).
size_t stack_left();

// body() here, or on a thread with a large stack if less than enough is left here. False where the
// system gives none: then body was not called. The body throws nothing.
bool on_enough_stack(void (*body)(void *), void *context);
template <typename Body> bool on_enough_stack(Body &body) {
  return on_enough_stack([](void *context) { (*static_cast<Body *>(context))(); }, &body);
}

// work(context, number) on this thread, number 0, and on as many others as the system gives, at
// most `threads` in all. Returns when all have. The work throws nothing.
void on_threads(int threads, void (*work)(void *context, int number), void *context);

// body(i, thread) for every i below `count`, in order of i as threads get free: on this one, number
// 0, and at most `threads` in all. What a body throws is thrown here, once all have stopped.
template <typename Body> void parallel_each(size_t count, int threads, const Body &body) {
  struct All {
    size_t count;
    const Body &body;
    std::atomic<size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure{};
  } all{count, body};
  auto work = [](void *context, int thread) {
    All &all = *static_cast<All *>(context);
    try {
      for (size_t i; !all.failed && (i = all.next.fetch_add(1)) < all.count;) all.body(i, thread);
    } catch (...) {
      if (!all.failed.exchange(true)) all.failure = std::current_exception();
    }
  };
  on_threads(int(std::min(size_t(std::max(threads, 1)), count)), work, &all);
  if (all.failure) std::rethrow_exception(all.failure);
}

} // namespace lathe::core
