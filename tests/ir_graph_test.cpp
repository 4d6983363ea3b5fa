// Building graphs, editing them, and what verification catches.
#include "ir/evaluate.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <functional>
#include <map>

using namespace lathe::core;

namespace {

const Type picture{DType::f32, {1, 3, 8, 8}};

ValueId must(Result<ValueId> id) {
  REQUIRE_MESSAGE(id, to_string(id.error()));
  return *id;
}

// conv -> split -> (relu, neg) -> add
Graph small_graph() {
  Graph graph;
  graph.name = "small";
  ValueId x = graph.add_input("x", picture);
  ValueId w =
      graph.add_constant("conv.weight", named_constant("conv.weight", {DType::f32, {4, 3, 1, 1}}));
  ValueId y = must(graph.add_node("conv", Conv{}, {x, w}, {"small.net", 3}));
  ValueId part = must(graph.add_node("split", Split{1, {2, 2}}, {y}));
  ValueId relu = must(graph.add_node("relu", Unary{}, {part}));
  ValueId neg = must(graph.add_node("neg", Unary{UnaryKind::neg}, {part + 1}));
  graph.outputs = {must(graph.add_node("add", Binary{}, {relu, neg}))};
  return graph;
}

Node &node(Graph &graph, std::string_view name) {
  for (Node &n : graph.nodes)
    if (n.name == name) return n;
  FAIL("no such node");
  return graph.nodes[0];
}

} // namespace

TEST_CASE("results are named after their node") {
  Graph graph = small_graph();
  CHECK(verify(graph));
  CHECK(graph.values[node(graph, "conv").outputs[0]].name == "conv");
  CHECK(graph.values[node(graph, "split").outputs[0]].name == "split:0");
  CHECK(graph.values[node(graph, "split").outputs[1]].name == "split:1");
  CHECK(graph.shape(graph.outputs[0]) == Shape{1, 2, 8, 8});
}

TEST_CASE("a node that does not fit says which, where, and why") {
  Graph graph = small_graph();
  auto bad = graph.add_node("conv2", Conv{}, {0, 0}, {"small.net", 9});
  REQUIRE_FALSE(bad);
  CHECK(bad.error().code == ErrorCode::invalid);
  std::string text = to_string(bad.error());
  for (std::string part : {"small.net:9", "'conv2'", "op conv", "expected 1x3x1x1", "1x3x8x8"})
    CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  CHECK(graph.nodes.size() == 5); // and nothing was added
}

TEST_CASE("uses") {
  Graph graph = small_graph();
  ValueId y = node(graph, "conv").outputs[0], last = graph.outputs[0];
  Uses uses(graph);
  CHECK(uses.producer[y] == 0);
  CHECK(uses.producer[graph.inputs[0]] == -1);
  CHECK(uses.single_reader(y) == 1);
  CHECK(uses.single_reader(last) == -1);
  node(graph, "add").inputs = {y, y}; // once per operand
  CHECK(Uses(graph).readers[y] == std::vector<int>{1, 4, 4});
  graph.outputs.push_back(node(graph, "relu").outputs[0]);
  CHECK(Uses(graph).single_reader(node(graph, "relu").outputs[0]) == -1);
}

TEST_CASE("redirecting readers and dropping what nobody reads") {
  Graph graph = small_graph();
  CHECK_FALSE(remove_dead_code(graph));
  ValueId part = node(graph, "split").outputs[0];
  replace_uses(graph, node(graph, "relu").outputs[0], part);
  CHECK(node(graph, "add").inputs[0] == part);
  CHECK(remove_dead_code(graph));
  CHECK(verify(graph));
  CHECK(graph.nodes.size() == 4);
  CHECK(graph.values.size() == 7);
  CHECK_FALSE(remove_dead_code(graph));

  replace_uses(graph, graph.outputs[0], graph.inputs[0]); // outputs follow as well
  CHECK(remove_dead_code(graph));
  CHECK(verify(graph));
  CHECK(graph.nodes.empty());
  CHECK(graph.values.size() == 1); // the weight is gone, an unread input would stay
  graph.outputs = {graph.add_constant("one", splat_constant(1, {1}))};
  CHECK_FALSE(remove_dead_code(graph));
  CHECK(graph.inputs.size() == 1);
}

