// Which algorithm a convolution gets: what the measurements say, as far as the budget goes. Nothing
// is measured here; the tables are made up.
#include "frontend/net.h"
#include "passes/pipeline.h"
#include "passes/plan.h"

#include <doctest/doctest.h>

using namespace lathe::core;

namespace {

// Two convolutions that Winograd's algorithm could compute, and one that only the direct one can.
Graph network() {
  auto graph = parse_net("network n { input x 16x28x28\n"
                         "a: conv 32 3x3 pad 1; relu; b: conv 64 3x3 pad 1; relu\n"
                         "c: conv 8 1x1 }\n",
                         "n.net");
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  REQUIRE(run_passes(*graph));
  return std::move(*graph);
}

Plan plan_of(const Graph &graph, const PlanOptions &options = {}) {
  auto plan = make_plan(graph, known_targets()[0], options);
  REQUIRE_MESSAGE(plan, to_string(plan.error()));
  return std::move(*plan);
}

std::vector<Choice> choices_of(const Plan &plan) {
  std::vector<Choice> choices;
  for (const Kernel &kernel : plan.kernels)
    if (!kernel.choice.candidates.empty()) choices.push_back(kernel.choice);
  return choices;
}

std::string chosen(const Choice &choice) { return algorithm_name(choice.algorithm()); }

// One of them takes a microsecond, all others a millisecond.
MeasuredCosts best_is(const std::vector<Choice> &choices, size_t candidate) {
  MeasuredCosts costs;
  for (const Choice &choice : choices)
    for (size_t c = 0; c < choice.candidates.size(); ++c)
      costs[choice.layer][algorithm_name(choice.candidates[c].winograd)] =
          c == candidate ? 1e-6 : 1e-3;
  return costs;
}

} // namespace

TEST_CASE("measured costs decide, also against the model") {
  const Graph graph = network();
  const std::vector<Choice> estimated = choices_of(plan_of(graph));
  REQUIRE(estimated.size() == 2);
  // Direct, and tiles of 2 and 4 in each direction, from points and from taps.
  const size_t count = 9;
  REQUIRE(estimated[0].candidates.size() == count);
  for (size_t pick = 0; pick < count; ++pick) {
    CAPTURE(pick);
    const PlanOptions options{.weight_budget = 100, .measured = best_is(estimated, pick)};
    const Plan plan = plan_of(graph, options);
    for (const Choice &choice : choices_of(plan)) {
      CHECK(choice.chosen == pick);
      CHECK(verdict(choice, pick) == "chosen");
      CHECK(verdict(choice, (pick + 1) % count) == "slower");
      CHECK(choice.candidates[pick].measured == 1e-6);
      CHECK(choice.candidates[pick].estimated > 0); // what the model says stays known
    }
    for (const Kernel &kernel : plan.kernels)
      if (auto *conv = std::get_if<ConvSpec>(&kernel.spec))
        CHECK(conv->winograd == kernel.choice.algorithm());
    CHECK(print(plan).contains("measured: direct"));
    CHECK(print(plan) == print(plan_of(graph, options)));
  }
}

TEST_CASE("the weight budget holds for measured costs too") {
  const Graph graph = network();
  std::vector<Choice> choices = choices_of(plan_of(graph));
  const size_t largest = 7;
  REQUIRE(algorithm_name(choices[0].candidates[largest].winograd) == "winograd 4");
  PlanOptions options{.weight_budget = 0, .measured = best_is(choices, largest)};
  for (const Choice &choice : choices_of(plan_of(graph, options))) {
    CHECK(chosen(choice) == "direct");
    CHECK(verdict(choice, largest) == "over the weight budget");
    CHECK(verdict(choice, largest - 1) == "slower");
  }
  for (auto &[layer, seconds] : options.measured)
    for (auto &[algorithm, each] : seconds)
      if (algorithm.ends_with("from taps")) each = 1;
  // Enough for either of them: the one that gains more by a byte gets it.
  int64_t own = 0; // bytes
  for (const Choice &choice : choices)
    own += choice.candidates[largest].extra_bytes / 3; // 36 - 9 of 9
  options.weight_budget = 2.6 * double(own) / double(PlanOptions::few_weights);
  options.measured.at(choices[0].layer).at("direct") = 1e-2;
  choices = choices_of(plan_of(graph, options));
  CHECK(chosen(choices[0]) == "winograd 4");
  CHECK(chosen(choices[1]) == "direct");
  options.measured.at(choices[1].layer).at("direct") = 1;
  choices = choices_of(plan_of(graph, options));
  CHECK(chosen(choices[1]) == "winograd 4");
  CHECK(chosen(choices[0]) == "winograd 2"); // what is left is enough for this
  CHECK(verdict(choices[0], largest) == "over the weight budget");
}

TEST_CASE("filters that are made from taps need no budget") {
  const Graph graph = network();
  const std::vector<Choice> choices = choices_of(plan_of(graph));
  const Plan plan = plan_of(graph, {.weight_budget = 0, .measured = best_is(choices, 8)});
  for (const Choice &choice : choices_of(plan)) CHECK(chosen(choice) == "winograd 4 from taps");
  CHECK(plan.weight_bytes() == plan_of(graph, {.strict = true}).weight_bytes());
}

TEST_CASE("strict numerics leave nothing to choose") {
  const Graph graph = network();
  PlanOptions options{.strict = true, .measured = best_is(choices_of(plan_of(graph)), 4)};
  const Plan plan = plan_of(graph, options);
  CHECK(choices_of(plan).empty());
  for (const Kernel &kernel : plan.kernels)
    if (auto *conv = std::get_if<ConvSpec>(&kernel.spec)) CHECK(!conv->winograd);
}

TEST_CASE("a layer that is not measured in full is judged by the model") {
  const Graph graph = network();
  const Plan usual = plan_of(graph);
  PlanOptions options{.measured = best_is(choices_of(usual), 0)};
  for (auto &[layer, seconds] : options.measured) seconds.erase("winograd 2");
  CHECK(print(plan_of(graph, options)) == print(usual));
  CHECK(print(usual).contains("estimated: direct"));
}
