// Every op of the importer's tables: what its schema has, and nodes that make no sense.
#include "frontend/onnx.h"
#include "frontend/onnx/import.h"
#include "ir/evaluate.h"
#include "passes/pipeline.h"
#include "passes/plan.h"
#include "tests/onnx_builder.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>

using namespace lathe::core;
using namespace lathe::core::test;
using lathe::core::onnx::HandlerEntry;

namespace {

constexpr int64_t newest_opset = 28;

Result<Graph> import(const OnnxBuilder &builder) {
  auto owner = std::make_shared<std::string>(builder.model());
  LATHE_TRY(OnnxModel model, OnnxModel::parse(std::as_bytes(std::span(*owner)), owner, "m.onnx"));
  return model.graph();
}
std::string refusal(const OnnxBuilder &builder) {
  auto graph = import(builder);
  return graph ? "no error"
               : fmt::format("{}: {}", int(graph.error().code), to_string(graph.error()));
}
bool contains(const std::string &text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// op -> opset -> the attributes from then on.
std::map<std::string, std::map<int64_t, std::vector<std::string>>> schemas() {
  std::map<std::string, std::map<int64_t, std::vector<std::string>>> all;
  std::ifstream file(LATHE_SOURCE_DIR "/tests/data/onnx_attributes.txt");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream words(line);
    std::string op, name;
    int64_t since = 0;
    words >> op >> since;
    std::vector<std::string> &names = all[op][since];
    while (words >> name) names.push_back(name);
  }
  return all;
}

// --- Nodes at random, most of them nonsense

struct Maker {
  std::mt19937 random;
  size_t below(size_t n) { return random() % n; }
  template <typename T> T one_of(std::initializer_list<T> list) {
    return *(list.begin() + int64_t(below(list.size())));
  }
  int64_t number() {
    return one_of<int64_t>({0, 0, 1, 1, 1, 2, 2, 3, -1, -2, 4, 7, 64, 1 << 20, INT64_MAX, INT64_MIN,
                            int64_t{1} << 31, -(int64_t{1} << 40)});
  }
  std::vector<int64_t> numbers() {
    std::vector<int64_t> list(below(6));
    for (int64_t &v : list) v = number();
    return list;
  }
  Shape shape() {
    static const std::vector<Shape> all = {{},
                                           {0},
                                           {1},
                                           {2},
                                           {3},
                                           {4},
                                           {1, 1},
                                           {2, 3},
                                           {0, 4},
                                           {3, 0},
                                           {2, 3, 4},
                                           {1, 0, 4},
                                           {1, 4, 5, 6},
                                           {2, 4, 3, 3},
                                           {4, 4, 3, 3},
                                           {0, 4, 3, 3},
                                           {1, 4, 0, 3},
                                           {1, 0, 3, 3},
                                           {1, 1, 1, 1},
                                           {1, 2, 3, 2, 2},
                                           {1, 1, 1, 1, 1, 1}};
    return all[below(all.size())];
  }
  Tensor tensor(DType dtype, const Shape &shape) {
    Tensor t(dtype, shape);
    for (int64_t i = 0; i < t.size(); ++i) {
      const auto at = size_t(i);
      if (dtype == DType::f32)
        t.as_mutable<float>()[at] = one_of({0.f, 1.f, -1.f, 0.5f, 2.f, 1e9f, NAN});
      if (dtype == DType::i64) t.as_mutable<int64_t>()[at] = number();
      if (dtype == DType::i32) t.as_mutable<int32_t>()[at] = int32_t(number());
      if (dtype == DType::boolean) t.as_mutable<uint8_t>()[at] = uint8_t(below(2));
    }
    return t;
  }
  DType dtype() {
    return one_of(
        {DType::f32, DType::f32, DType::f32, DType::i64, DType::i64, DType::i32, DType::boolean});
  }
  std::string value(const std::string &name) {
    static const std::vector<std::string> texts = {"",
                                                   "nearest",
                                                   "linear",
                                                   "cubic",
                                                   "SAME_UPPER",
                                                   "SAME_LOWER",
                                                   "VALID",
                                                   "reflect",
                                                   "edge",
                                                   "wrap",
                                                   "DCR",
                                                   "CRD",
                                                   "FLOAT",
                                                   "tanh",
                                                   "align_corners",
                                                   "asymmetric",
                                                   "tf_crop_and_resize",
                                                   "floor",
                                                   "not_larger",
                                                   "not_smaller"};
    static const std::set<std::string> text_names = {
        "auto_pad", "mode", "coordinate_transformation_mode", "nearest_mode", "approximate"};
    static const std::set<std::string> list_names = {
        "axes",      "kernel_shape", "pads",           "paddings",       "strides",
        "dilations", "perm",         "split",          "starts",         "ends",
        "shape",     "output_shape", "output_padding", "consumed_inputs"};
    static const std::set<std::string> float_names = {"alpha",    "beta",          "gamma",
                                                      "epsilon",  "bias",          "ratio",
                                                      "momentum", "cubic_coeff_a", "value_float"};
    const size_t way = below(12);
    if (way == 0) return attribute(name, tensor(dtype(), shape()));
    if (way == 1 || text_names.contains(name)) return attribute(name, texts[below(texts.size())]);
    if (way == 2 || list_names.contains(name)) return attribute(name, numbers());
    if (way == 3 || float_names.contains(name))
      return attribute(name, one_of({0.f, 1.f, -1.f, 0.5f, 0.1f, 1e30f, NAN}));
    return attribute(name, number());
  }
  OnnxBuilder model(const HandlerEntry &entry, int64_t opset) {
    OnnxBuilder b{.opset = opset};
    std::vector<std::string> inputs, attributes;
    const size_t count = one_of<size_t>({0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5});
    for (size_t i = 0; i < count; ++i) {
      std::string name = fmt::format("i{}", i);
      const Shape s = shape();
      switch (below(i == 0 ? 4 : 8)) {
      case 0:
        name.clear();
        break;
      case 1:
      case 2:
        b.input(name, s, onnx::data_type(dtype()));
        break;
      case 3:
        b.input(name, {1, 4, 5, 6});
        break;
      case 4:
        b.weight(name, tensor(DType::i64, {int64_t(below(5))}));
        break;
      default:
        b.weight(name, tensor(dtype(), s));
        break;
      }
      inputs.push_back(name);
    }
    for (onnx::Bytes name : onnx::attributes_at(entry, opset))
      if (below(3) == 0) attributes.push_back(value(std::string(name)));
    std::vector<std::string> outputs{"y"};
    while (below(12) == 0) outputs.push_back(fmt::format("y{}", outputs.size()));
    b.node(std::string(entry.op), inputs, outputs, attributes, "n");
    for (const std::string &y : outputs) b.output(y);
    return b;
  }
};

// Everything that happens to a model before code is made of it; whether it came through.
bool survives(const OnnxBuilder &builder) {
  auto good = [](const auto &result) {
    if (!result) {
      CHECK_MESSAGE(result.error().code != ErrorCode::internal, to_string(result.error()));
      CHECK(result.error().code != ErrorCode::usage);
    }
    return bool(result);
  };
  auto graph = import(builder);
  if (!good(graph)) return false;
  REQUIRE(verify(*graph));
  std::vector<Tensor> inputs;
  int64_t elements = 0;
  for (ValueId id : graph->inputs) inputs.emplace_back(graph->type(id).dtype, graph->shape(id));
  for (const Value &value : graph->values) elements += element_count(value.type.shape);
  if (elements < 1 << 16) good(evaluate(*graph, inputs));
  if (!good(run_passes(*graph))) return true;
  good(make_plan(*graph, known_targets()[0]));
  return true;
}

} // namespace

