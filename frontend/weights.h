// Where a graph's weights come from: a checkpoint, or calibrated random numbers.
#pragma once

#include "frontend/safetensors.h"
#include "ir/budget.h"
#include "ir/graph.h"

namespace lathe::core {

struct BindOptions {
  bool partial = false;       // weights that the file lacks stay as they are
  bool ignore_unused = false; // tensors that no weight is named after are no errors
};
struct BindReport {                 // sorted names
  std::vector<std::string> unused;  // tensors of the file that the graph does not name
  std::vector<std::string> kept;    // weights that the file lacks and that keep their data
  std::vector<std::string> missing; // weights that the file lacks and that have no data yet
};

// Gives the graph's weights, also those inside recipes, the tensors of their names, in place of
// what data they have. Weights are the named constants, but for those that have data of rank 0 or
// of integers, which may be given and need not. A tensor whose shape differs only by dimensions of
// 1 is taken too ([M,K,1,1] for [M,K]). What checkpoints carry along besides (a batch norm's
// num_batches_tracked, auxiliary heads that the graph leaves out) is ignored and reported. Errors:
// invalid, one for all weights that are missing or misshapen and all tensors that are unknown, each
// a line of its `detail`; the graph is then as it was.
Result<BindReport> bind_weights(Graph &graph, const WeightsFile &file,
                                const BindOptions &options = {});

// Gives every named constant without data random numbers that depend on the seed and its name
// only, calibrated on one random picture so that signals neither fade nor explode: a convolution's
// or dense layer's result has an RMS of 1, a batch norm has the statistics of what it normalises,
// and branches that are added to what stood there before are tamed. Measured factors are rounded
// coarsely, which makes the weights the same on every machine. Costs about one run of the
// evaluator. For graphs as written, before any pass. Errors: what the evaluator
// refuses; limit.
Result<void> randomise_weights(Graph &graph, uint64_t seed, const Budget &budget = {});

// All named tensors that have data, also those inside recipes: what `bind_weights` would bind.
std::map<std::string, Tensor> named_weights(const Graph &graph);

// Normal random numbers of mean 0 and deviation 1 (more exactly, their sum-of-four-uniforms
// likeness); zeros for integers. Depends on the seed and the name only, on any machine.
Tensor random_tensor(const Type &type, std::string_view name, uint64_t seed);

} // namespace lathe::core
