// An average over pixels and a 1x1 convolution (a sum over channels) are linear and act on
// different dimensions, so they change places:
//   mean(W p(x) + b) = W mean(p(x)) + b        [p: steps in front of the convolution]
// in the direction that leaves less to do: the pool first where it leaves fewer pixels (DenseNet's
// transitions), the convolution first where the pool keeps the pixels and the convolution leaves
// fewer channels (the pool branches of Inception v3). The bias may stand inside the mean only where
// that divides by the taps it sees, all others are zero; what follows the second goes behind both.
#include "passes/pipeline.h"
#include "passes/take_over.h"

namespace lathe::core {
namespace {

bool is_average(const Pool &pool) { return pool.kind == PoolKind::average; }
int64_t pixels(const Graph &graph, ValueId id) { return graph.shape(id)[2] * graph.shape(id)[3]; }

void exchange(Graph &graph, Node &first, Node &second, Op new_first, Op new_second,
              std::vector<ValueId> first_inputs, std::vector<ValueId> second_inputs) {
  std::vector<Type> types;
  for (ValueId id : first_inputs) types.push_back(graph.type(id));
  const Type between = infer_types(new_first, types).value()[0];
  graph.values[first.outputs[0]].type = between;
  second_inputs[0] = first.outputs[0];
  std::swap(first.name, second.name);
  std::swap(first.fused, second.fused);
  std::swap(first.source, second.source);
  first.op = std::move(new_first);
  first.inputs = std::move(first_inputs);
  second.op = std::move(new_second);
  second.inputs = std::move(second_inputs);
}

std::vector<ValueId> part(const Node &node, size_t begin, size_t end) {
  return {node.inputs.begin() + int64_t(begin), node.inputs.begin() + int64_t(end)};
}
void append(std::vector<ValueId> &list, const std::vector<ValueId> &more) {
  list.insert(list.end(), more.begin(), more.end());
}

// pool(conv(x)) -> conv(pool(x))
bool pool_first(Graph &graph, Node &convolution, Node &pooling) {
  const Conv conv = std::get<Conv>(convolution.op);
  const Pool pool = std::get<Pool>(pooling.op);
  const bool fewer = pixels(graph, pooling.outputs[0]) < pixels(graph, pooling.inputs[0]);
  const bool bias_stays = !conv.bias || pool.pad == Pads{} || !pool.count_include_pad;
  if (!fewer || !conv.post.empty() || !pool.pre.empty() || pool.bias || !bias_stays) return false;
  Pool first = pool;
  first.pre = conv.pre;
  first.post.clear();
  Conv second = conv;
  second.pre.clear();
  second.post = pool.post;
  std::vector<ValueId> first_inputs{convolution.inputs[0]}, second_inputs{no_value};
  append(first_inputs, part(convolution, pre_input(conv), post_input(conv)));
  append(second_inputs, part(convolution, 1, pre_input(conv)));
  append(second_inputs, part(pooling, post_input(pool), pooling.inputs.size()));
  exchange(graph, convolution, pooling, first, second, std::move(first_inputs),
           std::move(second_inputs));
  return true;
}

// conv(pool(x)) -> pool(conv(x))
bool convolution_first(Graph &graph, Node &pooling, Node &convolution) {
  const Conv conv = std::get<Conv>(convolution.op);
  const Pool pool = std::get<Pool>(pooling.op);
  const bool same = pixels(graph, pooling.outputs[0]) == pixels(graph, pooling.inputs[0]);
  const bool fewer = graph.shape(convolution.outputs[0])[1] < graph.shape(convolution.inputs[0])[1];
  const bool ready = bool(graph.constant(convolution.inputs[1])); // where the pool stands now
  if (!same || !fewer || !ready || !conv.pre.empty() || pool.bias || !pool.post.empty())
    return false;
  Conv first = conv;
  first.pre = pool.pre;
  first.bias = false;
  first.post.clear();
  Pool second = pool;
  second.pre.clear();
  second.bias = conv.bias;
  second.post = conv.post;
  std::vector<ValueId> first_inputs{pooling.inputs[0], convolution.inputs[1]};
  append(first_inputs, part(pooling, pre_input(pool), post_input(pool)));
  std::vector<ValueId> second_inputs{no_value};
  append(second_inputs, part(convolution, bias_input(conv), pre_input(conv)));
  append(second_inputs, part(convolution, post_input(conv), convolution.inputs.size()));
  exchange(graph, pooling, convolution, first, second, std::move(first_inputs),
           std::move(second_inputs));
  return true;
}

} // namespace

int64_t swap_average_pools(Graph &graph) {
  const Uses uses(graph); // of values, which keep their makers and readers
  int64_t changed = 0;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    Node &node = graph.nodes[n];
    Node *source = only_source(graph, uses, n);
    if (!source) continue;
    auto *pool = std::get_if<Pool>(&node.op), *source_pool = std::get_if<Pool>(&source->op);
    auto *conv = std::get_if<Conv>(&node.op), *source_conv = std::get_if<Conv>(&source->op);
    if (pool && source_conv && is_average(*pool) && is_pointwise(*source_conv))
      changed += pool_first(graph, *source, node);
    else if (conv && source_pool && is_average(*source_pool) && is_pointwise(*conv))
      changed += convolution_first(graph, *source, node);
  }
  return changed;
}

} // namespace lathe::core
