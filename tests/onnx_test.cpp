// Reading and writing ONNX: what exporters write, and what attackers do.
#include "frontend/bundled.h"
#include "frontend/constants.h"
#include "frontend/onnx.h"
#include "ir/evaluate.h"
#include "ir/system/mapped_file.h"
#include "ir/system/output_file.h"
#include "passes/pipeline.h"
#include "passes/plan.h"
#include "tests/onnx_builder.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <fmt/format.h>
#include <limits>
#include <random>
#include <sys/stat.h>
#include <unistd.h>

using namespace lathe::core;
using namespace lathe::core::test;
namespace fs = std::filesystem;

namespace {

constexpr int64_t huge = std::numeric_limits<int64_t>::max();
constexpr int64_t tiny = std::numeric_limits<int64_t>::min();

Result<Graph> import_bytes(const std::string &bytes, const OnnxOptions &options = {},
                           const std::string &path = "m.onnx") {
  auto owner = std::make_shared<std::string>(bytes);
  LATHE_TRY(OnnxModel model,
            OnnxModel::parse(std::as_bytes(std::span(owner->data(), owner->size())), owner, path));
  return model.graph(options);
}
Result<Graph> import(const OnnxBuilder &builder, const OnnxOptions &options = {}) {
  return import_bytes(builder.model(), options);
}
Graph imported(const OnnxBuilder &builder, const OnnxOptions &options = {}) {
  auto graph = import(builder, options);
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  REQUIRE(verify(*graph));
  return std::move(*graph);
}
// The error's text, behind its code: "3: ...".
std::string refusal(const OnnxBuilder &builder, const OnnxOptions &options = {}) {
  auto graph = import(builder, options);
  return graph ? "no error"
               : fmt::format("{}: {}", int(graph.error().code), to_string(graph.error()));
}
bool contains(const std::string &text, std::string_view part) {
  return text.find(part) != std::string::npos;
}
Tensor ints(std::vector<int64_t> values) {
  const auto n = int64_t(values.size());
  return Tensor::of(std::move(values), {n});
}

// One op on x (1x4x8x8) and, if given, a weight; y is the output.
OnnxBuilder one_op(const std::string &op, const std::vector<std::string> &attributes,
                   std::optional<Tensor> weight = {}) {
  OnnxBuilder b;
  b.input("x", {1, 4, 8, 8});
  std::vector<std::string> inputs{"x"};
  if (weight) {
    b.weight("w", *weight);
    inputs.push_back("w");
  }
  return b.node(op, inputs, {"y"}, attributes, "layer").output("y");
}

} // namespace

TEST_CASE("nodes, weights and outputs keep the file's names") {
  OnnxBuilder b;
  b.input("data", {1, 3, 5, 5});
  b.input("w", {2, 3, 1, 1}); // a weight that is listed as an input, as old files do
  b.weight("w", Tensor::splat(0.5f, {2, 3, 1, 1}));
  b.node("Relu", {"c"}, {"r"}, {}, "relu"); // before its operand
  b.node("Conv", {"data", "w"}, {"c"}, {}, "conv");
  b.node("Dropout", {"r"}, {"d"}, {}, "drop");
  b.node("Identity", {"r"}, {"copy"});
  b.output("d").output("copy").output("data");
  const Graph graph = imported(b);
  CHECK(graph.inputs.size() == 1);
  CHECK(graph.nodes[0].name == "conv");
  CHECK(graph.nodes[1].name == "relu");
  Graph optimised = graph;
  REQUIRE(run_passes(optimised));
  for (const Graph *g : std::initializer_list<const Graph *>{&graph, &optimised}) {
    std::vector<std::string> names;
    for (ValueId id : g->outputs) names.push_back(g->values[id].name);
    CHECK(names == std::vector<std::string>{"d", "copy", "data"});
  }
}

TEST_CASE("what exporters write around a view becomes a constant") {
  OnnxBuilder b;
  b.open_input("x", {"batch", "4", "2", "3"});
  b.node("Shape", {"x"}, {"shape"});
  b.node("Constant", {}, {"zero"}, {attribute("value", Tensor::of(std::vector<int64_t>{0}, {}))});
  b.node("Gather", {"shape", "zero"}, {"n"}, {attribute("axis", int64_t{0})});
  b.node("Unsqueeze", {"n", "axes"}, {"n1"});
  b.node("Concat", {"n1", "rest"}, {"target"}, {attribute("axis", int64_t{0})});
  b.node("Cast", {"target"}, {"f"}, {attribute("to", int64_t{1})});
  b.node("Cast", {"f"}, {"whole"}, {attribute("to", int64_t{7})});
  b.node("Reshape", {"x", "whole"}, {"y"});
  b.weight("axes", ints({0})).weight("rest", ints({-1})).output("y");
  for (int64_t batch : {1, 5}) {
    const Graph graph = imported(b, {.batch = batch});
    REQUIRE(graph.nodes.size() == 1);
    CHECK(print(graph.nodes[0].op) == "reshape {shape = [0, -1]}"); // of any batch
    CHECK(graph.shape(graph.outputs[0]) == Shape{batch, 24});
  }
}

