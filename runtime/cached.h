// Compiling with a cache: each of these looks there first, and stores what it had to make. Without
// a cache (null) it is made.
#pragma once

#include "codegen/codegen.h"
#include "runtime/cache.h"
#include "runtime/tune.h"
#include "runtime/weights.h"

namespace lathe::core {

struct CacheLookup {
  bool found = false;
  std::string note = {}; // why the cache did not help as it should have: never an error
};

// Errors: as compile_image.
Result<CodeImage> cached_image(const Cache *cache, std::span<const KernelSpec> specs,
                               const Target &target, int threads, const Budget &budget,
                               CacheLookup &lookup);
// Errors: as PackedWeights::pack.
Result<PackedWeights> cached_weights(const Cache *cache, const Plan &plan, int threads,
                                     const Budget &budget, CacheLookup &lookup);
// What was measured on such a CPU for the same graph and options. Errors: as measure_algorithms.
Result<MeasuredCosts> cached_costs(const Cache *cache, const Graph &graph, const Target &target,
                                   const PlanOptions &options, const TuneOptions &tuning,
                                   CacheLookup &lookup);

} // namespace lathe::core
