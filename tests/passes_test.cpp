// What passes do to graphs that nobody would write down: random ones and huge ones. Their textbook
// cases are golden files, see tests/golden_test.cpp.
#include "ir/evaluate.h"
#include "passes/pipeline.h"

#include <cmath>
#include <doctest/doctest.h>
#include <functional>

using namespace lathe::core;

namespace {

// A graph under construction.
struct Builder {
  Graph graph;
  ValueId x = graph.add_input("x", {DType::f32, {1, 4, 6, 6}});
  ValueId constant(const std::string &name, Shape shape) {
    return graph.add_constant(name, bound_constant(name, Tensor::splat(0.5f, std::move(shape))));
  }
  ValueId node(const std::string &name, Op op, std::vector<ValueId> inputs) {
    auto id = graph.add_node(name, std::move(op), std::move(inputs));
    REQUIRE_MESSAGE(id, to_string(id.error()));
    return *id;
  }
  ValueId conv(const std::string &name, ValueId input) {
    const Type weight{DType::f32, {4, 4, 1, 1}}; // without data: these would have rank one
    return node(
        name, Conv{},
        {input, graph.add_constant(name + ".weight", named_constant(name + ".weight", weight))});
  }
};

} // namespace

TEST_CASE("fold_constants composes recipes without touching data") {
  Builder b;
  ValueId c =
      b.node("twice", Binary{BinaryKind::mul}, {b.constant("a", {4, 1, 1}), b.constant("b", {1})});
  b.graph.outputs = {b.node("y", Binary{BinaryKind::add}, {b.x, c})};
  CHECK(fold_constants(b.graph));
  const ConstantRef &folded = b.graph.constant(b.graph.nodes[0].inputs[1]);
  REQUIRE(folded);
  CHECK(folded->op);
  CHECK_FALSE(folded->data.defined());
}

TEST_CASE("a chain of 100,000 layers is no trouble") {
  Builder b;
  ValueId y = b.x;
  for (int i = 0; i < 100'000; ++i) {
    Op op = i % 2 ? Op(Dropout{}) : Op(Unary{UnaryKind::sigmoid});
    y = b.node("n" + std::to_string(i), op, {y});
  }
  b.graph.outputs = {y};
  CHECK(run_passes(b.graph));
  CHECK(b.graph.nodes.size() == 50'000);
}

TEST_CASE("10,000 siblings are no trouble") {
  Builder b;
  ValueId sum = b.x;
  for (int i = 0; i < 10'000; ++i)
    sum = b.node("s" + std::to_string(i), Binary{BinaryKind::div},
                 {b.node("m" + std::to_string(i), GlobalPool{PoolKind::max},
                         {b.conv("c" + std::to_string(i), b.x)}),
                  sum});
  b.graph.outputs = {sum};
  CHECK(run_passes(b.graph));
  CHECK(b.graph.nodes.size() == 20'002); // one convolution, and what takes its parts
}

TEST_CASE("rank is counted for small channels as for large ones, and not where numbers are none") {
  for (bool nan : {false, true}) {
    Tensor weights(DType::f32, {8, 8, 1, 1}); // of full rank, with one filter above all others
    for (int64_t i = 0; i < 64; ++i)
      weights.f32_mutable()[size_t(i)] =
          float((i * i * 7 + i * 3) % 23 - 11) * (i < 8 ? 1e7f : 1.f) + float(i % 9 == 0);
    if (nan) weights.f32_mutable()[20] = NAN;
    Builder b;
    b.x = b.graph.add_input("y", {DType::f32, {1, 8, 6, 6}});
    ValueId w = b.graph.add_constant("w", bound_constant("w", weights));
    b.graph.outputs = {b.node("c", Conv{}, {b.x, w})};
    CHECK(split_low_rank(b.graph) == 0);
  }
}

TEST_CASE("shapes at the limits: passes leave alone what they cannot make") {
  auto check = [](Shape x, const std::function<ValueId(Builder &)> &build) {
    Builder b;
    b.x = b.graph.add_input("y", {DType::f32, std::move(x)});
    b.graph.outputs = {build(b)};
    auto done = run_passes(b.graph);
    CHECK_MESSAGE(done, to_string(done.error()));
  };
  auto named = [](Builder &b, const char *name, Shape shape) {
    return b.graph.add_constant(name, named_constant(name, {DType::f32, std::move(shape)}));
  };
  const int64_t million = 1 << 20;
  check({1, million, 1, 1}, [&](Builder &b) { // their product has 2^41 elements
    ValueId narrow = b.node("c", Conv{}, {b.x, named(b, "w", {1, million, 1, 1})});
    return b.node("d", Conv{}, {narrow, named(b, "v", {2 * million, 1, 1, 1})});
  });
  check({1, 1, 1, 32 * million}, [](Builder &b) { return b.node("g", GlobalPool{}, {b.x}); });
  check({1, 1, 4, 4}, [&](Builder &b) {
    Conv conv;
    conv.kernel = {1, 1};
    conv.pad = {1 << 24, 0, 0, 0};
    ValueId padded = b.node("p", Pad{{0, 0, 9, 0}, {0, 0, 0, 0}}, {b.x});
    return b.node("c", conv, {padded, named(b, "w", {1, 1, 1, 1})});
  });
  check({1, 0, 4, 4}, [&](Builder &b) {
    Pool pool;
    pool.kernel = {2, 2};
    ValueId scaled = b.node("m", Binary{BinaryKind::mul}, {b.x, named(b, "k", {1, 0, 1, 1})});
    ValueId y = b.node("p", pool, {scaled});
    return b.node("s", Binary{BinaryKind::add}, {y, named(b, "l", {1, 0, 1, 1})});
  });
}