TEST_CASE("what exporters write around an expand becomes a constant") {
  // x.expand(-1, 3, 5) as torch exports it: -1 is replaced by 1.
  OnnxBuilder b;
  b.input("x", {2, 1, 5}).weight("sizes", ints({-1, 3, 5})).weight("minus", ints({-1}));
  b.weight("count", ints({3}));
  b.node("ConstantOfShape", {"count"}, {"ones"}, {attribute("value", ints({1}))});
  b.node("Mul", {"ones", "minus"}, {"open"});
  b.node("Equal", {"sizes", "open"}, {"is_open"});
  b.node("Where", {"is_open", "ones", "sizes"}, {"target"});
  b.node("Expand", {"x", "target"}, {"y"}).output("y");
  CHECK(imported(b).shape(imported(b).outputs[0]) == Shape{2, 3, 5});

  auto result = [](const std::string &op, std::vector<Tensor> inputs) {
    OnnxBuilder c;
    std::vector<std::string> names;
    for (Tensor &t : inputs) {
      names.push_back(fmt::format("i{}", names.size()));
      c.weight(names.back(), t);
    }
    const Graph graph = imported(c.node(op, names, {"y"}).output("y"));
    const Tensor y =
        evaluate(Cast{DType::i64}, std::vector{evaluate(graph, {}).value()[0]}).value()[0];
    return std::vector<int64_t>(y.as<int64_t>().begin(), y.as<int64_t>().end());
  };
  using List = std::vector<int64_t>;
  auto scalar = [](int64_t v) { return Tensor::of(List{v}, {}); };
  CHECK(result("Less", {ints({1, 5, 3}), scalar(3)}) == List{1, 0, 0});
  CHECK(result("GreaterOrEqual", {ints({1, 5, 3}), scalar(3)}) == List{0, 1, 1});
  CHECK(result("Not", {ints({0, 7})}) == List{1, 0});
  CHECK(result("And", {ints({0, 1, 1}), ints({1, 1, 0})}) == List{0, 1, 0});
  CHECK(result("Or", {ints({0, 1, 0}), ints({1, 1, 0})}) == List{1, 1, 0});
  CHECK(result("Mod", {ints({7, -7, 7, tiny}), ints({3, 3, -3, -1})}) == List{1, 2, -2, 0});
  CHECK(result("Range", {scalar(2), scalar(9), scalar(3)}) == List{2, 5, 8});
  CHECK(result("Range", {scalar(3), scalar(0), scalar(-2)}) == List{3, 1});
  CHECK(result("Range", {scalar(huge - 1), scalar(huge), scalar(5)}) == List{huge - 1});
  OnnxBuilder endless;
  endless.weight("a", scalar(0)).weight("b", scalar(huge)).weight("one", scalar(1));
  CHECK(contains(refusal(endless.node("Range", {"a", "b", "one"}, {"y"}).output("y")),
                 "so long a range"));
}

TEST_CASE("open dimensions: the batch, --shape, or what is given") {
  OnnxBuilder b;
  b.open_input("x", {"n", "3", "height", "width"}).node("Relu", {"x"}, {"y"}).output("y");
  CHECK(contains(refusal(b), "3: m.onnx: error: an input with an unknown dimension (at 'x')"));
  CHECK(contains(refusal(b), "dimension 2 is 'height'"));
  CHECK(contains(refusal(b), "--shape x="));
  CHECK(imported(b, {.shapes = {{"x", {2, 3, 4, 4}}}}).type(0).shape == Shape{2, 3, 4, 4});
  const Tensor given(DType::f32, {7, 3, 2, 2});
  CHECK(imported(b, {.values = {{"x", given}}}).type(0).shape == Shape{7, 3, 2, 2});
  CHECK(contains(refusal(b, {.batch = 0}), "2: "));
}

TEST_CASE("ops without a kernel take whole numbers that are given, and no floats") {
  OnnxBuilder b;
  b.input("a", {4}, 7).input("b", {4}, 7);
  b.node("Mod", {"a", "b"}, {"y"}, {attribute("fmod", int64_t{1})}).output("y");
  CHECK(contains(refusal(b), "it depends on input 'a'"));
  const Graph graph =
      imported(b, {.values = {{"a", ints({-7, 7, -7, 9})}, {"b", ints({3, -3, -3, 4})}}});
  CHECK(materialise(graph.constant(graph.outputs[0])).value().as<int64_t>()[0] == -1);
  OnnxBuilder f;
  f.input("a", {1}).node("Sign", {"a"}, {"y"}).output("y");
  const Tensor one = Tensor::of(std::vector<float>{1}, {1});
  CHECK(contains(refusal(f, {.values = {{"a", one}}}), "expected constants, found a"));
}

TEST_CASE("inputs that decide shapes become constants, and only those") {
  OnnxBuilder b;
  b.input("x", {2, 6}).input("target", {2}, 7).input("more", {2}, 7);
  b.node("Reshape", {"x", "target"}, {"y"}, {}, "view");
  b.node("Add", {"more", "more"}, {"z"}).output("y").output("z");
  const std::string error = refusal(b);
  CHECK(contains(error, "4: "));
  CHECK(contains(error, "'view', op Reshape (opset 13)"));
  CHECK(contains(error, "it depends on input 'target'"));
  const Graph graph = imported(b, {.values = {{"target", ints({3, 4})}, {"more", ints({1, 2})}}});
  REQUIRE(graph.inputs.size() == 2);
  CHECK(graph.values[graph.inputs[0]].name == "x");
  CHECK(graph.values[graph.inputs[1]].name == "more");
  CHECK(graph.shape(graph.outputs[0]) == Shape{3, 4});
}

