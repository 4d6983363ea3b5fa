#include "frontend/onnx/proto.h"

#include <fmt/format.h>
#include <protozero/pbf_reader.hpp>

namespace lathe::core::onnx {
namespace {

constexpr size_t most_entries = 200'000;
constexpr int most_depth = 32; // of graphs in attributes

struct Broken {
  Error error;
};
[[noreturn]] void reject(std::string_view message, std::string_view field) {
  throw Broken{Error{.code = ErrorCode::invalid,
                     .message = fmt::format("bad field {} of an ONNX {}", field, message),
                     .expected = "the wire type that onnx.proto gives it"}};
}

// What a file may hold in all, in graphs, their nodes' graphs, and functions together.
struct Total {
  size_t nodes = 0, initializers = 0, values = 0, functions = 0;
  int depth = 0;
};
void count(size_t &total, std::string_view what) {
  if (++total > most_entries)
    throw Broken{Error{.code = ErrorCode::limit,
                       .message = fmt::format("too many {}", what),
                       .expected = fmt::format("at most {}", most_entries)}};
}

// One message. Every accessor checks the wire type, which protozero only asserts.
class Reader {
public:
  Reader(Bytes bytes, std::string_view message)
      : pbf_(bytes.data(), bytes.size()), message_(message) {}

  bool next() {
    if (!pbf_.next()) return false;
    field_ = pbf_.tag();
    return true;
  }
  uint32_t field() const { return field_; }
  void skip() { pbf_.skip(); }

