// ONNX to graph: inputs and weights, then nodes in an order that defines every value before its
// use. Whatever cannot be read is collected, so that one error tells all of it.
#include "frontend/onnx/import.h"

#include "frontend/onnx/data.h"
#include "ir/evaluate.h"
#include "ir/fork.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <queue>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace lathe::core {

namespace onnx {
namespace {

constexpr int64_t newest_opset = 26;
// Constants of the importer's own making, such as shapes; weights are not limited.
constexpr int64_t most_known_elements = 1 << 22, most_known_bytes = 1 << 27;
constexpr size_t most_nodes = 1'000'000; // one of the file's may become thousands
constexpr size_t most_problems = 1000;   // behind them nobody reads on
constexpr int64_t most_float_recipe_depth = 64;
constexpr std::string_view reading = "reading the model";

} // namespace

class Importer {
public:
  Importer(const ModelProto &model, const ModelBytes &bytes, const std::string &path,
           const OnnxOptions &options, const std::set<std::string, std::less<>> &bound)
      : model_(model), path_(path), options_(options),
        known_budget_(options.budget.part(most_known_bytes)), bound_(bound),
        reader_(bytes, std::filesystem::path(path).parent_path().string()) {
    graph_.name = std::filesystem::path(path).stem().string();
  }

  Result<Graph> run() {
    try {
      check_versions();
      add_initializers();
      add_inputs();
      for (size_t n : order()) {
        if (problems_.size() < most_problems) add_node(model_.graph.nodes[n]);
        unwrap_for(options_.budget.check(reading), model_.graph.nodes[n]);
      }
      if (problems_.empty()) add_outputs();
    } catch (const Failure &failure) {
      problems_.push_back(failure.error);
    }
    if (!problems_.empty()) return fail(summary_of(std::move(problems_), path_));
    remove_dead_code(graph_);
    return std::move(graph_);
  }

  // Inputs whose values would have let nodes be read that now were not.
  const std::set<std::string, std::less<>> &needed() const { return needed_; }
  const std::vector<std::string> &notes() const { return reader_.notes(); }

private:
  friend class Call;

  [[noreturn]] void fail_with(ErrorCode code, std::string message, Bytes where,
                              std::string expected = {}, std::string found = {}) const {
    throw Failure{Error{.code = code,
                        .message = std::move(message),
                        .file = path_,
                        .node = clean(where),
                        .expected = std::move(expected),
                        .found = std::move(found)}};
  }
  [[noreturn]] void fail_with(Error error) const {
    error.file = path_;
    throw Failure{std::move(error)};
  }
  // Of what no further node can mend.
  void unwrap_for(Result<void> result, const NodeProto &node) const {
    if (result) return;
    result.error().node = clean(shown(node));
    fail_with(std::move(result).error());
  }
  template <typename T> T unwrap(Result<T> result) const {
    if (!result) fail_with(std::move(result).error());
    return std::move(*result);
  }

  // --- The file as a whole

  void check_versions() {
    if (!model_.has_graph)
      fail_with(ErrorCode::invalid, "not an ONNX model", "", "a model with a graph", "none");
    if (model_.ir_version < 1)
      fail_with(ErrorCode::invalid, "bad IR version of an ONNX model", "", "1 or more",
                fmt::format("{}", model_.ir_version));
    auto opset = model_.opsets.find("");
    if (opset != model_.opsets.end())
      opset_ = opset->second;
    else if (model_.ir_version >= 3 && model_.opsets.empty())
      fail_with(ErrorCode::invalid, "an ONNX model without opset", "", "opset_import");
    if (opset_ < 1 || opset_ > newest_opset)
      fail_with(opset_ < 1 ? ErrorCode::invalid : ErrorCode::unsupported,
                "an opset that Lathe does not know", "", fmt::format("1 to {}", newest_opset),
                fmt::format("{}", opset_));
    if (model_.graph.sparse_initializers) fail_with(ErrorCode::unsupported, "sparse weights", "");
  }

  void define(Bytes name, ValueId id) {
    if (!values_.emplace(name, id).second)
      fail_with(ErrorCode::invalid, "a value is defined twice", name);
  }

