// What passes do to graphs that nobody would write down: random ones and huge ones. Their textbook
// cases are golden files, see tests/golden_test.cpp.
#include "ir/evaluate.h"
#include "passes/pipeline.h"

#include <doctest/doctest.h>

using namespace lathe;

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
