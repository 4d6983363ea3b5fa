// Checkpoints meet networks: binding by name, and what the random weights promise.
#include "frontend/bundled.h"
#include "frontend/formats.h"
#include "frontend/net.h"
#include "frontend/onnx.h"
#include "frontend/weights.h"
#include "ir/evaluate.h"
#include "tests/onnx_builder.h"
#include "tests/scratch.h"
#include "tests/tensors.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <filesystem>

using namespace lathe::core;

namespace {

Graph network(const char *text) {
  auto graph = parse_net(text, "test.net");
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  return *graph;
}
const char *small = R"(network small() {
  input image 2x4x4
  conv1: conv 3 1x1
  act: prelu
  flatten
  fc: dense 5
})";
std::map<std::string, Tensor> small_weights() {
  return {{"conv1.weight", counting({3, 2, 1, 1})},
          {"conv1.bias", counting({3})},
          {"act.weight", counting({3})},
          {"fc.weight", counting({5, 48})},
          {"fc.bias", counting({5})}};
}
WeightsFile file_of(const Scratch &scratch, const std::map<std::string, Tensor> &tensors) {
  REQUIRE(write_safetensors(scratch.path("w.safetensors"), tensors));
  auto file = WeightsFile::open(scratch.path("w.safetensors"));
  REQUIRE(file);
  return *file;
}
int64_t count_unbound(const Graph &graph) {
  int64_t count = 0;
  for (const Value &value : graph.values)
    if (value.constant && !materialise(value.constant)) ++count;
  return count;
}

} // namespace

TEST_CASE("every weight is bound by its name, also inside a recipe") {
  Scratch scratch;
  Graph graph = network(small);
  auto tensors = small_weights();
  tensors["conv1.num_batches_tracked"] = Tensor::of(std::vector<int64_t>{1}, {});
  tensors["aux.weight"] = counting({2});
  auto report = bind_weights(graph, file_of(scratch, tensors));
  REQUIRE_MESSAGE(report, to_string(report.error()));
  CHECK(report->unused == std::vector<std::string>{"aux.weight", "conv1.num_batches_tracked"});
  CHECK(count_unbound(graph) == 0);
  CHECK(verify(graph));
  CHECK(evaluate(graph, std::vector<Tensor>{counting({1, 2, 4, 4})}));
}

TEST_CASE("shapes may differ by dimensions of one") {
  Scratch scratch;
  Graph graph = network(small);
  auto tensors = small_weights();
  tensors["conv1.weight"] = counting({3, 2});
  tensors["fc.weight"] = counting({5, 48, 1, 1});
  tensors["conv1.bias"] = counting({1, 3, 1, 1});
  REQUIRE(bind_weights(graph, file_of(scratch, tensors)));
  CHECK(verify(graph));
}

TEST_CASE("all that is missing or misshapen is listed at once, and nothing is bound") {
  Scratch scratch;
  Graph graph = network(small);
  const int64_t before = count_unbound(graph);
  auto tensors = small_weights();
  tensors.erase("fc.weight");
  tensors["fc.weights"] = counting({5, 48});
  tensors["conv1.bias"] = counting({4});
  tensors["act.weight"] = Tensor::of(std::vector<int64_t>{1, 2, 3}, {3});
  auto report = bind_weights(graph, file_of(scratch, tensors));
  REQUIRE(!report);
  CHECK(report.error().code == ErrorCode::invalid);
  CHECK(report.error().file == scratch.path("w.safetensors"));
  const std::string text = to_string(report.error());
  for (const char *part :
       {"3 weights", "fc.weight: expected 5x48, is missing; perhaps 'fc.weights'",
        "conv1.bias: expected 3, found 4", "act.weight: expected 3, found elements of i64"})
    CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  CHECK(count_unbound(graph) == before);
}

TEST_CASE("a second binding replaces the first, also inside a recipe") {
  Scratch scratch;
  Graph graph = network(small);
  auto tensors = small_weights();
  REQUIRE(bind_weights(graph, file_of(scratch, tensors)));
  auto scaled = tensors;
  for (auto &[name, tensor] : scaled)
    for (float &x : tensor.f32_mutable()) x *= 2;
  REQUIRE(bind_weights(graph, file_of(scratch, scaled)));
  for (const auto &[name, tensor] : named_weights(graph)) {
    CAPTURE(name);
    CHECK(same_bits(tensor, scaled.at(name)));
  }
  Graph fresh = network(small);
  REQUIRE(bind_weights(fresh, file_of(scratch, scaled)));
  const std::vector<Tensor> x{counting({1, 2, 4, 4})};
  CHECK(same_bits(evaluate(graph, x).value()[0], evaluate(fresh, x).value()[0]));
}

