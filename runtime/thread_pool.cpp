#include "runtime/thread_pool.h"

#include "ir/system/fork.h"
#include "ir/system/threads.h"

#include <algorithm>

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

ThreadPool::ThreadPool(int threads)
    : shares_(size_t(std::max(1, threads))), workers_(shares_.size() - 1),
      generation_(fork_generation.load(std::memory_order_relaxed)) {
  auto run = [](void *data) -> void * {
    const Worker &worker = *static_cast<Worker *>(data);
    worker.pool->serve(worker.number);
    return nullptr;
  };
  if (!forks_are_seen()) return; // a child would wait for threads that it does not have
  for (Worker &worker : workers_) {
    worker = {this, started_ + 1, {}};
    if (!start_thread(worker.thread, run, &worker, 0)) break;
    ++started_;
  }
}

ThreadPool::~ThreadPool() {
  if (!is_whole()) return;
  stop_.store(true);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (int t = 0; t < started_; ++t) pthread_join(workers_[size_t(t)].thread, nullptr);
}

bool ThreadPool::is_whole() const {
  return generation_ == fork_generation.load(std::memory_order_relaxed);
}

void ThreadPool::serve(int thread) {
  FlushSubnormals mode;
  uint32_t seen = 0;
  while (true) {
    wait_while_equal(round_, seen);
    seen = round_.load(std::memory_order_acquire);
    if (stop_.load()) return;
    work_on(thread);
  }
}

void ThreadPool::work_on(int thread) {
  const auto count = size_t(threads());
  for (size_t i = 0; i < count; ++i)
    while (take(shares_[(size_t(thread) + i) % count], thread, i == 0)) {
    }
}

// A small share of one's own at once, since tasks that follow each other have work in common; three
// quarters of what is left of a larger one, half of what is left of another's if that is worth it.
bool ThreadPool::take(Share &share, int thread, bool own) {
  uint64_t units = share.units.load(std::memory_order_acquire);
  while (true) {
    const uint64_t first = units >> 16 & 0xffff, end = units & 0xffff, left = end - first;
    if (left == 0 || (!own && int64_t(left) * unit_.load(std::memory_order_acquire) <
                                  grain_.load(std::memory_order_acquire)))
      return false;
    const int64_t tasks = tasks_.load(std::memory_order_acquire);
    const int64_t unit = unit_.load(std::memory_order_acquire);
    const Work work = work_.load(std::memory_order_acquire);
    void *const context = context_.load(std::memory_order_acquire);
    const uint64_t count = own ? (left <= 4 ? left : left * 3 / 4) : (left + 1) / 2;
    const uint64_t begin = own ? first : end - count;
    // Fails if somebody else took some; a round ends when nothing is left, so that all that was
    // read is of this one if it succeeds.
    if (!share.units.compare_exchange_weak(units, own ? units + (count << 16) : units - count,
                                           std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    work(context, int64_t(begin) * unit, std::min(tasks, int64_t(begin + count) * unit), thread);
    if (undone_.fetch_sub(int32_t(count), std::memory_order_acq_rel) == int32_t(count))
      undone_.notify_one();
    return true;
  }
}

void ThreadPool::parallel_for(int64_t tasks, int64_t grain, Work work, void *context) {
  grain = std::max<int64_t>(1, grain);
  if (started_ == 0 || tasks <= grain || !is_whole() ||
      taken_.exchange(true, std::memory_order_acquire))
    return work(context, 0, tasks, 0);
  constexpr int64_t most_units = 0xffff;
  const int64_t unit = std::max<int64_t>(1, (tasks + most_units - 1) / most_units);
  const int64_t units = (tasks + unit - 1) / unit;
  const uint64_t round = round_.load(std::memory_order_relaxed) + 1;
  tasks_.store(tasks, std::memory_order_release);
  unit_.store(unit, std::memory_order_release);
  grain_.store(grain, std::memory_order_release);
  work_.store(work, std::memory_order_release);
  context_.store(context, std::memory_order_release);
  undone_.store(int32_t(units), std::memory_order_relaxed);
  const int64_t threads = this->threads();
  const int64_t sharing = std::min(threads, (tasks + grain - 1) / grain);
  for (int64_t t = 0; t < threads; ++t) {
    const int64_t first = units * std::min(t, sharing) / sharing;
    const int64_t end = units * std::min(t + 1, sharing) / sharing;
    shares_[size_t(t)].units.store(round << 32 | uint64_t(first) << 16 | uint64_t(end),
                                   std::memory_order_release);
  }
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  work_on(0);
  for (int32_t left; (left = undone_.load(std::memory_order_acquire)) != 0;)
    wait_while_equal(undone_, left);
  taken_.store(false, std::memory_order_release);
}

void HostThreads::parallel_for(int64_t tasks, int64_t grain, Work work, void *context) {
  struct Loop {
    int64_t tasks, chunk;
    Work work;
    void *context;
    std::atomic<int64_t> next{0};
  } loop{tasks, chunk_of(tasks, grain, jobs_), work, context};
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
