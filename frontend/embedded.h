// Files that are part of the program: a table of them is written by cmake/embed.cmake.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace lathe::core {

struct EmbeddedFile {
  std::string_view name;
  const std::byte *begin, *end;
};
extern const std::span<const EmbeddedFile> embedded_files; // models/
extern const std::span<const EmbeddedFile> prebuilt_files; // runtime/prebuilt/main.cpp's

} // namespace lathe::core
