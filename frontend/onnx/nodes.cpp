// Nodes of a model's graph, of its functions, and of graphs in nodes: the ones that the outputs
// need, one after the other. Calls are inlined.
#include "frontend/onnx/importer.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core::onnx {
namespace {

constexpr int64_t newest_opset = 28;   // whose rules the handlers follow (ONNX 1.23)
constexpr size_t most_problems = 1000; // behind them nobody reads on
constexpr size_t most_steps = 500'000; // nodes that are read, again in every call and iteration
constexpr int most_calls = 64;         // in each other

int64_t opset_of(const Opsets &opsets) {
  auto found = opsets.find("");
  return found == opsets.end() ? 1 : found->second;
}
bool is_own(const NodeProto &node) { return node.domain.empty() || node.domain == "ai.onnx"; }

// The node with the attributes that its function was called with: those that were not given are
// left out, so that their ops' own defaults hold.
NodeProto with_attributes_of(const Scope &scope, NodeProto node) {
  std::vector<AttributeProto> attributes;
  for (AttributeProto &a : node.attributes) {
    if (a.reference.empty() || !scope.attributes) {
      attributes.push_back(std::move(a));
      continue;
    }
    auto bound = std::ranges::find(*scope.attributes, a.reference, &AttributeProto::name);
    if (bound == scope.attributes->end()) continue;
    attributes.push_back(*bound);
    attributes.back().name = a.name;
  }
  node.attributes = std::move(attributes);
  return node;
}

std::vector<Bytes> names_of(const std::vector<ValueInfo> &values) {
  std::vector<Bytes> names;
  for (const ValueInfo &value : values) names.push_back(value.name);
  return names;
}

// By which functions are called.
std::string key_of(Bytes domain, Bytes name, Bytes overload) {
  return fmt::format("{}\n{}\n{}", domain == "ai.onnx" ? "" : domain, name, overload);
}

} // namespace

void Importer::add_functions() {
  for (const FunctionProto &f : model_.functions)
    if (!functions_.emplace(key_of(f.domain, f.name, f.overload), &f).second)
      fail_with(ErrorCode::invalid, "a function is defined twice", f.name);
}

void Importer::add_nodes(const std::vector<NodeProto> &nodes, const std::vector<Bytes> &outputs,
                         Scope &scope) {
  auto order = orders_.find(&nodes);
  if (order == orders_.end())
    order = orders_.emplace(&nodes, unwrap(execution_order(nodes, outputs, scope))).first;
  for (size_t n : order->second) {
    if (problems_.size() >= most_problems) return;
    add_node(nodes[n], scope);
    check_budget(nodes[n]);
  }
}

void Importer::add_node(const NodeProto &written, Scope &scope) {
  const bool refers = std::ranges::any_of(
      written.attributes, [](const AttributeProto &a) { return !a.reference.empty(); });
  const NodeProto copy = refers ? with_attributes_of(scope, written) : NodeProto{};
  const NodeProto &node = refers ? copy : written;
  const int64_t opset = opset_of(*scope.opsets);
  try {
    if (++steps_ > most_steps)
      throw Abort{Error{.code = ErrorCode::limit,
                        .message = "too many nodes, with those of calls and loops",
                        .file = path_,
                        .node = scope.prefix + clean(shown(node)),
                        .expected = fmt::format("at most {}", most_steps)}};
    if (const FunctionProto *function = find_function(node))
      return call_function(*function, node, scope);
    call_op(node, scope, opset);
  } catch (const Failure &failure) {
    Error error = failure.error;
    error.node = scope.prefix + clean(shown(node));
    error.op = fmt::format("{} (opset {})", clean(node.op_type), opset);
    if (const std::string advice = advice_on(failure.obstacle, node, model_); !advice.empty())
      error.detail = "    " + advice;
    if (error.code == ErrorCode::limit && options_.budget.over()) throw Abort{std::move(error)};
    problems_.push_back(std::move(error));
    scope.broken.insert(node.outputs.begin(), node.outputs.end());
  } catch (const Behind &) {
    scope.broken.insert(node.outputs.begin(), node.outputs.end());
  }
}

