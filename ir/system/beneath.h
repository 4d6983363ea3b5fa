// The door to files that a stranger's file names: they lie in its folder, or there is none.
#pragma once

#include "ir/error.h"
#include "ir/system/descriptor.h"

#include <fcntl.h>

namespace lathe::core {

// Without blocking, so that a FIFO does not hang us before it is refused.
constexpr int reading = O_RDONLY | O_CLOEXEC | O_NONBLOCK;

// As MappedFile::open_beneath; the descriptor is a regular file's.
Result<Descriptor> open_beneath(const std::string &folder, const std::string &path);
// How it is called in errors.
std::string path_beneath(const std::string &folder, std::string_view path);

} // namespace lathe::core
