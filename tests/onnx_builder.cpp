#include "tests/onnx_builder.h"

#include "frontend/onnx/proto.h"

#include <algorithm>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>

namespace lathe::core::test {

using protozero::pbf_writer;

static std::string attribute_with(const std::string &name, int32_t type,
                                  const std::function<void(pbf_writer &)> &put) {
  std::string bytes;
  pbf_writer w(bytes);
  w.add_string(1, name);
  put(w);
  w.add_int32(20, type);
  return bytes;
}
std::string attribute(const std::string &name, int64_t value) {
  return attribute_with(name, 2, [&](pbf_writer &w) { w.add_int64(3, value); });
}
std::string attribute(const std::string &name, float value) {
  return attribute_with(name, 1, [&](pbf_writer &w) { w.add_float(2, value); });
}
std::string attribute(const std::string &name, const std::string &value) {
  return attribute_with(name, 3, [&](pbf_writer &w) { w.add_bytes(4, value); });
}
std::string attribute(const std::string &name, const std::vector<int64_t> &values) {
  return attribute_with(name, 7, [&](pbf_writer &w) {
    for (int64_t value : values) w.add_int64(8, value);
  });
}
std::string attribute(const std::string &name, const Tensor &value) {
  return attribute_with(name, 4, [&](pbf_writer &w) { w.add_bytes(5, onnx::encode("", value)); });
}

std::string attribute_of_function(const std::string &name, int32_t type,
                                  const std::string &referred) {
  return attribute_with(name, type, [&](pbf_writer &w) { w.add_string(21, referred); });
}
std::string graph_attribute(const std::string &name, const std::string &graph) {
  return attribute_with(name, 5, [&](pbf_writer &w) { w.add_bytes(6, graph); });
}

static std::string value_info(const std::string &name, const std::vector<std::string> &shape,
                              int32_t type) {
  std::string bytes;
  pbf_writer info(bytes);
  info.add_string(1, name);
  pbf_writer proto(info, 2), tensor(proto, 1);
  tensor.add_int32(1, type);
  pbf_writer dims(tensor, 2);
  for (const std::string &d : shape) {
    pbf_writer dimension(dims, 1);
    const bool number = !d.empty() && d.find_first_not_of("-0123456789") == std::string::npos;
    if (number)
      dimension.add_int64(1, std::stoll(d));
    else
      dimension.add_string(2, d);
  }
  return bytes;
}

OnnxBuilder &OnnxBuilder::input(const std::string &name, const Shape &shape, int32_t type) {
  std::vector<std::string> dims;
  for (int64_t d : shape) dims.push_back(std::to_string(d));
  pbf_writer(graph).add_bytes(11, value_info(name, dims, type));
  return *this;
}
OnnxBuilder &OnnxBuilder::open_input(const std::string &name,
                                     const std::vector<std::string> &shape) {
  pbf_writer(graph).add_bytes(11, value_info(name, shape, 1));
  return *this;
}
OnnxBuilder &OnnxBuilder::output(const std::string &name, int32_t type) {
  pbf_writer(graph).add_bytes(12, value_info(name, {}, type));
  return *this;
}
OnnxBuilder &OnnxBuilder::node(const std::string &op, const std::vector<std::string> &inputs,
                               const std::vector<std::string> &outputs,
                               const std::vector<std::string> &attributes, const std::string &name,
                               const std::string &domain) {
  pbf_writer all(graph);
  pbf_writer w(all, 1);
  for (const std::string &i : inputs) w.add_string(1, i);
  for (const std::string &o : outputs) w.add_string(2, o);
  w.add_string(3, name);
  w.add_string(4, op);
  for (const std::string &a : attributes) w.add_bytes(5, a);
  w.add_string(7, domain);
  return *this;
}
OnnxBuilder &OnnxBuilder::weight(const std::string &name, const Tensor &tensor) {
  return weight_proto(onnx::encode(name, tensor));
}
OnnxBuilder &OnnxBuilder::weight_proto(const std::string &bytes) {
  pbf_writer(graph).add_bytes(5, bytes);
  return *this;
}
OnnxBuilder &OnnxBuilder::function(const std::string &name, const std::vector<std::string> &inputs,
                                   const std::vector<std::string> &outputs, const OnnxBuilder &body,
                                   const std::vector<std::string> &attributes,
                                   const std::vector<std::string> &defaults) {
  pbf_writer all(functions);
  pbf_writer w(all, 25);
  w.add_string(1, name);
  for (const std::string &i : inputs) w.add_string(4, i);
  for (const std::string &o : outputs) w.add_string(5, o);
  for (const std::string &a : attributes) w.add_string(6, a);
  for (protozero::pbf_reader fields(body.graph); fields.next(1);) w.add_bytes(7, fields.get_view());
  for (const std::string &a : defaults) w.add_bytes(11, a);
  w.add_string(10, "local");
  pbf_writer import(w, 9);
  import.add_int64(2, opset);
  return *this;
}
std::string OnnxBuilder::model() const {
  std::string bytes;
  pbf_writer w(bytes);
  w.add_int64(1, ir_version);
  w.add_string(2, producer);
  w.add_bytes(7, graph);
  pbf_writer import(w, 8);
  import.add_int64(2, opset);
  import.commit();
  return bytes + functions;
}

std::string external_tensor(const std::string &name, const Shape &shape, const External &entries) {
  std::string bytes;
  pbf_writer w(bytes);
  w.add_packed_int64(1, shape.begin(), shape.end());
  w.add_int32(2, onnx::FLOAT);
  w.add_string(8, name);
  for (const auto &[key, value] : entries) {
    pbf_writer entry(w, 13);
    entry.add_string(1, key);
    entry.add_string(2, value);
  }
  w.add_int32(14, 1);
  return bytes;
}

} // namespace lathe::core::test
