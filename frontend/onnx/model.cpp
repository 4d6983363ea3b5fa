// A mapped ONNX file: what it says of itself, and its graph.
#include "frontend/onnx/import.h"
#include "frontend/onnx/structure.h"
#include "ir/system/mapped_file.h"

#include <fmt/format.h>
#include <set>
#include <unordered_set>

namespace lathe::core {

struct OnnxModel::File {
  onnx::ModelBytes bytes;
  std::string path;
  onnx::ModelProto model;
};

Result<OnnxModel> OnnxModel::open(const std::string &path) {
  LATHE_TRY(auto file, MappedFile::open(path));
  return parse(file->bytes(), file, path);
}

Result<OnnxModel> OnnxModel::parse(std::span<const std::byte> bytes,
                                   std::shared_ptr<const void> owner, const std::string &path) {
  LATHE_TRY(onnx::ModelBytes file, onnx::read_structure(std::move(owner), bytes));
  auto model =
      onnx::read_model({reinterpret_cast<const char *>(file.parsed.data()), file.parsed.size()});
  if (!model) {
    model.error().file = path;
    return std::unexpected(std::move(model).error());
  }
  OnnxModel result;
  std::unordered_set<std::string_view> defaults;
  for (const onnx::TensorProto &t : model->graph.initializers) defaults.insert(t.name);
  for (const onnx::ValueInfo &input : model->graph.inputs)
    if (!defaults.contains(input.name)) result.inputs_.push_back(onnx::clean(input.name));
  for (const onnx::ValueInfo &output : model->graph.outputs)
    result.outputs_.push_back(onnx::clean(output.name));
  result.file_ = std::make_shared<File>(File{std::move(file), path, std::move(*model)});
  return result;
}

std::vector<std::string> OnnxModel::ops() const {
  std::set<std::string> names;
  for (const onnx::NodeProto &node : file_->model.graph.nodes)
    names.insert(onnx::clean(node.domain.empty()
                                 ? std::string(node.op_type)
                                 : fmt::format("{}.{}", node.domain, node.op_type)));
  return {names.begin(), names.end()};
}

Result<Graph> OnnxModel::graph(const OnnxOptions &options) const {
  if (options.batch < 1 || options.batch > (1 << 20))
    return fail(Error{.code = ErrorCode::usage,
                      .message = "bad number of images",
                      .expected = "1 to 1048576",
                      .found = fmt::format("{}", options.batch)});
  return onnx::import_graph(file_->model, file_->bytes, file_->path, options);
}

} // namespace lathe::core
