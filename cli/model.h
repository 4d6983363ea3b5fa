// What the verbs share: the options that name a model, and how it becomes a graph with weights.
#pragma once

#include "frontend/bundled.h"
#include "frontend/formats.h"
#include "frontend/weights.h"
#include "runtime/executable.h"

#include <cstdio>
#include <fmt/format.h>
#include <map>
#include <string>
#include <vector>

namespace lathe::core::cli {

// To stderr. Unlike fmt::print it never throws: who reports an error has nobody left to tell.
template <typename... T> void note(fmt::format_string<T...> format, T &&...values) {
  std::string text = fmt::format(format, std::forward<T>(values)...);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

struct ModelOptions {
  std::string model;
  std::string weights;                  // a safetensors file, or empty
  BindOptions binding;                  // how strictly it must fit
  bool random_weights = false;          // also where the model's file has some
  uint64_t seed = 0;                    // of random weights and inputs
  std::vector<std::string> settings;    // "width=8": parameters of the network
  std::vector<std::string> shapes;      // "x=1x3x224x224": of an ONNX model's inputs
  std::map<std::string, Tensor> values; // of inputs; what decides shapes must be known beforehand
  std::string target_cpu = "native";
  std::vector<std::string> disabled_passes;
  int64_t memory_limit = 0;               // bytes; 0: none
  int64_t compile_memory = 0;             // bytes; 0: the default
  double time_limit = default_time_limit; // seconds; 0: none
  Budget budget = {};                     // of these; its time runs from the verb's beginning
  std::string numerics = "fast";
  double weight_budget = PlanOptions{}.weight_budget;
  bool tune = false;
  std::string cache_dir; // none: no cache
  bool copy_weights = false;
  int threads = 0; // 0: as many as this process may use
  int64_t batch = 1;
  bool verbose = false;
  bool quiet = false; // says nothing on stderr
};

// The graph as written, weights unbound.
Result<Graph> load(const ModelOptions &options);
// The names of a model's inputs, as its file lists them.
Result<std::vector<std::string>> input_names(const ModelOptions &options);
// With weights: those of the model's own file or the trained ones that come with a bundled network,
// over them those of the -w file; seeded random ones where nothing else is; says on stderr which.
Result<Graph> load_with_weights(const ModelOptions &options);
// With weights where they are asked for or stand in the model's file, else without: for what only
// looks.
Result<Graph> load_to_look(const ModelOptions &options);
PipelineOptions pass_options(const ModelOptions &options);
Result<CompileOptions> compile_options(const ModelOptions &options);
// What `compile` would plan for a graph after the passes.
Result<Plan> plan_for(const Graph &graph, const CompileOptions &options);
// Compiles as the options say; with `verbose`, says on stderr what each step cost, and what tuning
// changed.
Result<std::shared_ptr<const Executable>> compile(Graph graph, const ModelOptions &options);
void print_reports(const std::vector<PassReport> &reports); // to stderr
std::shared_ptr<ThreadPool> make_pool(int threads);         // null for one thread

// What a request on this plan is made for, when so many images are asked for: a plan of fixed
// shapes has them all in its shapes.
int64_t images_of(const Plan &plan, int64_t images);

// A tensor in a .npy or ONNX .pb file.
bool is_tensor_file(const std::string &path);
// Whether a tensor may be written there: to such a file, or to a device. Errors: usage.
Result<void> check_tensor_output(const std::string &path);
Result<Tensor> read_tensor_file(const std::string &path);
Result<void> write_tensor_file(const std::string &path, const std::string &name,
                               const Tensor &tensor);

// "[NAME=]FILE" arguments to the model's inputs or outputs: by name, or in order.
struct Binding {
  std::string file;
  size_t index;
};
Result<std::vector<Binding>> bind_names(const std::vector<std::string> &arguments,
                                        const std::vector<std::string> &names,
                                        std::string_view what);

// 1 x ... random numbers around 0 with deviation 1, `images` of them.
Tensor random_input(const Plan &plan, size_t input, int64_t images, uint64_t seed);

std::string grouped(int64_t number); // 60,965,224
// Height x width x channels, as courses write shapes; other ranks without the batch.
std::string course_shape(const Shape &shape);

} // namespace lathe::core::cli
