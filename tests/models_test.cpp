// Every bundled network reproduces the parameters, multiplies and depths of its paper or library,
// and the shapes that courses draw.
#include "frontend/bundled.h"
#include "ir/evaluate.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <map>

using namespace lathe::core;

namespace {

Graph load(const std::string &name, std::map<std::string, double> parameters = {}) {
  auto graph = load_bundled(name, {.parameters = std::move(parameters), .include = {}});
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  auto whole = verify(*graph);
  REQUIRE_MESSAGE(whole, to_string(whole.error()));
  return *graph;
}

struct Counts {
  int64_t parameters, multiplies, weighted; // 0: not stated
};
const std::map<std::string, Counts> expected = {
    {"lenet5", {61'706, 416'520, 5}},
    {"alexnet", {60'965'224, 724'406'816, 8}},
    {"alexnet_one_tower", {62'378'344, 1'135'256'096, 8}},
    {"alexnet_torchvision", {61'100'840, 0, 8}},
    {"vgg11", {132'863'336, 0, 11}},
    {"vgg13", {133'047'848, 0, 13}},
    {"vgg16", {138'357'544, 15'470'264'320, 16}},
    {"vgg19", {143'667'240, 0, 19}},
    {"resnet18", {11'689'512, 1'814'073'344, 18}},
    {"resnet34", {21'797'672, 0, 34}},
    {"resnet50", {25'557'032, 4'089'184'256, 50}},
    {"resnet50_v1", {25'557'032, 3'857'973'248, 50}},
    {"resnet101", {44'549'160, 0, 101}},
    {"resnet152", {60'192'808, 11'513'626'624, 152}},
    {"resnet20_cifar", {269'722, 40'551'040, 20}},
    {"nin", {7'595'176, 1'100'188'800, 12}},
    {"inception_module", {0, 128'049'152, 2}},
    {"inception_module_naive", {0, 308'281'344, 0}},
    {"googlenet", {6'998'552, 1'582'671'872, 22}},
    {"googlenet_torchvision", {6'624'904, 1'498'376'192, 22}},
    {"inception_v3", {23'834'568, 5'713'216'096, 0}},
    {"squeezenet1_0", {1'248'424, 818'924'576, 0}},
    {"squeezenet1_1", {1'235'496, 349'151'936, 0}},
    {"densenet121", {7'978'856, 2'834'161'664, 121}},
};

// Height, width, channels of what convolutions, pools and dense layers make, in order, without
// repeats of the same shape by activations and normalisations.
std::vector<Shape> shapes(const Graph &graph) {
  std::vector<Shape> list;
  for (const Node &node : graph.nodes) {
    const Shape &s = graph.shape(node.outputs[0]);
    if (std::holds_alternative<Conv>(node.op) || std::holds_alternative<Pool>(node.op))
      list.push_back({s[2], s[3], s[1]});
    if (std::holds_alternative<Dense>(node.op)) list.push_back({s[1]});
  }
  return list;
}

} // namespace

TEST_CASE("parameters, multiplies and depth") {
  std::vector<std::string> names = bundled_models();
  for (const std::string &name : names) {
    CAPTURE(name);
    REQUIRE_MESSAGE(expected.contains(name), "add the network to the table above");
    GraphSummary summary = summarise(load(name));
    const Counts &counts = expected.at(name);
    if (counts.parameters) CHECK(summary.parameters == counts.parameters);
    if (counts.multiplies) CHECK(summary.multiplies == counts.multiplies);
    if (counts.weighted) CHECK(summary.weighted_layers == counts.weighted);
  }
  CHECK(names.size() == expected.size());
}

TEST_CASE("the shapes that courses draw") {
  CHECK(shapes(load("lenet5")) ==
        std::vector<Shape>{{28, 28, 6}, {14, 14, 6}, {10, 10, 16}, {5, 5, 16}, {120}, {84}, {10}});
  CHECK(shapes(load("alexnet")) == std::vector<Shape>{{55, 55, 96},
                                                      {27, 27, 96},
                                                      {27, 27, 256},
                                                      {13, 13, 256},
                                                      {13, 13, 384},
                                                      {13, 13, 384},
                                                      {13, 13, 256},
                                                      {6, 6, 256},
                                                      {4096},
                                                      {4096},
                                                      {1000}});
  std::vector<Shape> vgg = shapes(load("vgg16"));
  for (const Shape &s : std::vector<Shape>{{224, 224, 64},
                                           {112, 112, 128},
                                           {56, 56, 256},
                                           {28, 28, 512},
                                           {14, 14, 512},
                                           {7, 7, 512},
                                           {4096},
                                           {1000}})
    CHECK(std::ranges::count(vgg, s) > 0);
  Graph module = load("inception_module");
  CHECK(module.shape(module.outputs[0]) == Shape{1, 256, 28, 28});
}

TEST_CASE("a bottleneck saves nine tenths of the multiplies") {
  auto multiplies = [](const std::string &layers) {
    auto graph = parse_net("network n {\n input x 192x28x28\n " + layers + "\n}", "n.net");
    REQUIRE_MESSAGE(graph, to_string(graph.error()));
    return summarise(*graph).multiplies;
  };
  CHECK(multiplies("conv 32 5x5 pad same") == 120'422'400);
  CHECK(multiplies("conv 16 1x1; conv 32 5x5 pad same") == 12'443'648);
}

TEST_CASE("auxiliary heads are further outputs") {
  Graph graph = load("googlenet", {{"aux", 1}});
  REQUIRE(graph.outputs.size() == 3);
  for (ValueId id : graph.outputs) CHECK(graph.shape(id) == Shape{1, 1000});
}

TEST_CASE("torchvision's transform_input stands in front, and can be left out") {
  const float deviation[] = {0.229f, 0.224f, 0.225f}, mean[] = {0.485f, 0.456f, 0.406f};
  for (const char *name : {"googlenet_torchvision", "inception_v3"}) {
    CAPTURE(name);
    Graph graph = load(name);
    graph.outputs = {graph.nodes[1].outputs[0]};
    remove_dead_code(graph);
    REQUIRE(graph.nodes.size() == 2);
    Shape shape = graph.shape(graph.inputs[0]);
    Tensor x(DType::f32, shape);
    const size_t plane = size_t(shape[2] * shape[3]);
    for (size_t c = 0; c < 3; ++c) // pictures of p = 0.25
      std::ranges::fill(x.f32_mutable().subspan(c * plane, plane),
                        (0.25f - mean[c]) / deviation[c]);
    const Tensor y = evaluate(graph, std::vector<Tensor>{x}).value()[0];
    CHECK(std::ranges::all_of(y.f32(), [](float v) { // (p - 0.5) / 0.5
      return std::abs(v + 0.5f) < 1e-5f;
    }));
    CHECK(std::holds_alternative<Conv>(load(name, {{"transform_input", 0}}).nodes[0].op));
  }
}