TEST_CASE("a binding of some weights is asked for, and says what stayed") {
  Scratch scratch;
  Graph graph = network(small);
  const Tensor bias = floats({3}, {7, 8, 9});
  const WeightsFile some = file_of(scratch, {{"conv1.bias", bias}});
  REQUIRE(!bind_weights(graph, some));
  auto report = bind_weights(graph, some, {.partial = true});
  REQUIRE_MESSAGE(report, to_string(report.error()));
  CHECK(report->missing ==
        std::vector<std::string>{"act.weight", "conv1.weight", "fc.bias", "fc.weight"});
  CHECK(report->kept.empty());
  REQUIRE(bind_weights(graph, file_of(scratch, small_weights())));
  // All have numbers now: some are still no more than some, unless that is asked for.
  const WeightsFile again = file_of(scratch, {{"conv1.bias", bias}});
  auto refused = bind_weights(graph, again);
  REQUIRE(!refused);
  CHECK(refused.error().detail.contains("fc.weight: expected 5x48, is missing"));
  CHECK(same_bits(named_weights(graph).at("conv1.bias"), counting({3})));
  report = bind_weights(graph, again, {.partial = true});
  REQUIRE(report);
  CHECK(report->kept ==
        std::vector<std::string>{"act.weight", "conv1.weight", "fc.bias", "fc.weight"});
  CHECK(report->missing.empty());
  CHECK(same_bits(named_weights(graph).at("conv1.bias"), bias));
  CHECK(same_bits(named_weights(graph).at("fc.bias"), counting({5})));
}

TEST_CASE(
    "names that the network does not have are errors, unless asked for or known as harmless") {
  Scratch scratch;
  Graph graph = network(small);
  auto tensors = small_weights();
  tensors["fc2.weight"] = counting({2});
  tensors["auxiliary"] = counting({1}); // a head has a dot behind it
  tensors["AuxLogits.fc.weight"] = counting({2});
  auto refused = bind_weights(graph, file_of(scratch, tensors));
  REQUIRE(!refused);
  CHECK(refused.error().code == ErrorCode::invalid);
  CHECK(refused.error().message.starts_with("2 tensors of the file belong to no weight"));
  CHECK(
      refused.error().detail.contains("fc2.weight: no weight has this name; perhaps 'fc.weight'"));
  CHECK(!refused.error().detail.contains("AuxLogits"));
  CHECK(count_unbound(graph) > 0);
  auto report = bind_weights(graph, file_of(scratch, tensors), {.ignore_unused = true});
  REQUIRE(report);
  CHECK(report->unused ==
        std::vector<std::string>{"AuxLogits.fc.weight", "auxiliary", "fc2.weight"});
  // A head that the network has is no stranger's.
  Graph with_head = network("network n() { input x 4\n aux1.fc: dense 2 }");
  refused = bind_weights(with_head, file_of(scratch, {{"aux1.fc.weight", counting({2, 4})},
                                                      {"aux1.fc.bias", counting({2})},
                                                      {"aux1.conv.weight", counting({2})}}));
  REQUIRE(!refused);
  CHECK(refused.error().detail.contains("aux1.conv.weight"));
}

