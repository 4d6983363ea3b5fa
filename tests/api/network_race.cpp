// Under the thread sanitizer, with the runtime that it watches: threads that share an executable
// and a pool, or a host's threads, or have none, compute the same bits in every one of thousands of
// runs.
#include <lathe/lathe.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int callers = 8;

void fill(std::span<float> values, int seed) {
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = float((i * 37 + size_t(seed) * 101) % 256) / 255;
}

// Every caller has an input of its own, and its answer from a run that was alone.
int check(const char *network, int runs) {
  lathe::Model model = lathe::Model::load(network).value();
  model.randomise_weights(1).value();
  const lathe::Executable executable = lathe::compile(model).value();
  std::vector<std::vector<float>> expected;
  for (int i = 0; i < callers; ++i) {
    lathe::Request alone = executable.request().value();
    fill(alone.input(), i);
    alone.run();
    expected.emplace_back(alone.output().begin(), alone.output().end());
  }
  if (expected[0] == expected[1]) {
    std::printf("FAILED: %s answers the same to everyone\n", network);
    return 1;
  }
  auto host = [](void *, int jobs, void (*job)(void *, int), void *context) {
    std::vector<std::thread> threads;
    for (int i = 0; i < jobs; ++i) threads.emplace_back(job, context, i);
    for (std::thread &thread : threads) thread.join();
  };
  const lathe::Threads pool = lathe::Threads::pool(3);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < callers; ++i)
    threads.emplace_back([&, i] {
      const bool hosted = i == callers - 1; // slow, since its threads are new each time
      lathe::Request request = executable
                                   .request(1, hosted       ? lathe::Threads::host(host, nullptr, 2)
                                               : i % 4 == 3 ? lathe::Threads::pool(1)
                                                            : pool)
                                   .value();
      fill(request.input(), i);
      for (int run = 0; run < (hosted ? runs / 20 : runs); ++run) {
        request.run();
        wrong += !std::ranges::equal(request.output(), expected[size_t(i)]);
      }
    });
  for (std::thread &thread : threads) thread.join();
  if (wrong == 0) return 0;
  std::printf("FAILED: %s: %d runs gave other bits\n", network, wrong.load());
  return 1;
}

} // namespace

int main() { return check("lenet5", 2000) + check("resnet20_cifar", 1000); }
