// One node of a model on its way into a graph: what handlers of ops see. Private to frontend/onnx.
#pragma once

#include "frontend/onnx.h"
#include "frontend/onnx/advice.h"
#include "frontend/onnx/scope.h"
#include "frontend/onnx/structure.h"

#include <span>

namespace lathe::core::onnx {

// The graph of a model, parsed from these bytes; errors as OnnxModel::graph.
Result<Graph> import_graph(const ModelProto &model, const ModelBytes &bytes,
                           const std::string &path, const OnnxOptions &options);

// Thrown within the importer; one is caught per node, so that all of a model's problems are found.
struct Failure {
  Error error;
  Obstacle obstacle = Obstacle::other;
};

// Thrown where reading ends: a budget is used up, or the file asks for too many steps.
struct Abort {
  Error error;
};
// Thrown where what a node needs has a problem that is already told.
struct Behind {};

class Importer;

// Accessors throw Failure where the file does not hold what they promise.
class Call {
public:
  Call(Importer &importer, const NodeProto &node, const Scope &scope, int64_t opset,
       std::string name);

  const int64_t opset;
  Bytes op() const { return node_.op_type; }
  std::string result_name() const { return clean(node_.outputs.at(0)); }

  // --- Inputs and outputs
  size_t input_count() const { return node_.inputs.size(); }
  size_t output_count() const { return node_.outputs.size(); }
  bool has(size_t i) const { return i < inputs_.size() && inputs_[i].present(); }
  bool wants(size_t i) const { return i < node_.outputs.size() && !node_.outputs[i].empty(); }
  ValueId input(size_t i) const;          // a tensor; notes that the handler knows of it
  const Values &sequence(size_t i) const; // the same for a sequence
  Item item(size_t i) const;              // the same for either, and for nothing
  // Throws for an input that no handler asked for: it would be ignored in silence.
  void check_inputs() const;
  Values inputs() const; // all of them
  const Type &type(ValueId id) const;
  const Shape &shape(ValueId id) const { return type(id).shape; }
  int64_t rank(ValueId id) const { return static_cast<int64_t>(shape(id).size()); }
  bool is_constant(ValueId id) const;
  // Inputs that decide shapes or parameters: their values must be known before the run.
  Tensor known(size_t i) const;
  Tensor known_value(ValueId id) const; // the same for any value
  // What is computed with: known if it depends on constants alone, or, unless they are floats, on
  // inputs whose values are given.
  Tensor operand(size_t i) const { return operand_value(input(i)); }
  Tensor operand_value(ValueId id) const;
  std::vector<int64_t> known_integers(size_t i) const;
  std::vector<float> known_numbers(size_t i) const;
  float known_number(size_t i) const;    // a scalar
  int64_t known_integer(size_t i) const; // one element
  // The number that every element of a constant is, if there is one.
  std::optional<float> uniform(ValueId id) const;

  // --- Graphs and sequences
  const GraphProto &graph(Bytes attribute) const;
  // The results of a graph of this node, made of nodes anew: `label` makes their names unique.
  Items call_graph(const GraphProto &graph, const Items &inputs, const std::string &label);
  // An output that is a sequence, or nothing: then the handler's result is not looked at.
  void give(size_t output, Item item);
  void give(size_t output, Values sequence) {
    give(output, Item{no_value, std::make_shared<const Values>(std::move(sequence))});
  }
  // What the node's outputs are, with the handler's results.
  Items results(const Values &values) const;
  size_t emitted() const { return emitted_; } // nodes that the graph had before

  // --- Attributes
  bool has_attribute(Bytes name) const { return find(name, AttributeProto::undefined); }
  int64_t integer(Bytes name, int64_t otherwise) const;
  bool flag(Bytes name, bool otherwise = false) const { return integer(name, otherwise) != 0; }
  float number(Bytes name, float otherwise) const;
  Bytes text(Bytes name, Bytes otherwise) const;
  std::vector<int64_t> integers(Bytes name) const; // empty if it is not there
  std::vector<float> numbers(Bytes name) const;
  Tensor tensor(Bytes name) const;
  // One integer per spatial dimension, all `otherwise` if there are none.
  std::vector<int64_t> spatial(Bytes name, size_t count, int64_t otherwise) const;