TEST_CASE("one error lists everything in the way") {
  OnnxBuilder b;
  b.input("x", {1, 3, 4, 4});
  b.node("Relu", {"x"}, {"a"});
  b.node("Frobnicate", {"a"}, {"b"}, {}, "first");
  b.node("Relu", {"b"}, {"c"}); // behind a problem: none of its own
  b.node("MaxPool", {"a"}, {"d"}, {attribute("kernel_shape", std::vector<int64_t>{9, 9})},
         "second");
  b.node("Relu", {"a"}, {"e"}, {}, "third", "com.example");
  b.output("c").output("d").output("e");
  const std::string error = refusal(b);
  CHECK(contains(error, "3: m.onnx: error: 3 things are in the way of this model"));
  CHECK(contains(error, "an op that Lathe does not know (at 'first', op Frobnicate (opset 13))"));
  CHECK(contains(error, "the window does not fit (at 'second', op MaxPool (opset 13))"));
  CHECK(contains(error, "an op of the domain 'com.example' (at 'third'"));
  b.opset = 99;
  CHECK(contains(refusal(b), "4: m.onnx: "));
  CHECK(contains(refusal(b), "an op of an opset that Lathe does not know (op Relu (opset 99)"));
  b.opset = 0;
  CHECK(contains(refusal(b), "3: "));
  b.opset = 13;
  b.ir_version = 0;
  CHECK(contains(refusal(b), "bad IR version"));
}

TEST_CASE("graphs that are none") {
  auto broken = [](const std::function<void(OnnxBuilder &)> &build) {
    OnnxBuilder b;
    b.input("x", {1, 4});
    build(b);
    b.output("y");
    return refusal(b);
  };
  auto chain = [](OnnxBuilder &b, const std::string &from, const std::string &to) -> OnnxBuilder & {
    return b.node("Relu", {from}, {to});
  };
  CHECK(contains(broken([&](auto &b) { chain(chain(b, "z", "y"), "y", "z"); }),
                 "3: m.onnx: error: the graph has a cycle"));
  CHECK(contains(broken([&](auto &b) { chain(b, "y", "y"); }), "the graph has a cycle (at 'y')"));
  CHECK(contains(broken([&](auto &b) { chain(chain(b, "x", "y"), "x", "y"); }),
                 "a value is defined twice (at 'y')"));
  CHECK(
      contains(broken([&](auto &b) { chain(b, "x", "x"); }), "a value is defined twice (at 'x')"));
  CHECK(contains(broken([&](auto &b) { chain(b, "nobody", "y"); }), "found nobody"));
  CHECK(contains(broken([&](auto &) {}), "an output that no node makes (at 'y')"));
  CHECK(contains(broken([&](auto &b) { b.node("Relu", {}, {"y"}); }), "input 0 is missing"));
  CHECK(contains(broken([&](auto &b) { b.node("Relu", {"x"}, {}); }),
                 "an output that no node makes"));
  CHECK(contains(refusal(OnnxBuilder{}), "a model without outputs"));
  CHECK(contains(broken([&](auto &b) {
                   b.node("Relu", {"x"}, {"y"}, {}, "<b>\n\x01\xff");
                   b.node("?\n", {"x"}, {"q"}).output("q");
                 }),
                 "op ?? (opset"));
}

