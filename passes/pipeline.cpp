// The table of passes and its runner.
#include "passes/pipeline.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace lathe::core {

// A pass that takes no more time and memory than a graph of this size does anyway.
template <int64_t (*pass)(Graph &)> static Result<int64_t> quick(Graph &graph, const Budget &) {
  return pass(graph);
}

std::span<const Pass> pipeline() {
  static const Pass table[] = {
      {"drop_identities", quick<drop_identities>,
       "first: dropout would hide what stands beside it"},
      {"fold_constants", quick<fold_constants>, "before fusion, which asks what is constant",
       false},
      {"simplify_windows", quick<simplify_windows>, "before all that looks at windows and pools"},
      {"simplify_bounds", quick<simplify_bounds>, "before fusion, which takes clip and ReLU along"},
      {"split_low_rank", split_low_rank, "while weights lie in the file as they are", true, true},
      {"fuse_early_bias", quick<fuse_bias>,
       "a bias that stands before a batch norm, which then folds"},
      {"fold_batch_norm", quick<fold_batch_norm>,
       "before bias and activations, which come after it"},
      {"fold_scale", quick<fold_scale>, "behind batch norms, as older frameworks write them"},
      {"lower_batch_norm", quick<lower_batch_norm>,
       "what could not be folded becomes multiply and add", false},
      {"fold_lowered_constants", quick<fold_constants>, "the factors that lower_batch_norm made",
       false},
      {"fuse_bias", quick<fuse_bias>, "before post ops: a bias belongs in front of them"},
      {"compose_convolutions", compose_convolutions,
       "behind biases and before activations, which part what is linear", true, true},
      {"fuse_post_ops", quick<fuse_post_ops>, "activations and residual adds into their producers"},
      {"fuse_pre_ops", quick<fuse_pre_ops>, "what no producer took, into the layer behind it"},
      {"swap_average_pools", quick<swap_average_pools>,
       "when layers have taken along what parts them", true, true},
      {"merge_siblings", quick<merge_siblings>, "behind fusion: siblings must end alike to be one"},
      {"convolutions_to_dense", quick<convolutions_to_dense>,
       "last: the others look for convolutions"},
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
    const bool disabled =
        std::ranges::count(options.disabled, pass.name) > 0 || (options.strict && pass.reorders);
    auto start = std::chrono::steady_clock::now();
    LATHE_CHECK(options.budget.check(fmt::format("pass {}", pass.name)));
    int64_t changes = 0;
    if (!disabled) {
      LATHE_TRY(changes, pass.run(graph, options.budget));
    }
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
