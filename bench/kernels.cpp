// lathe_bench_kernels [MODEL...]: every distinct convolution, pool and dense kernel of the models
// (of all bundled networks), alone on one thread, with cold and with warm weights, beside the peak
// of that moment and the bandwidth measured in the same run; at the end, where another algorithm
// would have been better than the chosen one.
#include "frontend/bundled.h"
#include "frontend/formats.h"
#include "runtime/executable.h"
#include "runtime/kernel_bench.h"
#include "runtime/kernel_facts.h"
#include "runtime/median.h"
#include "runtime/peak.h"
#include "runtime/tune.h"

#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <malloc.h>

using namespace lathe::core;
using Caches = KernelBench::Caches;

namespace {

struct Network {
  Graph graph; // without weights
  Plan plan;
};

// A kernel where it was first met, and who else has one like it.
struct Entry {
  std::shared_ptr<const Network> network;
  size_t kernel;
  KernelFacts facts;
  std::string name;
  std::map<std::string, int> users; // how many in each network
};

Result<std::shared_ptr<const Network>> plan_model(const std::string &name) {
  auto network = std::make_shared<Network>();
  LATHE_TRY(network->graph, load_model(name));
  LATHE_CHECK(run_passes(network->graph));
  LATHE_TRY(network->plan, make_plan(network->graph, host_target()));
  return network;
}

// Code and all parameters.
std::string identity(const Kernel &kernel, const Target &target) {
  std::string text = kernel_symbol(kernel.spec, target);
  for (const Affine &p : kernel.params) text += fmt::format(" {}+{}", p.per_image, p.fixed);
  return text;
}

bool is_measured(const KernelSpec &spec) {
  return std::holds_alternative<ConvSpec>(spec) || std::holds_alternative<PoolSpec>(spec) ||
         std::holds_alternative<DenseSpec>(spec);
}

// "vgg16/conv3_2/direct_3x3_256x56x56_to_256x56x56"
std::string name_of(const std::string &network, const Kernel &kernel, const KernelFacts &facts) {
  std::string name =
      fmt::format("{}/{}/{} {}", network, kernel.sources.empty() ? "output" : kernel.sources[0],
                  facts.algorithm, facts.shape);
  std::ranges::replace(name, ' ', '_');
  return name;
}

Result<std::vector<Entry>> distinct_kernels(const std::vector<std::string> &models) {
  std::vector<Entry> entries;
  std::map<std::string, size_t> known;
  for (const std::string &name : models) {
    LATHE_TRY(auto network, plan_model(name));
    const Plan &plan = network->plan;
    for (size_t k = 0; k < plan.kernels.size(); ++k) {
      const Kernel &kernel = plan.kernels[k];
      if (!is_measured(kernel.spec)) continue;
      auto [at, fresh] = known.emplace(identity(kernel, plan.target), entries.size());
      if (fresh) {
        KernelFacts facts = kernel_facts(plan, network->graph, k);
        std::string full = name_of(name, kernel, facts);
        entries.push_back({network, k, std::move(facts), std::move(full), {}});
      }
      ++entries[at->second].users[name];
    }
  }
  return entries;
}

// "alexnet, resnet18 (4)"
std::string users_of(const Entry &entry) {
  std::string text;
  for (const auto &[network, count] : entry.users)
    text += fmt::format("{}{}{}", text.empty() ? "" : ", ", network,
                        count > 1 ? fmt::format(" ({})", count) : "");
  return text;
}

void measure(benchmark::State &state, const Entry &entry, Caches caches) {
  // The framework calls several times until it knows how many runs it wants.
  static std::optional<KernelBench> bench;
  static std::pair<const Entry *, Caches> current;
  if (!bench || current != std::pair(&entry, caches)) {
    bench.reset();
    auto made =
        KernelBench::create(entry.network->plan, entry.network->graph, entry.kernel, caches);
    if (!made) return state.SkipWithError(to_string(made.error()).c_str());
    bench = std::move(*made);
    current = {&entry, caches};
  }
  bench->run(); // does not count
  std::vector<double> samples;
  for (auto _ : state) samples.push_back(bench->run());
  // The framework shows the mean; the counters take what a shared machine disturbs less.
  const double gflops = 1e-9 * entry.facts.flops / median(samples);
  state.counters["GFLOP/s"] = gflops;
  // The clock of a shared machine goes up and down by 5 % in minutes: the peak of this moment.
  state.counters["%peak"] = 100 * gflops / measure_peak_gflops(host_target());
  state.counters["GB/s"] = 1e-9 * double(entry.facts.bytes()) / median(samples);
  state.SetLabel(users_of(entry));
}

// Layers whose chosen algorithm takes over 5 % longer than the best candidate; to stderr, since the
// rows go to stdout.
Result<void> report_choices(const std::vector<Entry> &entries) {
  PlanOptions options;
  std::string lines;
  for (const Entry &entry : entries) {
    const Choice &choice = entry.network->plan.kernels[entry.kernel].choice;
    if (choice.candidates.empty()) continue;
    LATHE_TRY(options.measured, measure_algorithms(entry.network->graph, host_target(), options));
    const auto &seconds = options.measured.at(choice.layer);
    const auto best = std::ranges::min_element(seconds, {}, [](auto &s) { return s.second; });
    const double chosen = seconds.at(algorithm_name(choice.algorithm()));
    if (chosen <= 1.05 * best->second) continue;
    lines += fmt::format("  {}: {} {:.1f} us, {} {:.1f} us: {:.2f} times\n", entry.name,
                         algorithm_name(choice.algorithm()), 1e6 * chosen, best->first,
                         1e6 * best->second, chosen / best->second);
  }
  fmt::print(stderr, "{}\n{}",
             lines.empty() ? "no chosen algorithm is over 5 % slower than the best candidate"
                           : "chosen algorithms that are over 5 % slower than the best candidate:",
             lines);
  return {};
}

} // namespace