TEST_CASE("a chain of 100,000 nodes is read, optimised and planned without recursion") {
  OnnxBuilder b;
  b.input("x", {1, 8}).weight("c0", Tensor::splat(1, {8}));
  for (int i = 0; i < 50'000; ++i) {
    b.node("Relu", {i == 0 ? "x" : fmt::format("v{}", i)}, {fmt::format("v{}", i + 1)});
    b.node("Neg", {fmt::format("c{}", i)}, {fmt::format("c{}", i + 1)}); // a recipe as deep
  }
  b.node("Add", {"v50000", "c50000"}, {"y"}).output("y");
  Graph graph = imported(b);
  CHECK(graph.nodes.size() == 50'001);
  REQUIRE(run_passes(graph));
  CHECK(make_plan(graph, known_targets()[0]));
  CHECK(contains(refusal([] {
                   OnnxBuilder many;
                   for (int i = 0; i < 200'001; ++i)
                     many.node("Relu", {"x"}, {fmt::format("{}", i)});
                   return many;
                 }()),
                 "6: m.onnx: error: too many nodes"));
}

TEST_CASE("100,000 problems, inputs and outputs take seconds") {
  OnnxBuilder b;
  b.input("s", {2}, 7);
  for (int i = 0; i < 60'000; ++i) {
    const std::string x = fmt::format("x{}", i), y = fmt::format("y{}", i);
    b.input(x, {1, 4}).node("Relu", {x}, {y}).output(y);
    b.node("Reshape", {y, "s"}, {fmt::format("z{}", i)}).output(fmt::format("z{}", i));
  }
  const std::string error = refusal(b);
  CHECK(contains(error, "4: m.onnx: error: 1000 things are in the way"));
  CHECK(contains(error, "  1000 times: a shape or parameter that is only known at run time"));
  CHECK(contains(error, "op Reshape (opset 13), at 'z0', 'z1', 'z2' and 997 more)"));
  CHECK(std::ranges::count(error, '\n') == 1);
}

TEST_CASE("sizes that explode are refused before the memory is taken") {
  OnnxBuilder b;
  b.input("x", {1, 8}).weight("c0", ints({1, 2, 3, 4}));
  for (int i = 0; i < 60; ++i) {
    const std::string c = fmt::format("c{}", i);
    b.node("Concat", {c, c}, {fmt::format("c{}", i + 1)}, {attribute("axis", int64_t{0})});
  }
  b.node("Reshape", {"x", "c60"}, {"y"}).output("y");
  CHECK(contains(refusal(b), "6: m.onnx: error: too large a constant"));

  auto filled = [](std::vector<int64_t> shape, const std::vector<std::string> &attributes = {}) {
    OnnxBuilder f;
    f.weight("s", ints(std::move(shape)));
    return f.node("ConstantOfShape", {"s"}, {"y"}, attributes, "fill").output("y");
  };
  CHECK(contains(refusal(filled({huge, 2})),
                 "3: m.onnx: error: impossible shape of a constant (at 'fill'"));
  CHECK(contains(refusal(filled({-1})), "impossible shape"));
  CHECK(contains(refusal(filled({1 << 30}, {attribute("value", ints({7}))})), "6: "));
}

TEST_CASE("shapes that no tensor has") {
  auto with_input = [](const Shape &shape) {
    OnnxBuilder b;
    return b.input("x", shape).node("Relu", {"x"}, {"y"}).output("y");
  };
  for (const Shape &bad : {Shape{1, -2}, {1, tiny}, {huge, huge}, {1, 1 << 20, 1 << 20, 1 << 20}})
    CHECK(contains(refusal(with_input(bad)),
                   "3: m.onnx: error: impossible shape of an input (at 'x')"));
  CHECK(import(with_input({0, 3}))); // an exporter's way to leave the batch open

  auto with_weight = [](const Shape &dims, const std::string &raw) {
    OnnxBuilder b;
    std::string proto;
    for (int64_t d : dims) {
      proto += '\x08'; // field 1, a varint each
      for (auto v = static_cast<uint64_t>(d);; v >>= 7) {
        proto += static_cast<char>((v & 127) | (v > 127 ? 128 : 0));
        if (v <= 127) break;
      }
    }
    proto += "\x10\x01\x42\x01w\x4a" + std::string(1, char(raw.size())) + raw;
    b.input("x", {1, 4}).weight_proto(proto);
    return b.node("Add", {"x", "w"}, {"y"}).output("y");
  };
  CHECK(import(with_weight({4}, std::string(16, '\0'))));
  CHECK(contains(
      refusal(with_weight({5}, std::string(16, '\0'))),
      "shape and data of a tensor disagree (at 'w'): expected 20 bytes for 5 of float, found 16"));
  CHECK(contains(refusal(with_weight({1 << 20, 1 << 19}, "")), "disagree")); // petabytes of nothing
  CHECK(contains(refusal(with_weight({huge, huge}, "")), "impossible shape of a tensor"));
  CHECK(contains(refusal(with_weight({-4, -1}, std::string(16, '\0'))), "impossible shape"));
}

TEST_CASE("attributes that make no sense") {
  using List = std::vector<int64_t>;
  const Tensor w = Tensor::splat(0.1f, {4, 4, 3, 3});
  auto conv = [&](const std::string &a) { return refusal(one_op("Conv", {a}, w)); };
  CHECK(conv(attribute("pads", List{1, 1, 1, 1})) == "no error");
  for (const std::string &a :
       {attribute("strides", List{0, 1}), attribute("strides", List{-1, 1}),
        attribute("strides", List{1}), attribute("strides", List{huge, 1}),
        attribute("dilations", List{0, 1}), attribute("dilations", List{tiny, 1}),
        attribute("kernel_shape", List{0, 3}), attribute("kernel_shape", List{3}),
        attribute("kernel_shape", List{5, 5}), attribute("kernel_shape", List{huge, 3}),
        attribute("pads", List{-1, 0, 0, 0}), attribute("pads", List{huge, huge, huge, huge}),
        attribute("pads", List{1, 1}), attribute("group", int64_t{0}),
        attribute("group", int64_t{3}), attribute("group", tiny), attribute("group", 1.0f),
        attribute("strides", int64_t{1}), attribute("auto_pad", std::string("SOMEHOW"))}) {
    const std::string error = conv(a);
    CHECK_MESSAGE(contains(error, "3: m.onnx: error:"), error);
    CHECK_MESSAGE(contains(error, "(at 'layer', op Conv (opset 13))"), error);
  }
  auto bad = [](const std::string &op, const std::vector<std::string> &attributes,
                std::optional<Tensor> weight = {}) {
    const std::string error = refusal(one_op(op, attributes, weight));
    CHECK_MESSAGE(contains(error, "(at 'layer', op " + op), error);
  };
  bad("MaxPool", {});
  bad("MaxPool", {attribute("kernel_shape", List{0, 1})});
  bad("AveragePool", {attribute("kernel_shape", List{2, 2}), attribute("pads", List{2, 2, 2, 2})});
  bad("LRN", {attribute("size", int64_t{0})});
  bad("LRN", {attribute("size", tiny)});
  bad("LRN", {attribute("size", int64_t{3}), attribute("alpha", std::nanf(""))});
  bad("Softmax", {attribute("axis", int64_t{4})});
  bad("Softmax", {attribute("axis", tiny)});
  bad("Transpose", {attribute("perm", List{0, 1, 2, 2})});
  bad("Concat", {attribute("axis", int64_t{-9})});
  bad("Reshape", {}, ints({-1, -1}));
  bad("Reshape", {}, ints({huge, huge}));
  bad("Reshape", {}, Tensor::of({2, 2}, {2})); // floats
  bad("Tile", {}, ints({1, 1, huge, 1}));
  bad("Tile", {}, ints({1, 1, -1, 1}));
  bad("Expand", {}, ints({1, 4, 8, -8}));
  bad("Expand", {}, ints({huge, huge, 1, 4, 8, 8}));
  bad("Gather", {attribute("axis", int64_t{1})}, ints({4}));
  bad("Gather", {attribute("axis", int64_t{1})}, ints({tiny}));
  bad("Pad", {}, ints({0, 0, 0, 0, 0, 0, 0, huge}));
  bad("Pad", {}, ints({0, 0, 0, tiny, 0, 0, 0, 0}));
  bad("Pad", {}, ints({0, 0}));
  bad("Pad", {attribute("mode", std::string("magic"))}, ints({0, 0, 0, 0, 0, 0, 0, 1}));
  bad("Unsqueeze", {}, ints({0, 0}));
  bad("Unsqueeze", {}, ints({tiny}));
  bad("Squeeze", {}, ints({1}));
  bad("Split", {attribute("axis", int64_t{1})}, ints({1, 1}));
  bad("Split", {attribute("axis", int64_t{1})}, ints({huge, huge, 6}));
  bad("ReduceSum", {}, ints({7}));
  bad("Flatten", {attribute("axis", int64_t{5})});
  bad("DepthToSpace", {attribute("blocksize", int64_t{0})});
  bad("DepthToSpace", {attribute("blocksize", int64_t{3})});
  bad("SpaceToDepth", {attribute("blocksize", huge)});
  bad("ConvTranspose", {attribute("group", int64_t{3})}, w);
  bad("ConvTranspose", {attribute("output_shape", List{huge, 1})}, w);
  bad("ConvTranspose", {attribute("output_padding", List{-1, 0})}, w);
  bad("Cast", {attribute("to", int64_t{8})});
  bad("Cast", {attribute("to", huge)});
  bad("Constant", {});
  bad("Gemm", {}, w);
  bad("MatMul", {}, Tensor::splat(1, {3, 3}));
  bad("BatchNormalization", {});
}

TEST_CASE("bytes beside the model: found, and never elsewhere") {
  const fs::path folder = fs::temp_directory_path() / fmt::format("lathe-onnx-{}", getpid());
  fs::remove_all(folder);
  fs::create_directories(folder / "model" / "sub");
  const std::vector<float> numbers{1, 2, 3, 4};
  auto write = [&](const fs::path &path) {
    REQUIRE(write_file(path.string(), {std::as_bytes(std::span(numbers))}));
  };
  write(folder / "secret");
  write(folder / "model" / "w.bin");
  write(folder / "model" / "linked");
  write(folder / "model" / "sub" / "w.bin");
  fs::create_symlink("../secret", folder / "model" / "link");
  fs::create_directory_symlink("..", folder / "model" / "up");
  fs::create_hard_link(folder / "secret", folder / "model" / "hard");
  REQUIRE(mkfifo((folder / "model" / "fifo").c_str(), 0600) == 0);
  auto with = [&](const External &entries, const Shape &shape = {4}) {
    OnnxBuilder b;
    b.weight_proto(external_tensor("w", shape, entries));
    b.node("Relu", {"w"}, {"y"}).output("y");
    auto graph = import_bytes(b.model(), {}, (folder / "model" / "m.onnx").string());
    if (!graph) return fmt::format("{}: {}", int(graph.error().code), to_string(graph.error()));
    const Tensor y = evaluate(*graph, {}).value()[0];
    return fmt::format("{}", fmt::join(y.f32(), " "));
  };
  CHECK(with({{"location", "w.bin"}}) == "1 2 3 4");
  CHECK(with({{"location", "sub/w.bin"}, {"offset", "4"}, {"length", "8"}}, {2}) == "2 3");
  CHECK(with({{"location", "w.bin"}, {"checksum", "abc"}}) == "1 2 3 4");
  const std::pair<External, std::string> bad[] = {
      {{}, "may leave"},
      {{{"location", ""}}, "may leave"},
      {{{"location", "../secret"}}, "may leave"},
      {{{"location", "sub/../../secret"}}, "may leave"},
      {{{"location", (folder / "secret").string()}}, "may leave"},
      {{{"location", "/dev/zero"}}, "may leave"},
      {{{"location", std::string("w.bin\0x", 7)}}, "may leave"},
      {{{"location", "./w.bin"}}, "may leave"},
      {{{"location", "link"}}, "found a link to '../secret'"},
      {{{"location", "up/secret"}}, "found a link to '..'"},
      {{{"location", "hard"}}, "hard links"},
      {{{"location", "fifo"}}, "not a regular file"},
      {{{"location", "sub"}}, "not a regular file"},
      {{{"location", "none"}}, "cannot open"},
      {{{"location", "w.bin"}, {"offset", "4"}}, "disagree"},
      {{{"location", "w.bin"}, {"offset", "17"}}, "beyond the end"},
      {{{"location", "w.bin"}, {"offset", "8"}, {"length", "18446744073709551612"}}, "beyond"},
      {{{"location", "w.bin"}, {"offset", "99999999999999999999"}}, "bad offset"},
      {{{"location", "w.bin"}, {"offset", "-1"}}, "bad offset"},
      {{{"location", "w.bin"}, {"length", "16 "}}, "bad length"},
      {{{"location", "w.bin"}, {"location", "w.bin"}}, "stands twice"},
      {{{"location", "w.bin"}, {"mode", "rw"}}, "unknown entry"}};
  for (const auto &[entries, reason] : bad) {
    const std::string error = with(entries);
    CHECK_MESSAGE(contains(error, reason), error);
  }
  fs::remove_all(folder);
}

TEST_CASE("a model of over 2 GiB is refused at once") {
  const fs::path path = fs::temp_directory_path() / fmt::format("lathe-large-{}.onnx", getpid());
  REQUIRE(write_file(path.string(), {std::as_bytes(std::span("x", 1))}));
  fs::resize_file(path, (uintmax_t{1} << 31) + 1);
  auto model = OnnxModel::open(path.string());
  fs::remove(path);
  REQUIRE_FALSE(model);
  CHECK(model.error().code == ErrorCode::limit);
}

TEST_CASE("no damage to a model does harm") {
  OnnxBuilder b;
  b.open_input("x", {"n", "3", "6", "6"});
  b.weight("w", Tensor::splat(0.1f, {2, 3, 3, 3})).weight("s", ints({0, -1}));
  b.node("Conv", {"x", "w"}, {"c"}, {attribute("pads", std::vector<int64_t>{1, 1, 1, 1})});
  b.node("Clip", {"c"}, {"r"}).node("Reshape", {"r", "s"}, {"f"});
  b.node("Softmax", {"f"}, {"y"}, {attribute("axis", int64_t{1})}).output("y");
  const std::string whole = b.model();
  REQUIRE(import_bytes(whole));
  int refused = 0;
  for (size_t length = 0; length < whole.size(); ++length)
    refused += !import_bytes(whole.substr(0, length));
  CHECK(refused > int(whole.size()) / 2);
  std::mt19937 random(3);
  for (int i = 0; i < 4000; ++i) {
    std::string damaged = whole;
    for (unsigned n = 1 + random() % 3; n > 0; --n)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    auto graph = import_bytes(damaged);
    if (graph) CHECK(verify(*graph));
  }
}

TEST_CASE("what was written as ONNX is read back as the same plan") {
  for (const char *name : {"resnet50", "squeezenet1_1", "googlenet", "lenet5", "densenet121"}) {
    CAPTURE(name);
    Graph graph = load_bundled(name).value();
    for (Value &value : graph.values)
      if (value.constant)
        value.constant = with_data(value.constant, [](const Constant &leaf) {
          return Tensor::splat(0.5f, leaf.type.shape);
        });
    auto bytes = write_onnx(graph);
    REQUIRE_MESSAGE(bytes, to_string(bytes.error()));
    auto again = import_bytes(*bytes, {}, std::string(name) + ".onnx");
    REQUIRE_MESSAGE(again, to_string(again.error()));
    REQUIRE(run_passes(graph));
    REQUIRE(run_passes(*again));
    const Target target = known_targets()[0];
    CHECK(print(make_plan(graph, target).value()) == print(make_plan(*again, target).value()));
    // Fused ops stand in a domain of their own, with what they were made of.
    auto fused = write_onnx(graph);
    REQUIRE(fused);
    auto refused = import_bytes(*fused);
    const bool has_fused = contains(print(graph), "post = ");
    CHECK(bool(refused) != has_fused);
    if (!refused) CHECK(contains(to_string(refused.error()), "an op of the domain 'lathe'"));
  }
}

TEST_CASE("a remainder has the sign of the divisor, or with fmod of the dividend") {
  auto rest = [](const std::vector<std::string> &attributes) {
    OnnxBuilder b;
    b.weight("a", ints({-9, 9, -9, 9, tiny, -8})).weight("b", ints({4, -4, -4, 4, -1, 4}));
    const Graph graph = imported(b.node("Mod", {"a", "b"}, {"y"}, attributes).output("y"));
    const Tensor y = evaluate(graph, {}).value()[0];
    return std::vector<int64_t>(y.as<int64_t>().begin(), y.as<int64_t>().end());
  };
  using List = std::vector<int64_t>;
  CHECK(rest({}) == List{3, -3, -1, 1, 0, 0});
  CHECK(rest({attribute("fmod", int64_t{0})}) == List{3, -3, -1, 1, 0, 0});
  CHECK(rest({attribute("fmod", int64_t{1})}) == List{-1, 1, -1, 1, 0, 0});
}

TEST_CASE("before opset 7 comparisons broadcast from an axis on, like sums") {
  for (const std::string op : {"Equal", "Less"}) {
    OnnxBuilder b{.opset = 1};
    b.weight("a", Tensor::of(std::vector<int64_t>{1, 2, 3, 1, 2, 3}, {2, 3}));
    b.weight("b", ints({1, 3}));
    b.node(op, {"a", "b"}, {"y"},
           {attribute("axis", int64_t{0}), attribute("broadcast", int64_t{1})});
    const Tensor y = evaluate(imported(b.output("y")), {}).value()[0];
    const auto bits = y.as<uint8_t>();
    CHECK(
        std::vector<int>(bits.begin(), bits.end()) ==
        (op == "Equal" ? std::vector<int>{1, 0, 0, 0, 0, 1} : std::vector<int>{0, 0, 0, 1, 1, 0}));
  }
}

namespace {

// What y is for one line of 0, 1, 2, ... as 1x1x1xN; attributes and weights as the op takes them.
std::vector<float> of_line(const std::string &op, int64_t opset, int64_t n,
                           const std::vector<std::pair<std::string, Tensor>> &weights,
                           const std::vector<std::string> &attributes, const Shape &shape) {
  OnnxBuilder b{.opset = opset};
  Tensor x(DType::f32, shape);
  for (int64_t i = 0; i < n; ++i) x.f32_mutable()[size_t(i)] = float(i);
  std::vector<std::string> names{"x"};
  for (const auto &[name, value] : weights) {
    names.push_back(name);
    if (!name.empty()) b.weight(name, value);
  }
  b.input("x", shape).node(op, names, {"y"}, attributes).output("y");
  const Tensor y = evaluate(imported(b), std::vector{x}).value()[0];
  return {y.f32().begin(), y.f32().end()};
}

} // namespace

TEST_CASE("a fractional resize is what ONNX Runtime and PyTorch compute") {
  using Line = std::vector<float>;
  auto resized = [](int64_t opset, int64_t n, float scale, const std::vector<std::string> &a) {
    std::vector<std::pair<std::string, Tensor>> weights{{"s", Tensor::of({1, 1, 1, scale}, {4})}};
    if (opset > 10) weights.insert(weights.begin(), {"", Tensor{}});
    return of_line("Resize", opset, n, weights, a, {1, 1, 1, n});
  };
  auto text = [](const std::string &name, const std::string &value) {
    return attribute(name, value);
  };
  // Opset 10 goes up where it shrinks, and down elsewhere.
  CHECK(resized(10, 10, 0.7f, {}) == Line{0, 2, 3, 5, 6, 8, 9});
  CHECK(resized(10, 5, 0.6f, {}) == Line{0, 2, 4});
  CHECK(resized(10, 9, 0.3f, {}) == Line{0, 4});
  CHECK(resized(10, 4, 1.6f, {}) == Line{0, 0, 1, 1, 2, 3});
  // Whole lengths for align_corners: 5 * 1.7 is 8, not 8.5.
  const std::vector<std::string> corners{text("mode", "linear"),
                                         text("coordinate_transformation_mode", "align_corners")};
  const Line eight = resized(13, 5, 1.7f, corners);
  REQUIRE(eight.size() == 8);
  for (size_t i = 0; i < 8; ++i) CHECK(eight[i] == doctest::Approx(4 * double(i) / 7));
  CHECK(resized(13, 9, 0.6f, corners) == Line{0, 2, 4, 6, 8});
  // In f32 10 * 0.7 is 7 and 17 / 1.7 is 10; in f64, with the f32 scales, they are less.
  const std::vector<std::string> down{text("coordinate_transformation_mode", "asymmetric"),
                                      text("nearest_mode", "floor")};
  CHECK(resized(13, 11, 1.7f, down) == Line{0, 0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6, 7, 7, 8, 8, 9, 10});
  CHECK(resized(13, 10, 0.7f, down) == Line{0, 1, 2, 4, 5, 7, 8});
  CHECK(resized(13, 20, 0.6f, down) == Line{0, 1, 3, 5, 6, 8, 10, 11, 13, 14, 16, 18});
}

TEST_CASE("an output_shape beyond what a transposed convolution reaches adds at the end") {
  using Line = std::vector<float>;
  using List = std::vector<int64_t>;
  auto spread = [](std::vector<std::string> attributes) {
    attributes.push_back(attribute("strides", List{4}));
    return of_line("ConvTranspose", 13, 3,
                   {{"w", Tensor::of({1, 2, 3}, {1, 1, 3})}, {"b", Tensor::of({0.5f}, {1})}},
                   attributes, {1, 1, 3});
  };
  const Line natural{.5f, .5f, .5f, .5f, 1.5f, 2.5f, 3.5f, .5f, 2.5f, 4.5f, 6.5f};
  auto longer = natural;
  longer.insert(longer.end(), {.5f, .5f});
  CHECK(spread({}) == natural);
  CHECK(spread({attribute("output_shape", List{13})}) == longer);
  CHECK(spread({attribute("output_shape", List{8})}) ==
        Line(natural.begin() + 2, natural.end() - 1));
  CHECK(spread({attribute("output_shape", List{8}),
                attribute("auto_pad", std::string("SAME_UPPER"))}) ==
        Line(natural.begin() + 1, natural.end() - 2));
}

TEST_CASE("nothing keeps its element type and takes any shape") {
  OnnxBuilder b{.opset = 14};
  b.input("x", {3, 0}, 7).weight("shape", ints({0, 3, 2}));
  b.node("Reshape", {"x", "shape"}, {"y"}, {attribute("allowzero", int64_t{1})}).output("y");
  const Graph graph = imported(b);
  CHECK(graph.type(graph.outputs[0]) == Type{DType::i64, {0, 3, 2}});
  OnnxBuilder old{.opset = 7}; // where lines are flattened
  old.input("x", {2, 4, 0, 3}).node("Hardmax", {"x"}, {"y"}).output("y");
  CHECK(imported(old).shape(imported(old).outputs[0]) == Shape{2, 4, 0, 3});
}

TEST_CASE("slices backwards begin inside, as ONNX says") {
  OnnxBuilder b;
  b.input("x", {1, 3}).weight("s", ints({tiny})).weight("e", ints({tiny})).weight("a", ints({1}));
  b.weight("step", ints({-1})).node("Slice", {"x", "s", "e", "a", "step"}, {"y"}).output("y");
  CHECK(imported(b).shape(imported(b).outputs[0]) == Shape{1, 1});
}

TEST_CASE("Tile before opset 6 repeats one axis, so many times") {
  auto tiled = [](std::vector<int64_t> times, std::vector<int64_t> axis) {
    OnnxBuilder b{.opset = 5};
    b.input("x", {1, 3, 4}).weight("t", ints(std::move(times))).weight("a", ints(std::move(axis)));
    return b.node("Tile", {"x", "t", "a"}, {"y"}).output("y");
  };
  const Graph graph = imported(tiled({2}, {1}));
  CHECK(graph.shape(graph.outputs[0]) == Shape{1, 6, 4});
  for (const OnnxBuilder &b : {tiled({}, {1}), tiled({2}, {}), tiled({2, 2}, {1})})
    CHECK(contains(refusal(b), "3: m.onnx: error: input"));
}

TEST_CASE("problems of one kind are one line") {
  OnnxBuilder b;
  b.input("x", {1, 3, 4, 4});
  for (int i = 0; i < 7; ++i)
    b.node("Whatever", {"x"}, {fmt::format("w{}", i)}, {}, fmt::format("layer{}", i))
        .output(fmt::format("w{}", i));
  b.node("Other", {"x"}, {"o"}, {}, "alone");
  b.node("MaxPool", {"x"}, {"p"}, {attribute("kernel_shape", std::vector<int64_t>{9, 9})}, "first");
  b.node("MaxPool", {"x"}, {"q"}, {attribute("kernel_shape", std::vector<int64_t>{8, 8})},
         "second");
  const std::string error = refusal(b.output("o").output("p").output("q"));
  INFO(error);
  CHECK(contains(error, "10 things are in the way of this model\n  7 times: an op that Lathe does "
                        "not know (op Whatever (opset 13), at 'layer0', 'layer1', 'layer2' and 4 "
                        "more)\n"));
  CHECK(contains(error, "2 times: the window does not fit (op MaxPool (opset 13), at 'first', "
                        "'second')"));
  CHECK(contains(error, "(at 'alone', op Other (opset 13))"));
  CHECK(std::ranges::count(error, '\n') == 3);
}

TEST_CASE("a refused model says which option of its exporter helps") {
  OnnxBuilder b;
  b.input("x", {1, 3, 4, 4}).node("GRU", {"x"}, {"a"}).node("GRU", {"x"}, {"b"});
  b.node("Swish", {"x"}, {"c"}).node("Whatever", {"x"}, {"d"});
  b.node("FusedConv", {"x"}, {"e"}, {}, "", "com.microsoft");
  for (const char *name : {"a", "b", "c", "d", "e"}) b.output(name);
  b.producer = "pytorch";
  b.ir_version = 8;
  std::string error = refusal(b);
  INFO(error);
  CHECK(contains(error, "dynamo=True writes it as ops that Lathe knows\n"));
  CHECK(contains(error, "\n    export with opset_version=18, where several ops stand for it\n"));
  CHECK(contains(error, "before that was optimised or quantised"));
  CHECK(std::ranges::count(error, '\n') == 7); // nothing on Whatever; once on the GRUs
  b.ir_version = 10;
  CHECK(!contains(refusal(b), "dynamo=True"));
  b.producer = "tf2onnx";
  CHECK(contains(refusal(b), "convert with --opset 18, where several ops"));
}

TEST_CASE("a model that was exported for training says how it is not") {
  for (int64_t ir_version : {8, 10}) {
    OnnxBuilder b;
    b.opset = 17;
    b.producer = "pytorch";
    b.ir_version = ir_version;
    b.input("x", {1, 3, 4, 4});
    for (const char *name : {"s", "b", "m", "v"})
      b.weight(name, Tensor::of(std::vector<float>{1, 1, 1}, {3}));
    b.node("BatchNormalization", {"x", "s", "b", "m", "v"}, {"y"},
           {attribute("training_mode", int64_t{1})});
    CHECK(contains(refusal(b.output("y")), "call model.eval() before torch.onnx.export"));
  }
}

TEST_CASE("a shape is suggested for the input that needs one") {
  OnnxBuilder b;
  b.input("mask", {1, 8}).open_input("x", {"n", "8", "t"}).node("Relu", {"x"}, {"y"}).output("y");
  CHECK(contains(refusal(b, {.batch = 4}), "--shape x=4x8x224, say"));
  CHECK(imported(b, {.shapes = {{"x", {4, 8, 5}}}}).type(1).shape == Shape{4, 8, 5});
  CHECK(contains(refusal(b, {.shapes = {{"x", {4, 8}}}}),
                 "the shape given for an input has the wrong "
                 "rank (at 'x'): expected --shape x=1x8x224"));
  CHECK(contains(refusal(b, {.shapes = {{"z", {4, 8}}}}), "expected mask or x, found z"));
  CHECK(contains(refusal(b, {.shapes = {{"x", {huge, 8, huge}}}}), "impossible shape of an input"));
}

TEST_CASE("doubles beyond the largest float are infinite, and that is noted") {
  auto with = [](const std::vector<double> &values) {
    std::string raw(8 * values.size(), '\0');
    std::memcpy(raw.data(), values.data(), raw.size());
    OnnxBuilder b;
    b.input("x", {1, int64_t(values.size())});
    b.weight_proto(std::string("\x08") + char(values.size()) + "\x10\x0b\x42\x01w\x4a" +
                   char(raw.size()) + raw);
    return b.node("Mul", {"x", "w"}, {"y"}).output("y");
  };
  std::vector<std::string> notes;
  OnnxOptions options;
  options.notes = &notes;
  imported(with({1, -1e38, 1e-300, std::numeric_limits<double>::infinity()}), options);
  CHECK(notes.empty());
  const Graph graph = imported(with({1, -1.5e100, 3e38, 1e39}), options);
  CHECK(notes == std::vector<std::string>{"w: 2 double(s) beyond the largest float, -1.5e+100 for "
                                          "one, are taken as infinite"});
  const Tensor x = Tensor::of(std::vector<float>{1, 1, 1, 1}, {1, 4});
  const auto results = evaluate(graph, {&x, 1});
  REQUIRE(results);
  CHECK((*results)[0].f32()[1] == -std::numeric_limits<float>::infinity());
}
