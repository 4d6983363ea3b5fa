// ONNX models for tests, written field by field, so that they can also be wrong.
#pragma once

#include "ir/tensor.h"

#include <functional>
#include <string>
#include <vector>

namespace lathe::core::test {

std::string attribute(const std::string &name, int64_t value);
std::string attribute(const std::string &name, float value);
std::string attribute(const std::string &name, const std::string &value);
std::string attribute(const std::string &name, const std::vector<int64_t> &values);
std::string attribute(const std::string &name, const Tensor &value);

// A reference to an attribute of the function that the node is in.
std::string attribute_of_function(const std::string &name, int32_t type,
                                  const std::string &referred);
// A graph: encoded fields of a GraphProto, as a builder's `graph`.
std::string graph_attribute(const std::string &name, const std::string &graph);

struct OnnxBuilder {
  int64_t ir_version = 8, opset = 13;
  std::string producer = {};
  std::string graph = {};     // encoded fields of the GraphProto
  std::string functions = {}; // encoded fields of the ModelProto

  OnnxBuilder &input(const std::string &name, const Shape &shape, int32_t type = 1);
  // Dimensions with names; a number is one too.
  OnnxBuilder &open_input(const std::string &name, const std::vector<std::string> &shape);
  OnnxBuilder &output(const std::string &name, int32_t type = 1);
  OnnxBuilder &node(const std::string &op, const std::vector<std::string> &inputs,
                    const std::vector<std::string> &outputs,
                    const std::vector<std::string> &attributes = {}, const std::string &name = "",
                    const std::string &domain = "");
  OnnxBuilder &weight(const std::string &name, const Tensor &tensor);
  // An op of the domain "local", made of the nodes of `body`; attributes without and with a
  // default.
  OnnxBuilder &function(const std::string &name, const std::vector<std::string> &inputs,
                        const std::vector<std::string> &outputs, const OnnxBuilder &body,
                        const std::vector<std::string> &attributes = {},
                        const std::vector<std::string> &defaults = {});
  // A TensorProto of one's own making.
  OnnxBuilder &weight_proto(const std::string &bytes);
  std::string model() const;
};

// Keys and values of external data.
using External = std::vector<std::pair<std::string, std::string>>;
std::string external_tensor(const std::string &name, const Shape &shape, const External &entries);

} // namespace lathe::core::test
