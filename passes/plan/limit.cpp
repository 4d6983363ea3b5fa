// The memory that a plan takes, and the choice of a plan for a limit.
#include "passes/plan/planner.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core {

int64_t Plan::weight_bytes() const {
  int64_t total = 0;
  for (const Weight &weight : weights) total += weight.bytes;
  return total;
}

int64_t Plan::scratch_per_thread() const {
  return scratch_bytes == 0 ? 0 : whole_lines(scratch_bytes) + 4096 + 64;
}

int64_t Plan::memory_bytes(int64_t images, int threads) const {
  int64_t bytes = weight_bytes() + arena_bytes.at(images) + threads * scratch_per_thread();
  for (auto *types : {&inputs, &outputs})
    for (const Type &type : *types) {
      const int64_t factor = batched ? images : 1;
      bytes += factor * element_count(type.shape) * int64_t(size_of(type.dtype));
    }
  return bytes;
}

namespace {

// What a run takes besides arena and scratch.
int64_t always_taken(const Plan &plan, const MemoryLimit &limit) {
  const int64_t images = plan.batched ? limit.images : 1;
  return plan.memory_bytes(images, limit.threads) - plan.arena_bytes.at(images) -
         limit.threads * plan.scratch_per_thread();
}

// By how much the kernels that take more than the limit exceed it, all together.
int64_t excess(const Plan &plan, const MemoryLimit &limit) {
  const int64_t images = plan.batched ? limit.images : 1;
  const int64_t always = always_taken(plan, limit);
  int64_t sum = 0;
  for (const Kernel &kernel : plan.kernels)
    sum += std::max<int64_t>(0, always + images * kernel.alive_bytes +
                                    limit.threads * kernel.scratch_bytes - limit.bytes);
  return sum;
}

struct Search {
  const Graph &graph;
  const Target &target;
  const MemoryLimit &limit;
  const Uses uses{graph};
  int64_t least = INT64_MAX; // bytes of any plan so far

  bool fits(const Plan &plan) {
    const int64_t needed = plan.memory_bytes(plan.batched ? limit.images : 1, limit.threads);
    least = std::min(least, needed);
    return limit.bytes == 0 || needed <= limit.bytes;
  }

  // Chains convolutions, first to last, wherever that brings what runs there nearer to the limit.
  Result<std::optional<Plan>> with_chains(PlanOptions options) {
    LATHE_TRY(Plan plan, make_plan(graph, target, options));
    if (fits(plan)) return std::optional(std::move(plan));
    if (always_taken(plan, limit) > limit.bytes) return std::optional<Plan>(); // nothing would help
    int64_t now = excess(plan, limit);
    options.chained.resize(std::max(options.chained.size(), graph.nodes.size()));
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      if (options.chained[n] || !may_chain(graph, uses, n)) continue;
      options.chained[n] = true;
      LATHE_TRY(Plan chained, make_plan(graph, target, options));
      const int64_t then = excess(chained, limit);
      if (fits(chained)) return std::optional(std::move(chained));
      if (then < now)
        now = then;
      else
        options.chained[n] = false;
    }
    return std::optional<Plan>();
  }
};

} // namespace

Result<Plan> make_plan_within(const Graph &graph, const Target &target, const MemoryLimit &limit,
                              const PlanOptions &options) {
  Search search{graph, target, limit};
  LATHE_TRY(Plan first, make_plan(graph, target, options));
  if (search.fits(first)) return first;
  PlanOptions attempt = options;
  attempt.weight_budget = 0;
  LATHE_TRY(Plan small_weights, make_plan(graph, target, attempt));
  if (search.fits(small_weights)) return small_weights;
  attempt.strict = true; // direct convolutions take the least scratch, and only they chain
  for (bool smallest : {options.smallest_blocks, true}) {
    attempt.smallest_blocks = smallest;
    LATHE_TRY(std::optional<Plan> plan, search.with_chains(attempt));
    if (plan) return std::move(*plan);
  }
  return fail(Error{.code = ErrorCode::limit,
                    .message = "the network needs more memory than allowed",
                    .file = graph.name,
                    .expected = fmt::format("at most {} bytes", limit.bytes),
                    .found = fmt::format("{} for {} images on {} threads, the least that was found",
                                         search.least, limit.images, limit.threads)});
}

} // namespace lathe::core
