// Random weights are calibrated: signals neither fade nor explode, and answers depend on the input.
#include "frontend/bundled.h"
#include "frontend/weights.h"
#include "ir/evaluate.h"
#include "tests/random_graph.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <map>

using namespace lathe::core;

TEST_CASE("every layer of deep networks stays near 1") {
  const std::pair<const char *, std::map<std::string, double>> networks[] = {
      {"resnet152", {{"width", 8}, {"size", 64}}},
      {"densenet121", {{"growth", 8}, {"size", 64}}},
      {"vgg19", {{"width", 8}, {"size", 32}}},
      {"inception_v3", {{"width", 8}, {"size", 139}}},
  };
  for (const auto &[name, parameters] : networks) {
    CAPTURE(name);
    auto graph = load_bundled(name, {.parameters = parameters, .include = {}});
    REQUIRE_MESSAGE(graph, to_string(graph.error()));
    Graph again = *graph;
    REQUIRE(randomise_weights(*graph, 3));
    auto outputs = [&](uint64_t seed) {
      auto inputs = random_inputs(*graph, seed, 1);
      auto result =
          evaluate(*graph, inputs, [&](const Node &node, std::span<const Tensor> results) {
            if (std::holds_alternative<Softmax>(node.op)) return;
            double squares = 0;
            for (float x : results[0].f32()) squares += double(x) * double(x);
            double rms = std::sqrt(squares / double(results[0].size()));
            CAPTURE(node.name);
            CHECK(rms > 0.05);
            CHECK(rms < 20);
          });
      REQUIRE(result);
      return (*result)[0];
    };
    Tensor first = outputs(1), second = outputs(2);
    float difference = 0;
    for (size_t i = 0; i < size_t(first.size()); ++i)
      difference = std::max(difference, std::abs(first.f32()[i] - second.f32()[i]));
    CHECK(difference > 1e-5f);
    REQUIRE(randomise_weights(again, 3)); // the same seed gives the same weights
    for (size_t id = 0; id < again.values.size(); ++id) {
      const ConstantRef &a = graph->values[id].constant, &b = again.values[id].constant;
      if (a && a->data.defined()) CHECK(std::ranges::equal(a->data.f32(), b->data.f32()));
    }
  }
}
