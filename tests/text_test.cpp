// The graph's text form: prints and parses back, and survives any damage.
#include "ir/evaluate.h"
#include "ir/op_table.h"
#include "tests/random_graph.h"

#include <bit>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <random>
#include <set>

using namespace lathe::core;

namespace {

// Every op of the vocabulary, none with its default attributes alone where it has any.
const std::string every_op = R"(graph "every op" {
  input %0 "x": f32[2,4,9,9]
  input %1 "scalar": f32[]
  input %2 "none": f32[0,3]
  recipe @0: f32[6,2,3,2] = named "w"
  recipe @1: f32[6] = splat -0
  recipe @2: f32[4] = literal [1.5, -3e-42, inf, 0x7fc00001]
  recipe @3: f32[1,4,1,1] = reshape(@2) {shape = [1, -1, 1, 1]}
  recipe @4: f32[4] = sqrt(@2)
  recipe @5: i64[2] = literal [-9223372036854775808, 9223372036854775807]
  recipe @6: i64[3] = pad(@5) {before = [0], after = [1], value = -1}
  recipe @7: i32[1] = literal [-2147483648]
  recipe @8: bool[2] = literal [true, false]
  recipe @9: f32[0] = literal []
  recipe @10: f32[5,6] = named "dense"
  const %3 "w" = @0
  const %4 "b" = @1
  const %5 "c" = @3
  const %6 "s" = @4
  const %7 "i" = @6
  const %8 "j" = @7
  const %9 "k" = @8
  const %10 "e" = @9
  const %11 "d" = @10
  const %12 "m" = @2
  node "conv" -> %20 "conv": f32[2,6,4,10] = conv(%0, %3, %4) {kernel = 3x2, stride = 2x1, dilation = 1x2, pad = [1, 2, 0, 1], groups = 2, bias = true, post = [leaky_relu {alpha = 0.1}, clip {alpha = -inf, beta = 6}]} at "a b.net":7 fused ["leaky \"1\"", "clip"]
  node "conv2" -> %21 "conv2": f32[2,6,4,10] = conv(%0, %3, %20) {kernel = 3x2, stride = 2x1, dilation = 1x2, pad = [1, 2, 0, 1], groups = 2, post = [add, relu]}
  node "max" -> %22 "max": f32[2,4,4,4] = max_pool(%0) {kernel = 3x3, stride = 2x2, dilation = 2x2, pad = [1, 1, 1, 1], ceil_mode = true}
  node "average" -> %23 "average": f32[2,4,8,9] = average_pool(%0) {kernel = 2x1, count_include_pad = true}
  node "gm" -> %24 "gm": f32[2,4,1,1] = global_max_pool(%0)
  node "ga" -> %25 "ga": f32[2,6,1,1] = global_average_pool(%21)
  node "lrn" -> %26 "lrn": f32[2,4,9,9] = lrn(%0) {size = 3, alpha = 0.0002, beta = 1e-45, k = 3.4028235e+38}
  node "bn" -> %27 "bn": f32[2,4,9,9] = batch_norm(%0, %6, %12, %6, %12) {epsilon = 0.001}
  node "flatten" -> %28 "flatten": f32[2,6] = flatten(%25) {axis = -3}
  node "dense" -> %29 "dense": f32[2,5] = dense(%28, %11, %40) {post = [prelu, hard_sigmoid {alpha = 0.16666667, beta = 0.5}]}
  node "softmax" -> %30 "softmax": f32[2,5] = softmax(%29) {axis = 0}
  node "log_softmax" -> %31 "log_softmax": f32[2,5] = log_softmax(%29) {axis = -2}
  node "concat" -> %32 "concat": f32[4,5] = concat(%30, %31) {axis = 0}
  node "slice" -> %33 "slice": f32[2,4,4,7] = slice(%0) {axes = [2, -1], begin = [1, -8], end = [9223372036854775807, -1], step = [2, 1]}
  node "split" -> %34 "split:0": f32[2,1,9,9], %35 "split:1": f32[2,0,9,9], %36 "split:2": f32[2,3,9,9] = split(%0) {sizes = [1, 0, 3]}
  node "pad" -> %37 "pad": f32[2,4,10,11] = pad(%0) {before = [0, 0, 1, 0], after = [0, 0, 0, 2], value = 0xffc00000}
  node "reshape" -> %38 "reshape": f32[8,81] = reshape(%0) {shape = [8, -1]}
  node "transpose" -> %39 "transpose": f32[81,8] = transpose(%38) {perm = [1, 0]}
  node "mean" -> %41 "mean": f32[2,4] = reduce_mean(%0) {axes = [2, 3], keep_dims = false}
  node "sum_pool" -> %45 "sum_pool": f32[2,4,8,9] = sum_pool(%0) {kernel = 2x1}
  node "hardmax" -> %46 "hardmax": f32[2,5] = hardmax(%29) {axis = 0}
  node "expand" -> %47 "expand": f32[3,2,5] = expand(%29) {shape = [3, 2, 5]}
  node "gather" -> %48 "gather": f32[3,1,5] = gather(%47, %8) {axis = 1}
  node "sum" -> %49 "sum": f32[2,4] = reduce_sum(%0) {axes = [2, 3], keep_dims = false}
  node "reduce_max" -> %50 "reduce_max": f32[2,4,1,9] = reduce_max(%0) {axes = [2]}
  node "min" -> %51 "min": f32[2,4,1,9] = reduce_min(%0) {axes = [2]}
  node "prod" -> %52 "prod": f32[2,4,9,9] = reduce_prod(%0)
  node "arg_max" -> %53 "arg_max": i64[1,4,9,9] = arg_max(%0)
  node "arg_min" -> %54 "arg_min": i64[2,4,9] = arg_min(%0) {axis = -1, keep_dims = false, last = true}
  node "cast" -> %55 "cast": f32[1,4,9,9] = cast(%53)
  node "cast2" -> %56 "cast2": bool[2,4] = cast(%49) {to = bool}
  node "dropout" -> %42 "dropout": f32[] = dropout(%1) {rate = 0.25}
  node "" -> %43 "": f32[] = identity(%42) {alpha = -0}
@elementwise@  output %43
  output %2
  output %43
}
)";

