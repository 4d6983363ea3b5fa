// What the verbs share: the options that name a model, and how it becomes a graph with weights.
#pragma once

#include "frontend/bundled.h"
#include "runtime/executable.h"

#include <cstdio>
#include <fmt/format.h>
#include <string>
#include <vector>

namespace lathe::cli {

// To stderr. Unlike fmt::print it never throws: who reports an error has nobody left to tell.
template <typename... T> void note(fmt::format_string<T...> format, T &&...values) {
  std::string text = fmt::format(format, std::forward<T>(values)...);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

struct ModelOptions {
  std::string model;
  std::string weights;               // a safetensors file, or empty
  uint64_t seed = 0;                 // of random weights and inputs
  std::vector<std::string> settings; // "width=8": parameters of the network
  std::string target_cpu = "native";
  std::vector<std::string> disabled_passes;
  int threads = 0; // 0: as many as this process may use
  int64_t batch = 1;
  bool verbose = false;
  bool quiet = false; // says nothing on stderr
};

// The graph as written, weights unbound.
Result<Graph> load(const ModelOptions &options);
// With weights: those of the file, else trained ones that come with a bundled network, else seeded
// random ones; says on stderr which.
Result<Graph> load_with_weights(const ModelOptions &options);
Result<CompileOptions> compile_options(const ModelOptions &options);
// Compiles as the options say; with `verbose`, says on stderr what each step cost.
Result<std::shared_ptr<const Executable>> compile(Graph graph, const ModelOptions &options);
void print_reports(const std::vector<PassReport> &reports); // to stderr
std::shared_ptr<ThreadPool> make_pool(int threads);         // null for one thread

// 1 x ... random numbers around 0 with deviation 1, `images` of them.
Tensor random_input(const Plan &plan, size_t input, int64_t images, uint64_t seed);

std::string grouped(int64_t number); // 60,965,224
// Height x width x channels, as courses write shapes; other ranks without the batch.
std::string course_shape(const Shape &shape);

} // namespace lathe::cli
