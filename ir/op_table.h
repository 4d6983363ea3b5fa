// Every op of the vocabulary by the name that text shows, with the attributes that the name
// implies.
#pragma once

#include "ir/ops.h"

namespace lathe {

// A default-constructed op for a name ("conv", "relu", "max_pool", ...); nothing for an unknown
// one.
std::optional<Op> op_by_name(std::string_view name);

} // namespace lathe
