// The ops by the names that text shows.
#pragma once

#include "ir/ops.h"

#include <map>
#include <string>

namespace lathe::core {

// One op per name ("conv", "relu", "max_pool", ...): what the name implies, and otherwise the
// defaults.
const std::map<std::string, Op, std::less<>> &op_table();

} // namespace lathe::core
