#include "frontend/onnx/scope.h"

#include <algorithm>
#include <optional>
#include <queue>

namespace lathe::core::onnx {
namespace {

std::unexpected<Error> bad(std::string message, Bytes where, std::string found = {}) {
  return fail(Error{.code = ErrorCode::invalid,
                    .message = std::move(message),
                    .node = clean(where),
                    .found = std::move(found)});
}

// Calls `visit` for the names that a node reads: its inputs, and what its graphs capture.
template <typename Visit> void for_each_read(const NodeProto &node, const Visit &visit) {
  for (Bytes name : node.inputs)
    if (!name.empty()) visit(name);
  for (const AttributeProto &a : node.attributes)
    if (a.g)
      for (Bytes name : captured_names(*a.g)) visit(name);
}

} // namespace

Bytes shown(const NodeProto &node) {
  if (!node.name.empty() || node.outputs.empty()) return node.name;
  return node.outputs[0];
}

std::unordered_set<Bytes> captured_names(const GraphProto &graph) {
  std::unordered_set<Bytes> own, captured;
  for (const ValueInfo &input : graph.inputs) own.insert(input.name);
  for (const TensorProto &t : graph.initializers) own.insert(t.name);
  for (const NodeProto &node : graph.nodes) own.insert(node.outputs.begin(), node.outputs.end());
  auto add = [&](Bytes name) {
    if (!name.empty() && !own.contains(name)) captured.insert(name);
  };
  for (const NodeProto &node : graph.nodes) for_each_read(node, add);
  for (const ValueInfo &output : graph.outputs) add(output.name);
  return captured;
}

Result<std::vector<size_t>> execution_order(const std::vector<NodeProto> &nodes,
                                            const std::vector<Bytes> &outputs, const Scope &scope) {
  std::unordered_map<Bytes, size_t> maker;
  for (size_t n = 0; n < nodes.size(); ++n)
    for (Bytes name : nodes[n].outputs) {
      if (name.empty()) continue;
      if (!maker.emplace(name, n).second || scope.items.contains(name))
        return bad("a value is defined twice", name);
    }
  std::vector<size_t> waits(nodes.size()), order;
  std::vector<std::vector<size_t>> readers(nodes.size()), makers(nodes.size());
  for (size_t n = 0; n < nodes.size(); ++n) {
    std::optional<Bytes> unknown;
    for_each_read(nodes[n], [&](Bytes name) {
      if (auto found = maker.find(name); found != maker.end()) {
        readers[found->second].push_back(n);
        makers[n].push_back(found->second);
        ++waits[n];
      } else if (!scope.find(name) && !scope.is_broken(name) && !unknown) {
        unknown = name;
      }
    });
    if (unknown)
      return bad("a node reads a value that nothing makes", shown(nodes[n]), clean(*unknown));
  }
  std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
  for (size_t n = 0; n < nodes.size(); ++n)
    if (waits[n] == 0) ready.push(n);
  while (!ready.empty()) {
    const size_t n = ready.top();
    ready.pop();
    order.push_back(n);
    for (size_t reader : readers[n])
      if (--waits[reader] == 0) ready.push(reader);
  }
  if (order.size() < nodes.size()) {
    auto stuck = std::ranges::find_if(waits, [](size_t count) { return count > 0; });
    return bad("the graph has a cycle", shown(nodes[size_t(stuck - waits.begin())]));
  }
  std::vector<bool> needed(nodes.size());
  for (Bytes name : outputs)
    if (auto found = maker.find(name); found != maker.end()) needed[found->second] = true;
  for (size_t i = order.size(); i-- > 0;)
    if (needed[order[i]])
      for (size_t n : makers[order[i]]) needed[n] = true;
  std::erase_if(order, [&](size_t n) { return !needed[n]; });
  return order;
}

} // namespace lathe::core::onnx
