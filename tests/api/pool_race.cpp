// Under the thread sanitizer: a pool that many callers share does every task of each of them once,
// and what tasks write is seen by who waited for them.
#include "runtime/thread_pool.h"

#include <cstdio>
#include <numeric>
#include <thread>
#include <vector>

using namespace lathe::core;

namespace {

// Each task adds to a plain number of its own: a task that is done twice, or by two threads at
// once, or not at all, shows in the sum or in the sanitizer's report.
bool caller(Workers &workers, int runs, int64_t tasks = 97, int64_t grain = 5) {
  std::vector<int64_t> done(static_cast<size_t>(tasks));
  for (int run = 0; run < runs; ++run)
    workers.parallel_for(
        tasks, grain,
        [](void *context, int64_t begin, int64_t end, int) {
          auto &numbers = *static_cast<std::vector<int64_t> *>(context);
          for (int64_t i = begin; i < end; ++i) ++numbers[size_t(i)];
        },
        &done);
  return std::accumulate(done.begin(), done.end(), int64_t{0}) == runs * int64_t(done.size());
}

int check(const char *what, Workers &workers, int runs) {
  std::atomic<int> right = 0;
  std::vector<std::thread> callers;
  for (int c = 0; c < 8; ++c) callers.emplace_back([&] { right += caller(workers, runs); });
  for (std::thread &thread : callers) thread.join();
  if (right == 8) return 0;
  std::printf("FAILED: %s: %d of 8 callers had all their tasks done once\n", what, right.load());
  return 1;
}

} // namespace

int main() {
  int failures = 0;
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    failures += check("a pool", pool, 2000);
    // More tasks than a share can count, as many, fewer than threads, and grains of any size.
    for (int64_t tasks : {1, 2, 3, 65535, 65536, 200001})
      for (int64_t grain : {0, 1, 7, 65535})
        if (!caller(pool, 5, tasks, grain)) {
          std::printf("FAILED: %d threads, %ld tasks, grain %ld\n", threads, long(tasks),
                      long(grain));
          ++failures;
        }
  }
  HostThreads host(
      [](void *, int jobs, void (*job)(void *, int), void *context) {
        std::vector<std::thread> threads;
        for (int i = 0; i < jobs; ++i) threads.emplace_back(job, context, i);
        for (std::thread &thread : threads) thread.join();
      },
      nullptr, 3);
  failures += check("a host's threads", host, 50);
  return failures;
}
