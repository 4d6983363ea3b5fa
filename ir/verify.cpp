// Is a graph whole?
#include "ir/graph.h"

#include <fmt/format.h>
#include <unordered_set>

namespace lathe {
namespace {
std::unexpected<Error> broken(const Graph &graph, std::string message, const Node *node = nullptr) {
  Error error{.code = ErrorCode::invalid, .message = std::move(message), .file = graph.name};
  if (node) {
    error.node = node->name;
    error.op = op_name(node->op);
    if (!node->source.file.empty()) error.file = node->source.file;
    error.line = node->source.line;
  }
  return fail(std::move(error));
}
} // namespace

Result<void> verify(const Graph &graph) {
  const size_t count = graph.values.size();
  std::vector<bool> defined(count);
  for (ValueId id : graph.inputs) {
    if (id >= count) return broken(graph, "an input is no value of the graph");
    if (defined[id] || graph.constant(id)) return broken(graph, "an input is defined twice");
    defined[id] = true;
  }
  for (size_t id = 0; id < count; ++id) {
    const Value &value = graph.values[id];
    LATHE_CHECK(checked_element_count(value.type.shape));
    if (!value.constant) continue;
    defined[id] = true;
    if (value.constant->type != value.type)
      return broken(graph,
                    fmt::format("constant '{}' has another type than its value", value.name));
    const Tensor &data = value.constant->data;
    if (data.defined() && (data.dtype() != value.type.dtype || data.shape() != value.type.shape))
      return broken(graph, fmt::format("constant '{}' has data of another type", value.name));
  }
  std::unordered_set<std::string_view> names;
  for (const Node &node : graph.nodes) {
    if (!names.insert(node.name).second) return broken(graph, "two layers have one name", &node);
    std::vector<Type> types;
    for (ValueId id : node.inputs) {
      if (id >= count || !defined[id])
        return broken(graph, "an operand is used before it is defined", &node);
      types.push_back(graph.type(id));
    }
    auto results = infer_types(node.op, types);
    if (!results) {
      Error error = results.error();
      error.node = node.name;
      error.op = op_name(node.op);
      return fail(std::move(error));
    }
    if (results->size() != node.outputs.size())
      return broken(graph, "a layer has the wrong number of results", &node);
    for (size_t i = 0; i < results->size(); ++i) {
      ValueId id = node.outputs[i];
      if (id >= count || defined[id]) return broken(graph, "a result is defined twice", &node);
      defined[id] = true;
      if (graph.type(id) != (*results)[i])
        return broken(graph,
                      fmt::format("a result has type {}, inference says {}",
                                  to_string(graph.shape(id)), to_string((*results)[i].shape)),
                      &node);
    }
  }
  if (graph.outputs.empty()) return broken(graph, "the graph has no output");
  for (ValueId id : graph.outputs)
    if (id >= count || !defined[id]) return broken(graph, "an output is never computed");
  return {};
}

} // namespace lathe
