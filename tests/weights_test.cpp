// Checkpoints meet networks: binding by name, and what the random weights promise.
#include "frontend/net.h"
#include "frontend/weights.h"
#include "ir/evaluate.h"
#include "tests/scratch.h"
#include "tests/tensors.h"

#include <cmath>
#include <doctest/doctest.h>

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
