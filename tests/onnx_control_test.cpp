// What is gone when a model has been read: branches, loops, functions, sequences, and whatever
// depends on constants alone.
#include "frontend/onnx.h"
#include "ir/evaluate.h"
#include "tests/onnx_builder.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <filesystem>
#include <fmt/format.h>

using namespace lathe::core;
using namespace lathe::core::test;

namespace {

Result<Graph> import(const OnnxBuilder &builder, const OnnxOptions &options = {}) {
  auto owner = std::make_shared<std::string>(builder.model());
  LATHE_TRY(OnnxModel model,
            OnnxModel::parse(std::as_bytes(std::span(owner->data(), owner->size())), owner, "m"));
  return model.graph(options);
}
Graph imported(const OnnxBuilder &builder, const OnnxOptions &options = {}) {
  auto graph = import(builder, options);
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  REQUIRE(verify(*graph));
  return std::move(*graph);
}
std::string refusal(const OnnxBuilder &builder, const OnnxOptions &options = {}) {
  auto graph = import(builder, options);
  return graph ? "no error"
               : fmt::format("{}: {}", int(graph.error().code), to_string(graph.error()));
}
bool contains(const std::string &text, std::string_view part) {
  return text.find(part) != std::string::npos;
}
// The first output, for inputs of the graph.
std::vector<float> result(const OnnxBuilder &builder, const std::vector<Tensor> &inputs = {}) {
  const Graph graph = imported(builder);
  auto outputs = evaluate(graph, inputs);
  REQUIRE_MESSAGE(outputs, to_string(outputs.error()));
  const Tensor y = to_f32(outputs->at(0));
  return {y.f32().begin(), y.f32().end()};
}
Tensor floats(std::vector<float> values) {
  const auto n = int64_t(values.size());
  return Tensor::of(std::move(values), {n});
}
Tensor integer(int64_t value) { return Tensor::of(std::vector<int64_t>{value}, {}); }
Tensor integers(std::vector<int64_t> values) {
  const auto n = int64_t(values.size());
  return Tensor::of(std::move(values), {n});
}
Tensor truth(bool value) {
  Tensor t(DType::boolean, {});
  t.as_mutable<uint8_t>()[0] = value;
  return t;
}
using Floats = std::vector<float>;

} // namespace

TEST_CASE("the branch of a known condition is all that is left of an If") {
  for (bool chosen : {true, false}) {
    OnnxBuilder yes, no, b;
    yes.node("Add", {"x", "x"}, {"r"}).output("r");
    no.weight("two", floats({2})).node("Mul", {"x", "two"}, {"t"});
    no.node("NobodyKnows", {"t"}, {"s"}).output("s");
    b.input("x", {3}).weight("c", truth(chosen));
    b.node("If", {"c"}, {"y"},
           {graph_attribute("then_branch", yes.graph), graph_attribute("else_branch", no.graph)},
           "choice");
    b.output("y");
    if (chosen) {
      CHECK(result(b, {floats({1, 2, 3})}) == Floats{2, 4, 6});
    } else {
      const std::string text = refusal(b);
      CHECK(contains(text, "4: "));
      CHECK(contains(text, "NobodyKnows"));
      CHECK(contains(text, "choice/else/s"));
    }
  }
}

TEST_CASE("an If whose condition depends on an input says so") {
  OnnxBuilder same, b;
  same.node("Identity", {"x"}, {"r"}).output("r");
  b.input("x", {3}).input("c", {1}, 9);
  b.node("If", {"c"}, {"y"},
         {graph_attribute("then_branch", same.graph), graph_attribute("else_branch", same.graph)});
  b.output("y");
  INFO(refusal(b));
  CHECK(contains(refusal(b), "it depends on input 'c'"));
  OnnxOptions known;
  known.values["c"] = truth(true).reshaped({1});
  CHECK(import(b, known));
}

TEST_CASE("an unknown input is told, whatever else its node's graph lacks") {
  for (const char *result : {"r", ""}) { // a result without a name
    OnnxBuilder body, b;
    body.node("Identity", {"x"}, {"r"}).output(result);
    b.input("x", {3}).weight("c", truth(true));
    b.node(
        "If", {"unknown"}, {"y"},
        {graph_attribute("then_branch", body.graph), graph_attribute("else_branch", body.graph)});
    CHECK(contains(refusal(b.output("y")), "a node reads a value that nothing makes"));
    OnnxBuilder known;
    known.input("x", {3}).weight("c", truth(true));
    known.node(
        "If", {"c"}, {"y"},
        {graph_attribute("then_branch", body.graph), graph_attribute("else_branch", body.graph)});
    known.output("y");
    if (*result == 0)
      CHECK(contains(refusal(known), "an output that no node makes"));
    else
      CHECK(import(known));
  }
}

