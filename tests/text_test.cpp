// The graph's text form: prints and parses back, and survives any damage.
#include "ir/graph.h"
#include "tests/random_graph.h"

#include <doctest/doctest.h>
#include <random>

using namespace lathe;

TEST_CASE("random graphs print, parse, and print the same") {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    Graph graph = random_graph(seed);
    std::string text = print(graph);
    auto parsed = parse_graph(text);
    REQUIRE_MESSAGE(parsed, to_string(parsed.error()));
    CHECK(print(*parsed) == text);
    CHECK(equal(*parsed, graph));
    CHECK(hash(*parsed) == hash(graph));
  }
}

TEST_CASE("names and recipes of every kind survive") {
  Graph graph;
  graph.name = "odd \"name\"\n\x01 \\ ü";
  ValueId x = graph.add_input("in put", {DType::f32, {1, 3, 4, 4}});
  ConstantRef w = named_constant("w/1", {DType::f32, {2, 3, 1, 1}});
  ConstantRef scale = splat_constant(0.1f, {1});
  ConstantRef literal = literal_constant(Tensor::of({1.5f, -3e-42f, 7e30f}, {3}));
  ConstantRef sum = computed_constant(Binary{BinaryKind::mul}, {w, scale}).value();
  Conv conv;
  conv.post = {PostOp{Unary{UnaryKind::clip, -0.1f, 6}}, PostOp{Binary{BinaryKind::add}}};
  ValueId other =
      graph.add_node("n0", Pool{}, {graph.add_node("s", Slice{{1}, {0}, {2}, {1}}, {x}).value()})
          .value();
  ValueId y = graph
                  .add_node("conv \"1\"", conv, {x, graph.add_constant("w", sum), other},
                            {"dir/a \"b\".net", 12})
                  .value();
  graph.nodes.back().fused = {"relu 1", "add"};
  ValueId z =
      graph
          .add_node("bias", Binary{BinaryKind::add},
                    {y, graph.add_constant(
                            "l", computed_constant(Reshape{{1, 3, 1, 1}}, {literal}).value())})
          .value_or(y);
  graph.outputs = {z, y};
  auto parsed = parse_graph(print(graph));
  REQUIRE_MESSAGE(parsed, to_string(parsed.error()));
  CHECK(equal(*parsed, graph));
  Graph changed = graph;
  std::get<Conv>(changed.nodes[2].op).post[0] = PostOp{Unary{UnaryKind::clip, -0.1f, 5}};
  CHECK_FALSE(equal(changed, graph));
}

TEST_CASE("damaged text gives an error or a graph that verifies, never a crash") {
  std::mt19937_64 random(1);
  std::string text = print(random_graph(3));
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = text;
    for (uint64_t n = random() % 4 + 1; n > 0; --n) {
      size_t at = random() % damaged.size();
      switch (random() % 3) {
      case 0:
        damaged[at] = char(random() % 256);
        break;
      case 1:
        damaged.erase(at, random() % 9);
        break;
      default:
        damaged.insert(at, damaged.substr(random() % damaged.size(), random() % 20));
        break;
      }
    }
    auto parsed = parse_graph(damaged);
    if (parsed) CHECK(verify(*parsed));
  }
}

TEST_CASE("a recipe of 100,000 steps parses, prints and goes away without recursion") {
  std::string text = "graph \"deep\" {\n  input %0 \"x\": f32[1]\n  recipe @0: f32[1] = splat 1\n";
  for (int i = 1; i <= 100'000; ++i)
    text += "  recipe @" + std::to_string(i) + ": f32[1] = relu(@" + std::to_string(i - 1) + ")\n";
  text += "  const %1 \"c\" = @100000\n  node \"y\" -> %2 \"y\": f32[1] = add(%0, %1)\n  output "
          "%2\n}\n";
  auto graph = parse_graph(text);
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  CHECK(print(*graph).size() > text.size() / 2);
}
