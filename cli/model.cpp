#include "cli/model.h"

#include "frontend/safetensors.h"
#include "frontend/weights.h"

#include <charconv>
#include <filesystem>
#include <fmt/format.h>

namespace lathe::cli {

Result<Graph> load(const ModelOptions &options) {
  NetOptions net;
  for (const std::string &setting : options.settings) {
    size_t equals = setting.find('=');
    double value = 0;
    const char *end = setting.data() + setting.size();
    bool good = equals != std::string::npos && equals > 0;
    if (good) {
      auto [stop, status] = std::from_chars(setting.data() + equals + 1, end, value);
      good = status == std::errc{} && stop == end;
    }
    if (!good)
      return fail(Error{.code = ErrorCode::usage,
                        .message = "bad setting",
                        .expected = "NAME=NUMBER",
                        .found = setting});
    net.parameters[setting.substr(0, equals)] = value;
  }
  return load_model(options.model, net);
}

Result<Graph> load_with_weights(const ModelOptions &options) {
  LATHE_TRY(Graph graph, load(options));
  auto say = [&]<typename... T>(fmt::format_string<T...> format, T &&...values) {
    if (!options.quiet) note(format, std::forward<T>(values)...);
  };
  auto bind = [&](const WeightsFile &file) -> Result<void> {
    LATHE_TRY(BindReport report, bind_weights(graph, file));
    if (!report.unused.empty())
      note("note: {} tensors of {} are not used, {} for one\n", report.unused.size(), file.path(),
           report.unused[0]);
    return {};
  };
  std::string name = std::filesystem::path(options.model).stem().string();
  if (!options.weights.empty()) {
    LATHE_TRY(WeightsFile file, WeightsFile::open(options.weights));
    LATHE_CHECK(bind(file));
    say("weights: {}\n", options.weights);
  } else if (auto bytes = bundled_weights(name); !bytes.empty() && options.settings.empty()) {
    LATHE_TRY(WeightsFile file, WeightsFile::parse(bytes, nullptr, name + ".safetensors"));
    LATHE_CHECK(bind(file));
    say("weights: trained, bundled with {}\n", name);
  } else {
    LATHE_CHECK(randomise_weights(graph, options.seed));
    say("weights: random, seed {}\n", options.seed);
  }
  return graph;
}

Result<CompileOptions> compile_options(const ModelOptions &options) {
  CompileOptions compile;
  if (options.target_cpu != "native") {
    LATHE_TRY(compile.target, find_target(options.target_cpu));
  }
  compile.passes.disabled = options.disabled_passes;
  return compile;
}

Result<std::shared_ptr<const Executable>> compile(Graph graph, const ModelOptions &options) {
  LATHE_TRY(CompileOptions compile, compile_options(options));
  LATHE_TRY(auto executable, Executable::compile(std::move(graph), compile));
  if (!options.verbose) return executable;
  const CompileTimes &t = executable->times();
  print_reports(t.each_pass);
  for (auto [step, ms] : {std::pair("all passes", t.passes),
                          {"plan", t.plan},
                          {"code", t.codegen},
                          {"link", t.link},
                          {"pack", t.pack}})
    note("{:<24}{:9.3f} ms\n", step, ms);
  return executable;
}

void print_reports(const std::vector<PassReport> &reports) {
  for (const PassReport &r : reports)
    note("{:<24}{:9.3f} ms{}\n", r.name, r.milliseconds, r.changed ? "  changed" : "");
}

std::shared_ptr<ThreadPool> make_pool(int threads) {
  if (threads <= 0) threads = usable_cpus();
  return threads > 1 ? std::make_shared<ThreadPool>(threads) : nullptr;
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

} // namespace lathe::cli
