// The syntax tree of one network to a graph.
#pragma once

#include "frontend/net.h"
#include "frontend/net/syntax.h"

namespace lathe::net {

// The last `network` of the program, with its parameters overridden by `options`.
Result<Graph> lower(const Program &program, const NetOptions &options);

} // namespace lathe::net
