// libFuzzer's target for MNIST's files, plain and gzipped: as many bytes as the shape says, or a
// typed error.
#include "data/idx.h"
#include "tests/fuzz/fuzz.h"

using namespace lathe::core;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const auto array = parse_idx(bytes_of(data, size), "fuzz");
  if (!array) {
    require(array.error().code != ErrorCode::internal);
    return 0;
  }
  require(int64_t(array->values.size()) == element_count(array->shape));
  return 0;
}
