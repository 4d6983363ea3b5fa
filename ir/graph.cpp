// Building and editing graphs.
#include "ir/graph.h"

#include "ir/evaluate.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core {

// What is to be destroyed waits in a list that needs no memory of its own: the link to the next
// lies in place of the first input.
static void await(ConstantRef part, ConstantRef &list) {
  while (part && part.use_count() == 1 && !part->inputs.empty()) { // we are its last owner
    auto &inputs = const_cast<Constant &>(*part).inputs;
    std::swap(inputs.front(), list);
    std::swap(list, part); // now what was the first input
  }
}

Constant::~Constant() {
  ConstantRef list;
  for (ConstantRef &input : inputs) await(std::move(input), list);
  while (list) {
    const ConstantRef part = std::move(list);
    auto &parts = const_cast<Constant &>(*part).inputs;
    list = std::move(parts.front());
    for (size_t i = 1; i < parts.size(); ++i) await(std::move(parts[i]), list);
    parts.clear();
  }
}

ConstantRef named_constant(std::string name, Type type) {
  return std::make_shared<Constant>(Constant{.type = std::move(type), .name = std::move(name)});
}
ConstantRef bound_constant(std::string name, Tensor data) {
  Type type{data.dtype(), data.shape()};
  return std::make_shared<Constant>(
      Constant{.type = std::move(type), .name = std::move(name), .data = std::move(data)});
}
ConstantRef literal_constant(Tensor data) { return bound_constant("", std::move(data)); }
ConstantRef splat_constant(float value, Shape shape) {
  return std::make_shared<Constant>(
      Constant{.type = {DType::f32, std::move(shape)}, .name = "", .splat = value});
}
Result<ConstantRef> computed_constant(Op op, std::vector<ConstantRef> inputs) {
  std::vector<Type> types;
  for (const ConstantRef &input : inputs) types.push_back(input->type);
  LATHE_TRY(auto results, infer_types(op, types));
  if (const auto element = splat_result(op, inputs, results[0]))
    return splat_constant(*element, std::move(results[0].shape));
  return std::make_shared<Constant>(Constant{
      .type = std::move(results[0]), .name = "", .op = std::move(op), .inputs = std::move(inputs)});
}

ValueId Graph::add_input(std::string value_name, Type type) {
  values.push_back({std::move(value_name), std::move(type), nullptr});
  inputs.push_back(static_cast<ValueId>(values.size() - 1));
  return inputs.back();
}

ValueId Graph::add_constant(std::string value_name, ConstantRef constant) {
  Type type = constant->type;
  values.push_back({std::move(value_name), std::move(type), std::move(constant)});
  return static_cast<ValueId>(values.size() - 1);
}

Result<ValueId> Graph::add_node(std::string node_name, Op op, std::vector<ValueId> node_inputs,
                                Source source) {
  std::vector<Type> types;
  for (ValueId id : node_inputs) types.push_back(type(id));
  auto results = infer_types(op, types);
  if (!results) {
    Error error = std::move(results).error();
    error.node = node_name;
    error.op = op_name(op);
    error.file = source.file;
    error.line = source.line;
    return fail(std::move(error));
  }
  Node node{std::move(node_name), std::move(op), std::move(node_inputs), {}, std::move(source), {}};
  auto first = static_cast<ValueId>(values.size());
  for (size_t i = 0; i < results->size(); ++i) {
    node.outputs.push_back(static_cast<ValueId>(values.size()));
    std::string name = results->size() == 1 ? node.name : fmt::format("{}:{}", node.name, i);
    values.push_back({std::move(name), std::move((*results)[i]), nullptr});
  }
  nodes.push_back(std::move(node));
  return first;
}

Uses::Uses(const Graph &graph)
    : producer(graph.values.size(), -1), readers(graph.values.size()),
      is_output(graph.values.size()) {
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    for (ValueId id : graph.nodes[n].inputs) readers[id].push_back(static_cast<int>(n));
    for (ValueId id : graph.nodes[n].outputs) producer[id] = static_cast<int>(n);
  }
  for (ValueId id : graph.outputs) is_output[id] = true;
}

int Uses::single_reader(ValueId id) const {
  return readers[id].size() == 1 && !is_output[id] ? readers[id][0] : -1;
}

Names::Names(const Graph &graph) {
  for (const Node &node : graph.nodes) taken_.insert(node.name);
}

std::string Names::unused(const std::string &wish) {
  std::string name = wish;
  for (int number = 2; !taken_.insert(name).second; ++number)
    name = wish + ":" + std::to_string(number);
  return name;
}

void replace_uses(Graph &graph, ValueId from, ValueId to) {
  for (Node &node : graph.nodes) std::ranges::replace(node.inputs, from, to);
  std::ranges::replace(graph.outputs, from, to);
}

bool remove_dead_code(Graph &graph) {
  std::vector<bool> live(graph.values.size());
  for (ValueId id : graph.outputs) live[id] = true;
  std::vector<bool> keep(graph.nodes.size());
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    const Node &node = graph.nodes[n];
    keep[n] = std::ranges::any_of(node.outputs, [&](ValueId id) { return live[id]; });
    if (!keep[n]) continue;
    for (ValueId id : node.inputs) live[id] = true;
    for (ValueId id : node.outputs) live[id] = true; // a live node keeps all of its results
  }
  for (ValueId id : graph.inputs) live[id] = true;
  if (std::ranges::count(live, false) == 0) return false;

  std::vector<Node> nodes;
  for (size_t n = 0; n < graph.nodes.size(); ++n)
    if (keep[n]) nodes.push_back(std::move(graph.nodes[n]));
  graph.nodes = std::move(nodes);

  std::vector<ValueId> renumbered(graph.values.size(), no_value);
  std::vector<Value> values;
  for (size_t id = 0; id < live.size(); ++id) {
    if (!live[id]) continue;
    renumbered[id] = static_cast<ValueId>(values.size());
    values.push_back(std::move(graph.values[id]));
  }
  graph.values = std::move(values);
  auto renumber = [&](std::vector<ValueId> &ids) {
    for (ValueId &id : ids) id = renumbered[id];
  };
  renumber(graph.inputs);
  renumber(graph.outputs);
  for (Node &node : graph.nodes) {
    renumber(node.inputs);
    renumber(node.outputs);
  }
  return true;
}

} // namespace lathe::core