  Bytes bytes() {
    expect(protozero::pbf_wire_type::length_delimited);
    auto view = pbf_.get_view();
    return {view.data(), view.size()};
  }
  int64_t integer() {
    expect(protozero::pbf_wire_type::varint);
    return pbf_.get_int64();
  }
  int32_t integer32() { return static_cast<int32_t>(integer()); }
  float number() {
    expect(protozero::pbf_wire_type::fixed32);
    return pbf_.get_float();
  }
  // Repeated numbers, packed or one by one: both are legal everywhere.
  void integers(std::vector<int64_t> &into) {
    if (pbf_.wire_type() == protozero::pbf_wire_type::varint) return into.push_back(integer());
    expect(protozero::pbf_wire_type::length_delimited);
    for (int64_t value : pbf_.get_packed_int64()) into.push_back(value);
  }
  void numbers(std::vector<float> &into) {
    if (pbf_.wire_type() == protozero::pbf_wire_type::fixed32) return into.push_back(number());
    expect(protozero::pbf_wire_type::length_delimited);
    for (float value : pbf_.get_packed_float()) into.push_back(value);
  }
  void numbers(std::vector<double> &into) {
    if (pbf_.wire_type() == protozero::pbf_wire_type::fixed64)
      return into.push_back(pbf_.get_double());
    expect(protozero::pbf_wire_type::length_delimited);
    for (double value : pbf_.get_packed_double()) into.push_back(value);
  }

private:
  void expect(protozero::pbf_wire_type type) {
    if (pbf_.wire_type() != type) reject(message_, std::to_string(field_));
  }
  protozero::pbf_reader pbf_;
  std::string_view message_;
  uint32_t field_ = 0;
};

template <typename T> T &append(std::vector<T> &list, std::string_view what) {
  size_t size = list.size();
  count(size, what);
  return list.emplace_back();
}
// The same where `total` is what counts.
template <typename T> T &append(std::vector<T> &list, size_t &total, std::string_view what) {
  count(total, what);
  return list.emplace_back();
}

std::pair<Bytes, Bytes> read_entry(Bytes bytes) {
  Reader r(bytes, "StringStringEntryProto");
  std::pair<Bytes, Bytes> entry;
  while (r.next()) switch (r.field()) {
    case 1:
      entry.first = r.bytes();
      break;
    case 2:
      entry.second = r.bytes();
      break;
    default:
      r.skip();
    }
  return entry;
}

void read(Bytes bytes, TensorProto &t) {
  Reader r(bytes, "TensorProto");
  while (r.next()) switch (r.field()) {
    case 1:
      r.integers(t.dims);
      break;
    case 2:
      t.data_type = r.integer32();
      break;
    case 4:
      r.numbers(t.float_data);
      break;
    case 5: // int32_data
    case 7:
      r.integers(t.int64_data);
      break;
    case 8:
      t.name = r.bytes();
      break;
    case 9:
      t.raw_data = r.bytes();
      break;
    case 10:
      r.numbers(t.double_data);
      break;
    case 13:
      append(t.external_data, "entries of external data") = read_entry(r.bytes());
      break;
    case 14:
      t.external = r.integer() == 1;
      break;
    default:
      r.skip();
    }
}

void read(Bytes bytes, GraphProto &g, Total &total);

void read(Bytes bytes, AttributeProto &a, Total &total) {
  Reader r(bytes, "AttributeProto");
  int32_t seen = AttributeProto::undefined; // files of IR version 1 name no type
  while (r.next()) switch (r.field()) {
    case 1:
      a.name = r.bytes();
      break;
    case 2:
      a.f = r.number();
      seen = AttributeProto::f_;
      break;
    case 3:
      a.i = r.integer();
      seen = AttributeProto::i_;
      break;
    case 4:
      a.s = r.bytes();
      seen = AttributeProto::s_;
      break;
    case 5:
      read(r.bytes(), a.t.emplace());
      seen = AttributeProto::t_;
      break;
    case 6: {
      auto graph = std::make_shared<GraphProto>();
      read(r.bytes(), *graph, total);
      a.g = std::move(graph);
      seen = AttributeProto::g_;
      break;
    }
    case 7:
      r.numbers(a.floats);
      seen = AttributeProto::floats_;
      break;
    case 8:
      r.integers(a.ints);
      seen = AttributeProto::ints_;
      break;
    case 9:
      append(a.strings, "strings of an attribute") = r.bytes();
      seen = AttributeProto::strings_;
      break;
    case 20:
      a.type = r.integer32();
      break;
    case 21:
      a.reference = r.bytes();
      break;
    default: // lists of tensors and of graphs, types: no op of ours takes them
      r.skip();
    }
  if (a.type == AttributeProto::undefined) a.type = seen;
}

void read(Bytes bytes, NodeProto &n, Total &total) {
  Reader r(bytes, "NodeProto");
  while (r.next()) switch (r.field()) {
    case 1:
      append(n.inputs, "inputs of a node") = r.bytes();
      break;
    case 2:
      append(n.outputs, "outputs of a node") = r.bytes();
      break;
    case 3:
      n.name = r.bytes();
      break;
    case 4:
      n.op_type = r.bytes();
      break;
    case 5:
      read(r.bytes(), append(n.attributes, "attributes of a node"), total);
      break;
    case 7:
      n.domain = r.bytes();
      break;
    case 8:
      n.overload = r.bytes();
      break;
    default:
      r.skip();
    }
}

Dimension read_dimension(Bytes bytes) {
  Reader r(bytes, "TensorShapeProto.Dimension");
  Dimension d;
  while (r.next()) switch (r.field()) {
    case 1:
      d.value = r.integer();
      break;
    case 2:
      d.name = r.bytes();
      break;
    default:
      r.skip();
    }
  return d;
}
void read_shape(Bytes bytes, ValueInfo &v) {
  Reader r(bytes, "TensorShapeProto");
  v.has_shape = true;
  while (r.next())
    if (r.field() == 1)
      append(v.shape, "dimensions") = read_dimension(r.bytes());
    else
      r.skip();
}
void read_tensor_type(Bytes bytes, ValueInfo &v) {
  Reader r(bytes, "TypeProto.Tensor");
  v.is_tensor = true;
  while (r.next()) switch (r.field()) {
    case 1:
      v.data_type = r.integer32();
      break;
    case 2:
      read_shape(r.bytes(), v);
      break;
    default:
      r.skip();
    }
}
void read_type(Bytes bytes, ValueInfo &v) {
  Reader r(bytes, "TypeProto");
  while (r.next())
    if (r.field() == 1)
      read_tensor_type(r.bytes(), v);
    else
      r.skip();
}
void read(Bytes bytes, ValueInfo &v) {
  Reader r(bytes, "ValueInfoProto");
  while (r.next()) switch (r.field()) {
    case 1:
      v.name = r.bytes();
      break;
    case 2:
      read_type(r.bytes(), v);
      break;
    default:
      r.skip();
    }
}

void read(Bytes bytes, GraphProto &g, Total &total) {
  if (++total.depth > most_depth)
    throw Broken{Error{.code = ErrorCode::limit,
                       .message = "too many graphs in nodes of graphs",
                       .expected = fmt::format("at most {} deep", most_depth)}};
  Reader r(bytes, "GraphProto");
  while (r.next()) switch (r.field()) {
    case 1:
      read(r.bytes(), append(g.nodes, total.nodes, "nodes"), total);
      break;
    case 2:
      g.name = r.bytes();
      break;
    case 5:
      read(r.bytes(), append(g.initializers, total.initializers, "initializers"));
      break;
    case 11:
      read(r.bytes(), append(g.inputs, total.values, "inputs and outputs of graphs"));
      break;
    case 12:
      read(r.bytes(), append(g.outputs, total.values, "inputs and outputs of graphs"));
      break;
    case 15:
      g.sparse_initializers = true;
      r.skip();
      break;
    default:
      r.skip();
    }
  --total.depth;
}

void read_opset(Bytes bytes, Opsets &opsets) {
  Reader r(bytes, "OperatorSetIdProto");
  Bytes domain;
  int64_t version = 0;
  while (r.next()) switch (r.field()) {
    case 1:
      domain = r.bytes();
      break;
    case 2:
      version = r.integer();
      break;
    default:
      r.skip();
    }
  if (domain == "ai.onnx") domain = "";
  if (opsets.size() < 1000) opsets[std::string(domain)] = version;
}

void read(Bytes bytes, FunctionProto &f, Total &total) {
  Reader r(bytes, "FunctionProto");
  while (r.next()) switch (r.field()) {
    case 1:
      f.name = r.bytes();
      break;
    case 4:
      append(f.inputs, "inputs of a function") = r.bytes();
      break;
    case 5:
      append(f.outputs, "outputs of a function") = r.bytes();
      break;
    case 6:
      append(f.attributes, "attributes of a function") = r.bytes();
      break;
    case 7:
      read(r.bytes(), append(f.nodes, total.nodes, "nodes"), total);
      break;
    case 9:
      read_opset(r.bytes(), f.opsets);
      break;
    case 10:
      f.domain = r.bytes();
      break;
    case 11:
      read(r.bytes(), append(f.defaults, "attributes of a function"), total);
      break;
    case 13:
      f.overload = r.bytes();
      break;
    default:
      r.skip();
    }
}

void read(Bytes bytes, ModelProto &m) {
  Total total;
  Reader r(bytes, "ModelProto");
  while (r.next()) switch (r.field()) {
    case 1:
      m.ir_version = r.integer();
      break;
    case 2:
      m.producer = r.bytes();
      break;
    case 7:
      read(r.bytes(), m.graph, total);
      m.has_graph = true;
      break;
    case 8:
      read_opset(r.bytes(), m.opsets);
      break;
    case 25:
      read(r.bytes(), append(m.functions, total.functions, "functions"), total);
      break;
    default:
      r.skip();
    }
}

template <typename Message> Result<Message> read_message(Bytes bytes) {
  if (bytes.size() > most_bytes)
    return fail(Error{.code = ErrorCode::limit,
                      .message = "larger than a protocol buffer can be",
                      .expected = "less than 2 GiB, with the weights in files beside it",
                      .found = fmt::format("{} bytes", bytes.size())});
  Message message;
  try {
    read(bytes, message);
  } catch (const Broken &broken) {
    return fail(broken.error);
  } catch (const protozero::exception &error) {
    return fail(Error{.code = ErrorCode::invalid,
                      .message = "not an ONNX file, or a damaged one",
                      .found = error.what()});
  }
  return message;
}

} // namespace

Result<ModelProto> read_model(Bytes file) { return read_message<ModelProto>(file); }
Result<TensorProto> read_tensor(Bytes file) { return read_message<TensorProto>(file); }

std::string type_name(int32_t data_type) {
  static constexpr std::string_view names[] = {
      "undefined", "float",  "uint8",     "int8",       "uint16",  "int16",
      "int32",     "int64",  "string",    "bool",       "float16", "double",
      "uint32",    "uint64", "complex64", "complex128", "bfloat16"};
  if (data_type >= 0 && size_t(data_type) < std::size(names)) return std::string(names[data_type]);
  return fmt::format("element type {}", data_type);
}

std::optional<DType> graph_type(int32_t data_type) {
  switch (data_type) {
  case FLOAT:
  case DOUBLE:
  case FLOAT16:
  case BFLOAT16:
    return DType::f32;
  case INT64:
    return DType::i64;
  case INT32:
    return DType::i32;
  case BOOL:
    return DType::boolean;
  default:
    return std::nullopt;
  }
}

std::optional<DType> declared_type(int32_t data_type) {
  switch (data_type) {
  case FLOAT16:
    return DType::f16;
  case BFLOAT16:
    return DType::bf16;
  case DOUBLE:
    return DType::f64;
  default:
    return graph_type(data_type);
  }
}

std::string clean(Bytes text) {
  std::string result;
  for (size_t i = 0; i < text.size() && result.size() < 300;) {
    const auto c = static_cast<unsigned char>(text[i]);
    size_t length = c < 0x80                ? 1
                    : c >= 0xc2 && c < 0xe0 ? 2
                    : c >= 0xe0 && c < 0xf0 ? 3
                    : c >= 0xf0 && c < 0xf5 ? 4
                                            : 0;
    bool whole = length > 0 && i + length <= text.size();
    for (size_t k = 1; whole && k < length; ++k)
      whole = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
    if (!whole || c < 0x20 || c == 0x7f) {
      result += '?';
      ++i;
    } else {
      result += text.substr(i, length);
      i += length;
    }
  }
  return result;
}

} // namespace lathe::core::onnx