TEST_CASE("a loop is unrolled: carried values, captured ones, and what is stacked") {
  OnnxBuilder body, b;
  body.input("i", {}, 7).input("going", {}, 9).input("sum", {2});
  body.node("Add", {"sum", "x"}, {"next"})
      .node("Cast", {"i"}, {"f"}, {attribute("to", int64_t{1})});
  body.node("Mul", {"next", "f"}, {"scaled"}).node("Identity", {"going"}, {"still"});
  body.output("still").output("next").output("scaled");
  b.input("x", {2}).weight("n", integer(3)).weight("zero", floats({0, 0}));
  b.node("Loop", {"n", "", "zero"}, {"last", "all"}, {graph_attribute("body", body.graph)}, "l");
  b.output("all").output("last");
  const Graph graph = imported(b);
  auto y = evaluate(graph, std::vector{floats({1, 10})}).value();
  CHECK(y[0].shape() == Shape{3, 2});
  CHECK(Floats(y[0].f32().begin(), y[0].f32().end()) == Floats{0, 0, 2, 20, 6, 60});
  CHECK(Floats(y[1].f32().begin(), y[1].f32().end()) == Floats{3, 30});
}

TEST_CASE("a loop ends by its condition, and one that does not is refused") {
  for (int64_t most : {5, -1}) {
    OnnxBuilder body, b;
    body.input("i", {}, 7).input("going", {}, 9).input("n", {}, 7);
    body.weight("one", integer(1)).weight("end", integer(most));
    body.node("Add", {"n", "one"}, {"more"}).node("Equal", {"more", "end"}, {"over"});
    body.node("Not", {"over"}, {"still"}).output("still").output("more");
    b.input("x", {1}).weight("yes", truth(true)).weight("start", integer(0));
    b.node("Loop", {"", "yes", "start"}, {"count"}, {graph_attribute("body", body.graph)}, "l");
    b.node("Cast", {"count"}, {"f"}, {attribute("to", int64_t{1})}).node("Add", {"x", "f"}, {"y"});
    b.output("y");
    if (most > 0)
      CHECK(result(b, {floats({0.5f})}) == Floats{5.5f});
    else // not forever: within what is allowed
      CHECK(contains(refusal(b), "6: "));
  }
}

TEST_CASE("functions are inlined, with their attributes, defaults and names") {
  OnnxBuilder inner, outer, b;
  inner.node("LeakyRelu", {"a"}, {"r"}, {attribute_of_function("alpha", 1, "slope")}, "leaky");
  outer.node("leaky", {"a"}, {"t"}, {attribute_of_function("slope", 1, "s")}, "first", "local");
  outer.node("leaky", {"t"}, {"u"}, {}, "second", "local").node("Add", {"u", "b"}, {"r"});
  b.function("leaky", {"a"}, {"r"}, inner, {}, {attribute("slope", 0.5f)});
  b.function("twice", {"a", "b"}, {"r"}, outer, {"s"});
  b.input("x", {2}).input("z", {2});
  b.node("twice", {"x", "z"}, {"m"}, {attribute("s", 0.25f)}, "one", "local");
  b.node("twice", {"m", "z"}, {"y"}, {}, "two", "local").output("y");
  const Graph graph = imported(b);
  // -8 -> -2 -> -1 -> -2 with z = -1; then, without `s`, by leaky's default: -1 -> -0.5 -> -1.5.
  auto y = evaluate(graph, std::vector{floats({-8, 4}), floats({-1, 1})}).value();
  CHECK(y[0].f32()[0] == -1.5f);
  CHECK(y[0].f32()[1] == 6);
  CHECK(std::ranges::count(graph.nodes, "one/first/leaky", &Node::name) == 1);
}

TEST_CASE("functions that call themselves, or multiply without an end, are refused") {
  OnnxBuilder again, b;
  again.node("again", {"a"}, {"r"}, {}, "", "local");
  b.function("again", {"a"}, {"r"}, again).input("x", {1});
  b.node("again", {"x"}, {"y"}, {}, "", "local").output("y");
  CHECK(contains(refusal(b), "call each other without an end"));

  OnnxBuilder many;
  for (int depth = 0; depth < 40; ++depth) { // 2^40 nodes
    OnnxBuilder body;
    const std::string next = fmt::format("f{}", depth + 1), domain = depth == 39 ? "" : "local";
    for (auto [from, to] : {std::pair{"a", "t"}, {"t", "r"}})
      body.node(depth == 39 ? "Relu" : next, {from}, {to}, {}, "", domain);
    many.function(fmt::format("f{}", depth), {"a"}, {"r"}, body);
  }
  many.input("x", {1}).node("f0", {"x"}, {"y"}, {}, "", "local").output("y");
  CHECK(contains(refusal(many), "6: "));
}

