// Children of fork() run what they inherit, free it, and compile anew; also where the fork comes
// while other threads compile, run and load.
#include <lathe/lathe.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace lathe;

namespace {

using Scores = std::vector<float>;

Scores run(Request &request) {
  const std::span<float> input = request.input();
  for (size_t i = 0; i < input.size(); ++i) input[i] = std::sin(0.37f * float(i % 1000));
  request.run();
  return {request.output().begin(), request.output().end()};
}

// Of a width that no other call had: its kernels are made by LLVM.
Executable odd_network(std::int64_t width, const std::string &cache = {}) {
  Builder net("odd");
  Value x = net.input("picture", {1, 3, 17, 8 + width % 50});
  x = x.conv("conv1", 20, {3, 5}, {.stride = 2, .pad = {1, 2}}).relu();
  x = x.conv("conv2", 12, 3, {.pad = 1}).sigmoid();
  Model model = net.build(x.global_average_pool().flatten().dense("fc", 7).softmax()).value();
  model.randomise_weights(7).value();
  Options options;
  options.threads = Threads::pool(2);
  options.cache_directory = cache;
  return compile(model, options).value();
}

Scores from_start(std::int64_t width) {
  const Executable network = odd_network(width);
  Request request = network.request().value();
  return run(request);
}

// 0, what f returned, or 1000 and the signal: 1014 is a child that hung.
int in_child(const std::function<int()> &f) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    std::exit(f());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int failures = 0;
void expect(const char *what, int code) {
  if (code == 0) return;
  std::printf("FAILED: %s: %d\n", what, code);
  ++failures;
}

// A fork while others work: the child finds nothing half-made, and no lock that nobody opens.
void while_others_work(const char *what, const std::function<void(int)> &work, int forks) {
  const Executable network = compile(Model::load("lenet5").value()).value();
  std::optional<Request> request = network.request(8, Threads::pool(4)).value();
  const Scores expected = run(*request), fresh = from_start(3);
  std::atomic<bool> stop = false;
  std::vector<std::thread> others;
  for (int t = 0; t < 3; ++t)
    others.emplace_back([&, t] {
      for (int i = 0; !stop; ++i) work(3 * i + t);
    });
  for (int i = 0; i < forks; ++i)
    expect(what, in_child([&] {
             if (run(*request) != expected) return 1;
             if (from_start(3) != fresh) return 2;
             request.reset();
             return 0;
           }));
  stop = true;
  for (std::thread &other : others) other.join();
}

} // namespace

int main() {
  // Before anything: the first compilation of the process, beside a fork. Each in a child, so that
  // it is a first one.
  for (int i = 0; i < 40; ++i)
    expect("a fork beside the first compilation", in_child([&] {
             std::thread first([] { from_start(1); });
             usleep(useconds_t(200 * i));
             const int code = in_child([] { return from_start(2).size() == 7 ? 0 : 1; });
             first.join();
             return code;
           }));

  const Executable network = compile(Model::load("lenet5").value()).value();
  const Threads pool = Threads::pool(4);
  std::optional<Request> request = network.request(8, pool).value();
  const Scores expected = run(*request);
  expect("a child runs and frees what it inherits", in_child([&] {
           for (int i = 0; i < 100; ++i)
             if (run(*request) != expected) return 1;
           request.reset();
           return 0;
         }));
  expect("a child frees an inherited pool that never ran", in_child([&] {
           Threads other = Threads::pool(3);
           return in_child([other = std::optional(other)]() mutable {
             other.reset();
             return 0;
           });
         }));
  expect("a child makes requests of an inherited network, with a pool of its own too",
         in_child([&] {
           Request inherited = network.request(8, pool).value();
           const Threads own = Threads::pool(4);
           Request fresh = network.request(8, own).value();
           if (own.count() != 4) return 1;
           return run(inherited) == expected && run(fresh) == expected ? 0 : 2;
         }));
  expect("a child of a child", in_child([&] {
           const Threads own = Threads::pool(2);
           Request first = network.request(8, own).value();
           if (run(first) != expected) return 1;
           return in_child(
               [&] { return run(first) == expected && run(*request) == expected ? 0 : 2; });
         }));
  expect("the parent goes on", run(*request) == expected ? 0 : 1);

  const std::string cache =
      (std::filesystem::temp_directory_path() / ("lathe-fork-" + std::to_string(getpid())))
          .string();
  while_others_work("a fork beside compilations", [](int i) { from_start(i); }, 60);
  while_others_work("a fork beside a cache", [&](int i) { odd_network(i, cache); }, 60);
  while_others_work("a fork beside loads", [](int) { (void)Model::load("resnet18"); }, 30);
  std::filesystem::remove_all(cache);
  Request shared = network.request(8, pool).value();
  std::atomic<bool> busy = false;
  while_others_work(
      "a fork beside runs",
      [&](int) {
        if (busy.exchange(true)) return;
        for (int i = 0; i < 50; ++i) shared.run();
        busy = false;
      },
      60);
  std::printf(failures ? "failed\n" : "children find all in order\n");
  return failures != 0;
}
