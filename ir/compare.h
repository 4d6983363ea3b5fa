// How far a result is from its reference.
#pragma once

#include "ir/graph.h"

namespace lathe::core {

struct Comparison {
  // Of the absolute values; an error is infinite where only one side is NaN, or infinite. Where
  // both are alike, there is none, and nothing to be relative to.
  double largest_error = 0, largest_reference = 0;
  double rms_error = 0, rms_reference = 0;
  int64_t worst = -1; // flat index of the largest error
  // Lathe's promise: the largest error is at most `tolerance` of the largest reference.
  bool within(double tolerance) const { return largest_error <= tolerance * largest_reference; }
};
// Tensors of f32 and equal element count.
Comparison compare(const Tensor &result, const Tensor &reference);

// The graph with the inputs of its final softmaxes as outputs: after a softmax errors hide.
Graph before_softmax(Graph graph);

} // namespace lathe::core
