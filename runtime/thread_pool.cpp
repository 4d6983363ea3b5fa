#include "runtime/thread_pool.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sched.h>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lathe {
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
    ++seen;
    if (stop_.load()) return;
    take_chunks(thread);
    if (working_.fetch_sub(1, std::memory_order_acq_rel) == 1) working_.notify_one();
  }
}

void ThreadPool::take_chunks(int thread) {
  while (true) {
    int64_t begin = next_.fetch_add(chunk_, std::memory_order_relaxed);
    if (begin >= tasks_) return;
    work_(context_, begin, std::min(tasks_, begin + chunk_), thread);
  }
}

void ThreadPool::parallel_for(int64_t tasks, int64_t chunk, Work work, void *context) {
  if (workers_.empty() || tasks <= chunk) return work(context, 0, tasks, 0);
  tasks_ = tasks;
  chunk_ = chunk;
  work_ = work;
  context_ = context;
  next_.store(0, std::memory_order_relaxed);
  working_.store(int32_t(workers_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  take_chunks(0);
  for (int32_t left; (left = working_.load(std::memory_order_acquire)) != 0;)
    wait_while_equal(working_, left);
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

} // namespace lathe