// `every_op` with the remaining elementwise ops, one node each.
std::string every_op_text() {
  std::string nodes;
  int id = 100;
  for (const auto &[name, op] : op_table()) {
    bool unary = std::holds_alternative<Unary>(op);
    if (!unary && !std::holds_alternative<Binary>(op)) continue;
    nodes += fmt::format("  node \"e{0}\" -> %{0} \"{1}\": f32[2,4,9,9] = {1}(%0{2}){3}\n", id++,
                         name, unary ? "" : ", %5", unary ? " {beta = 1.1754944e-38}" : "");
  }
  std::string text = every_op;
  // The operand of a fused step may be any value of its shape.
  text.replace(text.find("%40"), 3, "%44");
  text.replace(text.find("  recipe @0"), 0, "  input %44 \"slope\": f32[2,5]\n");
  return text.replace(text.find("@elementwise@"), 13, nodes);
}

std::string message(std::string_view text) {
  auto graph = parse_graph(text, "g.txt");
  return graph ? "no error" : to_string(graph.error());
}
bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

} // namespace

TEST_CASE("every op prints as it was written") {
  std::string text = every_op_text();
  auto graph = parse_graph(text);
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  CHECK(print(*graph) == text);
  auto again = parse_graph(print(*graph));
  REQUIRE(again);
  CHECK(equal(*again, *graph));
  CHECK(hash(*again) == hash(*graph));
  std::set<std::string> seen;
  for (const Node &node : graph->nodes) seen.insert(op_name(node.op));
  for (const auto &[name, op] : op_table()) {
    CHECK(op_name(op) == name);
    CHECK_MESSAGE(seen.contains(name), name);
  }
}

TEST_CASE("floats come back to the same bits") {
  std::mt19937 random(7);
  std::vector<float> values = {0.0f, -0.0f, 1e-45f, -3.4028235e38f};
  while (values.size() < 5000) values.push_back(std::bit_cast<float>(uint32_t(random())));
  Graph graph;
  auto count = static_cast<int64_t>(values.size());
  graph.outputs = {graph.add_constant("c", literal_constant(Tensor::of(values, {count})))};
  auto parsed = parse_graph(print(graph));
  REQUIRE_MESSAGE(parsed, to_string(parsed.error()));
  auto data = parsed->constant(parsed->outputs[0])->data.as<uint32_t>();
  for (size_t i = 0; i < values.size(); ++i) CHECK(data[i] == std::bit_cast<uint32_t>(values[i]));
}

