// Measured algorithms: all candidates are measured, the plan takes what the table says, and the
// network computes the same. How long anything takes is not asserted.
#include "frontend/bundled.h"
#include "frontend/weights.h"
#include "ir/compare.h"
#include "runtime/executable.h"

#include <cstring>
#include <doctest/doctest.h>

using namespace lathe::core;

namespace {

Graph network(const std::string &body) {
  auto graph = parse_net("network n {\n" + body + "\n}\n", "n.net");
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  REQUIRE(run_passes(*graph));
  return std::move(*graph);
}

std::vector<Tensor> run(const Graph &graph, const CompileOptions &options) {
  auto executable = Executable::compile(graph, options);
  REQUIRE_MESSAGE(executable, to_string(executable.error()));
  auto request = Request::create(*executable);
  REQUIRE(request);
  const Plan &plan = (*executable)->plan();
  REQUIRE((*request)->set_input(0, random_tensor(plan.inputs[0], plan.input_names[0], 1)));
  (*request)->run();
  std::vector<Tensor> outputs;
  for (size_t j = 0; j < plan.outputs.size(); ++j) {
    const Tensor &output = (*request)->output(j);
    std::memcpy(outputs.emplace_back(output.dtype(), output.shape()).raw_mutable(), output.raw(),
                output.bytes());
  }
  return outputs;
}

} // namespace

TEST_CASE("every candidate of every distinct convolution is measured, once") {
  // c is as b; d has no choice; e feeds a pool; f has a window of one row.
  const Graph graph = network("input x 16x20x20; a: conv 16 3x3 pad 1; b: conv 16 3x3 pad 1\n"
                              "c: conv 16 3x3 pad 1; d: conv 8 3x3 stride 2\n"
                              "e: conv 8 5x5 pad 2; maxpool 2x2; f: conv 8 1x3");
  size_t told = 0, all = 0;
  TuneOptions tuning{0, [&](size_t done, size_t of) {
                       told += done == told + 1;
                       all = of;
                     }};
  auto costs = measure_algorithms(graph, host_target(), {}, tuning);
  REQUIRE_MESSAGE(costs, to_string(costs.error()));
  CHECK(costs->size() == 4); // a reads the caller's memory, and so differs from b
  CHECK(told == 4);
  CHECK(all == 4);
  for (const auto &[layer, seconds] : *costs) {
    CAPTURE(layer);
    CHECK(seconds.size() >= 2);
    CHECK(seconds.contains("direct"));
    for (const auto &[algorithm, s] : seconds) CHECK(s > 0);
  }

  // What is known is not measured again.
  MeasuredCosts known = *costs;
  known.begin()->second["direct"] = 123;
  const std::string missing = known.rbegin()->first;
  known.erase(missing);
  auto completed = measure_algorithms(graph, host_target(), {.measured = known}, tuning);
  REQUIRE(completed);
  CHECK(all == 1);
  CHECK(completed->contains(missing));
  completed->erase(missing);
  CHECK(*completed == known);
}

TEST_CASE("with strict numerics there is nothing to measure, and elsewhere no way to") {
  const Graph graph = network("input x 16x20x20; a: conv 16 3x3 pad 1");
  auto none = measure_algorithms(graph, host_target(), {.strict = true});
  REQUIRE(none);
  CHECK(none->empty());
  for (const Target &target : known_targets()) {
    if (host_supports(target)) continue;
    auto elsewhere = measure_algorithms(graph, target, {});
    REQUIRE(!elsewhere);
    CHECK(elsewhere.error().code == ErrorCode::unsupported);
  }
}

TEST_CASE("a tuned network computes what an untuned one does") {
  Graph graph = before_softmax(load_bundled("squeezenet1_1").value());
  REQUIRE(randomise_weights(graph, 1));
  CompileOptions options;
  const std::vector<Tensor> expected = run(graph, options);
  options.tune = true;
  options.tuning.seconds = 0;
  const std::vector<Tensor> tuned = run(graph, options);
  REQUIRE(tuned.size() == expected.size());
  CHECK(compare(tuned[0], expected[0]).within(1e-4));

  // With a table that has everything, nothing is measured, and the plan is always the same.
  options.plan.weight_budget = 100;
  options.tuning.progress = [](size_t, size_t) { FAIL("measured again"); };
  Graph passed = graph;
  REQUIRE(run_passes(passed));
  const auto usual = make_plan(passed, options.target);
  REQUIRE(usual);
  size_t chosen = 0;
  for (const Kernel &kernel : usual->kernels)
    for (const Candidate &c : kernel.choice.candidates)
      options.plan.measured[kernel.choice.layer][algorithm_name(c.winograd)] =
          algorithm_name(c.winograd) == "winograd 2x4" ? 1e-6 : 1e-3;
  auto executable = Executable::compile(graph, options);
  REQUIRE_MESSAGE(executable, to_string(executable.error()));
  for (const Kernel &kernel : (*executable)->plan().kernels)
    chosen += algorithm_name(kernel.choice.algorithm()) == "winograd 2x4";
  CHECK(chosen == 8); // one in each fire module
  CHECK(compare(run(graph, options)[0], expected[0]).within(1e-4));
}
