// From a graph that shows a bug to the smallest one that still does: what a person wants to read.
#pragma once

#include "ir/graph.h"

#include <functional>

namespace lathe::core {

// Takes away and shrinks, as long as `still_fails` holds: nodes, outputs, operands, attributes,
// dimensions, weights. Asks only about whole graphs (`verify`), each simpler than the one before,
// and always in the same order.
Graph reduce_graph(Graph failing, const std::function<bool(const Graph &)> &still_fails);

// What a graph computes, if it does, and these are numbers: a reduced one may take the logarithm of
// something negative, which shows no bug.
std::optional<std::vector<Tensor>> finite_results(const Graph &graph,
                                                  std::span<const Tensor> inputs);

} // namespace lathe::core