  void add_initializers() {
    for (const TensorProto &t : model_.graph.initializers) {
      // Without a name it is a literal, which may be looked at.
      auto tensor = t.name.empty() ? reader_.read(t) : reader_.read_constant(t);
      if (!tensor) {
        problems_.push_back(std::move(tensor).error());
        broken_.insert(t.name);
        continue;
      }
      std::string name = clean(t.name);
      define(t.name, add_constant(name, weight_constant(name, std::move(*tensor))));
    }
  }
  ConstantRef weight_constant(const std::string &name, Tensor tensor) const {
    const bool unbind = options_.unbind_weights && tensor.dtype() == DType::f32 &&
                        !tensor.shape().empty() && tensor.size() > 1;
    return unbind ? named_constant(name, {DType::f32, tensor.shape()})
                  : bound_constant(name, std::move(tensor));
  }
  ValueId add_constant(std::string name, ConstantRef constant, int64_t depth = 0) {
    pay(name);
    ValueId id = graph_.add_constant(std::move(name), std::move(constant));
    depth_.resize(graph_.values.size());
    depth_[id] = depth;
    return id;
  }

  void add_inputs() {
    for (const auto &[name, shape] : options_.shapes)
      if (std::ranges::none_of(model_.graph.inputs,
                               [&](const ValueInfo &input) { return clean(input.name) == name; }))
        fail_with(ErrorCode::usage, "a shape is given for an input that the model does not have",
                  "", fmt::format("{}", fmt::join(input_names(), " or ")), name);
    for (const ValueInfo &input : model_.graph.inputs) {
      if (values_.contains(input.name) || broken_.contains(input.name)) continue; // has a default
      try {
        const std::string name = clean(input.name);
        auto value = options_.values.find(name);
        const Tensor *given = value == options_.values.end() ? nullptr : &value->second;
        const Type type = input_type(input, name, given);
        if (bound_.contains(name) && given)
          define(input.name, add_constant(name, literal_constant(*given)));
        else
          define(input.name, graph_.add_input(name, type));
      } catch (const Failure &failure) {
        problems_.push_back(failure.error);
        broken_.insert(input.name);
      }
    }
  }

