// Weights in safetensors files: a JSON header that names the tensors, then their bytes
// (https://huggingface.co/docs/safetensors). Mapped, so that opening a file costs its header only.
#pragma once

#include "frontend/elements.h"

#include <map>
#include <span>

namespace lathe::core {

class WeightsFile {
public:
  // The whole header is checked here: afterwards every tensor lies inside the file, and the
  // tensors tile it without overlaps or holes. Errors: io; invalid; limit for headers over 100 MB
  // or 100,000 tensors; they name the file and the tensor.
  static Result<WeightsFile> open(const std::string &path);
  // The same for bytes in memory that `owner` keeps alive (null: they live forever).
  static Result<WeightsFile> parse(std::span<const std::byte> bytes,
                                   std::shared_ptr<const void> owner, std::string path);

  const std::string &path() const { return path_; }
  const std::vector<std::string> &names() const { return names_; } // sorted
  const Shape *find_shape(const std::string &name) const;          // null if there is no such
  // The data as `load_elements` gives it: f32 without a copy. Errors: invalid for an unknown name,
  // unsupported for element types that no tensor of ours can hold (the 8-bit floats, u32, u64).
  Result<Tensor> tensor(const std::string &name) const;

private:
  struct Entry {
    std::string dtype;
    Shape shape;
    std::span<const std::byte> bytes;
  };
  std::string path_;
  std::shared_ptr<const void> owner_;
  std::map<std::string, Entry> entries_;
  std::vector<std::string> names_;
};

// The bytes of a safetensors file.
std::string encode_safetensors(const std::map<std::string, Tensor> &tensors);
// Errors: io.
Result<void> write_safetensors(const std::string &path,
                               const std::map<std::string, Tensor> &tensors);

} // namespace lathe::core
