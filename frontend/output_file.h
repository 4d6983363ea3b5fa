// Writing whole files.
#pragma once

#include "ir/error.h"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace lathe::core {

using FilePart = std::span<const std::byte>;
struct OutputFile {
  std::string path;
  std::vector<FilePart> parts; // one after the other
};

// In place of whatever stood at the paths, in this order; if one of them cannot be written, all
// that stood there stays. Errors: io.
Result<void> write_files(std::span<const OutputFile> files);
Result<void> write_file(const std::string &path, std::vector<FilePart> parts);

} // namespace lathe::core
