// The syntax tree of one network to a graph.
#pragma once

#include "frontend/net.h"
#include "frontend/net/syntax.h"

namespace lathe::core::net {

// The last `network` of the program, with its parameters overridden by `options`. Goes on after an
// error where that makes sense; the graph is whole only if none was added.
Graph lower(const Program &program, const NetOptions &options, std::vector<Error> &errors);

} // namespace lathe::core::net
