// libFuzzer's target for safetensors: tensors that lie in the file, or a typed error; what was read
// is written and reads back the same.
#include "frontend/safetensors.h"
#include "tests/fuzz/fuzz.h"

#include <algorithm>

using namespace lathe::core;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const auto file = WeightsFile::parse(bytes_of(data, size), nullptr, "fuzz.safetensors");
  if (!file) {
    require(file.error().code != ErrorCode::internal);
    return 0;
  }
  std::map<std::string, Tensor> tensors;
  for (const std::string &name : file->names()) {
    auto tensor = file->tensor(name);
    require(tensor || tensor.error().code == ErrorCode::unsupported);
    if (!tensor) continue;
    require(tensor->shape() == *file->find_shape(name) && tensor->aligned());
    tensors.emplace(name, std::move(*tensor));
  }
  const std::string written = encode_safetensors(tensors);
  const auto again = WeightsFile::parse(std::as_bytes(std::span(written)), nullptr, "again");
  require(again && again->names().size() == tensors.size());
  for (const auto &[name, tensor] : tensors) {
    const auto copy = again->tensor(name);
    require(copy && copy->dtype() == tensor.dtype() && copy->shape() == tensor.shape());
    require(std::equal(tensor.raw(), tensor.raw() + tensor.bytes(), copy->raw()));
  }
  return 0;
}
