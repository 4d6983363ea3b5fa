// Constants of the importer: what depends on constants alone becomes one, and what decides shapes
// is computed.
#include "frontend/onnx/importer.h"

#include "ir/evaluate.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace lathe::core::onnx {
namespace {

// Constants of the importer's own making, such as shapes; weights are not limited.
constexpr int64_t most_known_elements = 1 << 22;
constexpr size_t most_nodes = 1'000'000; // one of the file's may become thousands
constexpr int64_t most_float_recipe_depth = 64;

} // namespace

Values Importer::fold(const Op &op, const Values &inputs) {
  std::vector<ConstantRef> operands;
  int64_t depth = 0, elements = 0;
  for (ValueId id : inputs) {
    operands.push_back(graph_.constant(id));
    depth = std::max(depth, depth_[id] + 1);
    elements += element_count(graph_.shape(id));
  }
  auto one = [&](Op part) {
    ConstantRef recipe = unwrap(computed_constant(std::move(part), operands));
    // Shapes and indices are wanted soon; weights late, once, and maybe never.
    const bool whole = recipe->type.dtype != DType::f32;
    const int64_t size = std::max(elements, element_count(recipe->type.shape));
    if (whole && size > most_known_elements)
      fail_with(ErrorCode::limit, "too large a constant to compute while reading", "",
                fmt::format("at most {} elements", most_known_elements), fmt::format("{}", size));
    if (whole || (depth > most_float_recipe_depth && size <= most_known_elements)) {
      spend(size);
      recipe = literal_constant(unwrap(materialise(recipe, options_.budget)));
      depth = 0;
    }
    return add_constant(names_of_constants(), recipe, depth);
  };
  auto *split = std::get_if<Split>(&op);
  if (!split) return {one(op)};
  Values parts;
  int64_t begin = 0;
  for (int64_t size : split->sizes) {
    parts.push_back(one(Slice{{split->axis}, {begin}, {begin + size}, {1}}));
    begin += size;
  }
  return parts;
}
// Small files must not make large constants by the thousand.
void Importer::spend(int64_t elements) {
  constexpr int64_t most = int64_t{1} << 50;
  const int64_t counted = elements < 0 ? most : std::min(elements, most);
  grants_.push_back(unwrap(known_budget_.take(8 * counted, "computing constants while reading")));
}
// For a node, or a constant, and its names.
void Importer::pay(const std::string &name) {
  constexpr int64_t together = 1 << 20;
  owed_ += node_bytes + 4 * static_cast<int64_t>(name.size());
  if (owed_ < together) return;
  grants_.push_back(unwrap(options_.budget.take(std::exchange(owed_, 0), "reading the model")));
}
std::string Importer::names_of_constants() { return fmt::format("constant:{}", constants_++); }

// A constant's bytes; for what is none, notes which inputs would have to be known.
Tensor Importer::known(ValueId id) {
  if (const ConstantRef &constant = graph_.constant(id)) {
    if (element_count(constant->type.shape) > most_known_elements)
      fail_with(ErrorCode::limit, "too large a tensor to decide shapes", "",
                fmt::format("at most {} elements", most_known_elements),
                to_string(constant->type.shape));
    return unwrap(materialise(constant, options_.budget));
  }
  std::vector<bool> wanted(graph_.values.size());
  wanted[id] = true;
  for (size_t n = graph_.nodes.size(); n-- > 0;) {
    const Node &node = graph_.nodes[n];
    if (std::ranges::none_of(node.outputs, [&](ValueId out) { return wanted[out]; })) continue;
    for (ValueId in : node.inputs) wanted[in] = true;
  }
  std::string from;
  for (ValueId input : graph_.inputs)
    if (wanted[input]) {
      needed_.insert(graph_.values[input].name);
      from += fmt::format("{}'{}'", from.empty() ? "" : ", ", graph_.values[input].name);
    }
  throw Failure{Error{.code = ErrorCode::unsupported,
                      .message = "a shape or parameter that is only known at run time",
                      .expected = "a constant, or the values of the inputs it depends on",
                      .found = from.empty() ? "" : fmt::format("it depends on input {}", from)}};
}

