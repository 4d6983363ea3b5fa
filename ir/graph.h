// The graph: values and the nodes that make them, in execution order. Plain data; passes edit it
// in place and `verify` says whether it is still whole.
#pragma once

#include "ir/ops.h"

#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

namespace lathe::core {

using ValueId = uint32_t;
inline constexpr ValueId no_value = ~ValueId{0};

// A constant is a recipe, not data: a named tensor of a weights file, a splat, a literal, or an op
// of the vocabulary applied to other constants. Passes compose recipes; `materialise` computes the
// bytes, late and once.
struct Constant;
using ConstantRef = std::shared_ptr<const Constant>;
struct Constant {
  Type type;
  std::string name; // of a named tensor, else empty
  // Of a named tensor (undefined until weights are bound; perhaps not aligned) or literal.
  Tensor data = {};
  std::optional<float> splat = {}; // every element
  std::optional<Op> op = {};       // with `inputs`: a computed constant
  std::vector<ConstantRef> inputs = {};
  ~Constant(); // without recursion: recipes may be deep
};
ConstantRef named_constant(std::string name, Type type);   // data still unbound
ConstantRef bound_constant(std::string name, Tensor data); // a named tensor with data
ConstantRef literal_constant(Tensor data);                 // small data, printed inline
ConstantRef splat_constant(float value, Shape shape);      // f32
Result<ConstantRef> computed_constant(Op op, std::vector<ConstantRef> inputs); // first result of op

// Where something was written: for errors, `explain` and printed graphs.
struct Source {
  std::string file = {};
  int line = 0;
};

struct Value {
  std::string name;
  Type type;
  ConstantRef constant = nullptr; // set if and only if the value is a constant
};

struct Node {
  std::string name; // of the layer; names its weights; unique in a graph
  Op op;
  std::vector<ValueId> inputs, outputs;
  Source source = {};
  std::vector<std::string> fused = {}; // names of source layers that were fused into this one
};

struct Graph {
  std::string name;
  std::vector<Value> values; // indexed by ValueId; dead ones are dropped by `remove_dead_code`
  std::vector<Node> nodes;   // in an order that defines every value before its use
  std::vector<ValueId> inputs, outputs;

  const Type &type(ValueId id) const { return values[id].type; }
  const Shape &shape(ValueId id) const { return values[id].type.shape; }
  const ConstantRef &constant(ValueId id) const { return values[id].constant; }

  ValueId add_input(std::string name, Type type);
  ValueId add_constant(std::string name, ConstantRef constant);
  // Infers types and appends a node; results are named after it ("conv1", or "split:0", ...).
  Result<ValueId> add_node(std::string name, Op op, std::vector<ValueId> inputs,
                           Source source = {});
};

// Who makes and who reads each value, as indices into graph.nodes. Valid until the graph changes.
struct Uses {
  std::vector<int> producer;             // -1: an input or constant
  std::vector<std::vector<int>> readers; // one entry per reading operand
  std::vector<bool> is_output;
  explicit Uses(const Graph &graph);
  // The only reader of a value that is no graph output, else -1.
  int single_reader(ValueId id) const;
};

// The names of a graph's nodes, for passes that add some.
class Names {
public:
  explicit Names(const Graph &graph);
  // `wish`, or, if that is taken, the first of `wish:2`, `wish:3`, ... that is not; taken from now
  // on.
  std::string unused(const std::string &wish);

private:
  std::unordered_set<std::string> taken_;
};

// Everything that is wrong with a graph: order, types that inference does not confirm, dangling
// ids, names that are not unique, constants with data of another type.
Result<void> verify(const Graph &graph);

// Redirects every reader and graph output of `from` to `to`.
void replace_uses(Graph &graph, ValueId from, ValueId to);
// Drops nodes whose results nobody reads and values that nobody mentions.
bool remove_dead_code(Graph &graph);

// The text form. parse(print(g)) gives a graph that prints and verifies the same; named constants
// come back unbound.
std::string print(const Graph &graph);
Result<Graph> parse_graph(std::string_view text, std::string_view file_name = "<graph>");
std::string print(const Op &op);
bool equal(const Graph &a, const Graph &b); // structure, names, types, recipes; not weight data
size_t hash(const Graph &graph);            // agrees with `equal`

// What a model is made of, counted as written (see docs/counting.md).
struct LayerSummary {
  std::string name, op;
  Shape output_shape;
  int64_t parameters = 0, multiplies = 0; // per picture
};
struct GraphSummary {
  std::vector<LayerSummary> layers;
  int64_t parameters = 0, multiplies = 0, weighted_layers = 0, weight_bytes = 0;
};
GraphSummary summarise(const Graph &graph);

} // namespace lathe::core
