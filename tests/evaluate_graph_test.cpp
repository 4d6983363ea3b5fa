// The reference evaluator on recipes of constants and on whole graphs.
#include "tests/random_graph.h"
#include "tests/tensors.h"

#include <cmath>

using namespace lathe::core;

namespace {

Graph graph_of(Shape input, std::vector<Op> chain) {
  Graph graph;
  graph.name = "test";
  ValueId last = graph.add_input("x", {DType::f32, std::move(input)});
  for (size_t i = 0; i < chain.size(); ++i)
    last = graph.add_node("layer" + std::to_string(i), chain[i], {last}).value();
  graph.outputs = {last};
  return graph;
}

} // namespace

TEST_CASE("constants are made from their recipes") {
  const ConstantRef w = bound_constant("conv1.weight", counting({2, 3}));
  const ConstantRef factor = splat_constant(2, {2, 1});
  const ConstantRef scaled = computed_constant(Binary{BinaryKind::mul}, {w, factor}).value();
  const ConstantRef turned = computed_constant(Transpose{{1, 0}}, {scaled}).value();
  auto tensor = materialise(turned);
  REQUIRE(tensor);
  CHECK(tensor->shape() == Shape{3, 2});
  CHECK(list(*tensor) == std::vector<float>{2, 8, 4, 10, 6, 12});

  // One part read at two depths: it must last until the second.
  const ConstantRef less = computed_constant(Unary{UnaryKind::neg}, {scaled}).value();
  const ConstantRef more = computed_constant(Unary{UnaryKind::abs}, {less}).value();
  auto both = materialise(computed_constant(Binary{BinaryKind::add}, {more, scaled}).value());
  REQUIRE(both);
  CHECK(list(*both) == std::vector<float>{4, 8, 12, 16, 20, 24});

  const ConstantRef unbound = named_constant("fc.weight", {DType::f32, {2, 1}});
  auto missing = materialise(computed_constant(Binary{BinaryKind::mul}, {w, unbound}).value());
  REQUIRE(!missing);
  CHECK(missing.error().node == "fc.weight");
}

TEST_CASE("shared parts of a recipe are made once, and deep recipes do not recurse") {
  ConstantRef doubled = literal_constant(floats({1}, {1}));
  for (int i = 0; i < 60; ++i) // 2^60 leaves if written out
    doubled = computed_constant(Binary{BinaryKind::add}, {doubled, doubled}).value();
  CHECK(materialise(doubled).value().f32()[0] == std::ldexp(1.0f, 60));

  ConstantRef deep = literal_constant(floats({1}, {1}));
  for (int i = 0; i < 5001; ++i) deep = computed_constant(Unary{UnaryKind::neg}, {deep}).value();
  CHECK(materialise(deep).value().f32()[0] == -1);
}

TEST_CASE("a graph runs, whatever is read twice, given out early, or constant") {
  Graph graph;
  ValueId x = graph.add_input("x", {DType::f32, {1, 2}});
  ValueId c = graph.add_constant("c", literal_constant(floats({2}, {10, 20})));
  ValueId sum = graph.add_node("sum", Binary{BinaryKind::add}, {x, c}).value();
  ValueId square = graph.add_node("square", Binary{BinaryKind::mul}, {sum, sum}).value();
  ValueId parts = graph.add_node("parts", Split{1, {1, 1}}, {square}).value();
  graph.outputs = {sum, parts + 1, x, c, sum};
  REQUIRE(verify(graph));

  std::vector<std::string> seen;
  auto results = evaluate(graph, std::vector{floats({1, 2}, {1, 2})},
                          [&](const Node &node, std::span<const Tensor> made) {
                            seen.push_back(node.name + " " + std::to_string(made.size()));
                          });
  REQUIRE_MESSAGE(results, to_string(results.error()));
  REQUIRE(results->size() == 5);
  CHECK(list((*results)[0]) == std::vector<float>{11, 22});
  CHECK(list((*results)[1]) == std::vector<float>{484});
  CHECK(list((*results)[2]) == std::vector<float>{1, 2});
  CHECK(list((*results)[3]) == std::vector<float>{10, 20});
  CHECK(list((*results)[4]) == std::vector<float>{11, 22});
  CHECK(seen == std::vector<std::string>{"sum 1", "square 1", "parts 2"});
}

TEST_CASE("a graph takes any batch, but nothing else that its inputs do not say") {
  const Graph graph = graph_of({1, 2, 3, 3}, {Unary{UnaryKind::relu}, Flatten{1}, Reshape{{0, -1}},
                                              Reshape{{-1, 9}}, Softmax{-1, false}});
  auto results = evaluate(graph, std::vector{counting({4, 2, 3, 3})});
  REQUIRE_MESSAGE(results, to_string(results.error()));
  CHECK((*results)[0].shape() == Shape{8, 9});

  for (const Tensor &wrong :
       {counting({1, 2, 3, 4}), counting({1, 18}), Tensor(), Tensor(DType::i32, {1, 2, 3, 3})}) {
    auto failed = evaluate(graph, std::vector{wrong});
    REQUIRE(!failed);
    CHECK(failed.error().code == ErrorCode::invalid);
    CHECK(failed.error().node == "x");
  }
  CHECK(!evaluate(graph, {}));
}

TEST_CASE("layers that fix the batch are errors at another, not a mixture of pictures") {
  const std::pair<const char *, Op> layers[] = {{"spreads over the row", Reshape{{1, -1}}},
                                                {"a full target", Reshape{{1, 18}}},
                                                {"channels in front", Reshape{{2, -1}}},
                                                {"all in one row", Flatten{0}}};
  for (const auto &[name, op] : layers) {
    CAPTURE(name);
    const Graph graph = graph_of({1, 2, 3, 3}, {Unary{UnaryKind::relu}, op});
    CHECK(evaluate(graph, std::vector{counting({1, 2, 3, 3})}));
    auto failed = evaluate(graph, std::vector{counting({4, 2, 3, 3})});
    REQUIRE(!failed);
    CHECK(failed.error().code == ErrorCode::invalid);
    CHECK(failed.error().node == "layer1");
    CHECK(to_string(failed.error()).find("batch of 1") != std::string::npos);
  }
}

TEST_CASE("an error in a graph names the layer") {
  Graph graph = graph_of({1, 4}, {Unary{UnaryKind::relu}});
  graph.nodes[0].op = Split{1, {1, 1}};
  auto failed = evaluate(graph, std::vector{counting({1, 4})});
  REQUIRE(!failed);
  CHECK(failed.error().node == "layer0");
  CHECK(failed.error().op == "split");
}

TEST_CASE("random graphs: whole, tame, repeatable, and every picture for itself") {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    const Graph graph = random_graph(seed);
    auto whole = verify(graph);
    REQUIRE_MESSAGE(whole, to_string(whole.error()));
    CHECK(equal(graph, random_graph(seed)));
    const auto inputs = random_inputs(graph, seed, 3);
    auto together = evaluate(graph, inputs);
    REQUIRE_MESSAGE(together, to_string(together.error()));
    for (const Tensor &output : *together)
      for (float value : output.f32()) REQUIRE(std::abs(value) < 1e4f);
    for (int64_t n = 0; n < 3; ++n) {
      const Op picture = Slice{{0}, {n}, {n + 1}, {1}};
      std::vector<Tensor> own;
      for (const Tensor &input : inputs) own.push_back(one(picture, {input}));
      auto alone = evaluate(graph, own);
      REQUIRE(alone);
      for (size_t j = 0; j < alone->size(); ++j)
        CHECK(same_bits((*alone)[j], one(picture, {(*together)[j]})));
    }
  }
}
