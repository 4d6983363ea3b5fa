// A plan for every place in the lists of candidates has the kernels to be measured: each is made
// with costs that are made up, so that every convolution takes what stands in that place.
#include "runtime/tune.h"

#include "codegen/codegen.h"
#include "runtime/kernel_bench.h"
#include "runtime/median.h"

#include <algorithm>
#include <chrono>

namespace lathe::core {
namespace {

// Convolutions that `known` lacks, each layer once.
std::vector<Choice> unknown_choices(const Plan &plan, const MeasuredCosts &known) {
  std::vector<Choice> choices;
  for (const Kernel &kernel : plan.kernels) {
    const Choice &choice = kernel.choice;
    if (!choice.candidates.empty() && !known.contains(choice.layer) &&
        !std::ranges::count(choices, choice.layer, &Choice::layer))
      choices.push_back(choice);
  }
  return choices;
}

std::string name_of(const Choice &choice, size_t candidate) {
  return algorithm_name(choice.candidates[candidate].winograd);
}

// A plan whose convolutions all have the candidate in this place, if they have so many.
Result<Plan> plan_with(size_t candidate, const std::vector<Choice> &choices, const Graph &graph,
                       const Target &target, PlanOptions options, const Budget &budget) {
  options.weight_budget = 1e9;
  options.measured.clear();
  for (const Choice &choice : choices)
    for (size_t c = 0; c < choice.candidates.size(); ++c)
      options.measured[choice.layer][name_of(choice, c)] = c == candidate ? 0 : 1;
  return make_plan(graph, target, options, budget);
}

Result<KernelBench> bench_of(const Plan &plan, const Graph &graph, const std::string &layer,
                             size_t in_turns) {
  const auto kernel = std::ranges::find(plan.kernels, layer,
                                        [](const Kernel &k) -> auto & { return k.choice.layer; });
  if (kernel == plan.kernels.end())
    return fail(ErrorCode::internal, "a plan lost a convolution: " + layer);
  return KernelBench::create(plan, graph, size_t(kernel - plan.kernels.begin()),
                             KernelBench::Caches::cold, 1, in_turns);
}

// Medians of runs in turns, so that all meet the same disturbances.
std::vector<double> measure_in_turns(std::vector<KernelBench> &benches, double seconds) {
  constexpr size_t fewest_runs = 7;
  std::vector<std::vector<double>> samples(benches.size());
  for (KernelBench &bench : benches) bench.run(); // does not count
  const auto start = std::chrono::steady_clock::now();
  const auto end = start + std::chrono::duration<double>(seconds * double(benches.size()));
  while (samples[0].size() < fewest_runs || std::chrono::steady_clock::now() < end)
    for (size_t b = 0; b < benches.size(); ++b) samples[b].push_back(benches[b].run());
  std::vector<double> medians;
  for (std::vector<double> &s : samples) medians.push_back(median(std::move(s)));
  return medians;
}

} // namespace

Result<MeasuredCosts> measure_algorithms(const Graph &graph, const Target &target,
                                         const PlanOptions &options, const TuneOptions &tuning) {
  LATHE_CHECK(require_host(target));
  LATHE_TRY(const Plan usual, make_plan(graph, target, options, tuning.budget));
  const std::vector<Choice> choices = unknown_choices(usual, options.measured);
  size_t most = 0;
  for (const Choice &choice : choices) most = std::max(most, choice.candidates.size());
  std::vector<Plan> plans; // by candidate
  for (size_t c = 0; c < most; ++c) {
    LATHE_TRY(plans.emplace_back(), plan_with(c, choices, graph, target, options, tuning.budget));
  }
  MeasuredCosts costs = options.measured;
  for (size_t done = 0; done < choices.size(); ++done) {
    LATHE_CHECK(tuning.budget.check("measuring algorithms"));
    const Choice &choice = choices[done];
    std::vector<KernelBench> benches;
    for (size_t c = 0; c < choice.candidates.size(); ++c) {
      LATHE_TRY(KernelBench bench,
                bench_of(plans[c], graph, choice.layer, choice.candidates.size()));
      benches.push_back(std::move(bench));
    }
    const std::vector<double> medians = measure_in_turns(benches, tuning.seconds);
    for (size_t c = 0; c < medians.size(); ++c)
      costs[choice.layer][name_of(choice, c)] = medians[c];
    if (tuning.progress) tuning.progress(done + 1, choices.size());
  }
  return costs;
}

} // namespace lathe::core
