// What the fuzz targets share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

// A target's promise. What breaks it is found as a crash is.
inline void require(bool kept) {
  if (!kept) std::abort();
}

using Bytes = std::span<const std::byte>;
inline Bytes bytes_of(const uint8_t *data, size_t size) {
  return std::as_bytes(std::span(data, size));
}
inline std::string_view text_of(const uint8_t *data, size_t size) {
  return {reinterpret_cast<const char *>(data), size};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