// Notes what could not be read of the file, now that it is needed. What is behind a problem is no
// problem by itself.
bool Importer::readable(const NodeProto &node, const Scope &scope) {
  bool all = true;
  for (Bytes name : node.inputs) {
    if (name.empty() || !scope.is_broken(name)) continue;
    all = false;
    if (auto unread = unread_.find(name); unread != unread_.end()) {
      problems_.push_back(std::move(unread->second));
      unread_.erase(unread);
    }
  }
  return all;
}

void Importer::call_op(const NodeProto &node, Scope &scope, int64_t opset) {
  const HandlerEntry *entry = is_own(node) ? find_handler(node.op_type) : nullptr;
  if (!entry && is_own(node))
    throw Failure{
        Error{.code = ErrorCode::unsupported, .message = "an op that Lathe does not know"},
        Obstacle::unknown_op};
  if (!entry)
    throw Failure{Error{.code = ErrorCode::unsupported,
                        .message = fmt::format("an op of the domain '{}'", clean(node.domain))},
                  Obstacle::foreign_domain};
  if (opset > newest_opset)
    throw Failure{Error{.code = ErrorCode::unsupported,
                        .message = "an op of an opset that Lathe does not know",
                        .expected = fmt::format("1 to {}", newest_opset)},
                  Obstacle::newer_opset};
  check_attributes(*entry, node, opset);
  if (!readable(node, scope)) throw Behind{};
  Call call(*this, node, scope, opset, unique(scope.prefix + clean(shown(node))));
  const Values results = entry->handler(call);
  call.check_inputs();
  finish(node, call.results(results), call.emitted(), scope);
}

const FunctionProto *Importer::find_function(const NodeProto &node) const {
  if (functions_.empty()) return nullptr;
  auto found = functions_.find(key_of(node.domain, node.op_type, node.overload));
  return found == functions_.end() ? nullptr : found->second;
}

void Importer::call_function(const FunctionProto &function, const NodeProto &node, Scope &scope) {
  auto invalid = [](std::string message, std::string expected, std::string found = {}) {
    throw Failure{Error{.code = ErrorCode::invalid,
                        .message = std::move(message),
                        .expected = std::move(expected),
                        .found = std::move(found)}};
  };
  if (scope.depth >= most_calls)
    invalid("functions that call each other without an end", fmt::format("{} deep", most_calls));
  if (node.inputs.size() > function.inputs.size())
    invalid("too many inputs of a function", fmt::format("{}", function.inputs.size()),
            fmt::format("{}", node.inputs.size()));
  if (node.outputs.size() > function.outputs.size())
    invalid("too many outputs of a function", fmt::format("{}", function.outputs.size()),
            fmt::format("{}", node.outputs.size()));
  std::vector<AttributeProto> attributes = node.attributes;
  auto given = [&](Bytes name) {
    return std::ranges::count(attributes, name, &AttributeProto::name);
  };
  for (const AttributeProto &a : node.attributes) {
    if (!std::ranges::count(function.attributes, a.name) &&
        !std::ranges::count(function.defaults, a.name, &AttributeProto::name))
      invalid(fmt::format("attribute {} is none of this function's", clean(a.name)), "");
    if (given(a.name) > 1) invalid(fmt::format("attribute {} stands twice", clean(a.name)), "");
  }
  for (const AttributeProto &a : function.defaults)
    if (!given(a.name)) attributes.push_back(a);
  if (!readable(node, scope)) throw Behind{};

  Scope inner{.opsets = function.opsets.empty() ? scope.opsets : &function.opsets,
              .attributes = &attributes,
              .prefix = unique(scope.prefix + clean(shown(node))) + "/",
              .depth = scope.depth + 1};
  if (opset_of(*inner.opsets) < 1) invalid("bad opset of a function", "1 or more");
  for (size_t i = 0; i < function.inputs.size(); ++i) {
    define(inner, function.inputs[i],
           i < node.inputs.size() ? read_by_node(node.inputs[i], scope) : Item{});
  }
  const size_t emitted = graph_.nodes.size(), problems = problems_.size();
  add_nodes(function.nodes, function.outputs, inner);
  if (problems_.size() > problems) throw Behind{};
  Items results = results_of(function.outputs, inner);
  results.resize(node.outputs.size());
  finish(node, results, emitted, scope);
}

