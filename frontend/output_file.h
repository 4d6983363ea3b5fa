// Writing a whole file.
#pragma once

#include "ir/error.h"

#include <cstddef>
#include <initializer_list>
#include <span>

namespace lathe::core {

// The parts, one after the other, in place of whatever stood at `path`; that stays if writing
// fails. Errors: io.
Result<void> write_file(const std::string &path,
                        std::initializer_list<std::span<const std::byte>> parts);

} // namespace lathe::core
