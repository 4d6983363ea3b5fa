// What each algorithm for each convolution takes on this machine, for the planner to choose by.
#pragma once

#include "passes/plan.h"

#include <functional>

namespace lathe::core {

struct TuneOptions {
  double seconds = 0.05;                                      // about, for each candidate
  std::function<void(size_t done, size_t all)> progress = {}; // after each convolution, if set
  Budget budget = {};                                         // looked at before each
};

// options.measured, and what it lacks of the convolutions in the graph that have a choice: the
// median of each candidate's kernel alone, run in turns with the others on one thread, one image,
// weights from memory. `graph`: after the passes; it needs no data. Errors: unsupported, for a
// target that this machine lacks; limit; as make_plan and KernelBench::create.
Result<MeasuredCosts> measure_algorithms(const Graph &graph, const Target &target,
                                         const PlanOptions &options,
                                         const TuneOptions &tuning = {});

} // namespace lathe::core
