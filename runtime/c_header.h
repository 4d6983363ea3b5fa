// The C header of a network that is compiled ahead of time.
#pragma once

#include "codegen/codegen.h"

namespace lathe::core {

// Declarations and contract of the library's functions, for C99 and C++. `model` and `compiler` are
// named in its first lines; `weights_file` is where the weights are, if not in the code.
std::string c_header(const NetworkLibrary &library, std::string_view model,
                     std::string_view compiler, std::string_view weights_file);

} // namespace lathe::core