int main(int argc, char **argv) {
  std::vector<char *> arguments(argv, argv + argc); // of our defaults, the caller's flags are later
  for (const char *flag : {"--benchmark_counters_tabular=true", "--benchmark_min_time=0.05"})
    arguments.insert(arguments.begin() + 1, const_cast<char *>(flag));
  argc = int(arguments.size());
  benchmark::Initialize(&argc, arguments.data());
  std::vector<std::string> models(arguments.begin() + 1, arguments.begin() + argc);
  for (const std::string &model : models)
    if (model.starts_with("-") && benchmark::ReportUnrecognizedArguments(argc, arguments.data()))
      return int(ErrorCode::usage);
  if (models.empty()) models = bundled_models();
  // Memory that was returned and is taken again would cost more than what is measured in it.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);

  const auto entries = distinct_kernels(models);
  if (!entries) {
    fmt::print(stderr, "{}\n", to_string(entries.error()));
    return int(entries.error().code);
  }
  const double peak = measure_peak_gflops(host_target());
  benchmark::AddCustomContext("isa", host_target().name);
  benchmark::AddCustomContext("peak", fmt::format("{:.1f} GFLOP/s", peak));
  benchmark::AddCustomContext("bandwidth", fmt::format("{:.1f} GB/s", measure_bandwidth_gbs()));
  for (const Entry &entry : *entries)
    for (auto [caches, suffix] : {std::pair(Caches::cold, "/cold"), {Caches::warm, "/warm"}})
      benchmark::RegisterBenchmark((entry.name + suffix).c_str(), [&entry,
                                                                   caches](benchmark::State &s) {
        measure(s, entry, caches);
      })->Unit(benchmark::kMicrosecond);
  benchmark::RunSpecifiedBenchmarks();
  fmt::print(stderr, "peak at the beginning {:.1f} GFLOP/s, at the end {:.1f}\n", peak,
             measure_peak_gflops(host_target()));
  if (const std::string filter = benchmark::GetBenchmarkFilter();
      !filter.empty() && filter != "." && filter != "all")
    return 0;
  if (auto reported = report_choices(*entries); !reported) {
    fmt::print(stderr, "{}\n", to_string(reported.error()));
    return int(reported.error().code);
  }
}
