// Kernels alone: what is said of them is exact, and each can be run without its network. How long
// anything takes is not asserted.
#include "frontend/bundled.h"
#include "runtime/executable.h"
#include "runtime/kernel_bench.h"
#include "runtime/kernel_facts.h"
#include "tests/random_graph.h"

#include <doctest/doctest.h>

using namespace lathe::core;

namespace {

Graph network(const std::string &body) {
  auto graph = parse_net("network n {\n" + body + "\n}\n", "n.net");
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  return std::move(*graph);
}

Plan plan_of(const Graph &graph, const PlanOptions &options = {}) {
  auto plan = make_plan(graph, host_target(), options);
  REQUIRE_MESSAGE(plan, to_string(plan.error()));
  return std::move(*plan);
}

std::vector<KernelFacts> facts_of(const Graph &graph, const Plan &plan, int64_t images = 1) {
  std::vector<KernelFacts> facts;
  for (size_t k = 0; k < plan.kernels.size(); ++k)
    facts.push_back(kernel_facts(plan, graph, k, images));
  return facts;
}

} // namespace

TEST_CASE("a kernel's words, and the bytes that it must move") {
  Graph graph = network("input x 4x6x6; maxpool 2x2; flatten; d: dense 16; softmax");
  const Plan plan = plan_of(graph);
  const auto facts = facts_of(graph, plan, 3);
  std::vector<std::string> algorithms;
  for (const KernelFacts &f : facts) algorithms.push_back(f.algorithm);
  REQUIRE(algorithms ==
          std::vector<std::string>{"copy", "max pool 2x2", "copy", "dense panels", "softmax"});
  CHECK(facts[1].shape == "4x6x6 to 4x3x3");
  CHECK(facts[1].input_bytes == 3 * 4 * 36 * 4);
  CHECK(facts[1].weight_bytes == 0);
  CHECK(facts[1].output_bytes == 3 * 4 * 9 * 4);
  CHECK(facts[1].flops == 0);
  CHECK(facts[3].shape == "36 to 16");
  CHECK(facts[3].input_bytes == 3 * 36 * 4);
  CHECK(facts[3].weight_bytes == (36 * 16 + 16) * 4); // for all images together
  CHECK(facts[3].output_bytes == 3 * 16 * 4);
  CHECK(facts[3].flops == 3 * 2 * 36 * 16);
}

TEST_CASE("what a kernel reads twice counts once") {
  Graph graph = network("input x 8x10x10; a: conv 16 3x3 pad 1; add { { b: conv 16 1x1 } { } }");
  REQUIRE(run_passes(graph));
  PlanOptions options;
  options.strict = true; // directly
  const Plan plan = plan_of(graph, options);
  const auto facts = facts_of(graph, plan);
  REQUIRE(facts.size() >= 2);
  CHECK(facts[0].algorithm == "direct 3x3");
  CHECK(facts[0].input_bytes == 8 * 100 * 4);
  CHECK(facts[1].algorithm == "direct 1x1");
  CHECK(facts[1].input_bytes == 16 * 100 * 4); // of the convolution, and what is added to it
  CHECK(facts[1].output_bytes == 16 * 100 * 4);
}

TEST_CASE("convolutions in groups, in chains and before pools") {
  Graph graph = network("input x 8x10x10; a: conv 8 1x1; b: conv 16 3x3 pad 1\n"
                        "c: conv 16 5x5 groups 16; d: conv 4 3x3 groups 2; maxpool 2x2");
  PlanOptions chained;
  chained.chained.assign(graph.nodes.size(), false);
  chained.chained[1] = true;
  chained.strict = true; // else the third goes by Winograd
  const auto facts = facts_of(graph, plan_of(graph, chained));
  REQUIRE(facts.size() == 4); // the last one brings the output into its layout
  CHECK(facts[0].algorithm == "direct 1x1 > direct 3x3");
  CHECK(facts[0].shape == "8x10x10 to 16x10x10");
  CHECK(facts[1].algorithm == "direct depthwise 5x5");
  CHECK(facts[2].algorithm == "direct grouped 3x3 + max pool");
}

TEST_CASE("every kernel runs alone") {
  using Caches = KernelBench::Caches;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Graph graph = random_graph(seed);
    REQUIRE(run_passes(graph));
    const Plan plan = plan_of(graph);
    for (size_t k = 0; k < plan.kernels.size(); ++k) {
      CAPTURE(kernel_name(plan.kernels[k].spec, plan.target));
      auto bench = KernelBench::create(plan, graph, k, Caches::warm, plan.batched ? 2 : 1);
      REQUIRE_MESSAGE(bench, to_string(bench.error()));
      CHECK(bench->run() > 0);
    }
  }
  auto lenet = load_bundled("lenet5");
  REQUIRE(lenet);
  REQUIRE(run_passes(*lenet));
  const Plan plan = plan_of(*lenet);
  for (size_t k = 0; k < plan.kernels.size(); ++k) {
    auto bench = KernelBench::create(plan, *lenet, k, Caches::cold);
    REQUIRE_MESSAGE(bench, to_string(bench.error()));
    CHECK(bench->run() > 0);
  }
}
