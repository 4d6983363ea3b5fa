// How models are counted, as docs/counting.md says.
#include "ir/graph.h"

#include <doctest/doctest.h>
#include <limits>

using namespace lathe::core;

namespace {

GraphSummary summary_of(std::string_view text) {
  auto graph = parse_graph(text);
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  return summarise(*graph);
}

} // namespace

TEST_CASE("parameters are the learnable ones, multiplies are per picture") {
  GraphSummary summary = summary_of(R"(graph "g" {
    input %0 "x": f32[2,4,8,8]
    recipe @0: f32[6,2,3,3] = named "conv.weight"
    recipe @1: f32[6] = named "conv.bias"
    recipe @2: f32[6] = named "bn.scale"
    recipe @3: f32[6] = named "bn.shift"
    recipe @4: f32[6] = named "bn.mean"
    recipe @5: f32[6] = named "bn.variance"
    recipe @6: f32[1] = splat 2
    recipe @7: f32[5,384] = named "fc.weight"
    const %1 "conv.weight" = @0
    const %2 "conv.bias" = @1
    const %3 "bn.scale" = @2
    const %4 "bn.shift" = @3
    const %5 "bn.mean" = @4
    const %6 "bn.variance" = @5
    const %7 "factor" = @6
    const %8 "fc.weight" = @7
    node "conv" -> %9 "conv": f32[2,6,8,8] = conv(%0, %1, %2)
      {kernel = 3x3, pad = [1, 1, 1, 1], groups = 2, bias = true}
    node "bn" -> %10 "bn": f32[2,6,8,8] = batch_norm(%9, %3, %4, %5, %6)
    node "double" -> %11 "double": f32[2,6,8,8] = mul(%10, %7)
    node "flat" -> %12 "flat": f32[2,384] = flatten(%11)
    node "fc" -> %13 "fc": f32[2,5] = dense(%12, %8)
    output %13
  })");
  REQUIRE(summary.layers.size() == 5);
  CHECK(summary.layers[0].name == "conv");
  CHECK(summary.layers[0].op == "conv");
  CHECK(summary.layers[0].parameters == 6 * 2 * 9 + 6);
  CHECK(summary.layers[0].multiplies == 6 * 64 * 2 * 9); // taps on padding included
  CHECK(summary.layers[1].parameters == 6 + 6);          // without running statistics
  CHECK(summary.layers[2].parameters == 0);              // a number of the program
  CHECK(summary.layers[4].parameters == 5 * 384);
  CHECK(summary.layers[4].multiplies == 5 * 384);
  CHECK(summary.parameters == 114 + 12 + 1920);
  CHECK(summary.multiplies == 6912 + 1920);
  CHECK(summary.weighted_layers == 2);
  CHECK(summary.weight_bytes == 4 * (114 + 4 * 6 + 1 + 1920));
}

TEST_CASE("depth is the longest way; shared weights count once") {
  GraphSummary summary = summary_of(R"(graph "g" {
    input %0 "x": f32[1,3,4,4]
    recipe @0: f32[3,3,1,1] = named "shared"
    const %1 "shared" = @0
    const %2 "shared again" = @0
    node "a" -> %3 "a": f32[1,3,4,4] = conv(%0, %1)
    node "b" -> %4 "b": f32[1,3,4,4] = conv(%3, %1)
    node "projection" -> %5 "projection": f32[1,3,4,4] = conv(%0, %2)
    node "add" -> %6 "add": f32[1,3,4,4] = add(%4, %5)
    output %6
  })");
  CHECK(summary.weighted_layers == 2);
  CHECK(summary.parameters == 9);
  CHECK(summary.weight_bytes == 36);
  CHECK(summary.layers[0].parameters == 9);
  CHECK(summary.layers[1].parameters == 0);
  CHECK(summary.multiplies == 3 * 16 * 9);
}

TEST_CASE("counts of absurd models do not wrap") {
  GraphSummary summary = summary_of(R"(graph "absurd" {
    input %0 "x": f32[1,1,1048576,1048576]
    recipe @0: f32[1,1,1048575,1048575] = named "w"
    const %1 "w" = @0
    node "c" -> %2 "c": f32[1,1,1048576,1048576] = conv(%0, %1)
      {kernel = 1048575x1048575, pad = [524287, 524287, 524287, 524287]}
    node "d" -> %3 "d": f32[1,1,1048576,1048576] = conv(%2, %1)
      {kernel = 1048575x1048575, pad = [524287, 524287, 524287, 524287]}
    output %3
  })");
  CHECK(summary.multiplies == std::numeric_limits<int64_t>::max());
}
