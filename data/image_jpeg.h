// Between the files of image decoding.
#pragma once

#include "data/image.h"

namespace lathe::core {

// In pixels. Errors: invalid, for none; limit.
Result<void> check_picture_size(int64_t width, int64_t height);
// Black, of checked size. Errors: as check_picture_size.
Result<Image> blank_image(int64_t width, int64_t height);

Result<Image> decode_jpeg(std::span<const std::byte> bytes); // errors without the file's name

} // namespace lathe::core
