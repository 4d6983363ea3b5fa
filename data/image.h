// Pictures: PNG, JPEG and binary PPM or PGM files.
#pragma once

#include "ir/error.h"

#include <cstddef>
#include <span>
#include <vector>

namespace lathe::core {

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb; // rows from the top, three bytes per pixel
};

// Every picture becomes 8-bit RGB: grey is repeated, palettes are looked up, of 16 bits the upper 8
// stay, and alpha is dropped (not composed onto a background), all as Pillow's convert("RGB") does;
// EXIF orientation and colour profiles are ignored. Errors: io; invalid for damaged and truncated
// files; unsupported for other formats and for CMYK; limit for more than 100 megapixels.
Result<Image> read_image(const std::string &path);
// The same for a file's bytes; `path` names them in errors.
Result<Image> decode_image(std::span<const std::byte> bytes, const std::string &path);
Result<void> write_png(const std::string &path, const Image &image);

} // namespace lathe::core
