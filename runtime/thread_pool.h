// A small pool for fork and join: the caller works too, workers spin briefly and then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace lathe::core {

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

  std::atomic<uint32_t> round_{0}; // grows with every parallel_for; workers wait for it
  // The round in the upper half, the number of the next chunk in the lower. Who takes a chunk
  // exchanges both at once: so a worker that wakes late neither takes part in a round whose numbers
  // it has not read, nor is waited for.
  std::atomic<uint64_t> next_{closed};
  std::atomic<int32_t> undone_{0}; // chunks
  std::atomic<int64_t> tasks_{0}, chunk_{1};
  std::atomic<Work> work_{nullptr};
  std::atomic<void *> context_{nullptr};
  std::atomic<bool> stop_{false};
  static constexpr uint64_t closed = UINT32_MAX; // while a round's numbers are written
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

} // namespace lathe::core
