// Whole text files, of bounded size.
#pragma once

#include "ir/error.h"

namespace lathe {

// Errors: io if the file cannot be read or is not a regular file, limit if it is larger.
Result<std::string> read_text_file(const std::string &path, size_t most_bytes);

} // namespace lathe
