// Small stacks: what compiles finds one that is large enough, or says so; what runs needs no more
// than the smallest that threads may have.
#include <lathe/lathe.h>

#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <pthread.h>
#include <string>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

using namespace lathe;

namespace {

int failures = 0;
void expect(const std::string &what, bool good) {
  if (good) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

// On a thread with so much stack, and a page behind it that nothing may touch.
void on_stack(size_t bytes, const std::function<void()> &f) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (pthread_attr_setstacksize(&attributes, bytes) != 0) std::abort();
  pthread_t thread;
  auto run = [](void *data) -> void * {
    (*static_cast<const std::function<void()> *>(data))();
    return nullptr;
  };
  if (pthread_create(&thread, &attributes, run, const_cast<std::function<void()> *>(&f)) != 0)
    std::abort();
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

const size_t smallest = size_t(sysconf(_SC_THREAD_STACK_MIN));

void fill(Request &request) {
  const std::span<float> input = request.input();
  for (size_t i = 0; i < input.size(); ++i) input[i] = std::sin(0.37f * float(i % 1000));
}

// Parentheses so deep that reading them takes stack.
std::string deep_net() {
  std::string text = "network deep {\n  input image 3x8x8\n  conv1: conv ";
  text += std::string(60, '(') + "8" + std::string(60, ')');
  return text + " 3x3 pad 1; relu; global_avgpool; flatten; fc: dense 10; softmax\n}\n";
}

void compile_on(size_t bytes) {
  on_stack(bytes, [&] {
    const std::string where = " on a stack of " + std::to_string(bytes);
    const std::string text = deep_net();
    auto model = Model::parse(std::as_bytes(std::span(text)), Format::net);
    expect("parse" + where, model.has_value());
    if (!model) return;
    expect("weights" + where, model->randomise_weights(1).has_value());
    auto network = compile(*model);
    expect("compile" + where, network.has_value());
    if (!network) return;
    auto request = network->request();
    expect("a request" + where, request.has_value());
    expect("a bundled network" + where, compile(Model::load("lenet5").value()).has_value());
    std::vector<float> pixels(3 * 64 * 64);
    expect("a picture" + where, read_picture(LATHE_SOURCE_DIR "/tests/data/crop.png", "torchvision",
                                             {1, 3, 64, 64}, pixels)
                                    .has_value());
  });
}

void run_on_smallest(const std::string &name, const std::string &target, Numerics numerics) {
  Model model = Model::load(name).value();
  model.randomise_weights(1).value();
  Options options;
  options.target = target;
  options.numerics = numerics;
  options.threads = Threads::pool(2);
  auto network = compile(model, options);
  if (!network) {
    expect(name + " for " + target, network.error().code == ErrorCode::unsupported);
    return;
  }
  Request request = network->request().value();
  fill(request);
  request.run();
  const std::vector<float> expected(request.output().begin(), request.output().end());
  on_stack(smallest, [&] { request.run(); });
  expect(name + " for " + target + " on the smallest stack",
         std::equal(expected.begin(), expected.end(), request.output().begin()));
}

} // namespace

int main() {
  for (size_t bytes :
       {size_t{64} << 10, size_t{128} << 10, size_t{300} << 10, size_t{1} << 20, size_t{8} << 20})
    compile_on(bytes);
  for (const char *target : {"avx512", "avx2", "plain", "neon"})
    for (const char *name :
         {"lenet5", "squeezenet1_1", "googlenet", "densenet121", "resnet50", "alexnet"})
      for (Numerics numerics : {Numerics::fast, Numerics::strict})
        run_on_smallest(name, target, numerics);
  std::printf(failures ? "failed\n" : "small stacks are enough\n");
  return failures != 0;
}
