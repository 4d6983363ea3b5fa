// The arena as a picture: which bytes hold what, from kernel to kernel.
#pragma once

#include "passes/plan.h"

namespace lathe::core::cli {

// An SVG for one picture: kernels from left to right, bytes upwards, a box for every value from the
// kernel that makes it to the last that reads it; the lower bound as a line. Values that share
// bytes because one replaces the other lie on top of each other.
std::string memory_svg(const Plan &plan, const Graph &graph);

} // namespace lathe::core::cli