TEST_CASE("graphs in graphs end") {
  OnnxBuilder b;
  std::string graph = OnnxBuilder().node("Identity", {"x"}, {"r"}).output("r").graph;
  for (int depth = 0; depth < 100; ++depth)
    graph = OnnxBuilder()
                .node("If", {"c"}, {"r"},
                      {graph_attribute("then_branch", graph), graph_attribute("else_branch", "")})
                .output("r")
                .graph;
  b.graph = graph;
  b.input("x", {1}).weight("c", truth(true));
  CHECK(contains(refusal(b), "too many graphs in nodes of graphs"));
}

TEST_CASE("sequences are known: made, split, changed, asked and joined") {
  OnnxBuilder b;
  b.input("x", {6})
      .weight("two", integer(2))
      .weight("zero", integer(0))
      .weight("one", integers({1}));
  b.node("SplitToSequence", {"x", "two"}, {"s"}); // three parts of two
  b.node("SequenceErase", {"s", "zero"}, {"t"}).node("SequenceAt", {"s", "zero"}, {"first"});
  b.node("SequenceInsert", {"t", "first"}, {"u"}).node("SequenceLength", {"u"}, {"n"});
  b.node("ConcatFromSequence", {"u"}, {"c"}, {attribute("axis", int64_t{0})});
  b.node("Cast", {"n"}, {"f"}, {attribute("to", int64_t{1})}).node("Mul", {"c", "f"}, {"y"});
  b.output("y");
  CHECK(result(b, {floats({1, 2, 3, 4, 5, 6})}) == Floats{9, 12, 15, 18, 3, 6});

  OnnxBuilder stacked;
  stacked.input("x", {2});
  stacked.node("SequenceConstruct", {"x", "x"}, {"s"}).node("Identity", {"s"}, {"t"});
  stacked.node("ConcatFromSequence", {"t"}, {"y"},
               {attribute("axis", int64_t{-1}), attribute("new_axis", int64_t{1})});
  stacked.output("y");
  CHECK(result(stacked, {floats({1, 2})}) == Floats{1, 1, 2, 2});

  OnnxBuilder outside;
  outside.input("x", {2}).weight("two", integer(2));
  outside.node("SequenceConstruct", {"x", "x"}, {"s"}).node("SequenceAt", {"s", "two"}, {"y"});
  outside.output("y");
  INFO(refusal(outside));
  CHECK(contains(refusal(outside), "a place outside of a sequence"));
  OnnxBuilder given;
  given.input("x", {2}).node("SequenceConstruct", {"x"}, {"s"}).output("s");
  CHECK(contains(refusal(given), "4: "));
}

TEST_CASE("what no output needs is no obstacle") {
  OnnxBuilder b;
  b.input("x", {2}).weight_proto(external_tensor("gone", {2}, {{"location", "missing.bin"}}));
  b.node("NobodyKnows", {"x"}, {"t"}).node("Add", {"t", "gone"}, {"u"});
  b.node("Relu", {"x"}, {"y"}).output("y");
  CHECK(result(b, {floats({-1, 2})}) == Floats{0, 2});
  b.output("u"); // now both are needed
  const std::string text = refusal(b);
  CHECK(contains(text, "missing.bin"));
  CHECK(contains(text, "'gone'"));
  CHECK(contains(text, "NobodyKnows"));
}

TEST_CASE("a known choice moves every value, infinities and NaN too") {
  const float inf = std::numeric_limits<float>::infinity();
  Tensor mask(DType::boolean, {2, 1});
  mask.as_mutable<uint8_t>()[0] = 1;
  mask.as_mutable<uint8_t>()[1] = 0;
  OnnxBuilder b;
  b.input("x", {1, 1, 2}).input("z", {2, 2}).weight("mask", mask);
  b.node("Where", {"mask", "x", "z"}, {"y"}).output("y");
  CHECK(result(b, {Tensor::of({inf, 1}, {1, 1, 2}), Tensor::of({-inf, -inf, -inf, 7}, {2, 2})}) ==
        Floats{inf, 1, -inf, 7});
}

