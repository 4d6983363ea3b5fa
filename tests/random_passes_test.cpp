// The passes on thousands of random graphs, all together and each alone, against the evaluator; and
// that these graphs show them everything there is.
#include "ir/compare.h"
#include "ir/evaluate.h"
#include "ir/op_table.h"
#include "passes/pipeline.h"
#include "tests/random_graph.h"
#include "tests/reduce_graph.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <map>
#include <set>

using namespace lathe::core;

namespace {

// What is wrong with `result`; empty if it is right.
std::string fault(const Tensor &result, const Tensor &reference) {
  if (result.shape() != reference.shape() || result.dtype() != reference.dtype())
    return "another type";
  if (reference.dtype() != DType::f32) return {}; // of reduced graphs only
  const Comparison c = compare(result, reference);
  if (c.largest_error <= 2e-5 * c.largest_reference + 1e-6) return {};
  return fmt::format("an error of {} at {}, of at most {}", c.largest_error, c.worst,
                     c.largest_reference);
}

// What a graph computes, before passes change it; none for what reduction may lead to.
struct Reference {
  std::vector<Tensor> inputs, outputs;
};
std::optional<Reference> reference(const Graph &graph, uint64_t seed) {
  Reference r{random_inputs(graph, seed, 2), {}};
  auto outputs = finite_results(graph, r.inputs);
  if (!outputs || !jumps_alike(graph)) return std::nullopt;
  r.outputs = std::move(*outputs);
  return r;
}

// What goes wrong where the passes run; empty if nothing does. Counts the passes that had an
// effect.
std::string fault(Graph graph, const Reference &expected, const std::vector<std::string> &disabled,
                  std::map<std::string, int, std::less<>> &effects) {
  PipelineOptions options;
  options.disabled = disabled;
  auto reports = run_passes(graph, options);
  if (!reports) return to_string(reports.error());
  const bool changed = std::ranges::any_of(*reports, &PassReport::changes);
  for (const PassReport &report : *reports) effects[std::string(report.name)] += report.changes > 0;
  if (!changed) return {};
  auto outputs = evaluate(graph, expected.inputs);
  if (!outputs) return to_string(outputs.error());
  for (size_t j = 0; j < outputs->size(); ++j)
    if (auto wrong = fault((*outputs)[j], expected.outputs[j]); !wrong.empty())
      return fmt::format("output {}: {}", j, wrong);
  return {};
}

void check(const Graph &graph, uint64_t seed, const Reference &expected,
           const std::vector<std::string> &disabled,
           std::map<std::string, int, std::less<>> &effects) {
  const std::string wrong = fault(graph, expected, disabled, effects);
  if (wrong.empty()) return;
  auto again = [&](const Graph &g) {
    auto r = reference(g, seed);
    return r && !fault(g, *r, disabled, effects).empty();
  };
  FAIL_CHECK(fmt::format("seed {}: {}\nwithout {}\n{}", seed, wrong, fmt::join(disabled, ", "),
                         print(reduce_graph(graph, again))));
}

// All passes that may be left out, but for one.
std::vector<std::string> all_but(std::string_view name) {
  std::vector<std::string> names;
  for (const Pass &pass : pipeline())
    if (pass.optional && pass.name != name) names.emplace_back(pass.name);
  return names;
}

} // namespace

TEST_CASE("random graphs hold every op, of every kind") {
  std::set<std::string> found;
  bool backwards = false;
  for (uint64_t seed = 0; seed < 500; ++seed)
    for (const Node &node : random_graph(seed).nodes) {
      found.insert(op_name(node.op));
      if (auto *slice = std::get_if<Slice>(&node.op))
        backwards |= std::ranges::any_of(slice->step, [](int64_t step) { return step < 0; });
    }
  for (const auto &[name, op] : op_table()) CHECK_MESSAGE(found.contains(name), name);
  CHECK(backwards);
}

namespace {

// What `id` is a part of, by channels or columns; or no value.
ValueId whole_of(const Graph &graph, const Uses &uses, ValueId id) {
  const int n = uses.producer[id];
  if (n < 0 || graph.shape(id).size() < 2) return no_value;
  const Node &node = graph.nodes[size_t(n)];
  const bool part =
      std::holds_alternative<Slice>(node.op) || std::holds_alternative<Split>(node.op);
  return part && graph.shape(id)[1] < graph.shape(node.inputs[0])[1] ? node.inputs[0] : no_value;
}

} // namespace

TEST_CASE("random graphs have parts of every kind of result in front of every kind of op") {
  std::set<size_t> makers, readers;  // kinds of ops
  int of_lanes = 0, of_siblings = 0; // read by convolutions with few channels in a group
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Graph graph = random_graph(seed);
    for (bool passed : {false, true}) {
      if (passed) REQUIRE(run_passes(graph));
      const Uses uses(graph);
      for (const Node &node : graph.nodes) {
        const ValueId id = node.inputs[0], whole = whole_of(graph, uses, id);
        if (whole == no_value) continue;
        readers.insert(node.op.index());
        if (uses.producer[whole] >= 0)
          makers.insert(graph.nodes[size_t(uses.producer[whole])].op.index());
        auto *conv = std::get_if<Conv>(&node.op);
        if (!conv || conv->groups == 1 || graph.shape(id)[1] / conv->groups > 4) continue;
        of_lanes += graph.shape(whole)[1] % 8 == 0 && graph.shape(id)[1] % 4 != 0;
        of_siblings += graph.nodes[size_t(uses.producer[id])].name.ends_with(".parts");
      }
    }
  }
  for (const auto &[name, op] : op_table()) {
    CHECK_MESSAGE(readers.contains(op.index()), name);
    // Of an index only the float that it becomes is split.
    CHECK_MESSAGE((makers.contains(op.index()) || std::holds_alternative<ArgReduce>(op)), name);
  }
  CHECK(of_lanes > 100);
  CHECK(of_siblings > 50);
}

TEST_CASE("all passes together keep what 20,000 random graphs compute") {
  std::map<std::string, int, std::less<>> effects;
  for (uint64_t seed = 20'000; seed < 40'000; ++seed) {
    const Graph graph = random_graph(seed);
    const auto expected = reference(graph, seed);
    REQUIRE_MESSAGE(expected, seed);
    check(graph, seed, *expected, {}, effects);
  }
  for (const Pass &pass : pipeline())
    CHECK_MESSAGE(effects[std::string(pass.name)] >= 20, pass.name);
}

TEST_CASE("each pass alone keeps what 3,000 random graphs compute") {
  std::map<std::string, int, std::less<>> effects;
  for (uint64_t seed = 50'000; seed < 53'000; ++seed) {
    const Graph graph = random_graph(seed);
    const auto expected = reference(graph, seed);
    REQUIRE_MESSAGE(expected, seed);
    for (const Pass &pass : pipeline()) check(graph, seed, *expected, all_but(pass.name), effects);
  }
  for (const Pass &pass : pipeline())
    CHECK_MESSAGE(effects[std::string(pass.name)] >= 5, pass.name);
}
