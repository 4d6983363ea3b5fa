// Which build of Lathe this is.
#pragma once

#include <string>

namespace lathe::core {

// The identifier that the linker gave the program or library that holds this function: no two that
// differ share it. Empty, if it was linked without one.
const std::string &build_id();

} // namespace lathe::core