TEST_CASE("indices that are known choose among values that are not") {
  OnnxBuilder b;
  b.input("x", {1, 2, 3}); // rows 1 2 3 and 4 5 6
  b.weight("nd", Tensor::of(std::vector<int64_t>{0, 1, 2, 0, 0, -1}, {2, 3}));
  b.weight("at", Tensor::of(std::vector<int64_t>{2, 0, -3, 1}, {1, 2, 2}));
  b.weight("updates", Tensor::of({9, 8}, {2}));
  b.node("GatherND", {"x", "nd"}, {"a"});                                        // 6 3
  b.node("GatherElements", {"x", "at"}, {"b"}, {attribute("axis", int64_t{2})}); // 3 1 4 5
  b.node("ScatterND", {"x", "nd", "updates"}, {"c"}).node("Trilu", {"x"}, {"d"});
  b.node("Flatten", {"b"}, {"b2"}, {attribute("axis", int64_t{0})});
  b.node("Flatten", {"c"}, {"c2"}, {attribute("axis", int64_t{0})});
  b.node("Flatten", {"d"}, {"d2"}, {attribute("axis", int64_t{0})});
  b.node("Flatten", {"a"}, {"a2"}, {attribute("axis", int64_t{0})});
  b.node("Concat", {"a2", "b2", "c2", "d2"}, {"y"}, {attribute("axis", int64_t{1})}).output("y");
  CHECK(result(b, {Tensor::of({1, 2, 3, 4, 5, 6}, {1, 2, 3})}) ==
        Floats{6, 3, 3, 1, 4, 5, 1, 2, 8, 4, 5, 9, 1, 2, 3, 0, 5, 6});
  OnnxBuilder outside;
  outside.input("x", {2}).weight("i", Tensor::of(std::vector<int64_t>{2}, {1, 1}));
  outside.node("GatherND", {"x", "i"}, {"y"}).output("y");
  CHECK(contains(refusal(outside), "expected -2 to 1, found 2"));
}

TEST_CASE("weights that are stored as integers, per channel and in blocks") {
  Tensor x(DType::i32, {2, 2});
  std::ranges::copy(std::vector<int32_t>{10, 20, 30, 40}, x.as_mutable<int32_t>().begin());
  OnnxBuilder b;
  b.opset = 21;
  b.input("in", {2, 2})
      .weight("x", x)
      .weight("s", floats({0.5f, 2}))
      .weight("z", integers({10, 0}));
  b.node("Cast", {"z"}, {"z32"}, {attribute("to", int64_t{6})});
  b.node("DequantizeLinear", {"x", "s", "z32"}, {"w"}, {attribute("axis", int64_t{0})});
  b.node("Add", {"in", "w"}, {"y"}).output("y");
  CHECK(result(b, {Tensor::splat(0, {2, 2})}) == Floats{0, 5, 60, 80});
  OnnxBuilder at_run;
  at_run.input("x", {2}, 6).weight("s", floats({2}));
  at_run.node("DequantizeLinear", {"x", "s"}, {"y"}).output("y");
  CHECK(contains(refusal(at_run), "4: "));
}

TEST_CASE("open dimensions: -1, and names that are numbers") {
  for (const char *first : {"-1", "N", "", "1"}) {
    OnnxBuilder b;
    b.open_input("x", {first, "3"}).node("Relu", {"x"}, {"y"}).output("y");
    CHECK(imported(b).shape(0) == Shape{1, 3});
  }
  OnnxBuilder deeper;
  deeper.open_input("x", {"1", "-1"}).node("Relu", {"x"}, {"y"}).output("y");
  CHECK(contains(refusal(deeper), "an unknown dimension"));
  CHECK(contains(refusal(deeper), "--shape x=1x3"));
}

TEST_CASE("an op of a newer opset than is known is refused, and no file for its opset") {
  for (int64_t opset : {26, 27, 28, 29, 1000}) {
    OnnxBuilder b;
    b.opset = opset;
    b.input("x", {2}).node("Relu", {"x"}, {"y"}).output("y");
    if (opset <= 28) {
      CHECK(import(b));
    } else {
      CHECK(contains(refusal(b), "4: "));
      CHECK(contains(refusal(b), fmt::format("Relu (opset {})", opset)));
    }
  }
}

TEST_CASE("floats of other widths: declared outside, f32 inside") {
  for (auto [type, dtype] : {std::pair{10, DType::f16}, {16, DType::bf16}, {11, DType::f64}}) {
    OnnxBuilder b;
    b.input("x", {3}, type).node("Relu", {"x"}, {"y"}).output("y", type);
    const Graph graph = imported(b);
    CHECK(graph.type(graph.inputs[0]).dtype == dtype);
    CHECK(graph.type(graph.outputs[0]).dtype == dtype);
    CHECK(graph.values[graph.outputs[0]].name == "y");
    auto y = evaluate(graph, std::vector{to_floats(floats({-1, 0.5f, 1.0009765625f}), dtype)});
    REQUIRE(y);
    const Tensor found = to_f32(y->at(0));
    CHECK(found.f32()[0] == 0);
    CHECK(found.f32()[1] == 0.5f);
    CHECK(found.f32()[2] == (dtype == DType::bf16 ? 1 : 1.0009765625f));
  }
}
