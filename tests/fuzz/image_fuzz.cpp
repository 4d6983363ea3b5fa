// libFuzzer's target for pictures (PNG, JPEG, PPM): one of the size that it has, or a typed error.
#include "data/image.h"
#include "tests/fuzz/fuzz.h"

using namespace lathe::core;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const auto image = decode_image(bytes_of(data, size), "fuzz");
  if (!image) {
    require(image.error().code != ErrorCode::internal);
    return 0;
  }
  require(image->width > 0 && image->height > 0);
  require(image->rgb.size() == size_t(image->width) * size_t(image->height) * 3);
  return 0;
}
