// What a plan's views mean in bytes, for those who look at kernels one by one.
#pragma once

#include "passes/plan.h"

namespace lathe::core {

// Packed weights are read whole, in an order that is the kernel's own affair.
bool is_packed(const Plan &plan, const View &view);
// `graph`: the one that the plan was made from.
DType element_type(const Plan &plan, const Graph &graph, const View &view);
Shape dims_for(const Plan &plan, const View &view, int64_t images);

// What the view's elements hold, each of them once, however often a stride of 0 repeats it.
int64_t bytes_held(const Plan &plan, const Graph &graph, const View &view, int64_t images);

// From the lowest byte of any element to behind the highest, in the space that the view is of.
struct ByteRange {
  int64_t begin = 0, end = 0;
  bool overlaps(const ByteRange &other) const { return begin < other.end && other.begin < end; }
};
ByteRange bytes_spanned(const Plan &plan, const Graph &graph, const View &view, int64_t images);

} // namespace lathe::core
