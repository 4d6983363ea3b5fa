#include "runtime/thread_pool.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sched.h>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lathe::core {
namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins for some microseconds, which covers the gap between two kernels, then sleeps.
template <typename T> void wait_while_equal(std::atomic<T> &value, T old) {
  for (int i = 0; i < 2000; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

} // namespace

int usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                         : int(std::thread::hardware_concurrency());
  // cgroup v2: "200000 100000" is two CPUs, "max 100000" no limit; v1 has a file for each number.
  double quota = 0, period = 0;
  std::string first;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> first >> period) {
    if (first != "max") quota = std::strtod(first.c_str(), nullptr);
  } else {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  if (quota > 0 && period > 0) cpus = std::min(cpus, int(std::ceil(quota / period)));
  return std::max(1, cpus);
}

int64_t chunk_of(int64_t tasks, int64_t grain, int threads) {
  const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t most = ceil_div(tasks, 4 * int64_t(threads));
  int64_t best = most, least = INT64_MAX; // tasks that pass until the last thread is done
  const int64_t candidates = std::clamp<int64_t>(most / 2, 1, 8);
  for (int64_t chunk = most; chunk > most - candidates; --chunk) {
    const int64_t last = ceil_div(ceil_div(tasks, chunk), threads) * chunk;
    if (last >= least) continue;
    least = last;
    best = chunk;
  }
  return std::max(grain, best);
}

ThreadPool::ThreadPool(int threads) {
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { serve(t); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread &worker : workers_) worker.join();
}

void ThreadPool::serve(int thread) {
  FlushSubnormals mode;
  uint32_t seen = 0;
  while (true) {
    wait_while_equal(round_, seen);
    seen = round_.load(std::memory_order_acquire);
    if (stop_.load()) return;
    take_chunks(thread);
  }
}

void ThreadPool::take_chunks(int thread) {
  uint64_t next = next_.load(std::memory_order_acquire);
  while ((next & closed) != closed) {
    const int64_t tasks = tasks_.load(std::memory_order_acquire);
    const int64_t chunk = chunk_.load(std::memory_order_acquire);
    const Work work = work_.load(std::memory_order_acquire);
    void *context = context_.load(std::memory_order_acquire);
    const int64_t begin = int64_t(next & closed) * chunk;
    if (begin >= tasks) return;
    // Fails if the round is another one by now, or somebody else took the chunk.
    if (!next_.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel)) continue;
    work(context, begin, std::min(tasks, begin + chunk), thread);
    if (undone_.fetch_sub(1, std::memory_order_acq_rel) == 1) undone_.notify_one();
    next = next_.load(std::memory_order_acquire);
  }
}

void ThreadPool::parallel_for(int64_t tasks, int64_t chunk, Work work, void *context) {
  chunk = std::max(chunk, tasks / (int64_t{1} << 30)); // chunks are numbered in 32 bits
  if (workers_.empty() || tasks <= chunk || taken_.exchange(true, std::memory_order_acquire))
    return work(context, 0, tasks, 0);
  const uint64_t round = next_.load(std::memory_order_relaxed) >> 32;
  next_.store((round + 1) << 32 | closed, std::memory_order_relaxed);
  // Whoever sees one of these sees that the round is closed, and takes nothing with the rest
  // unread.
  tasks_.store(tasks, std::memory_order_release);
  chunk_.store(chunk, std::memory_order_release);
  work_.store(work, std::memory_order_release);
  context_.store(context, std::memory_order_release);
  undone_.store(int32_t((tasks + chunk - 1) / chunk), std::memory_order_relaxed);
  next_.store((round + 2) << 32, std::memory_order_release);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  take_chunks(0);
  for (int32_t left; (left = undone_.load(std::memory_order_acquire)) != 0;)
    wait_while_equal(undone_, left);
  taken_.store(false, std::memory_order_release);
}

void HostThreads::parallel_for(int64_t tasks, int64_t chunk, Work work, void *context) {
  struct Loop {
    int64_t tasks, chunk;
    Work work;
    void *context;
    std::atomic<int64_t> next{0};
  } loop{tasks, chunk, work, context};
  const auto job = [](void *data, int index) {
    FlushSubnormals mode;
    auto &l = *static_cast<Loop *>(data);
    for (int64_t begin; (begin = l.next.fetch_add(l.chunk)) < l.tasks;)
      l.work(l.context, begin, std::min(l.tasks, begin + l.chunk), index);
  };
  parallel_for_(host_, jobs_, job, &loop);
}

#if defined(__x86_64__)
FlushSubnormals::FlushSubnormals() : before_(_mm_getcsr()) {
  _mm_setcsr(unsigned(before_) | 0x8040); // flush to zero, denormals are zero
}
FlushSubnormals::~FlushSubnormals() { _mm_setcsr(unsigned(before_)); }
#elif defined(__aarch64__)
FlushSubnormals::FlushSubnormals() {
  asm volatile("mrs %0, fpcr" : "=r"(before_));
  uint64_t mode = before_ | (uint64_t{1} << 24);
  asm volatile("msr fpcr, %0" ::"r"(mode));
}
FlushSubnormals::~FlushSubnormals() { asm volatile("msr fpcr, %0" ::"r"(before_)); }
#else
FlushSubnormals::FlushSubnormals() : before_(0) {}
FlushSubnormals::~FlushSubnormals() = default;
#endif

} // namespace lathe::core
