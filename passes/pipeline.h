// The passes, and the runner that applies them in the order of one table.
#pragma once

#include "ir/graph.h"

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace lathe {

struct Pass {
  std::string_view name;
  bool (*run)(Graph &); // returns whether it changed anything
  std::string_view why; // why it stands where it stands
  bool optional = true; // may be disabled
};
std::span<const Pass> pipeline();

struct PassReport {
  std::string_view name;
  double milliseconds = 0;
  bool changed = false;
};
struct PipelineOptions {
  std::vector<std::string> disabled;
  std::string stop_after; // empty: run all
  bool verify = true;
  std::function<void(const Pass &, const Graph &)> after_each; // for dumps
};
// Errors: usage, for an unknown pass name; internal, where a pass broke the graph.
Result<std::vector<PassReport>> run_passes(Graph &graph, const PipelineOptions &options = {});

// The passes, one file each.
bool drop_identities(Graph &graph);  // drop_identities.cpp
bool fold_constants(Graph &graph);   // fold_constants.cpp
bool simplify_windows(Graph &graph); // simplify_windows.cpp
bool simplify_bounds(Graph &graph);  // simplify_bounds.cpp
bool fold_batch_norm(Graph &graph);  // fold_batch_norm.cpp
bool fold_scale(Graph &graph);       // fold_scale.cpp
bool lower_batch_norm(Graph &graph); // lower_batch_norm.cpp
bool fuse_bias(Graph &graph);        // fuse_bias.cpp
bool fuse_post_ops(Graph &graph);    // fuse_post_ops.cpp
bool merge_siblings(Graph &graph);   // merge_siblings.cpp

} // namespace lathe
