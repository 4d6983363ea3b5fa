// Two convolutions with nothing non-linear between are one, where that costs fewer multiplies and
// one of them is 1x1 (a sum over channels at every pixel):
//   (B * (A x + a) + b)  ->  (B A) * x + (B a + b),   (B A)[m,c,i,j] = sum over r of B[m,r,i,j]
//   A[r,c]
// and likewise for a 1x1 behind a larger one. The larger one's padding is zero: in front of it, a
// bias would not reach the border. Weights become recipes; their product is summed in float64.
#include "passes/pipeline.h"
#include "passes/take_over.h"

namespace lathe::core {
namespace {

// a (N,K) times b (M,K) transposed.
ConstantRef product(ConstantRef a, ConstantRef b) {
  return recipe(Dense{}, {std::move(a), std::move(b)});
}

// B (M,R,h,w) after A (R,C,1,1).
ConstantRef behind_pointwise(const ConstantRef &second, const ConstantRef &first) {
  const Shape &b = second->type.shape, &a = first->type.shape;
  ConstantRef rows = recipe(Reshape{{b[0] * b[2] * b[3], b[1]}},
                            {recipe(Transpose{{0, 2, 3, 1}}, {second})}); // (M,h,w; R)
  ConstantRef columns = recipe(Transpose{{1, 0}}, {recipe(Reshape{{a[0], a[1]}}, {first})});
  ConstantRef whole =
      recipe(Reshape{{b[0], b[2], b[3], a[1]}}, {product(std::move(rows), std::move(columns))});
  return recipe(Transpose{{0, 3, 1, 2}}, {whole});
}
// B (M,R,1,1) after A (R,C,h,w).
ConstantRef pointwise_behind(const ConstantRef &second, const ConstantRef &first) {
  const Shape &b = second->type.shape, &a = first->type.shape;
  ConstantRef taps = recipe(Transpose{{1, 0}},
                            {recipe(Reshape{{a[0], a[1] * a[2] * a[3]}}, {first})}); // (C,h,w; R)
  return recipe(Reshape{{b[0], a[1], a[2], a[3]}},
                {product(recipe(Reshape{{b[0], b[1]}}, {second}), std::move(taps))});
}
// B summed over its taps (M,R), times a (R): what a constant input makes of the second convolution.
ConstantRef bias_through(const ConstantRef &second, const ConstantRef &bias) {
  const Shape &b = second->type.shape;
  ConstantRef sums = recipe(Reduce{ReduceKind::sum, {2, 3}, false}, {second});
  ConstantRef row = recipe(Reshape{{1, b[1]}}, {bias});
  return recipe(Reshape{{b[0]}}, {product(row, sums)});
}

bool constant_weights(const Graph &graph, const Node &node, const Conv &conv) {
  for (size_t i = 1; i < pre_input(conv); ++i)
    if (!graph.constant(node.inputs[i])) return false;
  return conv.groups == 1;
}

// Multiplies that it takes to compose weights, while compiling; and the most that are worth it, for
// two layers and for all together.
constexpr double most_product = 4e9, most_in_all = 2e10;
double product_cost(const Shape &first, const Shape &second) {
  double taps = 1;
  for (size_t d : {2u, 3u}) taps *= double(first[d]) * double(second[d]);
  return double(first[0]) * double(first[1]) * double(second[0]) * taps;
}

// Multiplies of a convolution.
double cost(const Graph &graph, ValueId result, const Shape &weights) {
  const Shape &y = graph.shape(result);
  return double(y[2] * y[3]) * double(element_count(weights));
}

// `spent`: multiplies to compose weights so far.
bool compose(Graph &graph, Node &first, Node &second, double &spent) {
  const Conv a = std::get<Conv>(first.op), b = std::get<Conv>(second.op);
  if (!a.post.empty() || !b.pre.empty()) return false;
  if (!constant_weights(graph, first, a) || !constant_weights(graph, second, b)) return false;
  const bool pointwise_first = is_pointwise(a);
  if (!pointwise_first && !is_pointwise(b)) return false;
  if (pointwise_first && a.bias && b.pad != Pads{}) return false;
  if (pointwise_first && !a.pre.empty() && b.kernel != Size2{}) return false; // rows at edges again
  const ConstantRef wa = graph.constant(first.inputs[1]), wb = graph.constant(second.inputs[1]);
  const Conv &window = pointwise_first ? b : a;
  const Shape weights{wb->type.shape[0], wa->type.shape[1], window.kernel.h, window.kernel.w};
  const double product = product_cost(wa->type.shape, wb->type.shape);
  if (!checked_element_count(weights) || product > most_product || spent + product > most_in_all)
    return false;
  const double before = cost(graph, first.outputs[0], wa->type.shape) +
                        cost(graph, second.outputs[0], wb->type.shape);
  if (cost(graph, second.outputs[0], weights) >= before) return false;

  spent += product;
  Conv whole = window;
  whole.pre = a.pre;
  whole.post = b.post;
  whole.bias = a.bias || b.bias;
  std::vector<ValueId> inputs{
      first.inputs[0],
      graph.add_constant(first.name + "*" + second.name + ".weight",
                         pointwise_first ? behind_pointwise(wb, wa) : pointwise_behind(wb, wa))};
  if (whole.bias) {
    ConstantRef bias = a.bias ? bias_through(wb, graph.constant(first.inputs[2]))
                              : graph.constant(second.inputs[2]);
    if (a.bias && b.bias)
      bias = recipe(Binary{BinaryKind::add}, {bias, graph.constant(second.inputs[2])});
    inputs.push_back(graph.add_constant(first.name + "*" + second.name + ".bias", bias));
  }
  auto add = [&](const Node &node, size_t begin, size_t end) {
    inputs.insert(inputs.end(), node.inputs.begin() + int64_t(begin),
                  node.inputs.begin() + int64_t(end));
  };
  add(first, pre_input(a), post_input(a));
  add(second, post_input(b), second.inputs.size());
  second.op = whole;
  second.inputs = std::move(inputs);
  first.inputs.clear();
  return true;
}

// For every node, the one that it took along. Names as put_names_before has them, but moved once: a
// chain of thousands would copy them thousands of times.
constexpr size_t none = ~size_t{0};
void gather_names(Graph &graph, const std::vector<size_t> &inside) {
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    Node &node = graph.nodes[n];
    if (node.inputs.empty() || inside[n] == none) continue;
    std::vector<std::string> names;
    std::vector<size_t> chain{n};
    while (inside[chain.back()] != none) {
      chain.push_back(inside[chain.back()]);
      names.push_back(graph.nodes[chain.back()].name);
    }
    for (; !chain.empty(); chain.pop_back())
      std::ranges::move(graph.nodes[chain.back()].fused, std::back_inserter(names));
    node.fused = std::move(names);
  }
}

} // namespace

Result<int64_t> compose_convolutions(Graph &graph, const Budget &budget) {
  const Uses uses(graph); // a second one that took its first along still makes the same value
  int64_t changed = 0;
  double spent = 0;
  std::vector<size_t> inside(graph.nodes.size(), none);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    LATHE_CHECK(budget.check("composing convolutions"));
    Node &second = graph.nodes[n];
    Node *first = only_source(graph, uses, n);
    if (!first || !std::holds_alternative<Conv>(second.op) ||
        !std::holds_alternative<Conv>(first->op) || !compose(graph, *first, second, spent))
      continue;
    inside[n] = size_t(first - graph.nodes.data());
    ++changed;
  }
  gather_names(graph, inside);
  drop_emptied(graph);
  return changed;
}

} // namespace lathe::core
