// A small pool for fork and join: the caller works too, workers spin briefly and then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace lathe {

// CPUs that this process may really use: its affinity and its cgroup's quota.
int usable_cpus();

class ThreadPool {
public:
  // `threads` in all, the caller among them.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int threads() const { return int(workers_.size()) + 1; }

  // Runs work(context, begin, end, thread) over [0, tasks) in chunks. One caller at a time.
  // Returns when all is done. Allocates nothing.
  using Work = void (*)(void *context, int64_t begin, int64_t end, int thread);
  void parallel_for(int64_t tasks, int64_t chunk, Work work, void *context);

private:
  void serve(int thread);
  void take_chunks(int thread);

  std::atomic<uint32_t> round_{0};  // grows with every parallel_for; workers wait for it
  std::atomic<int32_t> working_{0}; // workers that have not finished the round
  std::atomic<int64_t> next_{0};    // the next task to take
  std::atomic<bool> stop_{false};
  int64_t tasks_ = 0, chunk_ = 1;
  Work work_ = nullptr;
  void *context_ = nullptr;
  std::vector<std::thread> workers_;
};

// While alive, this thread treats subnormal numbers as zero; then its old mode returns.
class FlushSubnormals {
public:
  FlushSubnormals();
  ~FlushSubnormals();
  FlushSubnormals(const FlushSubnormals &) = delete;
  FlushSubnormals &operator=(const FlushSubnormals &) = delete;

private:
  uint64_t before_;
};

} // namespace lathe
