// The passes, and the runner that applies them in the order of one table.
#pragma once

#include "ir/budget.h"
#include "ir/graph.h"

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace lathe::core {

struct Pass {
  std::string_view name;
  // Returns how many changes it made. Errors: limit.
  Result<int64_t> (*run)(Graph &, const Budget &);
  std::string_view why;  // why it stands where it stands
  bool optional = true;  // may be disabled
  bool reorders = false; // sums get another order, and infinities meet that did not
};
std::span<const Pass> pipeline();

struct PassReport {
  std::string_view name;
  double milliseconds = 0;
  int64_t changes = 0;
};
struct PipelineOptions {
  std::vector<std::string> disabled;
  bool strict = false;    // without the passes that reorder sums
  std::string stop_after; // empty: run all
  bool verify = true;
  Budget budget = {};
  std::function<void(const Pass &, const Graph &)> after_each; // for dumps
};
// Errors: usage, for an unknown pass name; limit; internal, where a pass broke the graph.
Result<std::vector<PassReport>> run_passes(Graph &graph, const PipelineOptions &options = {});

// The passes, one file each, named after its function. Each returns how many changes it made; those
// that compute with weights, or make more of them, keep a budget.
int64_t drop_identities(Graph &graph);
int64_t fold_constants(Graph &graph);
int64_t simplify_windows(Graph &graph);
int64_t simplify_bounds(Graph &graph);
Result<int64_t> split_low_rank(Graph &graph, const Budget &budget = {});
int64_t fold_batch_norm(Graph &graph);
int64_t fold_scale(Graph &graph);
int64_t lower_batch_norm(Graph &graph);
int64_t fuse_bias(Graph &graph);
Result<int64_t> compose_convolutions(Graph &graph, const Budget &budget = {});
int64_t fuse_post_ops(Graph &graph);
int64_t fuse_pre_ops(Graph &graph);
int64_t swap_average_pools(Graph &graph);
int64_t merge_siblings(Graph &graph);
int64_t convolutions_to_dense(Graph &graph);

} // namespace lathe::core