// --- What handlers ask of the importer; the rest of Call is in call.cpp

Call::Call(Importer &importer, const NodeProto &node, const Scope &scope, int64_t opset,
           std::string name)
    : opset(opset), importer_(importer), node_(node), scope_(scope), name_(std::move(name)),
      read_(node.inputs.size()), emitted_(importer.graph_.nodes.size()) {
  for (Bytes input : node.inputs) inputs_.push_back(Importer::read_by_node(input, scope));
}
Items Call::call_graph(const GraphProto &graph, const Items &inputs, const std::string &label) {
  return importer_.call_graph(graph, inputs,
                              Scope{.outer = &scope_,
                                    .opsets = scope_.opsets,
                                    .attributes = scope_.attributes,
                                    .prefix = fmt::format("{}/{}/", name_, label),
                                    .depth = scope_.depth + 1});
}
const Type &Call::type(ValueId id) const { return importer_.graph_.type(id); }
bool Call::is_constant(ValueId id) const { return importer_.graph_.constant(id) != nullptr; }
Tensor Call::known(size_t i) const { return importer_.known(input(i)); }
Tensor Call::known_value(ValueId id) const { return importer_.known(id); }
Tensor Call::operand_value(ValueId id) const {
  // Whole numbers and flags are shapes and parameters, whose inputs may be given beforehand.
  if (!is_constant(id) && is_float(type(id).dtype))
    unsupported("an op that is computed only where all its operands are known", "constants",
                importer_.graph_.values[id].name);
  return importer_.known(id);
}

std::optional<float> Call::uniform(ValueId id) const {
  const ConstantRef &constant = importer_.graph_.constant(id);
  if (!constant || constant->type.dtype != DType::f32) return std::nullopt;
  if (constant->splat) return constant->splat;
  if (element_count(constant->type.shape) != 1) return std::nullopt;
  auto tensor = materialise(constant, importer_.options_.budget);
  if (!tensor) return std::nullopt;
  return tensor->f32()[0];
}

Tensor Call::tensor(Bytes name) const {
  const AttributeProto *a = find(name, AttributeProto::t_);
  if (!a || !a->t) invalid(fmt::format("attribute {} is missing", name));
  return importer_.unwrap(importer_.reader_.read(*a->t));
}

Values Call::add_all(Op op, Values inputs) {
  Importer &in = importer_;
  if (std::ranges::all_of(inputs, [&](ValueId id) { return is_constant(id); }))
    return in.fold(op, inputs);
  if (in.graph_.nodes.size() >= most_nodes)
    in.fail_with(ErrorCode::limit, "too many layers", "", fmt::format("at most {}", most_nodes));
  const bool first = in.graph_.nodes.size() == emitted_;
  std::string name = first ? name_ : in.unique(name_);
  in.pay(name);
  ValueId id = in.unwrap(in.graph_.add_node(std::move(name), std::move(op), std::move(inputs)));
  Values results(in.graph_.nodes.back().outputs.size());
  for (ValueId &result : results) result = id++;
  in.depth_.resize(in.graph_.values.size());
  return results;
}
void Call::spend(int64_t elements) { importer_.spend(elements); }
ValueId Call::constant(Tensor tensor) {
  return importer_.add_constant(importer_.names_of_constants(),
                                literal_constant(std::move(tensor)));
}
ValueId Call::filled(float value, Shape shape) {
  importer_.unwrap(checked_element_count(shape));
  return importer_.add_constant(importer_.names_of_constants(),
                                splat_constant(value, std::move(shape)));
}
ValueId Call::weight(ConstantRef constant) {
  return importer_.add_constant(name_, std::move(constant));
}
bool Call::unbinds_weights() const { return importer_.options_.unbind_weights; }

} // namespace lathe::core::onnx
