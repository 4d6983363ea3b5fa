// What the .net language means, and what its errors say.
#include "frontend/net.h"
#include "ir/evaluate.h"

#include <doctest/doctest.h>
#include <map>
#include <random>

using namespace lathe::core;

namespace {

Graph parse(const std::string &text) {
  auto graph = parse_net(text, "t.net");
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  return *graph;
}
std::string names(const Graph &graph) {
  std::string text;
  for (const Node &node : graph.nodes) text += (text.empty() ? "" : " ") + node.name;
  return text;
}
std::string error_of(const std::string &text) {
  auto graph = parse_net(text, "t.net");
  REQUIRE_FALSE(graph);
  return to_string(graph.error());
}

} // namespace

TEST_CASE("labels, repeats, calls and groups make the names of weights") {
  Graph graph = parse("block unit(c, k = 3) { conv: conv c k pad k/2 - 0.5; bn: batchnorm }\n"
                      "network n { input x 3x8x8\n"
                      "  layer1: repeat 2 as i { unit(4 + i) }\n"
                      "  g: { \"odd/{1 + 1}\": relu }\n"
                      "  last: unit(c = 2, k = 1)\n}\n");
  CHECK(names(graph) ==
        "layer1.0.conv layer1.0.bn layer1.1.conv layer1.1.bn g.odd/2 last.conv last.bn");
  CHECK(graph.shape(graph.outputs[0]) == Shape{1, 2, 8, 8});
  CHECK_FALSE(std::get<Conv>(graph.nodes[0].op).bias); // a batch norm follows
}

TEST_CASE("branches, conditions and defaults") {
  Graph graph = parse(
      "network n(wide = true) { input x 4x6x6\n"
      "  add { { conv 4 1x1 } { } }\n"
      "  concat { { if wide { conv 8 1x1 } else { conv 2 1x1 } } { maxpool 3x3 stride 1 pad 1 } }\n"
      "  avgpool 2x2\n}\n");
  CHECK(graph.shape(graph.outputs[0]) == Shape{1, 12, 3, 3}); // a pool steps by its kernel
  CHECK(std::get<Conv>(graph.nodes[0].op).bias);
  auto narrow = parse_net("network n(c = 3) { input x 1x4x4\n conv c 1x1 }", "t.net",
                          {.parameters = {{"c", 7}}, .include = {}});
  REQUIRE(narrow);
  CHECK(narrow->shape(narrow->outputs[0])[1] == 7);
}

TEST_CASE("an error shows its place with a caret and guesses what was meant") {
  std::string text = error_of("network n {\n  input x 3x8x8\n  conv 8 3x3; batchnrm\n}\n");
  CHECK(text.find("t.net:3:15: error:") == 0);
  CHECK(text.find("batchnorm") != std::string::npos);
  CHECK(text.find("  conv 8 3x3; batchnrm\n") != std::string::npos);
  CHECK(text.find("^") != std::string::npos);
}

TEST_CASE("scale and shift take one number, or one for each channel") {
  const std::string head = "network n { input x 3x2x2\n";
  Graph graph = parse(head + "s: scale (1, 2, 0.5); t: shift (0.25 - 1, 0, 3); scale 2\n}\n");
  const auto results = evaluate(graph, std::vector<Tensor>{Tensor::splat(4, {1, 3, 2, 2})});
  REQUIRE(results);
  std::vector<float> of_channels;
  for (size_t c = 0; c < 3; ++c) of_channels.push_back((*results)[0].f32()[4 * c]);
  CHECK(of_channels == std::vector<float>{6.5, 16, 10});
  CHECK(error_of(head + "scale (1, 2)\n}\n").find("each of 3 channels") != std::string::npos);
}

TEST_CASE("pictures with their channels last are questioned") {
  auto warnings_of = [](const std::string &shape, const std::string &layer) {
    std::vector<std::string> warnings;
    auto graph = parse_net("network n {\n  input x " + shape + "\n  " + layer + "\n}\n", "t.net",
                           {.parameters = {}, .include = {}, .warnings = &warnings});
    return graph ? warnings : std::vector<std::string>{to_string(graph.error())};
  };
  const auto warnings = warnings_of("32x24x3", "conv 8 3x3");
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].starts_with("t.net:2:11: warning: "));
  CHECK(warnings[0].find("perhaps 3x32x24 is meant\n") != std::string::npos);
  CHECK(warnings_of("28x28x1", "relu").size() == 1);
  // An error says it, too: it may be why.
  CHECK(warnings_of("32x32x3", "conv 8 5x5")[0].find("perhaps 3x32x32") != std::string::npos);
  for (const char *fine :
       {"3x32x32", "1x28x28", "192x1x1", "64x3x3", "512x1x3", "3x3x3", "3x32x1", "10"})
    CHECK(warnings_of(fine, "relu").empty());
}

TEST_CASE("a mistake inside a block names the call") {
  std::string text =
      error_of("block b(k) {\n  conv 8 k\n}\nnetwork n {\n  input x 3x8x8\n  b(9)\n}\n");
  CHECK(text.find("t.net:2:") == 0);
  CHECK(text.find("t.net:6") != std::string::npos);
}

TEST_CASE("hostile descriptions end in an error, soon") {
  CHECK_FALSE(parse_net("", "t.net"));
  CHECK_FALSE(parse_net("network n { input x 1x1x1\n " + std::string(100'000, '{'), "t.net"));
  CHECK_FALSE(
      parse_net("network n { input x 1x1x1\n conv " + std::string(100'000, '(') + " }", "t.net"));
  CHECK_FALSE(parse_net("block b { b() b() }\nnetwork n { input x 1x1x1\n b() }", "t.net"));
  CHECK_FALSE(parse_net(
      "block b(n) { if n > 0 { b(n - 1); b(n - 1) } relu }\nnetwork n { input x 1x1x1\n b(60) }",
      "t.net"));
  CHECK_FALSE(parse_net("network n { input x 1x1x1\n repeat 1e15 { relu } }", "t.net"));
  CHECK_FALSE(parse_net("network n { input x 999999999x999999999x999999999\n relu }", "t.net"));
  CHECK_FALSE(parse_net("network n { input x 1x1x1\n conv 1e300 1x1 }", "t.net"));
  CHECK_FALSE(parse_net("network n { input x 1x1x1\n conv 1/0 1x1 }", "t.net"));
  std::mt19937_64 random(1);
  const std::string text =
      "block b(c, s = 1) {\n  add { { conv c 3x3 stride s pad 1; batchnorm; relu } { } }\n}\n"
      "network n(w = 4) {\n  input x 4x8x8\n  l: repeat 2 as i { b(w) } # comment\n  softmax\n}\n";
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = text;
    for (uint64_t n = random() % 3 + 1; n > 0; --n) {
      size_t at = random() % damaged.size();
      if (random() % 2)
        damaged[at] = char(random() % 128);
      else
        damaged.insert(at, damaged.substr(random() % damaged.size(), random() % 30));
    }
    auto graph = parse_net(damaged, "t.net");
    if (graph) CHECK(verify(*graph));
  }
}
