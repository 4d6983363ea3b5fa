// Tensors of an ONNX file: typed fields, raw bytes, or bytes of a file beside it. Private to
// frontend/onnx.
#pragma once

#include "frontend/onnx/structure.h"
#include "ir/system/mapped_file.h"

namespace lathe::core::onnx {

// Reads the tensors of one model. External files lie in `folder`:
// their paths may not leave it, by whatever kind of link, and each is mapped once.
class TensorReader {
public:
  TensorReader(ModelBytes bytes, std::string folder)
      : bytes_(std::move(bytes)), folder_(std::move(folder)) {}
  // Errors: invalid where shape and data disagree; unsupported for strings and the like; io.
  Result<Tensor> read(const TensorProto &tensor);
  // The same for a constant: f32 that the file holds stays there, aligned or not.
  Result<Tensor> read_constant(const TensorProto &tensor);
  // Of tensors that were read: whose doubles are beyond f32, and became infinite.
  const std::vector<std::string> &notes() const { return notes_; }

private:
  void note_overflow(const TensorProto &tensor, std::span<const std::byte> doubles);
  std::vector<std::string> notes_;
  Result<Tensor> read_external(const TensorProto &tensor);
  Result<Tensor> from_bytes(const TensorProto &tensor, std::shared_ptr<const void> owner,
                            std::span<const std::byte> bytes);
  ModelBytes bytes_;
  std::string folder_;
  std::map<std::string, std::shared_ptr<const MappedFile>> files_;
};

} // namespace lathe::core::onnx
