// Linking an object to a shared library, with the machine's own linker.
#pragma once

#include "ir/target.h"

#include <cstddef>
#include <span>

namespace lathe::core::cli {

// Runs `cc -shared` (for another architecture its cross compiler) and writes what comes out to
// `path`. Errors: unsupported, where there is no such program; io.
Result<void> link_shared(std::span<const std::byte> object, Arch arch, const std::string &path);

} // namespace lathe::core::cli
