// The table of passes and its runner.
#include "passes/pipeline.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace lathe::core {

std::span<const Pass> pipeline() {
  static const Pass table[] = {
      {"drop_identities", drop_identities, "first: dropout would hide what stands beside it"},
      {"fold_constants", fold_constants, "before fusion, which asks what is constant", false},
      {"simplify_windows", simplify_windows, "before all that looks at windows and pools"},
      {"simplify_bounds", simplify_bounds, "before fusion, which takes clip and ReLU along"},
      {"split_low_rank", split_low_rank, "while weights lie in the file as they are"},
      {"fuse_early_bias", fuse_bias, "a bias that stands before a batch norm, which then folds"},
      {"fold_batch_norm", fold_batch_norm, "before bias and activations, which come after it"},
      {"fold_scale", fold_scale, "behind batch norms, as older frameworks write them"},
      {"lower_batch_norm", lower_batch_norm, "what could not be folded becomes multiply and add",
       false},
      {"fold_lowered_constants", fold_constants, "the factors that lower_batch_norm made", false},
      {"fuse_bias", fuse_bias, "before post ops: a bias belongs in front of them"},
      {"compose_convolutions", compose_convolutions,
       "behind biases and before activations, which part what is linear"},
      {"fuse_post_ops", fuse_post_ops, "activations and residual adds into their producers"},
      {"fuse_pre_ops", fuse_pre_ops, "what no producer took, into the layer behind it"},
      {"swap_average_pools", swap_average_pools, "when layers have taken along what parts them"},
      {"merge_siblings", merge_siblings, "behind fusion: siblings must end alike to be one"},
      {"convolutions_to_dense", convolutions_to_dense, "last: the others look for convolutions"},
  };
  return table;
}

Result<std::vector<PassReport>> run_passes(Graph &graph, const PipelineOptions &options) {
  auto find = [](std::string_view name) {
    return std::ranges::find(pipeline(), name, &Pass::name);
  };
  std::vector<std::string> asked = options.disabled;
  if (!options.stop_after.empty()) asked.push_back(options.stop_after);
  for (const std::string &name : asked) {
    if (find(name) != pipeline().end()) continue;
    std::string known;
    for (const Pass &pass : pipeline())
      known += fmt::format("{}{}", known.empty() ? "" : ", ", pass.name);
    return fail(Error{
        .code = ErrorCode::usage, .message = "unknown pass", .expected = known, .found = name});
  }
  for (const std::string &name : options.disabled)
    if (!find(name)->optional)
      return fail(Error{.code = ErrorCode::usage,
                        .message = fmt::format("pass {} is needed and cannot be disabled", name)});
  std::vector<PassReport> reports;
  for (const Pass &pass : pipeline()) {
    bool disabled = std::ranges::count(options.disabled, pass.name) > 0;
    auto start = std::chrono::steady_clock::now();
    const int64_t changes = disabled ? 0 : pass.run(graph);
    if (changes) remove_dead_code(graph);
    std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    reports.push_back({pass.name, took.count(), changes});
    if (options.verify && changes)
      if (auto whole = verify(graph); !whole) {
        Error error = whole.error();
        error.code = ErrorCode::internal;
        error.message = fmt::format("pass {} broke the graph: {}", pass.name, error.message);
        return fail(std::move(error));
      }
    if (options.after_each) options.after_each(pass, graph);
    if (pass.name == options.stop_after) break;
  }
  return reports;
}

} // namespace lathe::core