Items Importer::call_graph(const GraphProto &graph, const Items &inputs, Scope scope) {
  auto invalid = [](std::string message, std::string expected, std::string found = {}) {
    throw Failure{Error{.code = ErrorCode::invalid,
                        .message = std::move(message),
                        .expected = std::move(expected),
                        .found = std::move(found)}};
  };
  if (scope.depth >= most_calls)
    invalid("too many graphs in nodes of graphs", fmt::format("at most {} deep", most_calls));
  if (inputs.size() != graph.inputs.size())
    invalid("a graph of a node has the wrong number of inputs", fmt::format("{}", inputs.size()),
            fmt::format("{}", graph.inputs.size()));
  for (size_t i = 0; i < inputs.size(); ++i) define(scope, graph.inputs[i].name, inputs[i]);
  const size_t problems = problems_.size();
  add_initializers(graph, scope);
  const std::vector<Bytes> outputs = names_of(graph.outputs);
  add_nodes(graph.nodes, outputs, scope);
  if (problems_.size() > problems) throw Behind{};
  return results_of(outputs, scope);
}

Item Importer::read_by_node(Bytes name, const Scope &scope) {
  if (name.empty()) return {};
  const Item *found = scope.find(name); // execution_order has asked for it, too
  if (!found)
    throw Failure{Error{.code = ErrorCode::invalid,
                        .message = "a node reads a value that nothing makes",
                        .found = clean(name)}};
  return *found;
}

Items Importer::results_of(const std::vector<Bytes> &names, const Scope &scope) const {
  Items results;
  for (Bytes name : names) {
    if (scope.is_broken(name)) throw Behind{};
    const Item *found = scope.find(name);
    if (!found)
      throw Failure{Error{.code = ErrorCode::invalid,
                          .message = "an output that no node makes",
                          .found = clean(name)}};
    results.push_back(*found);
  }
  return results;
}

void Importer::finish(const NodeProto &node, const Items &results, size_t emitted, Scope &scope) {
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i].empty()) continue;
    ValueId id = results[i].id;
    if (id == no_value) {
      define(scope, node.outputs[i], results[i]);
      continue;
    }
    const std::string name = scope.prefix + clean(node.outputs[i]);
    auto fresh = [&](const Node &made) { return std::ranges::count(made.outputs, id) > 0; };
    auto made = std::find_if(graph_.nodes.begin() + int64_t(emitted), graph_.nodes.end(), fresh);
    auto named = named_.find(id);
    // A call's result has a name inside, which gives way to the one outside.
    if (made != graph_.nodes.end() && (named == named_.end() || named->second > scope.depth)) {
      graph_.values[id].name = name;
      named_[id] = scope.depth;
    } else if (graph_.constant(id)) {
      id = add_constant(name, graph_.constant(id), depth_[id]);
    } else { // the same value under a second name
      id = unwrap(graph_.add_node(unique(name), Unary{UnaryKind::identity}, {id}));
      graph_.values[id].name = name;
      named_[id] = scope.depth;
    }
    define(scope, node.outputs[i], {id});
  }
}

std::string Importer::unique(const std::string &name) {
  size_t &count = names_[name];
  std::string result = count == 0 ? name : fmt::format("{}#{}", name, count);
  ++count;
  if (result != name && names_.contains(result)) return unique(result);
  names_.emplace(result, 1);
  return result;
}

} // namespace lathe::core::onnx