TEST_CASE("every op has the attributes of its schema, at every opset") {
  const auto all = schemas();
  REQUIRE(all.size() > 150);
  for (const HandlerEntry &entry : onnx::all_handlers()) {
    const std::string op(entry.op);
    REQUIRE_MESSAGE(all.contains(op), op);
    const auto &history = all.at(op);
    for (int64_t opset = history.begin()->first; opset <= newest_opset; ++opset) {
      const auto names = onnx::attributes_at(entry, opset);
      std::vector<std::string> known(names.begin(), names.end());
      std::ranges::sort(known);
      CHECK_MESSAGE(known == std::prev(history.upper_bound(opset))->second, op << " " << opset);
    }
  }
}

TEST_CASE("what an op does not have is refused, not ignored") {
  auto bad = [](const std::string &op, int64_t opset, const std::vector<std::string> &attributes,
                size_t inputs = 1) {
    OnnxBuilder b{.opset = opset};
    std::vector<std::string> names;
    for (size_t i = 0; i < inputs; ++i) {
      names.push_back(fmt::format("x{}", i));
      b.input(names.back(), {1, 4, 6, 6});
    }
    return refusal(b.node(op, names, {"y"}, attributes, "layer").output("y"));
  };
  const std::string block = attribute("blocksize", int64_t{2});
  const std::string mode = attribute("mode", std::string("CRD"));
  CHECK(bad("SpaceToDepth", 13, {block}) == "no error");
  CHECK(bad("SpaceToDepth", 13, {block, mode}) ==
        "3: m.onnx: error: attribute mode is none of this op's (at 'layer', op SpaceToDepth (opset "
        "13)): expected blocksize");
  CHECK(bad("DepthToSpace", 11, {block, mode}) == "no error");
  CHECK(
      contains(bad("DepthToSpace", 10, {block, mode}), "3: m.onnx: error: attribute mode is none"));
  CHECK(contains(bad("Relu", 13, {attribute("alpha", 0.1f)}), "expected no attributes"));
  CHECK(bad("Relu", 5, {attribute("consumed_inputs", std::vector<int64_t>{0})}) == "no error");
  CHECK(contains(bad("Relu", 6, {attribute("consumed_inputs", std::vector<int64_t>{0})}), "3: "));
  CHECK(contains(bad("Clip", 11, {attribute("min", 0.f)}), "attribute min is none of this op's"));
  CHECK(contains(bad("SpaceToDepth", 13, {block, block}), "attribute blocksize stands twice"));
  CHECK(bad("Clip", 10, {}) == "no error");
  CHECK(contains(bad("Clip", 10, {}, 3), "input 1 is none of this op's"));
  CHECK(contains(bad("Sigmoid", 13, {}, 2), "input 1 is none of this op's"));
}

