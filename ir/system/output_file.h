// Writing whole files: the only way by which this house writes any, but for the cache's entries.
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
// that stood there stays. Each is written beside its place under a random name that nobody had, and
// renamed; it keeps the permissions of what it replaces. A symbolic link stays, and the file that
// it leads to is replaced, if the link is this user's or root's; others' are refused. Devices,
// pipes (this user's or root's) and the process's own descriptors (/dev/stdout, /dev/fd/3) are
// written to as they are. Errors: io.
Result<void> write_files(std::span<const OutputFile> files);
Result<void> write_file(const std::string &path, std::vector<FilePart> parts);

// Whether a path is one of those that are written to as they are, and so says nothing by its name.
bool is_device(const std::string &path);

// Whether a file of so many bytes is more than the system lets this process write: the attempt
// would end it with a signal.
bool exceeds_file_size_limit(size_t bytes);

} // namespace lathe::core
