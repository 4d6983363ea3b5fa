// Who works on a run: a small pool of our own, or a host program's threads.
#pragma once

#include "runtime/cpus.h"

#include <atomic>
#include <cstdint>
#include <pthread.h>
#include <vector>

namespace lathe::core {

// How many of a kernel's tasks one thread of a host should take at a time: about a quarter of its
// share, so that a late one finds the rest done; a little less, where that lets all end at once;
// and a grain at least. (Libraries made ahead of time do likewise, codegen/emit_library.cpp.)
int64_t chunk_of(int64_t tasks, int64_t grain, int threads);

class Workers {
public:
  virtual ~Workers() = default;
  virtual int threads() const = 0;
  // Runs work(context, begin, end, thread) over [0, tasks) in chunks, on so few threads that each
  // has about `grain` tasks at least, `thread` being less than threads(). Returns when all is done.
  // Allocates nothing. Any number of callers at a time.
  using Work = void (*)(void *context, int64_t begin, int64_t end, int thread);
  virtual void parallel_for(int64_t tasks, int64_t grain, Work work, void *context) = 0;
};

// For fork and join: the caller works too, workers spin briefly and then sleep. Every thread has a
// share of the tasks, the same one each time, since neighbouring kernels use the same data: most of
// it it takes at once, and who is done helps others from the ends of theirs. Who finds the pool
// taken by another caller works alone; so does, for ever, a child that a fork gave the pool, since
// a child has no thread but the one that forked.
class ThreadPool : public Workers {
public:
  // `threads` in all, the caller among them; fewer, where the system gives no more.
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int threads() const override { return started_ + 1; }
  void parallel_for(int64_t tasks, int64_t grain, Work work, void *context) override;

private:
  // A thread's units of the round that are not taken yet: the round in the upper half, then the
  // first unit and the one behind the last. Who takes some exchanges all at once: so a worker that
  // wakes late neither takes part in a round whose numbers it has not read, nor is waited for.
  struct alignas(64) Share {
    std::atomic<uint64_t> units{0};
  };

  struct Worker {
    ThreadPool *pool;
    int number;
    pthread_t thread;
  };

  bool is_whole() const; // false in a child
  void serve(int thread);
  void work_on(int thread);
  bool take(Share &share, int thread, bool own);

  std::atomic<uint32_t> round_{0}; // grows with every parallel_for; workers wait for it
  std::atomic<int32_t> undone_{0}; // units
  std::atomic<int64_t> tasks_{0}, unit_{1}, grain_{1};
  std::atomic<Work> work_{nullptr};
  std::atomic<void *> context_{nullptr};
  std::atomic<bool> stop_{false};
  std::atomic<bool> taken_{false}; // by a caller
  std::vector<Share> shares_;      // of every thread
  std::vector<Worker> workers_;    // of which so many started
  int started_ = 0;
  uint32_t generation_; // of the process whose threads they are
};

// Threads of a host program, by its own parallel_for: job(context, i) once for every i in [0,
// jobs).
class HostThreads : public Workers {
public:
  using ParallelFor = void (*)(void *host, int jobs, void (*job)(void *context, int index),
                               void *context);
  HostThreads(ParallelFor parallel_for, void *host, int jobs)
      : parallel_for_(parallel_for), host_(host), jobs_(jobs) {}
  int threads() const override { return jobs_; }
  void parallel_for(int64_t tasks, int64_t grain, Work work, void *context) override;

private:
  ParallelFor parallel_for_;
  void *host_;
  int jobs_;
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
