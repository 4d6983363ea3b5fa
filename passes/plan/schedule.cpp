// What runs together, and how long values live: decided from the graph alone, before any memory.
#include "passes/plan/planner.h"

#include <climits>

namespace lathe::core {
namespace {

constexpr int longest_chain = 6;

bool is_elementwise(const Op &op) {
  return std::holds_alternative<Unary>(op) || std::holds_alternative<Binary>(op);
}

// f(g(x)) of equal shapes becomes one kernel: the inner node is absorbed by its only reader.
void join_elementwise_chains(const Graph &graph, const Uses &uses, Schedule &schedule) {
  std::vector<int> length(graph.nodes.size(), 1);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node &node = graph.nodes[n];
    if (!is_elementwise(node.op)) continue;
    for (ValueId id : node.inputs) {
      int p = uses.producer[id];
      if (p < 0 || !is_elementwise(graph.nodes[size_t(p)].op) || uses.single_reader(id) != int(n) ||
          graph.shape(id) != graph.shape(node.outputs[0]) || length[size_t(p)] >= longest_chain)
        continue;
      schedule.previous[n] = p;
      schedule.reader[size_t(p)] = int(n);
      length[n] = length[size_t(p)] + 1;
      break;
    }
  }
}

// The convolution that makes the only operand of node `n` which layers read at other places than
// their own, if nobody else reads that.
const Conv *feeding_convolution(const Graph &graph, const Uses &uses, size_t n) {
  const ValueId id = graph.nodes[n].inputs[0];
  const int p = uses.producer[id];
  if (p < 0 || uses.single_reader(id) != int(n)) return nullptr;
  return std::get_if<Conv>(&graph.nodes[size_t(p)].op);
}

// Whether a pool's windows share few enough rows for a block to compute them again, and lie in a
// cache together with what the convolution reads for them.
bool pools_by_blocks(const Graph &graph, const Pool &pool, const Node &convolution,
                     const Conv &conv, const PlanOptions &options) {
  // Rows of Winograd's tiles that blocks have in common are too many.
  const bool direct = options.strict || options.direct;
  if (pool.kernel.h > pool.stride.h && !direct && !alternatives(conv).empty()) return false;
  constexpr double most_bytes = 1 << 20, panel = 32;
  const Shape &x = graph.shape(convolution.inputs[0]), &y = graph.shape(convolution.outputs[0]);
  const int64_t rows = reach(pool.kernel.h, pool.dilation.h);
  const int64_t read = (rows - 1) * conv.stride.h + reach(conv.kernel.h, conv.dilation.h);
  const double bytes = 4 * (double(rows) * double(y[3]) * panel +
                            double(read) * double(x[3]) * double(x[1] / conv.groups));
  return rows <= 2 * pool.stride.h && bytes <= most_bytes;
}

// pool(conv(x)) becomes one kernel; so does conv(conv(x)), where that is asked for.
void join_convolutions(const Graph &graph, const Uses &uses, const PlanOptions &options,
                       Schedule &schedule) {
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node &node = graph.nodes[n];
    auto *pool = std::get_if<Pool>(&node.op);
    const bool pools = pool && pool->pre.empty() && operands_of(pool->post) == 0;
    const bool chains =
        n < options.chained.size() && options.chained[n] && may_chain(graph, uses, n);
    if (!pools && !chains) continue;
    const Conv *before = feeding_convolution(graph, uses, n);
    const int p = uses.producer[node.inputs[0]];
    if (!before ||
        (pools && !pools_by_blocks(graph, *pool, graph.nodes[size_t(p)], *before, options)))
      continue;
    schedule.previous[n] = p;
    schedule.reader[size_t(p)] = int(n);
  }
}

void find_last_readers(const Graph &graph, Schedule &schedule) {
  std::vector<int> runs_at(graph.nodes.size()); // absorbed ones read where their chain ends
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    if (schedule.reader[n] < 0) runs_at[n] = int(n);
    if (schedule.previous[n] >= 0) runs_at[size_t(schedule.previous[n])] = runs_at[n];
  }
  std::vector<int> &last_reader = schedule.last_reader;
  for (ValueId id : graph.outputs) last_reader[id] = INT_MAX;
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    const Node &node = graph.nodes[n];
    int last = runs_at[n];
    if (is_view(node.op) || std::holds_alternative<Concat>(node.op))
      for (ValueId id : node.outputs) last = std::max(last, last_reader[id]);
    for (ValueId id : node.inputs) last_reader[id] = std::max(last_reader[id], last);
  }
}

} // namespace

bool may_chain(const Graph &graph, const Uses &uses, size_t n) {
  auto *conv = std::get_if<Conv>(&graph.nodes[n].op);
  if (!conv || !conv->pre.empty() || conv->groups != 1) return false;
  const Conv *before = feeding_convolution(graph, uses, n);
  return before && before->groups == 1;
}

Schedule make_schedule(const Graph &graph, const Uses &uses, const PlanOptions &options) {
  Schedule schedule{std::vector<int>(graph.nodes.size(), -1),
                    std::vector<int>(graph.nodes.size(), -1),
                    std::vector<int>(graph.values.size(), -1)};
  join_elementwise_chains(graph, uses, schedule);
  join_convolutions(graph, uses, options, schedule);
  find_last_readers(graph, schedule);
  return schedule;
}

} // namespace lathe::core