  Type input_type(const ValueInfo &input, const std::string &name, const Tensor *given) const {
    if (!input.is_tensor)
      fail_with(ErrorCode::unsupported, "an input that is no tensor", input.name);
    auto dtype = graph_type(input.data_type);
    if (!dtype)
      fail_with(ErrorCode::unsupported, "an input of a type that Lathe does not compute with",
                input.name, "float, int64, int32 or bool", type_name(input.data_type));
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
  std::string shape_option(const ValueInfo &input) const {
    std::vector<int64_t> shape;
    for (size_t d = 0; d < input.shape.size(); ++d) {
      const int64_t known = input.shape[d].value.value_or(0);
      shape.push_back(known > 0 ? known : d == 0 ? options_.batch : d == 1 ? 3 : 224);
    }
    return fmt::format("--shape {}={}, say", clean(input.name), fmt::join(shape, "x"));
  }
  std::vector<std::string> input_names() const {
    std::vector<std::string> names;
    for (const ValueInfo &input : model_.graph.inputs) names.push_back(clean(input.name));
    return names;
  }
  Shape filled_in(const ValueInfo &input, const Tensor *given) const {
    if (!input.has_shape) return given->shape();
    Shape shape;
    for (size_t d = 0; d < input.shape.size(); ++d) {
      const Dimension &dimension = input.shape[d];
      if (dimension.value && (*dimension.value != 0 || d > 0)) {
        shape.push_back(*dimension.value);
      } else if (given) {
        shape.push_back(given->shape()[d]);
      } else if (d == 0) { // a name, nothing, or the 0 that some exporters write for both
        shape.push_back(options_.batch);
      } else {
        fail_with(ErrorCode::invalid, "an input with an unknown dimension", input.name,
                  shape_option(input),
                  fmt::format("dimension {} is '{}'", d, clean(dimension.name)));
      }
    }
    check_possible(shape, input.name);
    return shape;
  }
  void check_possible(const Shape &shape, Bytes input) const {
    if (!checked_element_count(shape))
      fail_with(ErrorCode::invalid, "impossible shape of an input", input, "", to_string(shape));
  }

  void add_outputs() {
    std::unordered_set<ValueId> taken(graph_.inputs.begin(), graph_.inputs.end());
    for (const ValueInfo &output : model_.graph.outputs) {
      auto found = values_.find(output.name);
      if (found == values_.end())
        fail_with(ErrorCode::invalid, "an output that no node makes", output.name);
      ValueId id = found->second;
      const std::string name = clean(output.name);
      // An output has a name of its own: another name's value is passed on.
      const bool own = graph_.values[id].name == name && taken.insert(id).second;
      if (!own) {
        id = unwrap(graph_.add_node(unique(name), Unary{UnaryKind::identity}, {id}));
        graph_.values[id].name = name;
      }
      graph_.outputs.push_back(id);
    }
    if (graph_.outputs.empty()) fail_with(ErrorCode::invalid, "a model without outputs", "");
  }

  // --- Nodes

  // Values before their users, otherwise as in the file.
  std::vector<size_t> order() {
    const std::vector<NodeProto> &nodes = model_.graph.nodes;
    std::unordered_map<Bytes, size_t> maker;
    for (size_t n = 0; n < nodes.size(); ++n)
      for (Bytes name : nodes[n].outputs) {
        if (name.empty()) continue;
        if (!maker.emplace(name, n).second || values_.contains(name))
          fail_with(ErrorCode::invalid, "a value is defined twice", name);
      }
    std::vector<size_t> waits(nodes.size()), result;
    std::vector<std::vector<size_t>> readers(nodes.size());
    for (size_t n = 0; n < nodes.size(); ++n)
      for (Bytes name : nodes[n].inputs) {
        if (name.empty() || values_.contains(name) || broken_.contains(name)) continue;
        auto found = maker.find(name);
        if (found == maker.end())
          fail_with(ErrorCode::invalid, "a node reads a value that nothing makes", shown(nodes[n]),
                    "", clean(name));
        readers[found->second].push_back(n);
        ++waits[n];
      }
    std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
    for (size_t n = 0; n < nodes.size(); ++n)
      if (waits[n] == 0) ready.push(n);
    while (!ready.empty()) {
      const size_t n = ready.top();
      ready.pop();
      result.push_back(n);
      for (size_t reader : readers[n])
        if (--waits[reader] == 0) ready.push(reader);
    }
    if (result.size() < nodes.size()) {
      auto stuck = std::ranges::find_if(waits, [](size_t count) { return count > 0; });
      fail_with(ErrorCode::invalid, "the graph has a cycle",
                shown(nodes[size_t(stuck - waits.begin())]));
    }
    return result;
  }

  static Bytes shown(const NodeProto &node) {
    if (!node.name.empty() || node.outputs.empty()) return node.name;
    return node.outputs[0];
  }

  void add_node(const NodeProto &node) {
    bool readable = true;
    for (Bytes name : node.inputs) readable = readable && !broken_.contains(name);
    try {
      const bool own = node.domain.empty() || node.domain == "ai.onnx";
      const HandlerEntry *entry = own ? find_handler(node.op_type) : nullptr;
      if (!entry)
        throw Failure{
            Error{.code = ErrorCode::unsupported,
                  .message = own ? "an op that Lathe does not know"
                                 : fmt::format("an op of the domain '{}'", clean(node.domain))}};
      check_attributes(*entry, node, opset_);
      if (!readable) return break_outputs(node); // what is behind a problem is no problem by itself
      Call call(*this, node, opset_, unique(clean(shown(node))));
      emitted_ = graph_.nodes.size();
      const Values results = entry->handler(call);
      call.check_inputs();
      finish(node, results, call);
    } catch (const Failure &failure) {
      Error error = failure.error;
      error.node = clean(shown(node));
      error.op = fmt::format("{} (opset {})", clean(node.op_type), opset_);
      if (error.code == ErrorCode::limit && options_.budget.over()) throw Failure{std::move(error)};
      problems_.push_back(std::move(error));
      break_outputs(node);
    }
  }
  void break_outputs(const NodeProto &node) {
    for (Bytes name : node.outputs) broken_.insert(name);
  }

  // Names the results as the file does, and the last node after its layer.
  void finish(const NodeProto &node, Values results, Call &call) {
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i].empty()) continue;
      if (i >= results.size() || results[i] == no_value)
        call.unsupported(fmt::format("output {} of this op", i));
      ValueId id = results[i];
      auto fresh = [&](const Node &made) { return std::ranges::count(made.outputs, id) > 0; };
      auto made = std::find_if(graph_.nodes.begin() + int64_t(emitted_), graph_.nodes.end(), fresh);
      if (made != graph_.nodes.end() && named_.insert(id).second) {
        graph_.values[id].name = clean(node.outputs[i]);
      } else if (graph_.constant(id)) {
        id = add_constant(clean(node.outputs[i]), graph_.constant(id), depth_[id]);
      } else { // the same value under a second name
        id = unwrap(
            graph_.add_node(unique(clean(node.outputs[i])), Unary{UnaryKind::identity}, {id}));
        graph_.values[id].name = clean(node.outputs[i]);
        named_.insert(id);
      }
      define(node.outputs[i], id);
    }
  }

  std::string unique(const std::string &name) {
    size_t &count = names_[name];
    std::string result = count == 0 ? name : fmt::format("{}#{}", name, count);
    ++count;
    if (result != name && names_.contains(result)) return unique(result);
    names_.emplace(result, 1);
    return result;
  }

  // --- Constants

  Values fold(const Op &op, const Values &inputs) {
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
  void spend(int64_t elements) {
    constexpr int64_t most = int64_t{1} << 50;
    const int64_t counted = elements < 0 ? most : std::min(elements, most);
    grants_.push_back(unwrap(known_budget_.take(8 * counted, "computing constants while reading")));
  }
  // For a node, or a constant, and its names.
  void pay(const std::string &name) {
    constexpr int64_t together = 1 << 20;
    owed_ += node_bytes + 4 * static_cast<int64_t>(name.size());
    if (owed_ < together) return;
    grants_.push_back(unwrap(options_.budget.take(std::exchange(owed_, 0), reading)));
  }
  std::string names_of_constants() { return fmt::format("constant:{}", constants_++); }

  // A constant's bytes; for what is none, notes which inputs would have to be known.
  Tensor known(ValueId id) {
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

  const ModelProto &model_;
  const std::string &path_;
  const OnnxOptions &options_;
  const Budget known_budget_; // for constants of the importer's own making
  const std::set<std::string, std::less<>> &bound_;
  TensorReader reader_;
  int64_t opset_ = 1;
  Graph graph_;
  std::unordered_map<Bytes, ValueId> values_; // by the file's names
  std::unordered_set<Bytes> broken_;          // values that a problem stands before
  std::unordered_map<std::string, size_t> names_;
  std::unordered_set<ValueId> named_;
  std::vector<int64_t> depth_; // of recipes, by ValueId
  std::vector<Error> problems_;
  std::set<std::string, std::less<>> needed_;
  std::vector<Grant> grants_;
  int64_t owed_ = 0;     // bytes, for nodes and names
  size_t emitted_ = 0;   // nodes before the present call's
  size_t constants_ = 0; // without names of their own
};

// --- What handlers ask of the importer; the rest of Call is in call.cpp

ValueId Call::input(size_t i) const {
  if (!has(i)) invalid(fmt::format("input {} is missing", i));
  read_[i] = true;
  return importer_.values_.at(node_.inputs[i]);
}
const Type &Call::type(ValueId id) const { return importer_.graph_.type(id); }
bool Call::is_constant(ValueId id) const { return importer_.graph_.constant(id) != nullptr; }
Tensor Call::known(size_t i) const { return importer_.known(input(i)); }
Tensor Call::known_value(ValueId id) const { return importer_.known(id); }

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
  const bool first = in.graph_.nodes.size() == in.emitted_;
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

Result<Graph> import_graph(const ModelProto &model, const ModelBytes &bytes,
                           const std::string &path, const OnnxOptions &options) {
  // Inputs become constants only where the file needs their values; each round finds more of them.
  std::set<std::string, std::less<>> bound;
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

} // namespace onnx
} // namespace lathe::core
