// Where a graph's weights come from: a checkpoint, or calibrated random numbers.
#pragma once

#include "frontend/safetensors.h"
#include "ir/graph.h"

namespace lathe::core {

struct BindReport {
  std::vector<std::string> unused; // tensors of the file that the graph does not name, sorted
};

// Gives every named constant without data, also those inside recipes, the tensor of its name. A
// tensor whose shape differs only by dimensions of 1 is taken too ([M,K,1,1] for [M,K]). Errors:
// invalid, one for all weights that are missing or misshapen, each a line of its `detail`; the
// graph is then as it was.
Result<BindReport> bind_weights(Graph &graph, const WeightsFile &file);

// Gives every named constant without data random numbers that depend on the seed and its name
// only, calibrated on one random picture so that signals neither fade nor explode: a convolution's
// or dense layer's result has an RMS of 1, a batch norm has the statistics of what it normalises,
// and branches that are added to what stood there before are tamed. Measured factors are rounded
// coarsely, which makes the weights the same on every machine. Costs about one run of the
// evaluator. For graphs as written, before any pass. Errors: what the evaluator refuses.
Result<void> randomise_weights(Graph &graph, uint64_t seed);

// All named tensors that have data, also those inside recipes: what `bind_weights` would bind.
std::map<std::string, Tensor> named_weights(const Graph &graph);

// Normal random numbers of mean 0 and deviation 1 (more exactly, their sum-of-four-uniforms
// likeness); zeros for integers. Depends on the seed and the name only, on any machine.
Tensor random_tensor(const Type &type, std::string_view name, uint64_t seed);

} // namespace lathe::core
