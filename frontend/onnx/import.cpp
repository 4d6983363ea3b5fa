// ONNX to graph: the file as a whole, its inputs, weights and outputs.
#include "frontend/onnx/importer.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fmt/format.h>

namespace lathe::core::onnx {
namespace {

constexpr int64_t most_known_bytes = 1 << 27; // of constants of the importer's own making

// An open dimension has a name, or nothing, or the -1 that Paddle, Caffe2 and MXNet write.
bool is_open(const Dimension &dimension) { return dimension.value.value_or(-1) == -1; }
// A name that is a number is that number, where nothing else is known.
std::optional<int64_t> likely_extent(const Dimension &dimension) {
  if (dimension.value) return is_open(dimension) ? std::nullopt : dimension.value;
  int64_t value = 0;
  const char *end = dimension.name.data() + dimension.name.size();
  auto [stop, status] = std::from_chars(dimension.name.data(), end, value);
  if (dimension.name.empty() || status != std::errc{} || stop != end || value < 0)
    return std::nullopt;
  return value;
}

} // namespace

Importer::Importer(const ModelProto &model, const ModelBytes &bytes, const std::string &path,
                   const OnnxOptions &options, const Names &bound)
    : model_(model), path_(path), options_(options),
      known_budget_(options.budget.part(most_known_bytes)), bound_(bound),
      reader_(bytes, std::filesystem::path(path).parent_path().string()) {
  graph_.name = std::filesystem::path(path).stem().string();
  scope_.opsets = &model.opsets;
}

Result<Graph> Importer::run() {
  try {
    check_versions();
    add_functions();
    add_initializers(model_.graph, scope_);
    add_inputs();
    std::vector<Bytes> outputs;
    for (const ValueInfo &output : model_.graph.outputs) outputs.push_back(output.name);
    add_nodes(model_.graph.nodes, outputs, scope_);
    if (problems_.empty()) add_outputs();
  } catch (const Failure &failure) {
    problems_.push_back(failure.error);
  } catch (const Abort &abort) {
    problems_.push_back(abort.error);
  }
  if (!problems_.empty()) return fail(summary_of(std::move(problems_), path_));
  remove_dead_code(graph_);
  return std::move(graph_);
}

void Importer::fail_with(ErrorCode code, std::string message, Bytes where, std::string expected,
                         std::string found) const {
  throw Failure{Error{.code = code,
                      .message = std::move(message),
                      .file = path_,
                      .node = clean(where),
                      .expected = std::move(expected),
                      .found = std::move(found)}};
}
void Importer::fail_with(Error error) const {
  if (error.file.empty()) error.file = path_;
  throw Failure{std::move(error)};
}
void Importer::check_budget(const NodeProto &node) const {
  auto result = options_.budget.check("reading the model");
  if (result) return;
  result.error().node = clean(shown(node));
  result.error().file = path_;
  throw Abort{std::move(result).error()};
}

// --- The file as a whole

void Importer::check_versions() {
  if (!model_.has_graph)
    fail_with(ErrorCode::invalid, "not an ONNX model", "", "a model with a graph", "none");
  if (model_.ir_version < 1)
    fail_with(ErrorCode::invalid, "bad IR version of an ONNX model", "", "1 or more",
              fmt::format("{}", model_.ir_version));
  if (model_.ir_version >= 3 && model_.opsets.empty() && !model_.graph.nodes.empty())
    fail_with(ErrorCode::invalid, "an ONNX model without opset", "", "opset_import");
  if (auto own = model_.opsets.find(""); own != model_.opsets.end() && own->second < 1)
    fail_with(ErrorCode::invalid, "bad opset", "", "1 or more", fmt::format("{}", own->second));
  if (model_.graph.sparse_initializers) fail_with(ErrorCode::unsupported, "sparse weights", "");
}

void Importer::define(Scope &scope, Bytes name, Item item) {
  if (!scope.items.emplace(name, std::move(item)).second)
    fail_with(ErrorCode::invalid, "a value is defined twice", name);
}

void Importer::add_initializers(const GraphProto &graph, Scope &scope) {
  for (const TensorProto &t : graph.initializers) {
    // Without a name it is a literal, which may be looked at.
    auto tensor = t.name.empty() ? reader_.read(t) : reader_.read_constant(t);
    if (!tensor) { // a problem once somebody needs it
      unread_.emplace(t.name, std::move(tensor).error());
      scope.broken.insert(t.name);
      continue;
    }
    const std::string name = scope.prefix + clean(t.name);
    define(scope, t.name, {add_constant(name, weight_constant(name, std::move(*tensor)))});
  }
}
ConstantRef Importer::weight_constant(const std::string &name, Tensor tensor) const {
  const bool unbind = options_.unbind_weights && tensor.dtype() == DType::f32 &&
                      !tensor.shape().empty() && tensor.size() > 1;
  return unbind ? named_constant(name, {DType::f32, tensor.shape()})
                : bound_constant(name, std::move(tensor));
}
ValueId Importer::add_constant(std::string name, ConstantRef constant, int64_t depth) {
  pay(name);
  ValueId id = graph_.add_constant(std::move(name), std::move(constant));
  depth_.resize(graph_.values.size());
  depth_[id] = depth;
  return id;
}

void Importer::add_inputs() {
  for (const auto &[name, shape] : options_.shapes)
    if (std::ranges::none_of(model_.graph.inputs,
                             [&](const ValueInfo &input) { return clean(input.name) == name; }))
      fail_with(ErrorCode::usage, "a shape is given for an input that the model does not have", "",
                fmt::format("{}", fmt::join(input_names(), " or ")), name);
  for (const ValueInfo &input : model_.graph.inputs) {
    if (scope_.items.contains(input.name) || scope_.broken.contains(input.name))
      continue; // a default
    try {
      const std::string name = clean(input.name);
      auto value = options_.values.find(name);
      const Tensor *given = value == options_.values.end() ? nullptr : &value->second;
      const Type type = input_type(input, name, given);
      if (bound_.contains(name) && given) {
        const Tensor known = is_float(type.dtype) ? to_f32(*given) : *given;
        define(scope_, input.name, {add_constant(name, literal_constant(known))});
        continue;
      }
      ValueId id = graph_.add_input(name, type);
      if (is_float(type.dtype) && type.dtype != DType::f32)
        id = unwrap(graph_.add_node(unique(name + ".f32"), Cast{DType::f32}, {id}));
      define(scope_, input.name, {id});
    } catch (const Failure &failure) {
      problems_.push_back(failure.error);
      scope_.broken.insert(input.name);
    }
  }
}

Type Importer::input_type(const ValueInfo &input, const std::string &name,
                          const Tensor *given) const {
  if (!input.is_tensor) fail_with(ErrorCode::unsupported, "an input that is no tensor", input.name);
  auto dtype = declared_type(input.data_type);
  if (!dtype)
    fail_with(ErrorCode::unsupported, "an input of a type that Lathe does not compute with",
              input.name, "float, double, float16, bfloat16, int64, int32 or bool",
              type_name(input.data_type));
  auto replaced = options_.shapes.find(name);
  if (replaced != options_.shapes.end()) {
    if (input.has_shape && input.shape.size() != replaced->second.size())
      fail_with(ErrorCode::invalid, "the shape given for an input has the wrong rank", input.name,
                shape_option(input), to_string(replaced->second));
    check_possible(replaced->second, input.name);
    return {*dtype, replaced->second};
  }
  if (given && (!input.has_shape || given->shape().size() == input.shape.size()))
    return {*dtype, filled_in(input, given)};
  if (!input.has_shape)
    fail_with(ErrorCode::invalid, "an input without a shape", input.name,
              fmt::format("--shape {}=1x3x224x224, say, as the model needs it", name));
  return {*dtype, filled_in(input, nullptr)};
}
// What to type for an input of this rank: what the file says, and likely sizes where it says
// nothing.
std::string Importer::shape_option(const ValueInfo &input) const {
  std::vector<int64_t> shape;
  for (size_t d = 0; d < input.shape.size(); ++d) {
    const int64_t known = likely_extent(input.shape[d]).value_or(0);
    shape.push_back(known > 0 ? known : d == 0 ? options_.batch : d == 1 ? 3 : 224);
  }
  return fmt::format("--shape {}={}, say", clean(input.name), fmt::join(shape, "x"));
}
std::vector<std::string> Importer::input_names() const {
  std::vector<std::string> names;
  for (const ValueInfo &input : model_.graph.inputs) names.push_back(clean(input.name));
  return names;
}
Shape Importer::filled_in(const ValueInfo &input, const Tensor *given) const {
  if (!input.has_shape) return given->shape();
  Shape shape;
  for (size_t d = 0; d < input.shape.size(); ++d) {
    const Dimension &dimension = input.shape[d];
    const std::optional<int64_t> extent = likely_extent(dimension);
    if (extent && (*extent != 0 || d > 0) && !(given && is_open(dimension))) {
      shape.push_back(*extent);
    } else if (given) {
      shape.push_back(given->shape()[d]);
    } else if (d == 0) { // a name, nothing, or the 0 that some exporters write for both
      shape.push_back(options_.batch);
    } else {
      fail_with(ErrorCode::invalid, "an input with an unknown dimension", input.name,
                shape_option(input),
                fmt::format("dimension {} is {}", d,
                            dimension.value ? fmt::format("{}", *dimension.value)
                                            : fmt::format("'{}'", clean(dimension.name))));
    }
  }
  check_possible(shape, input.name);
  return shape;
}
void Importer::check_possible(const Shape &shape, Bytes input) const {
  if (!checked_element_count(shape))
    fail_with(ErrorCode::invalid, "impossible shape of an input", input, "", to_string(shape));
}

void Importer::add_outputs() {
  std::unordered_set<ValueId> taken(graph_.inputs.begin(), graph_.inputs.end());
  for (const ValueInfo &output : model_.graph.outputs) {
    if (auto unread = unread_.find(output.name); unread != unread_.end()) fail_with(unread->second);
    const Item *found = scope_.find(output.name);
    if (!found) fail_with(ErrorCode::invalid, "an output that no node makes", output.name);
    if (found->id == no_value)
      fail_with(ErrorCode::unsupported, "an output that is no tensor", output.name);
    ValueId id = found->id;
    const std::string name = clean(output.name);
    // An output has a name of its own: another name's value is passed on.
    const bool own = graph_.values[id].name == name && taken.insert(id).second;
    const auto declared = declared_type(output.data_type);
    if (declared && is_float(*declared) && *declared != DType::f32 &&
        graph_.type(id).dtype == DType::f32) {
      if (own) graph_.values[id].name += ".f32";
      id = unwrap(graph_.add_node(unique(name), Cast{*declared}, {id}));
      graph_.values[id].name = name;
    } else if (!own) {
      id = unwrap(graph_.add_node(unique(name), Unary{UnaryKind::identity}, {id}));
      graph_.values[id].name = name;
    }
    graph_.outputs.push_back(id);
  }
  if (graph_.outputs.empty()) fail_with(ErrorCode::invalid, "a model without outputs", "");
}

Result<Graph> import_graph(const ModelProto &model, const ModelBytes &bytes,
                           const std::string &path, const OnnxOptions &options) {
  // Inputs become constants only where the file needs their values; each round finds more of them.
  Importer::Names bound;
  if (options.all_known)
    for (const auto &[name, value] : options.values) bound.insert(name);
  while (true) {
    Importer importer(model, bytes, path, options, bound);
    auto graph = importer.run();
    if (graph && options.notes) *options.notes = importer.notes();
    const size_t before = bound.size();
    if (!graph)
      for (const std::string &name : importer.needed())
        if (options.values.contains(name)) bound.insert(name);
    if (graph || bound.size() == before) return graph;
  }
}

} // namespace lathe::core::onnx
