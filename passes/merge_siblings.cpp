// 1x1 convolutions of one input -> one with the channels of all, split again: the reductions of an
// Inception module (Szegedy et al. 2015, section 4). One walk over the input instead of several,
// and panels that are full; the parts are views. Not where a part is wanted in place elsewhere: as
// a graph output, or in a concat, which would have to copy it.
#include "passes/pipeline.h"
#include "passes/take_over.h"

#include <map>

namespace lathe::core {
namespace {

bool is_candidate(const Graph &graph, const Uses &uses, const Node &node, ValueId input) {
  auto *conv = std::get_if<Conv>(&node.op);
  if (!conv || node.inputs[0] != input || conv->kernel != Size2{} || conv->pad != Pads{} ||
      conv->groups != 1 || !conv->pre.empty())
    return false;
  for (size_t i = 1; i < node.inputs.size(); ++i)
    if (!graph.constant(node.inputs[i])) return false; // a residual to add, or weights as inputs
  const ValueId result = node.outputs[0];
  return !uses.is_output[result] && std::ranges::none_of(uses.readers[result], [&](int reader) {
    return std::holds_alternative<Concat>(graph.nodes[size_t(reader)].op);
  });
}

bool alike(const Conv &a, const Conv &b) { return a.stride == b.stride && a.post == b.post; }

// Makes the first of `siblings` compute all of them; returns the node that takes them apart.
Node merge(Graph &graph, Names &names, const std::vector<int> &siblings) {
  auto node = [&](int n) -> Node & { return graph.nodes[size_t(n)]; };
  Node &first = node(siblings[0]);
  Conv op = std::get<Conv>(first.op);
  op.bias = std::ranges::any_of(siblings, [&](int n) { return std::get<Conv>(node(n).op).bias; });
  Split split{1, {}};
  Node parts{names.unused(first.name + ".parts"), {}, {}, {}, first.source, {}};
  std::vector<ConstantRef> weights, biases;
  for (int n : siblings) {
    const int64_t channels = graph.shape(node(n).outputs[0])[1];
    const bool bias = std::get<Conv>(node(n).op).bias;
    split.sizes.push_back(channels);
    weights.push_back(graph.constant(node(n).inputs[1]));
    biases.push_back(bias ? graph.constant(node(n).inputs[2]) : splat_constant(0, {channels}));
    parts.outputs.push_back(node(n).outputs[0]);
    if (n == siblings[0]) continue;
    first.fused.push_back(node(n).name);
    first.fused.insert(first.fused.end(), node(n).fused.begin(), node(n).fused.end());
    node(n).inputs.clear();
  }
  auto joined = [&](const char *what, const std::vector<ConstantRef> &all) {
    return graph.add_constant(first.name + what, computed_constant(Concat{0}, all).value());
  };
  first.inputs = {first.inputs[0], joined(".weights", weights)};
  if (op.bias) first.inputs.push_back(joined(".biases", biases));
  first.op = op;
  Type whole = graph.type(parts.outputs[0]);
  whole.shape[1] = 0;
  for (int64_t size : split.sizes) whole.shape[1] += size;
  graph.values.push_back({first.name + ".all", whole, nullptr});
  first.outputs = {ValueId(graph.values.size() - 1)};
  parts.inputs = first.outputs;
  parts.op = split;
  return parts;
}

} // namespace

int64_t merge_siblings(Graph &graph) {
  const Uses uses(graph);
  Names names(graph);
  std::map<int, Node> behind; // by the node that each stands behind
  const size_t values = graph.values.size();
  for (ValueId id = 0; id < values; ++id) {
    std::vector<std::vector<int>> groups;
    for (int n : uses.readers[id]) {
      const Node &node = graph.nodes[size_t(n)];
      if (!is_candidate(graph, uses, node, id)) continue;
      auto group = std::ranges::find_if(groups, [&](const std::vector<int> &g) {
        return alike(std::get<Conv>(graph.nodes[size_t(g[0])].op), std::get<Conv>(node.op));
      });
      if (group == groups.end())
        groups.push_back({n});
      else
        group->push_back(n);
    }
    for (const std::vector<int> &group : groups)
      if (group.size() > 1) behind.emplace(group[0], merge(graph, names, group));
  }
  if (behind.empty()) return false;
  std::vector<Node> nodes;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    nodes.push_back(std::move(graph.nodes[n]));
    if (auto parts = behind.find(int(n)); parts != behind.end())
      nodes.push_back(std::move(parts->second));
  }
  graph.nodes = std::move(nodes);
  drop_emptied(graph);
  return true;
}

} // namespace lathe::core
