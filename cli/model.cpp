#include "cli/model.h"

#include "frontend/npy.h"
#include "frontend/onnx.h"
#include "frontend/safetensors.h"
#include "ir/system/output_file.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

namespace lathe::core::cli {

namespace {

// "NAME=1x3x224x224"
Result<std::pair<std::string, Shape>> parse_shape(const std::string &argument) {
  const size_t equals = argument.rfind('=');
  Shape shape;
  bool good = equals != std::string::npos && equals > 0;
  for (size_t at = equals + 1; good && at <= argument.size();) {
    const size_t end = std::min(argument.find('x', at), argument.size());
    int64_t value = 0;
    auto [stop, status] = std::from_chars(argument.data() + at, argument.data() + end, value);
    good = status == std::errc{} && stop == argument.data() + end && value >= 0;
    shape.push_back(value);
    at = end + 1;
  }
  if (good) return std::pair(argument.substr(0, equals), shape);
  return fail(Error{.code = ErrorCode::usage,
                    .message = "bad shape",
                    .expected = "NAME=1x3x224x224",
                    .found = argument});
}

// "NAME=NUMBER"
Result<std::pair<std::string, double>> parse_setting(const std::string &setting) {
  const size_t equals = setting.find('=');
  double value = 0;
  const char *end = setting.data() + setting.size();
  bool good = equals != std::string::npos && equals > 0;
  if (good) {
    auto [stop, status] = std::from_chars(setting.data() + equals + 1, end, value);
    good = status == std::errc{} && stop == end;
  }
  if (good) return std::pair(setting.substr(0, equals), value);
  return fail(Error{.code = ErrorCode::usage,
                    .message = "bad setting",
                    .expected = "NAME=NUMBER",
                    .found = setting});
}

Result<LoadOptions> load_options(const ModelOptions &options) {
  LoadOptions load{.batch = options.batch,
                   .values = options.values,
                   .unbind_weights = options.random_weights,
                   .budget = options.budget};
  for (const std::string &argument : options.shapes) {
    LATHE_TRY(auto shape, parse_shape(argument));
    load.shapes[shape.first] = shape.second;
  }
  for (const std::string &argument : options.settings) {
    LATHE_TRY(auto setting, parse_setting(argument));
    load.parameters[setting.first] = setting.second;
  }
  return load;
}

} // namespace

Result<std::vector<std::string>> input_names(const ModelOptions &options) {
  LATHE_TRY(const LoadOptions load, load_options(options));
  return model_inputs(options.model, load);
}

Result<Graph> load(const ModelOptions &options) {
  LATHE_TRY(LoadOptions load, load_options(options));
  std::vector<std::string> notes;
  load.notes = &notes;
  auto graph = load_model(options.model, load);
  if (!options.quiet)
    for (const std::string &each : notes) note("note: {}\n", each);
  return graph;
}

Result<Graph> load_with_weights(const ModelOptions &options) {
  LATHE_TRY(Graph graph, load(options));
  auto say = [&]<typename... T>(fmt::format_string<T...> format, T &&...values) {
    if (!options.quiet) note(format, std::forward<T>(values)...);
  };
  LATHE_TRY(const Format *format, format_of(options.model));
  std::string own = format->has_weights ? "the model's own" : "";
  if (!options.random_weights) {
    LATHE_TRY(const LoadOptions load, load_options(options));
    LATHE_TRY(const bool bundled, bind_bundled_weights(graph, options.model, load.parameters));
    if (bundled) own = fmt::format("trained, bundled with {}", graph.name);
  }
  BindReport report;
  if (!options.weights.empty()) {
    LATHE_TRY(const WeightsFile file, WeightsFile::open(options.weights));
    LATHE_TRY(report, bind_weights(graph, file, options.binding));
    say("weights: {}\n", options.weights);
    if (!report.unused.empty())
      say("note: {} tensors of {} are not used, {} for one\n", report.unused.size(), file.path(),
          report.unused[0]);
    if (!report.kept.empty())
      say("note: {} weights stay as they were, {}; {} for one\n", report.kept.size(), own,
          report.kept[0]);
    if (!report.missing.empty())
      say("note: {} weights are random, seed {}; {} for one\n", report.missing.size(), options.seed,
          report.missing[0]);
  } else if (options.random_weights || own.empty()) {
    say("weights: random, seed {}\n", options.seed);
  } else {
    say("weights: {}\n", own);
  }
  const bool draws =
      options.weights.empty() ? options.random_weights || own.empty() : !report.missing.empty();
  if (draws) LATHE_CHECK(randomise_weights(graph, options.seed, options.budget));
  return graph;
}

Result<Graph> load_to_look(const ModelOptions &options) {
  return options.weights.empty() && !options.random_weights ? load(options)
                                                            : load_with_weights(options);
}

PipelineOptions pass_options(const ModelOptions &options) {
  PipelineOptions passes;
  passes.budget = options.budget;
  passes.disabled = options.disabled_passes;
  passes.strict = options.numerics == "strict";
  return passes;
}

Result<CompileOptions> compile_options(const ModelOptions &options) {
  CompileOptions compile;
  if (options.target_cpu != "native") {
    LATHE_TRY(compile.target, find_target(options.target_cpu));
  }
  compile.budget = options.budget;
  compile.passes = pass_options(options);
  compile.plan.strict = compile.passes.strict;
  compile.plan.weight_budget = options.weight_budget;
  compile.memory = {options.memory_limit, options.batch, options.threads};
  if (compile.memory.threads <= 0) compile.memory.threads = usable_cpus();
  compile.tune = options.tune;
  compile.threads = options.threads;
  compile.cache.directory = options.cache_dir;
  compile.copy_weights = options.copy_weights;
  if (!options.quiet && isatty(STDERR_FILENO))
    compile.tuning.progress = [](size_t done, size_t all) {
      note("\rmeasured {} of {} convolutions{}", done, all, done == all ? "\n" : "");
    };
  return compile;
}

Result<Plan> plan_for(const Graph &graph, const CompileOptions &options) {
  LATHE_TRY(const PlanOptions plan, plan_options(graph, options));
  return make_plan_within(graph, options.target, options.memory, plan, options.budget);
}

namespace {

// Where measurements led to another algorithm than the cost model.
Result<void> note_tuned(const Executable &executable, const CompileOptions &options) {
  LATHE_TRY(const Plan untuned, make_plan_within(executable.graph(), options.target, options.memory,
                                                 options.plan, options.budget));
  for (const Kernel &kernel : executable.plan().kernels) {
    const Choice &choice = kernel.choice;
    const auto before = std::ranges::find(untuned.kernels, kernel.sources, &Kernel::sources);
    if (choice.candidates.empty() || before == untuned.kernels.end() ||
        before->choice.algorithm() == choice.algorithm())
      continue;
    const Candidate &now = choice.candidates[choice.chosen];
    const Candidate &then = choice.candidates[before->choice.chosen];
    note("tuned {}: {} at {:.1f} us instead of {} at {:.1f} us\n", kernel.sources[0],
         algorithm_name(now.winograd), 1e6 * now.seconds(), algorithm_name(then.winograd),
         1e6 * then.seconds());
  }
  return {};
}

} // namespace

Result<std::shared_ptr<const Executable>> compile(Graph graph, const ModelOptions &options) {
  LATHE_TRY(CompileOptions compile, compile_options(options));
  LATHE_TRY(auto executable, Executable::compile(std::move(graph), compile));
  const CacheUse &use = executable->cache_use();
  for (const CacheLookup *lookup : {&use.directory, &use.costs, &use.code, &use.weights})
    if (!lookup->note.empty() && !options.quiet) note("note: {}\n", lookup->note);
  if (!options.verbose) return executable;
  const CompileTimes &t = executable->times();
  print_reports(t.each_pass);
  struct Step {
    const char *name;
    double ms;
    bool from_cache = false;
  };
  for (const Step &step : {Step{"all passes", t.passes},
                           {"tune", t.tune, use.costs.found},
                           {"plan", t.plan},
                           {"code", t.codegen, use.code.found},
                           {"link", t.link},
                           {"pack, beside code", t.pack, use.weights.found},
                           {"all", t.total}})
    note("{:<24}{:9.3f} ms{}\n", step.name, step.ms, step.from_cache ? ", from the cache" : "");
  if (compile.tune) LATHE_CHECK(note_tuned(*executable, compile));
  return executable;
}

void print_reports(const std::vector<PassReport> &reports) {
  for (const PassReport &r : reports)
    note("{:<24}{:9.3f} ms{}\n", r.name, r.milliseconds,
         r.changes ? fmt::format("{:6} changes", r.changes) : "");
}

std::shared_ptr<ThreadPool> make_pool(int threads) {
  if (threads <= 0) threads = usable_cpus();
  return threads > 1 ? std::make_shared<ThreadPool>(threads) : nullptr;
}

Result<std::vector<Binding>> bind_names(const std::vector<std::string> &arguments,
                                        const std::vector<std::string> &names,
                                        std::string_view what) {
  std::vector<Binding> bindings;
  std::vector<bool> taken(names.size());
  for (const std::string &argument : arguments) {
    size_t equals = argument.find('=');
    auto found = std::ranges::find(names, argument.substr(0, equals));
    bool named = equals != std::string::npos && found != names.end();
    size_t index = named ? size_t(found - names.begin())
                         : size_t(std::ranges::find(taken, false) - taken.begin());
    if (index >= names.size() || taken[index])
      return fail(Error{.code = ErrorCode::usage,
                        .message = fmt::format("no {} is left for '{}'", what, argument),
                        .expected = fmt::format("{} of {}", names.size(), fmt::join(names, ", "))});
    taken[index] = true;
    bindings.push_back({named ? argument.substr(equals + 1) : argument, index});
  }
  return bindings;
}

int64_t images_of(const Plan &plan, int64_t images) { return plan.batched ? images : 1; }

Result<void> check_tensor_output(const std::string &path) {
  if (is_tensor_file(path) || is_device(path)) return {};
  return fail(Error{.code = ErrorCode::usage,
                    .message = "tensors are not written in this format",
                    .file = path,
                    .expected = "a name that ends with .npy, or .pb for ONNX's"});
}
bool is_tensor_file(const std::string &path) {
  const auto extension = std::filesystem::path(path).extension();
  return extension == ".npy" || extension == ".pb";
}
Result<Tensor> read_tensor_file(const std::string &path) {
  if (std::filesystem::path(path).extension() == ".pb") return read_tensor_proto(path);
  return read_npy(path);
}
Result<void> write_tensor_file(const std::string &path, const std::string &name,
                               const Tensor &tensor) {
  if (std::filesystem::path(path).extension() == ".pb")
    return write_tensor_proto(path, name, tensor);
  return write_npy(path, tensor);
}

Tensor random_input(const Plan &plan, size_t input, int64_t images, uint64_t seed) {
  Type type = plan.inputs[input];
  type.shape = with_images(plan, type.shape, images);
  return random_tensor(type, plan.input_names[input], seed);
}

std::string grouped(int64_t number) {
  std::string digits = fmt::format("{}", number);
  for (int64_t i = int64_t(digits.size()) - 3; i > 0; i -= 3) digits.insert(size_t(i), ",");
  return digits;
}

std::string course_shape(const Shape &s) {
  if (s.size() == 4) return fmt::format("{}x{}x{}", s[2], s[3], s[1]);
  return to_string(s.size() > 1 ? Shape(s.begin() + 1, s.end()) : s);
}

} // namespace lathe::core::cli
