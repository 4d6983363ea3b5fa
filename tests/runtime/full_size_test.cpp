// Every bundled network in its full size, once, on this machine's own target: agrees with the
// evaluator before its softmax, and its plan is sound.
#include "frontend/bundled.h"
#include "frontend/weights.h"
#include "ir/compare.h"
#include "ir/evaluate.h"
#include "runtime/executable.h"
#include "tests/random_graph.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace lathe::core;

namespace {

struct Run {
  std::shared_ptr<const Executable> executable;
  Comparison comparison; // of the first output
};
Run run(const Graph &graph, const Target &target, const Tensor &input, const Tensor &reference) {
  CompileOptions options;
  options.target = target;
  auto executable = Executable::compile(graph, options);
  REQUIRE_MESSAGE(executable, to_string(executable.error()));
  auto request = Request::create(*executable, 1, std::make_shared<ThreadPool>(2));
  REQUIRE(request);
  REQUIRE((*request)->set_input(0, input));
  (*request)->run();
  return {*executable, compare((*request)->output(0), reference)};
}

// The target that multiplies, rounds and adds, one term after the other: a plain float32 sum.
Target plain_target() {
  auto found = std::ranges::find_if(known_targets(),
                                    [](const Target &t) { return !t.fma && host_supports(t); });
  REQUIRE(found != known_targets().end());
  return *found;
}

} // namespace

TEST_CASE("full-size networks agree with the evaluator") {
  for (const std::string &name : bundled_models()) {
    CAPTURE(name);
    auto graph = load_bundled(name);
    REQUIRE_MESSAGE(graph, to_string(graph.error()));
    auto weights = randomise_weights(*graph, 1);
    REQUIRE_MESSAGE(weights, to_string(weights.error()));
    Graph scores = before_softmax(std::move(*graph));
    auto inputs = random_inputs(scores, 1, 1);
    auto references = evaluate(scores, inputs);
    REQUIRE_MESSAGE(references, to_string(references.error()));
    Run native = run(scores, host_target(), inputs[0], (*references)[0]);
    Run plain = run(scores, plain_target(), inputs[0], (*references)[0]);
    const Executable &executable = *native.executable;
    auto sound = check_plan(executable.plan(), executable.graph(), 1);
    CHECK_MESSAGE(sound, to_string(sound.error()));
    const Comparison &c = native.comparison;
    const Plan &plan = executable.plan();
    fmt::print(
        "{:<24} largest error {:.1e} of {:.2f}; rms {:.1e}, of plain sums {:.1e}; arena {} bytes, "
        "lower bound {}\n",
        name, c.largest_error, c.largest_reference, c.rms_error, plain.comparison.rms_error,
        plan.arena_bytes.at(1), plan.arena_lower_bound_bytes.at(1));
    CHECK(c.within(1e-4));
    CHECK(c.rms_error <= 3 * plain.comparison.rms_error);
    CHECK(c.rms_reference > 0.05); // constant or faded scores would prove nothing
  }
}