TEST_CASE("no node is a bug of ours, whatever its inputs and attributes") {
  size_t read = 0, all = 0;
  for (const HandlerEntry &entry : onnx::all_handlers())
    for (int64_t opset = 1; opset <= newest_opset; ++opset)
      for (uint32_t seed = 0; seed < 40; ++seed) {
        INFO(entry.op << " at opset " << opset << ", seed " << seed);
        Maker maker{std::mt19937(seed)};
        CHECK_NOTHROW(read += survives(maker.model(entry, opset)));
        ++all;
      }
  CHECK(read > all / 50); // not all of it is nonsense
  MESSAGE(read << " of " << all << " models were read");
}

TEST_CASE(
    "well-formed ops on elements that Lathe does not compute with are unsupported, not wrong") {
  auto code = [](const std::string &op, int32_t type, const std::vector<std::string> &attributes) {
    OnnxBuilder b{.opset = 17};
    return refusal(b.input("x", {3, 4}, type).node(op, {"x"}, {"y"}, attributes).output("y"));
  };
  constexpr int32_t i32 = 6, boolean = 9;
  CHECK(contains(code("ArgMax", i32, {attribute("axis", int64_t{0})}), "4: "));
  CHECK(contains(code("Relu", i32, {}), "4: "));
  CHECK(contains(code("ReduceMax", boolean, {}), "4: "));
  CHECK(contains(code("Sqrt", boolean, {}), "4: "));
}
