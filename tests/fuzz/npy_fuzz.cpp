// libFuzzer's target for NumPy's files: an array of as many elements as its shape says, or a typed
// error.
#include "frontend/npy.h"
#include "tests/fuzz/fuzz.h"

using namespace lathe::core;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const auto array = parse_npy(bytes_of(data, size), nullptr, "fuzz.npy");
  if (!array) {
    require(array.error().code != ErrorCode::internal);
    return 0;
  }
  require(array->size() == element_count(array->shape()) && array->aligned());
  const Tensor numbers = to_f32(*array); // reads every element
  require(numbers.shape() == array->shape());
  return 0;
}