TEST_CASE("every way to break a graph is caught") {
  const std::map<std::string, std::function<void(Graph &)>> damage = {
      {"order", [](Graph &g) { std::swap(g.nodes[0], g.nodes[1]); }},
      {"a dangling operand", [](Graph &g) { g.nodes[2].inputs[0] = 1000; }},
      {"no operand", [](Graph &g) { g.nodes[2].inputs.clear(); }},
      {"no value", [](Graph &g) { g.nodes[2].inputs[0] = no_value; }},
      {"a dangling result", [](Graph &g) { g.nodes[2].outputs[0] = 1000; }},
      {"a loop", [](Graph &g) { g.nodes[0].inputs[0] = g.outputs[0]; }},
      {"a result too few", [](Graph &g) { node(g, "split").outputs.pop_back(); }},
      {"a result of two", [](Graph &g) { node(g, "neg").outputs = node(g, "relu").outputs; }},
      {"a result that is an input", [](Graph &g) { node(g, "neg").outputs = g.inputs; }},
      {"a result that is a constant",
       [](Graph &g) { node(g, "neg").outputs = {node(g, "conv").inputs[1]}; }},
      {"an input twice", [](Graph &g) { g.inputs.push_back(g.inputs[0]); }},
      {"a dangling input", [](Graph &g) { g.inputs.push_back(1000); }},
      {"an input that is a constant",
       [](Graph &g) { g.inputs.push_back(node(g, "conv").inputs[1]); }},
      {"a wrong shape", [](Graph &g) { g.values[g.outputs[0]].type.shape[1] = 3; }},
      {"a wrong element type", [](Graph &g) { g.values[g.outputs[0]].type.dtype = DType::i32; }},
      {"a negative shape", [](Graph &g) { g.values[g.inputs[0]].type.shape[0] = -1; }},
      {"a bad attribute", [](Graph &g) { std::get<Conv>(g.nodes[0].op).stride = {0, 1}; }},
      {"one name twice", [](Graph &g) { node(g, "neg").name = "relu"; }},
      {"no output", [](Graph &g) { g.outputs.clear(); }},
      {"a dangling output", [](Graph &g) { g.outputs.push_back(1000); }},
      {"an output that nobody makes",
       [](Graph &g) {
         g.values.push_back({"lost", picture, nullptr});
         g.outputs.push_back(ValueId(g.values.size() - 1));
       }},
  };
  for (const auto &[what, break_it] : damage) {
    CAPTURE(what);
    Graph graph = small_graph();
    break_it(graph);
    auto whole = verify(graph);
    CHECK_FALSE(whole);
    if (!whole) CHECK_FALSE(whole.error().message.empty());
  }
}

TEST_CASE("broken constants are caught, however deep") {
  const Type pair{DType::f32, {2}};
  const ConstantRef whole = splat_constant(1, {2});
  auto broken = [&](auto edit) {
    auto part = std::make_shared<Constant>();
    part->type = pair;
    edit(*part);
    auto user = std::make_shared<Constant>();
    user->type = pair;
    user->op = Binary{};
    user->inputs = {whole, part};
    for (const ConstantRef &constant : {ConstantRef(part), ConstantRef(user)}) {
      Graph graph;
      graph.add_input("x", picture);
      graph.outputs = {graph.add_constant("c", constant)};
      auto result = verify(graph);
      if (result || result.error().node != "c") return false;
    }
    return true;
  };
  CHECK(broken([](Constant &c) { c.data = Tensor::splat(1, {3}); }));
  CHECK(broken([](Constant &c) { c.data = Tensor::of(std::vector<int64_t>{1, 2}, {2}); }));
  CHECK(broken([](Constant &c) { c.type.shape = {-2}; }));
  CHECK(broken([](Constant &c) {
    c.type.dtype = DType::i64;
    c.splat = 1.0f;
  }));
  CHECK(broken([](Constant &c) {
    c.name = "w";
    c.splat = 1.0f;
  }));
  CHECK(broken([&](Constant &c) {
    c.splat = 1.0f;
    c.inputs = {whole};
  }));
  for (std::vector<ConstantRef> inputs :
       {std::vector<ConstantRef>{}, {nullptr}, {splat_constant(1, {3})}})
    CHECK(broken([&](Constant &c) {
      c.op = Unary{};
      c.inputs = inputs;
    }));

  Graph graph;
  graph.add_input("x", picture);
  graph.outputs = {graph.add_constant("c", whole)};
  CHECK(verify(graph));
  graph.values[graph.outputs[0]].type.shape = {3};
  CHECK_FALSE(verify(graph));
}

TEST_CASE("a computed constant has the type of its op, or is refused") {
  ConstantRef w = named_constant("w", {DType::f32, {4, 3, 1, 1}});
  auto moved = computed_constant(Transpose{{2, 3, 1, 0}}, {w});
  REQUIRE(moved);
  CHECK((*moved)->type.shape == Shape{1, 1, 3, 4});
  CHECK_FALSE(computed_constant(Transpose{{0}}, {w}));
  CHECK_FALSE(computed_constant(Binary{}, {w}));
}

TEST_CASE("a chain of 100,000 layers and one of 100,000 recipe steps need no deep stack") {
  Graph graph;
  ValueId x = graph.add_input("x", {DType::f32, {1}});
  ConstantRef recipe = splat_constant(1, {1});
  for (int i = 0; i < 100'000; ++i) {
    x = must(graph.add_node(fmt::format("n{}", i), Unary{UnaryKind::neg}, {x}));
    recipe = computed_constant(Unary{UnaryKind::neg}, {recipe}).value();
  }
  graph.outputs = {must(graph.add_node("y", Binary{}, {x, graph.add_constant("c", recipe)}))};
  recipe = nullptr;
  CHECK(verify(graph));
  CHECK_FALSE(remove_dead_code(graph));
  CHECK(summarise(graph).layers.size() == 100'001);
  auto parsed = parse_graph(print(graph));
  REQUIRE_MESSAGE(parsed, to_string(parsed.error()));
  CHECK(equal(*parsed, graph));
  auto result = evaluate(graph, std::vector<Tensor>{Tensor::splat(2, {1})});
  REQUIRE_MESSAGE(result, to_string(result.error()));
  CHECK((*result)[0].f32()[0] == 3);
}
