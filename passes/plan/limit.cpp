// The memory that a plan takes, and the choice of a plan for a limit.
#include "passes/plan/planner.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>

namespace lathe::core {

int64_t Plan::weight_bytes() const {
  int64_t total = 0;
  for (const Weight &weight : weights) total += weight.bytes;
  return total;
}

int64_t Plan::scratch_per_thread() const {
  return scratch_bytes == 0 ? 0 : whole_lines(scratch_bytes) + 4096 + 64;
}

namespace {

// What a process can address on all our targets.
constexpr int64_t most_addressable = int64_t{1} << 47;

// Adds and multiplies sizes as long as they can be addressed.
class Size {
public:
  Size &add(int64_t count, int64_t bytes = 1) {
    int64_t product = 0;
    whole_ = whole_ && count >= 0 && bytes >= 0 &&
             !__builtin_mul_overflow(count, bytes, &product) &&
             product <= most_addressable - bytes_;
    if (whole_) bytes_ += product;
    return *this;
  }
  Size &add(const Affine &a, int64_t images) { return add(a.per_image, images).add(a.fixed); }
  std::optional<int64_t> bytes() const { return whole_ ? std::optional(bytes_) : std::nullopt; }

private:
  int64_t bytes_ = 0;
  bool whole_ = true;
};

// A parameter is no size, but a number none the less.
bool has_value(const Affine &a, int64_t images) {
  int64_t grown = 0;
  return !__builtin_mul_overflow(a.per_image, images, &grown) &&
         !__builtin_add_overflow(grown, a.fixed, &grown);
}

Result<void> check_counts(const Plan &plan, int64_t images, int threads) {
  auto refuse = [&](std::string message, std::string expected, int64_t found) {
    return fail(Error{.code = ErrorCode::usage,
                      .message = std::move(message),
                      .expected = std::move(expected),
                      .found = fmt::format("{}", found)});
  };
  if (images < 1 || images > most_images || (!plan.batched && images != 1))
    return refuse("bad number of images",
                  plan.batched ? fmt::format("1 to {}", most_images)
                               : "1, for a network with fixed shapes",
                  images);
  if (threads < 1 || threads > most_threads)
    return refuse("bad number of threads", fmt::format("1 to {}", most_threads), threads);
  return {};
}

} // namespace

Result<PlanSizes> Plan::sized(int64_t images, int threads) const {
  LATHE_CHECK(check_counts(*this, images, threads));
  Size weight_sum, arena, lines, tensors;
  for (const Weight &weight : weights) weight_sum.add(whole_lines(weight.bytes));
  arena.add(arena_bytes, images);
  lines.add(scratch_per_thread(), threads);
  for (auto *types : {&inputs, &outputs})
    for (const Type &type : *types)
      tensors.add(element_count(type.shape) * int64_t(size_of(type.dtype)), batched ? images : 1);
  bool whole = weight_sum.bytes() && arena.bytes() && lines.bytes() && tensors.bytes();
  for (const Kernel &kernel : kernels) {
    whole = whole && has_value(kernel.tasks, images);
    for (const Affine &param : kernel.params) whole = whole && has_value(param, images);
    for (const View &view : kernel.operands) whole = whole && has_value(view.offset, images);
  }
  Size all;
  if (whole) all.add(weight_bytes()).add(*arena.bytes()).add(*lines.bytes()).add(*tensors.bytes());
  if (!whole || !all.bytes())
    return fail(Error{.code = ErrorCode::limit,
                      .message = "the network needs more memory than can be addressed",
                      .file = name,
                      .expected = fmt::format("at most {} bytes", most_addressable),
                      .found = fmt::format("more for {} images on {} threads", images, threads)});
  return PlanSizes{.weights = weight_bytes(),
                   .arena = *arena.bytes(),
                   .scratch_per_thread = scratch_per_thread(),
                   .scratch = *lines.bytes(),
                   .tensors = *tensors.bytes(),
                   .total = *all.bytes()};
}

namespace {

// By how much the kernels that take more than the limit exceed it, all together.
double excess(const Plan &plan, const PlanSizes &sizes, const MemoryLimit &limit) {
  const auto images = double(plan.batched ? limit.images : 1), threads = double(limit.threads);
  const auto always = double(sizes.weights + sizes.tensors);
  double sum = 0;
  for (const Kernel &kernel : plan.kernels)
    sum += std::max(0., always + images * double(kernel.alive_bytes) +
                            threads * double(kernel.scratch_bytes) - double(limit.bytes));
  return sum;
}

struct Search {
  const Graph &graph;
  const Target &target;
  const MemoryLimit &limit;
  const Budget &budget;
  const Uses uses{graph};
  int64_t least = INT64_MAX; // bytes of any plan so far

