// Many threads, one network: each has a request of its own, the compiled code and the weights are
// shared. A server has as many threads as CPUs already, so each run stays on its thread.
#include <lathe/lathe.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

int main() {
  const lathe::Threads alone = lathe::Threads::pool(1);
  const lathe::Executable network =
      lathe::compile(lathe::Model::load("lenet5").value(), {.threads = alone}).value();
  std::printf("%lld bytes for all, %lld for each thread\n",
              static_cast<long long>(network.memory().weights),
              static_cast<long long>(network.memory().total() - network.memory().weights));

  std::atomic<int> answered = 0;
  std::vector<std::thread> workers;
  for (int w = 0; w < lathe::usable_cpus(); ++w)
    workers.emplace_back([&network, &answered, w] {
      lathe::Request request = network.request().value();
      for (int question = 0; question < 1000; ++question) {
        std::ranges::fill(request.input(), float(question % 255) / 255 + float(w));
        request.run();
        answered += request.output().size() == 10;
      }
    });
  for (std::thread &worker : workers) worker.join();
  std::printf("%d questions answered\n", answered.load());
}
