// Every bundled network in its full size, once, on this machine's own target: agrees with the
// evaluator before its softmax, and its plan is sound.
#include "frontend/bundled.h"
#include "frontend/weights.h"
#include "ir/compare.h"
#include "ir/evaluate.h"
#include "runtime/executable.h"
#include "tests/random_graph.h"

#include <cstring>
#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace lathe;

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
    auto executable = Executable::compile(scores);
    REQUIRE_MESSAGE(executable, to_string(executable.error()));
    auto sound = check_plan((*executable)->plan(), (*executable)->graph(), 1);
    CHECK_MESSAGE(sound, to_string(sound.error()));
    auto request = Request::create(*executable, 1, std::make_shared<ThreadPool>(2));
    REQUIRE(request);
    std::memcpy((*request)->input(0).raw_mutable(), inputs[0].raw(), inputs[0].bytes());
    (*request)->run();
    Comparison c = compare((*request)->output(0), (*references)[0]);
    const Plan &plan = (*executable)->plan();
    fmt::print("{:<24} largest error {:.1e} of {:.2f}; arena {} bytes, lower bound {}\n", name,
               c.largest_error, c.largest_reference, plan.arena_bytes.at(1),
               plan.arena_lower_bound_bytes.at(1));
    CHECK(c.within(1e-4));
    CHECK(c.rms_reference > 0.05); // constant or faded scores would prove nothing
  }
}