  Result<PlanSizes> sized(const Plan &plan) const {
    return plan.sized(plan.batched ? limit.images : 1, limit.threads);
  }
  Result<bool> fits(const Plan &plan) {
    const auto sizes = sized(plan);
    if (!sizes && (limit.bytes == 0 || sizes.error().code != ErrorCode::limit))
      return std::unexpected(sizes.error());
    if (sizes) least = std::min(least, sizes->total);
    return sizes && (limit.bytes == 0 || sizes->total <= limit.bytes);
  }

  // Chains convolutions, first to last, wherever that brings what runs there nearer to the limit.
  Result<std::optional<Plan>> with_chains(PlanOptions options) {
    LATHE_TRY(Plan plan, make_plan(graph, target, options, budget));
    LATHE_TRY(bool fit, fits(plan));
    if (fit) return std::optional(std::move(plan));
    const auto sizes = sized(plan);
    if (!sizes || sizes->weights + sizes->tensors > limit.bytes)
      return std::optional<Plan>(); // nothing would help
    double now = excess(plan, *sizes, limit);
    options.chained.resize(std::max(options.chained.size(), graph.nodes.size()));
    // Each try costs as much as the graph is long.
    size_t tries = 500'000 / std::max<size_t>(1, graph.nodes.size());
    for (size_t n = 0; n < graph.nodes.size() && tries > 0; ++n) {
      if (options.chained[n] || !may_chain(graph, uses, n)) continue;
      --tries;
      options.chained[n] = true;
      LATHE_TRY(Plan chained, make_plan(graph, target, options, budget));
      const double then = excess(chained, *sizes, limit);
      LATHE_TRY(fit, fits(chained));
      if (fit) return std::optional(std::move(chained));
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
                              const PlanOptions &options, const Budget &budget) {
  Search search{graph, target, limit, budget};
  LATHE_TRY(Plan first, make_plan(graph, target, options, budget));
  LATHE_TRY(bool fit, search.fits(first));
  if (fit) return first;
  PlanOptions attempt = options;
  attempt.weight_budget = 0;
  LATHE_TRY(Plan small_weights, make_plan(graph, target, attempt, budget));
  LATHE_TRY(fit, search.fits(small_weights));
  if (fit) return small_weights;
  attempt.direct = true; // direct convolutions take the least scratch, and only they chain
  for (bool smallest : {options.smallest_blocks, true}) {
    attempt.smallest_blocks = smallest;
    LATHE_TRY(std::optional<Plan> plan, search.with_chains(attempt));
    if (plan) return std::move(*plan);
  }
  const std::string found =
      search.least == INT64_MAX ? "more than can be addressed" : fmt::format("{}", search.least);
  return fail(Error{.code = ErrorCode::limit,
                    .message = "the network needs more memory than allowed",
                    .file = graph.name,
                    .expected = fmt::format("at most {} bytes", limit.bytes),
                    .found = fmt::format("{} for {} images on {} threads, the least that was found",
                                         found, limit.images, limit.threads)});
}

} // namespace lathe::core