TEST_CASE("names of any bytes come back") {
  std::string name;
  for (int c = 0; c < 256; ++c) name += char(c);
  Graph graph;
  graph.name = name;
  ValueId x = graph.add_input(name, {DType::f32, {1}});
  graph.outputs = {graph.add_node(name, Unary{}, {x}, {name, 3}).value()};
  graph.nodes[0].fused = {name, ""};
  graph.add_constant(name, named_constant(name, {DType::f32, {1}}));
  auto parsed = parse_graph(print(graph));
  REQUIRE_MESSAGE(parsed, to_string(parsed.error()));
  CHECK(equal(*parsed, graph));
  CHECK(parsed->name == name);
  CHECK(parsed->nodes[0].source.file == name);
  CHECK(parsed->nodes[0].fused == graph.nodes[0].fused);
}

TEST_CASE("graphs that differ in anything but weights' data are not equal") {
  const Graph graph = parse_graph(every_op_text()).value();
  auto differs = [&](auto change) {
    Graph other = graph;
    change(other);
    return !equal(other, graph);
  };
  CHECK(differs([](Graph &g) { g.name += "!"; }));
  CHECK(differs([](Graph &g) { g.values[0].name += "!"; }));
  CHECK(differs([](Graph &g) { g.nodes[3].name += "!"; }));
  CHECK(differs([](Graph &g) { g.nodes[0].fused.pop_back(); }));
  CHECK(differs([](Graph &g) { g.nodes[0].source.line = 8; }));
  CHECK(differs([](Graph &g) { std::swap(g.nodes[3], g.nodes[4]); }));
  CHECK(differs([](Graph &g) { g.outputs.pop_back(); }));
  CHECK(differs([](Graph &g) { g.values[4].constant = splat_constant(0, {6}); })); // was -0
  CHECK(differs([](Graph &g) { g.values[3].constant = named_constant("v", g.values[3].type); }));
  CHECK_FALSE(differs([](Graph &g) {
    g.values[3].constant = bound_constant("w", Tensor::splat(7, g.values[3].type.shape));
  }));
}

TEST_CASE("errors say where and what") {
  std::string head = "graph \"g\" {\n  input %0 \"x\": f32[1,1,4,4]\n";
  CHECK(contains(message(""), "g.txt:1:1: error: bad graph text: expected a word"));
  CHECK(contains(message(head + "  output %0\n} more"), "expected the end of the text"));
  CHECK(contains(message(head + "  const %0 \"x\" = @0\n}"), "g.txt:3:"));
  CHECK(contains(message(head + "  input %0 \"y\": f32[1]\n}"), "not yet defined"));
  std::string recipe = head + "  recipe @0: f32[1] = splat 1\n";
  CHECK(contains(message(recipe + "  recipe @0: f32[1] = splat 2\n}"), "not yet defined"));
  CHECK(contains(message(recipe + "  recipe @1: f32[1] = add(@0, @7)\n}"), "defined before"));
  std::string bad_op = message(recipe + "  recipe @1: f32[1] = transpose(@0) {perm = [3]}\n}");
  CHECK_MESSAGE(contains(bad_op, "g.txt:4:"), bad_op);
  CHECK(contains(message(recipe + "  recipe @1: f32[2] = literal [1]\n}"), "as many elements"));
  CHECK(contains(message(recipe + "  recipe @1: i32[1] = literal [2147483648]\n}"), "a number"));
  CHECK(contains(message(recipe + "  recipe @1: f32[1] = splat 1e99\n}"), "a number"));
  auto node = [&](const std::string &made) {
    return message(head + "\n  node \"n\" -> %1 \"n\": f32[1,1,4,4] = " + made +
                   "\n  output %1\n}");
  };
  CHECK(node("relu(%0)") == "no error");
  CHECK(contains(node("relu(%0) {gamma = 1}"), "expected an attribute of relu"));
  CHECK(contains(node("rleu(%0)"), "expected an op"));
  CHECK(contains(node("max_pool(%0) {kind = min}"), "expected max, average or sum"));
  CHECK(contains(node("max_pool(%0) {kernel = 2}"), "expected 'x'"));
  CHECK(contains(node("relu(%1)"), "g.txt:4:8: error: an operand is used before it is defined"));
  std::string wrong = node("max_pool(%0) {kernel = 2x2}");
  CHECK_MESSAGE(contains(wrong, "expected f32 1x1x3x3, found f32 1x1x4x4"), wrong);
  CHECK(contains(node("conv(%0, %0) {post = [conv]}"), "expected an elementwise op"));
  CHECK(contains(message(head + "  output %4000000000\n}"), "a smaller value number"));
}

