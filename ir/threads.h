// Threads for one piece of work, such as compiling. What runs again and again has a ThreadPool.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace lathe::core {

// body(i, thread) for every i below `count`, in order of i as threads get free: on this one, number
// 0, and at most `threads` in all. The body throws nothing.
template <typename Body> void parallel_each(size_t count, int threads, const Body &body) {
  std::atomic<size_t> next{0};
  auto work = [&](int thread) {
    for (size_t i; (i = next.fetch_add(1)) < count;) body(i, thread);
  };
  std::vector<std::jthread> others;
  try {
    const auto most = int(std::min(size_t(std::max(threads, 1)), count));
    for (int t = 1; t < most; ++t) others.emplace_back(work, t);
  } catch (const std::system_error &) {
    // As many as the system gives.
  }
  work(0);
}

} // namespace lathe::core