  // --- Nodes and constants of the graph; what only depends on constants becomes one.
  ValueId add(Op op, Values inputs) { return add_all(std::move(op), std::move(inputs))[0]; }
  Values add_all(Op op, Values inputs);
  ValueId scalar(float value);
  // Before a constant of so many elements is computed: throws if the file asks for too much.
  void spend(int64_t elements);
  ValueId constant(Tensor tensor);
  ValueId filled(float value, Shape shape); // a constant, all elements equal
  ValueId weight(ConstantRef constant);     // a constant that may stand for a weight of the file
  ValueId unary(UnaryKind kind, ValueId x, float alpha = 0, float beta = 0) {
    return add(Unary{kind, alpha, beta}, {x});
  }
  ValueId binary(BinaryKind kind, ValueId a, ValueId b) { return add(Binary{kind}, {a, b}); }
  ValueId reshape(ValueId x, const Shape &shape);
  ValueId transpose(ValueId x, std::vector<int64_t> perm);
  ValueId slice(ValueId x, int64_t axis, int64_t begin, int64_t end, int64_t step = 1);
  // Zeros before and after, or fewer elements where negative.
  ValueId pad_or_crop(ValueId x, size_t axis, int64_t before, int64_t after);
  // A vector of channels so that it broadcasts over a value of this rank: C,1,1,...
  ValueId along_channels(ValueId vector, int64_t rank);
  ValueId cast(ValueId x, DType to);

  // --- Axes
  int64_t axis(int64_t value, int64_t rank) const; // counted from the front; throws if outside
  std::vector<int64_t> axes(std::vector<int64_t> values, int64_t rank) const; // distinct

  [[noreturn]] void invalid(std::string message, std::string expected = {},
                            std::string found = {}) const;
  [[noreturn]] void unsupported(std::string message, std::string expected = {},
                                std::string found = {}, Obstacle obstacle = Obstacle::other) const;
  [[noreturn]] void unsupported(std::string message, Obstacle obstacle) const {
    unsupported(std::move(message), {}, {}, obstacle);
  }
  bool unbinds_weights() const;

private:
  const AttributeProto *find(Bytes name, int32_t type) const;
  Importer &importer_;
  const NodeProto &node_;
  const Scope &scope_;
  std::string name_;
  Items inputs_;
  mutable std::vector<bool> read_; // inputs
  std::map<size_t, Item> given_;   // outputs
  size_t emitted_;
};

using Handler = Values (*)(Call &);

// The handlers, by what they do: one table per file.
struct HandlerEntry {
  Bytes op;
  Handler handler;
  // The attributes of the op's schema at every opset: "axis" is one of all, "mode@11" since opset
  // 11, "axes@-12" until 12, "pads@2-10" of both; "~seed" has no effect on what is computed here.
  Bytes attributes = {};
};
// Null for an op that Lathe does not know.
const HandlerEntry *find_handler(Bytes op_type);
// The attributes that an op has at an opset, in the order of its row.
std::vector<Bytes> attributes_at(const HandlerEntry &entry, int64_t opset);
// Throws for an attribute that the op does not have, or has twice.
void check_attributes(const HandlerEntry &entry, const NodeProto &node, int64_t opset);

// One error that tells all of them, those of one kind in one line; `file` is where they are.
Error summary_of(std::vector<Error> problems, const std::string &file);

// Before opset 7 the second operand broadcasts only if asked, from `axis` on or at the end: input 1
// so that it broadcasts as NumPy does.
ValueId second_operand(Call &c);
std::span<const HandlerEntry> all_handlers();
std::span<const HandlerEntry> elementwise_handlers(); // ops_elementwise.cpp
std::span<const HandlerEntry> move_handlers();        // ops_move.cpp
std::span<const HandlerEntry> window_handlers();      // ops_window.cpp
std::span<const HandlerEntry> matrix_handlers();      // ops_matrix.cpp
std::span<const HandlerEntry> reduce_handlers();      // ops_reduce.cpp
std::span<const HandlerEntry> known_handlers();       // ops_known.cpp
std::span<const HandlerEntry> resize_handlers();      // ops_resize.cpp
std::span<const HandlerEntry> index_handlers();       // ops_index.cpp
std::span<const HandlerEntry> control_handlers();     // ops_control.cpp

} // namespace lathe::core::onnx
