// Is a graph whole?
#include "ir/graph.h"

#include <fmt/format.h>
#include <unordered_set>

namespace lathe::core {
namespace {

std::string show(const Type &type) {
  return fmt::format("{} {}", to_string(type.dtype), to_string(type.shape));
}

class Verifier {
public:
  explicit Verifier(const Graph &graph) : graph_(graph), defined_(graph.values.size()) {}

  Result<void> run() {
    for (const Value &value : graph_.values)
      if (auto count = checked_element_count(value.type.shape); !count) {
        count.error().node = value.name;
        return fail(std::move(count).error());
      }
    LATHE_CHECK(inputs());
    LATHE_CHECK(constants());
    for (const Node &n : graph_.nodes)
      if (auto whole = node(n); !whole) {
        Error error = std::move(whole).error();
        error.node = n.name;
        error.op = op_name(n.op);
        error.file = n.source.file;
        error.line = n.source.line;
        return fail(std::move(error));
      }
    if (graph_.outputs.empty()) return broken("the graph has no output");
    for (ValueId id : graph_.outputs)
      if (!is_defined(id)) return broken("an output is never computed");
    return {};
  }

private:
  static std::unexpected<Error> broken(std::string message, std::string expected = {},
                                       std::string found = {}) {
    return fail(Error{.code = ErrorCode::invalid,
                      .message = std::move(message),
                      .expected = std::move(expected),
                      .found = std::move(found)});
  }
  bool is_defined(ValueId id) const { return id < defined_.size() && defined_[id]; }
  // False if it is no value, or has been defined before.
  bool define(ValueId id) {
    if (id >= defined_.size() || defined_[id]) return false;
    return defined_[id] = true;
  }

  Result<void> inputs() {
    for (ValueId id : graph_.inputs)
      if (!define(id) || graph_.constant(id))
        return broken("an input is no value of the graph, or defined twice");
    return {};
  }

  Result<void> constants() {
    for (size_t id = 0; id < graph_.values.size(); ++id) {
      const Value &value = graph_.values[id];
      if (!value.constant) continue;
      defined_[id] = true;
      auto whole = recipe(*value.constant);
      if (whole && value.constant->type != value.type)
        whole = broken("a constant has another type than its value", show(value.type),
                       show(value.constant->type));
      if (!whole) {
        whole.error().node = value.name;
        return whole;
      }
    }
    return {};
  }

  // Every part of a recipe that was not seen before, without recursion.
  Result<void> recipe(const Constant &root) {
    std::vector<const Constant *> pending;
    if (seen_.insert(&root).second) pending.push_back(&root);
    while (!pending.empty()) {
      const Constant &c = *pending.back();
      pending.pop_back();
      LATHE_CHECK(part(c));
      for (const ConstantRef &input : c.inputs)
        if (seen_.insert(input.get()).second) pending.push_back(input.get());
    }
    return {};
  }
  static Result<void> part(const Constant &c) {
    LATHE_CHECK(checked_element_count(c.type.shape));
    if (c.op.has_value() + c.splat.has_value() + (c.data.defined() || !c.name.empty()) > 1)
      return broken("a constant is made in two ways");
    if (c.splat && c.type.dtype != DType::f32)
      return broken("a splat has the wrong type", "f32", show(c.type));
    if (c.data.defined() && Type{c.data.dtype(), c.data.shape()} != c.type)
      return broken("a constant has data of another type", show(c.type),
                    show({c.data.dtype(), c.data.shape()}));
    if (!c.op && !c.inputs.empty()) return broken("a constant has operands but no op");
    if (!c.op) return {};
    std::vector<Type> types;
    for (const ConstantRef &input : c.inputs) {
      if (!input) return broken("a computed constant lacks an operand");
      types.push_back(input->type);
    }
    LATHE_TRY(auto results, infer_types(*c.op, types));
    return same_type(results[0], c.type);
  }

  Result<void> node(const Node &n) {
    if (!names_.insert(n.name).second) return broken("two layers have one name");
    std::vector<Type> types;
    for (ValueId id : n.inputs) {
      if (!is_defined(id)) return broken("an operand is used before it is defined");
      types.push_back(graph_.type(id));
    }
    LATHE_TRY(auto results, infer_types(n.op, types));
    if (results.size() != n.outputs.size())
      return broken("a layer has the wrong number of results", fmt::format("{}", results.size()),
                    fmt::format("{}", n.outputs.size()));
    for (size_t i = 0; i < results.size(); ++i) {
      if (!define(n.outputs[i]))
        return broken("a result is no value of the graph, or defined twice");
      LATHE_CHECK(same_type(results[i], graph_.type(n.outputs[i])));
    }
    return {};
  }

  static Result<void> same_type(const Type &inferred, const Type &found) {
    if (inferred == found) return {};
    return broken("a result has the wrong type", show(inferred), show(found));
  }

  const Graph &graph_;
  std::vector<bool> defined_; // by ValueId
  std::unordered_set<std::string_view> names_;
  std::unordered_set<const Constant *> seen_;
};

} // namespace

Result<void> verify(const Graph &graph) { return Verifier(graph).run(); }

} // namespace lathe::core
