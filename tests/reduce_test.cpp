// The reducer, on bugs that we plant: what is left is the bug and nothing else.
#include "ir/compare.h"
#include "ir/evaluate.h"
#include "ir/op_table.h"
#include "tests/random_graph.h"
#include "tests/reduce_graph.h"

#include <algorithm>
#include <doctest/doctest.h>

using namespace lathe::core;

namespace {

using Predicate = std::function<bool(const Graph &)>;

// The first random graph from `seed` on that fails, and that has some size.
Graph find_failing(uint64_t seed, const Predicate &fails) {
  for (;; ++seed)
    if (Graph graph = random_graph(seed); graph.nodes.size() > 6 && fails(graph)) return graph;
}

int64_t elements(const Graph &graph) {
  int64_t sum = 0;
  for (const Value &value : graph.values) sum += element_count(value.type.shape);
  return sum;
}

bool pools_a_concat(const Graph &graph) {
  const Uses uses(graph);
  return std::ranges::any_of(graph.nodes, [&](const Node &node) {
    auto *pool = std::get_if<Pool>(&node.op);
    if (!pool || pool->kind != PoolKind::max || pool->kernel.h < 3) return false;
    const int from = uses.producer[node.inputs[0]];
    return from >= 0 && std::holds_alternative<Concat>(graph.nodes[size_t(from)].op);
  });
}

// A pass that is wrong: it takes what stands behind any padding for padding by zero.
void forget_the_value(Graph &graph) {
  for (Node &node : graph.nodes)
    if (auto *pad = std::get_if<Pad>(&node.op)) pad->value = 0;
}
// Another: y - x for x - y, where x comes from a convolution, at any distance.
void turn_differences(Graph &graph) {
  std::vector<bool> computed(graph.values.size());
  for (Node &node : graph.nodes) {
    bool behind = std::holds_alternative<Conv>(node.op);
    for (ValueId id : node.inputs) behind |= computed[id];
    for (ValueId id : node.outputs) computed[id] = behind;
    auto *binary = std::get_if<Binary>(&node.op);
    if (binary && binary->kind == BinaryKind::sub && computed[node.inputs[0]])
      std::swap(node.inputs[0], node.inputs[1]);
  }
}

Predicate broken_by(void (*pass)(Graph &)) {
  return [pass](const Graph &graph) {
    const auto inputs = random_inputs(graph, 1, 2);
    auto right = finite_results(graph, inputs);
    Graph changed = graph;
    pass(changed);
    auto wrong = evaluate(changed, inputs);
    if (!right || !wrong) return false;
    for (size_t i = 0; i < right->size(); ++i)
      if ((*right)[i].dtype() == DType::f32 && !compare((*wrong)[i], (*right)[i]).within(0.01))
        return true;
    return false;
  };
}

Graph reduced(const Graph &graph, const Predicate &fails) {
  Graph small = reduce_graph(graph, [&](const Graph &candidate) {
    REQUIRE(verify(candidate));
    return fails(candidate);
  });
  CHECK(fails(small));
  return small;
}

} // namespace

TEST_CASE("a pattern is all that is left") {
  for (uint64_t seed : {0, 1000, 2000, 3000}) {
    const Graph graph = find_failing(seed, pools_a_concat);
    const Graph small = reduced(graph, pools_a_concat);
    CAPTURE(print(small));
    REQUIRE(small.nodes.size() == 2);
    CHECK(op_name(small.nodes[0].op) == "concat");
    CHECK(small.nodes[0].inputs.size() == 1);
    CHECK(print(small.nodes[1].op).starts_with("max_pool {kernel = 3x1"));
    CHECK(elements(small) <= 3 + 3 + 1);
    CHECK(equal(small, reduced(graph, pools_a_concat))); // always the same
  }
}

TEST_CASE("every op can be left alone, and small") {
  for (const auto &[name, op] : op_table()) {
    CAPTURE(name);
    auto holds_it = [&](const Graph &graph) {
      return std::ranges::any_of(graph.nodes,
                                 [&](const Node &node) { return op_name(node.op) == name; });
    };
    const Graph small = reduced(find_failing(0, holds_it), holds_it);
    CAPTURE(print(small));
    CHECK(small.nodes.size() == 1);
    CHECK(elements(small) <= 8);
  }
}

TEST_CASE("of a graph that a wrong pass breaks, what it breaks is left") {
  SUBCASE("a node and an input") {
    for (uint64_t seed : {0, 1000, 2000}) {
      const Predicate fails = broken_by(forget_the_value);
      const Graph small = reduced(find_failing(seed, fails), fails);
      CAPTURE(print(small));
      REQUIRE(small.nodes.size() == 1);
      CHECK(op_name(small.nodes[0].op) == "pad");
      CHECK(elements(small) <= 3);
    }
  }
  SUBCASE("two nodes and their weights") {
    for (uint64_t seed : {0, 1000, 2000}) {
      const Predicate fails = broken_by(turn_differences);
      const Graph small = reduced(find_failing(seed, fails), fails);
      CAPTURE(print(small));
      REQUIRE(small.nodes.size() == 2);
      CHECK(op_name(small.nodes[0].op) == "conv");
      CHECK(op_name(small.nodes[1].op) == "sub");
      CHECK(elements(small) <= 6);
    }
  }
}

TEST_CASE("biases and post steps go one by one, with their operands") {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::f32, {1, 4, 5, 5}});
  auto weight = [&](const char *name, Shape shape) {
    return graph.add_constant(name, bound_constant(name, Tensor::splat(0.5f, std::move(shape))));
  };
  Conv conv;
  conv.kernel = {3, 3};
  conv.pad = {1, 1, 1, 1};
  conv.groups = 2;
  conv.bias = true;
  conv.post = {FusedOp{Binary{BinaryKind::add}}, FusedOp{Unary{UnaryKind::tanh}},
               FusedOp{Binary{BinaryKind::mul}}};
  const ValueId w = weight("w", {4, 2, 3, 3}), b = weight("b", {4});
  graph.outputs = {graph.add_node("c", conv, {x, w, b, x, x}).value()};
  const Graph small = reduced(graph, [](const Graph &g) {
    auto *op = g.nodes.empty() ? nullptr : std::get_if<Conv>(&g.nodes[0].op);
    return op && std::ranges::count(op->post, FusedOp{Binary{BinaryKind::mul}}) == 1;
  });
  CHECK(print(small) == R"(graph "" {
  input %0 "x": f32[1,1,1,1]
  recipe @0: f32[1,1,1,1] = splat 0.5
  const %2 "w" = @0
  node "c" -> %1 "c": f32[1,1,1,1] = conv(%0, %2, %0) {post = [mul]}
  output %1
}
)");
}
