// ./dev demo: LeNet-5 on the 10,000 test pictures of Fashion-MNIST, then every bundled network.
// Usage: lathe_demo FOLDER_OF_FASHION_MNIST OUTPUT_FOLDER
#include "cli/measure.h"
#include "cli/model.h"
#include "data/contact_sheet.h"
#include "data/idx.h"
#include "data/preprocess.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>

namespace lathe::core::cli {
namespace {

using Clock = std::chrono::steady_clock;
double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

const std::vector<std::string> classes = {"t-shirt", "trouser", "pullover", "dress", "coat",
                                          "sandal",  "shirt",   "sneaker",  "bag",   "ankle boot"};

Image picture_of(const IdxArray &pictures, int64_t n) {
  const int64_t height = pictures.shape[1], width = pictures.shape[2];
  Image image{int(width), int(height), {}};
  for (int64_t i = 0; i < height * width; ++i)
    image.rgb.insert(image.rgb.end(), 3, pictures.values[size_t(n * height * width + i)]);
  return image;
}

Result<void> classify(const std::string &data, const std::string &folder) {
  LATHE_TRY(IdxArray pictures, read_idx(data + "/t10k-images-idx3-ubyte.gz"));
  LATHE_TRY(IdxArray labels, read_idx(data + "/t10k-labels-idx1-ubyte.gz"));
  const int64_t count = pictures.shape[0], batch = 100;

  auto start = Clock::now();
  ModelOptions options;
  options.model = "lenet5";
  LATHE_TRY(Graph graph, load_with_weights(options));
  LATHE_TRY(auto executable, Executable::compile(std::move(graph)));
  LATHE_TRY(auto first, Request::create(executable));
  auto prepare = [&](int64_t n) {
    return preprocess(picture_of(pictures, n), Preset::fashion_mnist, 1, 32, 32);
  };
  LATHE_TRY(Tensor one, prepare(0));
  LATHE_CHECK(first->set_input(0, one));
  first->run();
  double first_answer = milliseconds_since(start);

  LATHE_TRY(auto request, Request::create(executable, batch, make_pool(0)));
  std::vector<int> answers;
  double running = 0;
  for (int64_t n = 0; n < count; n += batch) {
    for (int64_t i = 0; i < batch; ++i) {
      LATHE_TRY(Tensor x, prepare(std::min(n + i, count - 1)));
      std::memcpy(request->input(0).raw_mutable() + size_t(i) * x.bytes(), x.raw(), x.bytes());
    }
    auto run_start = Clock::now();
    request->run();
    running += milliseconds_since(run_start);
    for (int64_t i = 0; i < batch && n + i < count; ++i) {
      auto scores = request->output(0).f32().subspan(size_t(i * 10), 10);
      answers.push_back(int(std::ranges::max_element(scores) - scores.begin()));
    }
  }
  int64_t right = 0;
  for (int64_t n = 0; n < count; ++n) right += answers[size_t(n)] == labels.values[size_t(n)];
  fmt::print("LeNet-5 on the {} test pictures of Fashion-MNIST\n", count);
  fmt::print("  right answers        {:.2f} %\n", 100.0 * double(right) / double(count));
  fmt::print("  pictures per second  {:.0f}, {} at a time, {} threads\n",
             double(count) / running * 1000, batch, usable_cpus());
  fmt::print("  from file to the first answer  {:.1f} ms\n", first_answer);

  std::vector<SheetPicture> entries;
  for (int64_t n = 0; n < 60; ++n)
    entries.push_back({picture_of(pictures, n), classes[size_t(answers[size_t(n)])],
                       answers[size_t(n)] == labels.values[size_t(n)]});
  std::string path = folder + "/fashion-mnist.png";
  LATHE_CHECK(write_png(path, contact_sheet(entries, 12)));
  fmt::print("  the first 60 pictures with their answers, wrong ones framed in red: {}\n", path);
  return {};
}

Result<void> run_all_networks() {
  fmt::print(
      "\nEvery bundled network, one picture, one thread, random weights where none are bundled\n");
  fmt::print("{:<24}{:>12}{:>14}{:>12}{:>12}{:>10}{:>14}{:>14}\n", "network", "input", "parameters",
             "compile ms", "latency ms", "GFLOP/s", "arena bytes", "lower bound");
  for (const std::string &name : bundled_models()) {
    ModelOptions options;
    options.model = name;
    options.quiet = true;
    LATHE_TRY(Graph graph, load_with_weights(options));
    GraphSummary summary = summarise(graph);
    Shape input = graph.shape(graph.inputs[0]);
    auto start = Clock::now();
    LATHE_TRY(auto executable, Executable::compile(std::move(graph)));
    double compile = milliseconds_since(start);
    LATHE_TRY(auto request, Request::create(executable));
    LATHE_CHECK(request->set_input(0, random_input(executable->plan(), 0, 1, 1)));
    Latency latency = measure_latency(*request, 0.3);
    const Plan &plan = executable->plan();
    fmt::print("{:<24}{:>12}{:>14}{:>12.1f}{:>12.3f}{:>10.1f}{:>14}{:>14}\n", name,
               course_shape(input), grouped(summary.parameters), compile, latency.median,
               2e-6 * double(summary.multiplies) / latency.median, grouped(plan.arena_bytes.at(1)),
               grouped(plan.arena_lower_bound_bytes.at(1)));
    std::fflush(stdout);
  }
  return {};
}

} // namespace
} // namespace lathe::core::cli

int main(int argc, char **argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: lathe_demo FOLDER_OF_FASHION_MNIST OUTPUT_FOLDER\n");
    return 2;
  }
  std::filesystem::create_directories(argv[2]);
  lathe::core::Result<void> done = lathe::core::cli::classify(argv[1], argv[2]);
  if (done) done = lathe::core::cli::run_all_networks();
  if (done) return 0;
  fmt::print(stderr, "lathe_demo: {}\n", to_string(done.error()));
  return int(done.error().code);
}
