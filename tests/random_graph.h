// Seeded random graphs over the whole vocabulary, for differential tests.
#pragma once

#include "ir/graph.h"

namespace lathe {

// Small, valid, with odd sizes; dimension 0 carries the images throughout; weights have data, and
// every value stays near magnitude 1.
Graph random_graph(uint64_t seed);
std::vector<Tensor> random_inputs(const Graph &graph, uint64_t seed, int64_t images);

} // namespace lathe