TEST_CASE("an ONNX model's initialisers are replaced by name") {
  Scratch scratch;
  test::OnnxBuilder
      builder; // relu(x * w^T + b) * s, and a target of Reshape, which decides a shape
  builder.input("x", {1, 3}).weight("w", counting({2, 3})).weight("b", counting({2}));
  builder.weight("s", Tensor::splat(2, {}));
  builder.weight("target", Tensor::of(std::vector<int64_t>{1, 2, 1}, {3}));
  builder.node("Gemm", {"x", "w", "b"}, {"g"}, {test::attribute("transB", int64_t{1})});
  builder.node("Relu", {"g"}, {"r"}).node("Mul", {"r", "s"}, {"m"});
  builder.node("Reshape", {"m", "target"}, {"y"}).output("y");
  auto load = [&] { return load_model(scratch.write("m.onnx", builder.model())).value(); };
  auto run = [](const Graph &graph) {
    return list(evaluate(graph, std::vector<Tensor>{floats({1, 3}, {1, 10, 100})}).value()[0]);
  };
  Graph graph = load();
  CHECK(run(graph) == std::vector<float>{2 * 322, 2 * 656});
  const Tensor w = floats({2, 3}, {1, 0, 0, 0, 1, 0}), b = floats({2}, {0, 5});
  REQUIRE(bind_weights(graph, file_of(scratch, {{"w", w}, {"b", b}})));
  CHECK(run(graph) == std::vector<float>{2, 30});
  // Scalars may be given, and need not.
  REQUIRE(bind_weights(graph, file_of(scratch, {{"w", w}, {"b", b}, {"s", Tensor::splat(1, {})}})));
  CHECK(run(graph) == std::vector<float>{1, 15});
  auto refused =
      bind_weights(graph, file_of(scratch, {{"w", counting({3, 2})},
                                            {"b", Tensor::of(std::vector<int64_t>{1, 2}, {2})},
                                            {"target", counting({3})}}));
  REQUIRE(!refused);
  for (const char *part : {"w: expected 2x3, found 3x2", "b: expected 2, found elements of i64",
                           "target: no weight has this name"})
    CHECK_MESSAGE(refused.error().detail.contains(part), refused.error().detail);
  CHECK(run(graph) == std::vector<float>{1, 15});
}

TEST_CASE("bundled networks and their weights are found by name, not by a file that looks alike") {
  Scratch scratch;
  const std::string stranger =
      scratch.write("lenet5.net", contents(LATHE_SOURCE_DIR "/models/lenet5.net"));
  Graph graph = load_model(stranger).value();
  CHECK(!bind_bundled_weights(graph, stranger).value());
  CHECK(count_unbound(graph) > 0);
  CHECK(bind_bundled_weights(graph, "lenet5").value());
  CHECK(count_unbound(graph) == 0);
  CHECK(!bind_bundled_weights(graph, "lenet5", {{"classes", 3}}).value());
  // Folders and files of such names hide nothing.
  const auto before = std::filesystem::current_path();
  std::filesystem::create_directories(scratch.path("resnet18"));
  scratch.write("lenet5", "not a model");
  std::filesystem::current_path(scratch.path(""));
  const auto folder = load_model("resnet18"), file = load_model("lenet5"),
             meant = load_model("./lenet5");
  std::filesystem::current_path(before);
  CHECK(folder);
  CHECK(file);
  REQUIRE(!meant);
  CHECK(meant.error().code == ErrorCode::unsupported);
}

TEST_CASE("random weights leave alone what is bound") {
  Scratch scratch;
  Graph graph = network(small);
  for (Value &value : graph.values)
    if (value.constant && value.constant->name == "conv1.bias")
      value.constant = bound_constant("conv1.bias", counting({3}));
  REQUIRE(randomise_weights(graph, 1));
  CHECK(count_unbound(graph) == 0);
  for (const Value &value : graph.values)
    if (value.constant && value.constant->name == "conv1.bias")
      CHECK(list(value.constant->data) == std::vector<float>{1, 2, 3});
}

TEST_CASE("random numbers depend on seed and name only, and look normal") {
  const Type type{DType::f32, {100, 1000}};
  const Tensor x = random_tensor(type, "x", 1);
  CHECK(same_bits(x, random_tensor(type, "x", 1)));
  CHECK(!same_bits(x, random_tensor(type, "y", 1)));
  CHECK(!same_bits(x, random_tensor(type, "x", 2)));
  double sum = 0, squares = 0;
  for (float v : x.f32()) {
    sum += double(v);
    squares += double(v) * double(v);
  }
  CHECK(std::abs(sum / 1e5) < 0.02);
  CHECK(std::abs(squares / 1e5 - 1) < 0.02);
  // The very numbers, so that published figures stay reproducible.
  CHECK(random_tensor({DType::f32, {2}}, "x", 1).f32()[0] == x.f32()[0]);
  CHECK(random_tensor({DType::i64, {2}}, "x", 1).as<int64_t>()[1] == 0);
}
