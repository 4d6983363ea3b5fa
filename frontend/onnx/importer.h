// A model's way into a graph. Its parts: import.cpp (the file as a whole, inputs and outputs),
// nodes.cpp (nodes, functions and graphs of nodes), known.cpp (constants). Private to
// frontend/onnx.
#pragma once

#include "frontend/onnx/data.h"
#include "frontend/onnx/import.h"

#include <map>
#include <set>

namespace lathe::core::onnx {

// Whatever cannot be read is collected, so that one error tells all of it.
class Importer {
public:
  using Names = std::set<std::string, std::less<>>;
  // `bound`: inputs that are taken as constants, of those whose values the options give.
  Importer(const ModelProto &model, const ModelBytes &bytes, const std::string &path,
           const OnnxOptions &options, const Names &bound);

  Result<Graph> run();

  // Inputs whose values would have let nodes be read that now were not.
  const Names &needed() const { return needed_; }
  const std::vector<std::string> &notes() const { return reader_.notes(); }

private:
  friend class Call;

  [[noreturn]] void fail_with(ErrorCode code, std::string message, Bytes where,
                              std::string expected = {}, std::string found = {}) const;
  [[noreturn]] void fail_with(Error error) const;
  template <typename T> T unwrap(Result<T> result) const {
    if (!result) fail_with(std::move(result).error());
    if constexpr (!std::is_void_v<T>) return std::move(*result);
  }
  // Of what no further node can mend.
  void check_budget(const NodeProto &node) const;

  // --- The file as a whole
  void check_versions();
  void define(Scope &scope, Bytes name, Item item);
  void add_initializers(const GraphProto &graph, Scope &scope);
  ConstantRef weight_constant(const std::string &name, Tensor tensor) const;
  ValueId add_constant(std::string name, ConstantRef constant, int64_t depth = 0);
  void add_inputs();
  Type input_type(const ValueInfo &input, const std::string &name, const Tensor *given) const;
  std::string shape_option(const ValueInfo &input) const;
  std::vector<std::string> input_names() const;
  Shape filled_in(const ValueInfo &input, const Tensor *given) const;
  void check_possible(const Shape &shape, Bytes input) const;
  void add_outputs();

  // --- Nodes
  void add_nodes(const std::vector<NodeProto> &nodes, const std::vector<Bytes> &outputs,
                 Scope &scope);
  void add_node(const NodeProto &node, Scope &scope);
  void call_op(const NodeProto &node, Scope &scope, int64_t opset);
  void add_functions();
  const FunctionProto *find_function(const NodeProto &node) const;
  void call_function(const FunctionProto &function, const NodeProto &node, Scope &scope);
  Items call_graph(const GraphProto &graph, const Items &inputs, Scope scope);
  // What is defined in `scope` under these names. Throws Behind where a problem stands before one.
  Items results_of(const std::vector<Bytes> &names, const Scope &scope) const;
  // What a node reads under this name; nothing under none.
  static Item read_by_node(Bytes name, const Scope &scope);
  // Names results as the file does, and the last of the nodes since `emitted` after its layer.
  void finish(const NodeProto &node, const Items &results, size_t emitted, Scope &scope);
  bool readable(const NodeProto &node, const Scope &scope);
  std::string unique(const std::string &name);

  // --- Constants
  Values fold(const Op &op, const Values &inputs);
  // Small files must not make large constants by the thousand.
  void spend(int64_t elements);
  // For a node, or a constant, and its names.
  void pay(const std::string &name);
  std::string names_of_constants();
  // A constant's bytes; for what is none, notes which inputs would have to be known.
  Tensor known(ValueId id);

  const ModelProto &model_;
  const std::string &path_;
  const OnnxOptions &options_;
  const Budget known_budget_; // for constants of the importer's own making
  const Names &bound_;
  TensorReader reader_;
  Graph graph_;
  Scope scope_;                             // of the model's graph
  std::unordered_map<Bytes, Error> unread_; // initialisers, where nobody has needed them yet
  std::unordered_map<std::string, const FunctionProto *> functions_;
  std::unordered_map<const void *, std::vector<size_t>> orders_; // of lists of nodes, by address
  std::unordered_map<std::string, size_t> names_;
  std::unordered_map<ValueId, int> named_; // and how deep in calls
  std::vector<int64_t> depth_;             // of recipes, by ValueId
  std::vector<Error> problems_;
  Names needed_;
  std::vector<Grant> grants_;
  int64_t owed_ = 0;     // bytes, for nodes and names
  size_t steps_ = 0;     // nodes of the file that were read, again and again in loops
  size_t constants_ = 0; // without names of their own
};

} // namespace lathe::core::onnx
