// The messages of an ONNX file that Lathe reads, as structs whose strings and bytes point into the
// file. Field numbers are those of onnx.proto (package libonnx-dev, IR version 8; newer versions
// only add fields). Private to frontend/onnx.
#pragma once

#include "ir/tensor.h"

#include <map>
#include <memory>
#include <string_view>

namespace lathe::core::onnx {

using Bytes = std::string_view; // into the file

// TensorProto.DataType
enum DataType : int32_t {
  FLOAT = 1,
  UINT8 = 2,
  INT8 = 3,
  UINT16 = 4,
  INT16 = 5,
  INT32 = 6,
  INT64 = 7,
  STRING = 8,
  BOOL = 9,
  FLOAT16 = 10,
  DOUBLE = 11,
  UINT32 = 12,
  UINT64 = 13,
  BFLOAT16 = 16,
};
std::string type_name(int32_t data_type); // "float", "int64", ...
// The type that is computed with for `data_type`: f32 for all floats; none for those that no graph
// of ours holds.
std::optional<DType> graph_type(int32_t data_type);
// The type that inputs and outputs of the whole graph have: floats stay as wide as declared.
std::optional<DType> declared_type(int32_t data_type);

int32_t data_type(DType dtype);

struct TensorProto {
  Bytes name;
  std::vector<int64_t> dims;
  int32_t data_type = 0;
  std::optional<Bytes> raw_data;
  std::vector<float> float_data;   // the typed fields, unpacked
  std::vector<int64_t> int64_data; // int32_data as well
  std::vector<double> double_data;
  bool external = false;
  std::vector<std::pair<Bytes, Bytes>> external_data; // keys and values
};

struct GraphProto;

struct AttributeProto {
  // AttributeProto.AttributeType
  enum Type : int32_t { undefined, f_, i_, s_, t_, g_, floats_, ints_, strings_ };
  Bytes name, reference; // `reference`: to an attribute of the function that the node is in
  int32_t type = undefined;
  float f = 0;
  int64_t i = 0;
  Bytes s;
  std::optional<TensorProto> t;
  std::shared_ptr<const GraphProto> g;
  std::vector<float> floats;
  std::vector<int64_t> ints;
  std::vector<Bytes> strings;
};

struct NodeProto {
  Bytes name, op_type, domain, overload;
  std::vector<Bytes> inputs, outputs;
  std::vector<AttributeProto> attributes;
};

// A dimension: a number, a name, or (neither) unknown.
struct Dimension {
  std::optional<int64_t> value;
  Bytes name;
};
struct ValueInfo {
  Bytes name;
  bool is_tensor = false, has_shape = false;
  int32_t data_type = 0;
  std::vector<Dimension> shape;
};

struct GraphProto {
  Bytes name;
  std::vector<NodeProto> nodes;
  std::vector<TensorProto> initializers;
  std::vector<ValueInfo> inputs, outputs;
  bool sparse_initializers = false;
};

using Opsets = std::map<std::string, int64_t, std::less<>>; // by domain; "" is ONNX's own

// An op that a model defines by nodes. Its attributes have no values but those of `defaults`.
struct FunctionProto {
  Bytes name, domain, overload;
  std::vector<Bytes> inputs, outputs, attributes;
  std::vector<AttributeProto> defaults;
  std::vector<NodeProto> nodes;
  Opsets opsets;
};

struct ModelProto {
  int64_t ir_version = 0;
  Bytes producer;
  Opsets opsets;
  GraphProto graph;
  std::vector<FunctionProto> functions;
  bool has_graph = false;
};

constexpr size_t most_bytes = (size_t{1} << 31) - 1; // of any protocol buffer

// Errors: invalid, for what is no well-formed message; limit, beyond 200,000 nodes, tensors or
// values, whose structs would need many times the file's size, and for graphs in nodes of graphs
// more than 32 deep.
Result<ModelProto> read_model(Bytes file);
Result<TensorProto> read_tensor(Bytes file);

// A TensorProto with raw data.
std::string encode(std::string_view name, const Tensor &tensor);

// Text from a file, fit for messages and names: control characters and broken UTF-8 replaced.
std::string clean(Bytes text);

} // namespace lathe::core::onnx
