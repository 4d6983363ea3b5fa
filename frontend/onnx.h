// ONNX models (https://onnx.ai): IR versions 1 and up, opsets 1 to 28 of ONNX's own domain,
// functions that the model defines, and what depends on constants alone whatever the op. The file
// stays mapped; weights are used where they lie.
#pragma once

#include "ir/budget.h"
#include "ir/graph.h"

#include <map>
#include <memory>
#include <span>

namespace lathe::core {

struct OnnxOptions {
  int64_t batch = 1;                        // of dimensions 0 that have a name or nothing
  std::map<std::string, Shape> shapes = {}; // of graph inputs, by name: replace what the file says
  // What is known of graph inputs, by name: shapes fill unknown dimensions; values are used, as
  // constants, where they decide shapes. Such inputs are none of the graph's any more.
  std::map<std::string, Tensor> values = {};
  bool all_known = false; // all inputs that have values are used so: nothing of them is left
  // Weights of the file (f32 initialisers and results of ConstantOfShape) become named constants
  // without data, for `randomise_weights`.
  bool unbind_weights = false;
  // What is read otherwise than it stands there is noted here, if anywhere.
  std::vector<std::string> *notes = nullptr;
  Budget budget = {};
};

class OnnxModel {
public:
  // Errors: io; invalid for what is no ONNX file; limit.
  static Result<OnnxModel> open(const std::string &path);
  // The same for bytes that `owner` keeps alive; external data is looked for beside `path`.
  static Result<OnnxModel> parse(std::span<const std::byte> bytes,
                                 std::shared_ptr<const void> owner, const std::string &path);

  // The graph's inputs that are no initialisers, in the file's order; and its outputs.
  const std::vector<std::string> &inputs() const { return inputs_; }
  const std::vector<std::string> &outputs() const { return outputs_; }
  // Everything that the nodes need: "Conv", "Relu", ... each once, sorted.
  std::vector<std::string> ops() const;

  // Errors: one that lists everything in the way, by node, op, opset and reason: unsupported, or
  // invalid if anything is; limit.
  Result<Graph> graph(const OnnxOptions &options = {}) const;

private:
  struct File;
  std::shared_ptr<const File> file_;
  std::vector<std::string> inputs_, outputs_;
};

// A TensorProto in a file of its own (.pb), as ONNX's tests keep inputs and outputs; floats of any
// width are read as f32.
// Errors: io, invalid, unsupported for element types that no tensor of ours holds.
Result<Tensor> read_tensor_proto(const std::string &path);
// The same for bytes that `owner` keeps alive; `path` names them in errors.
Result<Tensor> parse_tensor_proto(std::span<const std::byte> bytes,
                                  std::shared_ptr<const void> owner, const std::string &path);
Result<void> write_tensor_proto(const std::string &path, const std::string &name,
                                const Tensor &tensor);

// Writes a graph, at any stage of the passes, as ONNX of opset 16: ops that ONNX has as such, fused
// ones in the domain "lathe" with what they were made of as their documentation. Weights are
// written with it; those without data as inputs.
Result<std::string> write_onnx(const Graph &graph, const Budget &budget = {});

} // namespace lathe::core
