// The archive that prebuilt/main.cpp made is part of the program.
#include "runtime/prebuilt.h"

namespace lathe::core {

// Written by embed.cmake.
struct EmbeddedFile {
  std::string_view name;
  const std::byte *begin, *end;
};
extern const std::span<const EmbeddedFile> prebuilt_files;

const CodeArchive &prebuilt_code() {
  static const CodeArchive archive({prebuilt_files.front().begin, prebuilt_files.front().end});
  return archive;
}

} // namespace lathe::core
