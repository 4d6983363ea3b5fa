// libFuzzer's target for ONNX tensors in files of their own: a tensor, which is written and reads
// back the same, or a typed error.
#include "frontend/onnx.h"
#include "frontend/onnx/data.h"
#include "tests/fuzz/fuzz.h"

#include <algorithm>

using namespace lathe::core;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const auto tensor = parse_tensor_proto(bytes_of(data, size), nullptr, "fuzz.pb");
  if (!tensor) {
    require(tensor.error().code != ErrorCode::internal);
    return 0;
  }
  const std::string written = onnx::encode("x", *tensor);
  const auto again = parse_tensor_proto(std::as_bytes(std::span(written)), nullptr, "again.pb");
  require(again && again->dtype() == tensor->dtype() && again->shape() == tensor->shape());
  require(std::equal(tensor->raw(), tensor->raw() + tensor->bytes(), again->raw()));
  return 0;
}
