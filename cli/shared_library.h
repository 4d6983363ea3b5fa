// Linking an object to a shared library, with the machine's own linker.
#pragma once

#include "ir/target.h"

#include <span>
#include <string>
#include <vector>

namespace lathe::core::cli {

// What `cc -shared` (for another architecture its cross compiler) makes of it, for a file of this
// name. Errors: unsupported, where there is no such program; io.
Result<std::vector<char>> link_shared(std::span<const char> object, Arch arch,
                                      const std::string &file_name);

} // namespace lathe::core::cli
