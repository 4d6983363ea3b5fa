// Seeded random graphs over the whole vocabulary, for differential tests.
#pragma once

#include "ir/graph.h"

namespace lathe::core {

// Small, valid, with odd sizes; dimension 0 carries the images throughout; weights have data, and
// every value stays near magnitude 1. Functions that jump are applied only to what the inputs' bits
// decide, so that two ways of computing the graph agree up to rounding.
Graph random_graph(uint64_t seed);
// Whether a graph keeps that promise; one that was changed may not.
bool jumps_alike(const Graph &graph);
// Of the inputs' types.
std::vector<Tensor> random_inputs(const Graph &graph, uint64_t seed, int64_t images);

} // namespace lathe::core