TEST_CASE("lists do not nest without end") {
  std::string deep = "graph \"g\" {\n node \"n\" -> %0 \"n\": f32[] = conv()";
  for (int i = 0; i < 200'000; ++i) deep += "{post = [conv ";
  CHECK(contains(message(deep), "expected an elementwise op"));
  for (const char *piece : {"[", "{", "(", "\"", "graph \"\" {", "@", "\\x", "#"}) {
    std::string many;
    for (int i = 0; i < 100'000; ++i) many += piece;
    CHECK_FALSE(parse_graph(many));
    CHECK_FALSE(parse_graph("graph \"g\" { input %0 \"x\": f32[" + many));
    CHECK_FALSE(parse_graph("graph \"g\" { recipe @0: f32[1] = literal " + many));
  }
}

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
  conv.post = {FusedOp{Unary{UnaryKind::clip, -0.1f, 6}}, FusedOp{Binary{BinaryKind::add}}};
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
  std::get<Conv>(changed.nodes[2].op).post[0] = FusedOp{Unary{UnaryKind::clip, -0.1f, 5}};
  CHECK_FALSE(equal(changed, graph));
}

TEST_CASE("damaged text gives an error or a graph that verifies, never a crash") {
  std::mt19937_64 random(1);
  const std::string texts[] = {print(random_graph(3)), every_op_text()};
  const std::string tokens[] = {"%0",
                                "%4294967295",
                                "@0",
                                "-1",
                                "0",
                                "9223372036854775807",
                                "nan",
                                "0x0",
                                "\"",
                                "[",
                                "]",
                                "{",
                                "}",
                                ", ",
                                "[]",
                                "\n",
                                "post = [add]",
                                "stride = 0x0",
                                "conv",
                                "f32[0,0]",
                                "f32[1099511627776]"};
  for (int i = 0; i < 6000; ++i) {
    const std::string &text = texts[i % 2];
    std::string damaged = text;
    for (uint64_t n = random() % 4 + 1; n > 0; --n) {
      size_t at = random() % damaged.size();
      switch (random() % 5) {
      case 0:
        damaged[at] = char(random() % 256);
        break;
      case 1:
        damaged.erase(at, random() % 9);
        break;
      case 2:
        damaged.insert(at, tokens[random() % std::size(tokens)]);
        break;
      case 3: // another number
        at = damaged.find_first_of("0123456789", at);
        if (at != std::string::npos)
          damaged.replace(at, 1, std::to_string(int64_t(random()) >> random() % 64));
        break;
      default:
        damaged.insert(at, damaged.substr(random() % damaged.size(), random() % 20));
        break;
      }
    }
    auto parsed = parse_graph(damaged);
    if (!parsed) {
      CHECK_FALSE(parsed.error().message.empty());
      continue;
    }
    CHECK(verify(*parsed));
    CHECK(summarise(*parsed).multiplies >= 0);
    auto again = parse_graph(print(*parsed));
    REQUIRE_MESSAGE(again, to_string(again.error()));
    CHECK(equal(*again, *parsed));
  }
}

TEST_CASE("a recipe of 100,000 steps parses, prints and goes away without recursion") {
  std::string text =
      "graph \"deep\" {\n  input %0 \"x\": f32[1]\n  recipe @0: f32[1] = named \"w\"\n";
  for (int i = 1; i <= 100'000; ++i)
    text += "  recipe @" + std::to_string(i) + ": f32[1] = relu(@" + std::to_string(i - 1) + ")\n";
  text += "  const %1 \"c\" = @100000\n  node \"y\" -> %2 \"y\": f32[1] = add(%0, %1)\n  output "
          "%2\n}\n";
  auto graph = parse_graph(text);
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  CHECK(print(*graph).size() > text.size() / 2);
}
