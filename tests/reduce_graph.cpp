#include "tests/reduce_graph.h"
#include "ir/evaluate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

namespace lathe::core {
namespace {

// ---- Attributes, by the field lists of the ops: how far they are from their defaults, and what is
// nearer.

// Of a number as large as INT64_MAX, which stands for "all", too.
int64_t distance(int64_t a, int64_t b) {
  return std::min<int64_t>(
      1000, std::abs(std::clamp<int64_t>(a, -1000, 1000) - std::clamp<int64_t>(b, -1000, 1000)));
}
int64_t distance(bool a, bool b) { return a != b; }
int64_t distance(float a, float b) { return a != b; }
int64_t distance(const Size2 &a, const Size2 &b) { return distance(a.h, b.h) + distance(a.w, b.w); }
int64_t distance(const Pads &a, const Pads &b) {
  return distance(a.top, b.top) + distance(a.left, b.left) + distance(a.bottom, b.bottom) +
         distance(a.right, b.right);
}
int64_t distance(const std::vector<int64_t> &list, const std::vector<int64_t> &) {
  int64_t sum = std::ranges::is_sorted(list) ? 0 : 1;
  for (int64_t v : list) sum += 1 + distance(v, int64_t{0});
  return sum;
}
int64_t distance(const std::vector<FusedOp> &post, const std::vector<FusedOp> &) {
  return int64_t(post.size());
}
template <typename Kind> int64_t distance(Kind, Kind) { return 0; } // one is as simple as another

int64_t complexity(const Op &op) {
  return std::visit(
      []<typename T>(const T &o) {
        return std::apply(
            [&](const auto &...f) {
              return (int64_t{0} + ... + distance(o.*(f.member), T{}.*(f.member)));
            },
            T::fields());
      },
      op);
}

int64_t towards_zero(int64_t v) { return v - (v > 0) + (v < 0); }

std::vector<int64_t> nearer(int64_t v, int64_t standard) {
  return {standard, v / 2, towards_zero(v)};
}
std::array<bool, 1> nearer(bool, bool standard) { return {standard}; }
std::vector<float> nearer(float, float standard) { return {standard}; }
std::vector<Size2> nearer(const Size2 &v, const Size2 &standard) {
  return {standard,       {standard.h, v.w}, {v.h, standard.w}, {v.h / 2, v.w},
          {v.h, v.w / 2}, {v.h - 1, v.w},    {v.h, v.w - 1}};
}
std::vector<Pads> nearer(const Pads &v, const Pads &standard) {
  std::vector<Pads> all{standard};
  for (int64_t Pads::*side : {&Pads::top, &Pads::left, &Pads::bottom, &Pads::right})
    for (int64_t less : {int64_t{0}, towards_zero(v.*side)}) {
      all.push_back(v);
      all.back().*side = less;
    }
  return all;
}
std::vector<std::vector<int64_t>> nearer(const std::vector<int64_t> &v,
                                         const std::vector<int64_t> &) {
  std::vector<std::vector<int64_t>> all{v};
  std::ranges::sort(all[0]);
  for (size_t i = 0; i < v.size(); ++i) {
    all.push_back(v);
    all.back().erase(all.back().begin() + int64_t(i));
    for (int64_t less : {int64_t{0}, int64_t{1}, v[i] / 2, towards_zero(v[i])}) {
      all.push_back(v);
      all.back()[i] = less;
    }
  }
  return all;
}
template <typename Other> std::vector<Other> nearer(const Other &, const Other &) { return {}; }

// A window of one, in one direction or both: what keeps the picture's size.
template <typename Window> void shrink_window(const Window &op, std::vector<Op> &all) {
  Window rows = op, columns = op, both = op;
  for (Window *w : {&rows, &both})
    w->kernel.h = w->stride.h = w->dilation.h = 1, w->pad.top = w->pad.bottom = 0;
  for (Window *w : {&columns, &both})
    w->kernel.w = w->stride.w = w->dilation.w = 1, w->pad.left = w->pad.right = 0;
  all.insert(all.end(), {both, rows, columns});
}

// The op with one field changed, in every way; also with what makes sense only together.
std::vector<Op> simpler(const Op &op) {
  std::vector<Op> all;
  if (auto *conv = std::get_if<Conv>(&op)) shrink_window(*conv, all);
  if (auto *pool = std::get_if<Pool>(&op)) shrink_window(*pool, all);
  if (auto *slice = std::get_if<Slice>(&op))
    for (size_t i = 0; i < slice->axes.size(); ++i) {
      Slice less = *slice;
      for (auto *list : {&less.axes, &less.begin, &less.end, &less.step})
        list->erase(list->begin() + int64_t(i));
      all.push_back(less);
    }
  std::visit(
      [&]<typename T>(const T &o) {
        auto change = [&](const auto &f) {
          for (const auto &value : nearer(o.*(f.member), T{}.*(f.member))) {
            T changed = o;
            changed.*(f.member) = value;
            all.push_back(changed);
          }
        };
        std::apply([&](const auto &...f) { (change(f), ...); }, T::fields());
      },
      op);
  return all;
}

std::vector<FusedOp> *post_of(Op &op) {
  if (auto *conv = std::get_if<Conv>(&op)) return &conv->post;
  if (auto *dense = std::get_if<Dense>(&op)) return &dense->post;
  return nullptr;
}
bool *bias_of(Op &op) {
  if (auto *conv = std::get_if<Conv>(&op)) return &conv->bias;
  if (auto *dense = std::get_if<Dense>(&op)) return &dense->bias;
  return nullptr;
}

// ---- Constants of another shape.

// Repeated where it grows, cut where it shrinks.
Tensor resized(const Tensor &from, const Shape &shape) {
  Tensor to(from.dtype(), shape);
  const size_t size = size_of(from.dtype());
  const auto old = row_major_strides(from.shape()), strides = row_major_strides(shape);
  for (int64_t i = 0; i < to.size(); ++i) {
    int64_t at = 0;
    for (size_t d = 0; d < shape.size(); ++d)
      at += i / strides[d] % shape[d] % from.shape()[d] * old[d];
    std::memcpy(to.raw_mutable() + size_t(i) * size, from.raw() + size_t(at) * size, size);
  }
  return to;
}
ConstantRef resized(const ConstantRef &constant, const Shape &shape) {
  if (constant->splat) return splat_constant(*constant->splat, shape);
  auto data = materialise(constant);
  const bool repeats = data && data->size() > 0 && data->shape().size() == shape.size();
  if (!repeats) return named_constant(constant->name, {constant->type.dtype, shape});
  return constant->name.empty() ? literal_constant(resized(*data, shape))
                                : bound_constant(constant->name, resized(*data, shape));
}

// ---- Types that work out again behind a change.

class Fitter {
public:
  explicit Fitter(Graph &graph) : graph_(graph) {}

  // Infers all types anew, with weights and attributes that fit; false where none do.
  bool run() {
    for (Node &node : graph_.nodes) {
      std::visit([&](auto &op) { fit(node, op); }, node.op);
      std::vector<Type> types;
      for (ValueId id : node.inputs) types.push_back(graph_.type(id));
      auto results = infer_types(node.op, types);
      if (!results || results->size() != node.outputs.size()) return false;
      for (size_t i = 0; i < results->size(); ++i)
        graph_.values[node.outputs[i]].type = std::move((*results)[i]);
    }
    return true;
  }

private:
  const Shape &shape(const Node &node, size_t input) const {
    return graph_.shape(node.inputs[input]);
  }
  // A constant operand of its own, of the wanted shape.
  void want(Node &node, size_t input, const Shape &wanted) {
    if (input >= node.inputs.size() || shape(node, input) == wanted) return;
    const ConstantRef constant = graph_.constant(node.inputs[input]);
    if (!constant || element_count(wanted) > 1'000'000) return;
    const std::string name = graph_.values[node.inputs[input]].name;
    node.inputs[input] = graph_.add_constant(name, resized(constant, wanted));
  }

  void fit(Node &node, const Conv &op) {
    const Shape x = shape(node, 0), w = shape(node, 1);
    if (x.size() != 4 || w.size() != 4 || op.groups < 1 || op.kernel.h < 1 || op.kernel.w < 1)
      return;
    const int64_t outputs = std::max<int64_t>(1, w[0] / op.groups) * op.groups;
    want(node, 1, {outputs, x[1] / op.groups, op.kernel.h, op.kernel.w});
    if (op.bias) want(node, 2, {outputs});
  }
  void fit(Node &node, const Dense &op) {
    const Shape x = shape(node, 0), w = shape(node, 1);
    if (x.size() != 2 || w.size() != 2) return;
    want(node, 1, {w[0], x[1]});
    if (op.bias) want(node, 2, {w[0]});
  }
  void fit(Node &node, const BatchNorm &) {
    const Shape x = shape(node, 0);
    for (size_t i = 1; x.size() > 1 && i < 5; ++i) want(node, i, {x[1]});
  }
  void fit(Node &node, const Binary &) {
    for (size_t i : {0u, 1u}) {
      Shape wanted = shape(node, i);
      const Shape &other = shape(node, 1 - i);
      if (graph_.constant(node.inputs[1 - i]) || wanted.size() > other.size()) continue;
      for (size_t d = 0; d < wanted.size(); ++d)
        if (wanted[d] != 1) wanted[d] = other[other.size() - wanted.size() + d];
      want(node, i, wanted);
    }
  }
  void fit(Node &node, Split &op) {
    const Type type = graph_.type(node.inputs[0]);
    if (infer_types(op, {&type, 1})) return;
    const Shape &x = type.shape;
    const auto rank = int64_t(x.size());
    if (op.axis < -rank || op.axis >= rank) return;
    int64_t rest = x[axis_index(op.axis, x.size())];
    for (size_t i = 0; i < op.sizes.size(); ++i) {
      const auto behind = int64_t(op.sizes.size() - 1 - i); // each of these wants one
      if (behind == 0 || op.sizes[i] > rest - behind) op.sizes[i] = rest - behind;
      rest -= op.sizes[i];
    }
  }
  void fit(Node &node, Expand &op) {
    const Shape &x = shape(node, 0);
    if (x.size() != op.shape.size()) return;
    for (size_t d = 0; d < x.size(); ++d)
      if (x[d] != 1) op.shape[d] = x[d];
  }
  // One of the sizes takes what is left.
  void fit(Node &node, Reshape &op) {
    const Type x = graph_.type(node.inputs[0]);
    if (infer_types(op, {&x, 1})) return;
    for (int64_t &size : op.shape) {
      const int64_t before = std::exchange(size, -1);
      auto result = before == 0 ? fail(Error{}) : infer_types(op, {&x, 1});
      size = result ? (*result)[0].shape[size_t(&size - op.shape.data())] : before;
      if (result) return;
    }
  }
  template <typename Other> void fit(Node &, const Other &) {}

  Graph &graph_;
};

// ---- The search.

// What gets smaller with every step, the first entry that differs counting.
struct Cost {
  int64_t nodes, outputs, operands, attributes, elements, data;
  auto operator<=>(const Cost &) const = default;
};
Cost cost_of(const Graph &graph) {
  Cost cost{int64_t(graph.nodes.size()), int64_t(graph.outputs.size()), 0, 0, 0, 0};
  for (const Node &node : graph.nodes) {
    cost.operands += int64_t(node.inputs.size());
    cost.attributes += complexity(node.op);
  }
  for (const Value &value : graph.values) {
    cost.elements += element_count(value.type.shape);
    if (!value.constant || value.constant->splat) continue;
    cost.data += 1 + !value.constant->name.empty() + int64_t(value.constant->inputs.size());
  }
  return cost;
}

void drop_unused(Graph &graph) {
  remove_dead_code(graph);
  const Uses uses(graph);
  std::erase_if(graph.inputs,
                [&](ValueId id) { return uses.readers[id].empty() && !uses.is_output[id]; });
  remove_dead_code(graph);
}

class Reducer {
public:
  Reducer(Graph failing, const std::function<bool(const Graph &)> &still_fails)
      : best_(std::move(failing)), cost_(cost_of(best_)), still_fails_(still_fails) {}

  Graph run() {
    // From the large steps to the small ones, and behind every success from the start.
    while (outputs() || cuts() || bypasses() || operands() || attributes() || dimensions() ||
           constants()) {
    }
    return std::move(best_);
  }

private:
  // Takes the candidate if it is whole, simpler, and fails.
  bool take(Graph candidate) {
    drop_unused(candidate);
    if (!Fitter(candidate).run()) return false;
    drop_unused(candidate); // weights that were replaced
    const Cost cost = cost_of(candidate);
    if (cost >= cost_ || !verify(candidate) || !still_fails_(candidate)) return false;
    best_ = std::move(candidate);
    cost_ = cost;
    return true;
  }
  template <typename Change> bool take_changed(const Change &change) {
    Graph candidate = best_;
    change(candidate);
    return take(std::move(candidate));
  }

  // Some value alone, the earliest first; or one output less.
  bool outputs() {
    for (const Node &node : best_.nodes)
      for (ValueId id : node.outputs)
        if (take_changed([&](Graph &g) { g.outputs = {id}; })) return true;
    for (size_t i = 0; best_.outputs.size() > 1 && i < best_.outputs.size(); ++i)
      if (take_changed([&](Graph &g) { g.outputs.erase(g.outputs.begin() + int64_t(i)); }))
        return true;
    return false;
  }

  // A node's results come from outside instead, or, if nothing does, as numbers; the latest first.
  bool cuts() {
    for (size_t n = best_.nodes.size(); n-- > 0;) {
      const Node &node = best_.nodes[n];
      const std::vector<Tensor> numbers = constant_results(node);
      if (take_changed([&](Graph &g) {
            for (size_t i = 0; i < node.outputs.size(); ++i) {
              const Value value = best_.values[node.outputs[i]];
              if (value.type.shape.empty()) continue; // no batch to carry
              const ValueId from_outside =
                  numbers.empty()
                      ? g.add_input(value.name + ".in", value.type)
                      : g.add_constant(value.name, bound_constant(value.name, numbers[i]));
              replace_uses(g, node.outputs[i], from_outside);
            }
          }))
        return true;
    }
    return false;
  }
  // What a node makes of constants only; else nothing.
  std::vector<Tensor> constant_results(const Node &node) const {
    std::vector<Tensor> operands;
    for (ValueId id : node.inputs) {
      auto data = best_.constant(id) ? materialise(best_.constant(id)) : fail(Error{});
      if (!data) return {};
      operands.push_back(*data);
    }
    return evaluate(node.op, operands).value_or(std::vector<Tensor>{});
  }

  // A result is one of the node's operands instead.
  bool bypasses() {
    for (const Node &node : best_.nodes)
      for (ValueId to : node.inputs)
        if (take_changed([&](Graph &g) {
              for (ValueId from : node.outputs) replace_uses(g, from, to);
            }))
          return true;
    return false;
  }

  // Parts of concats, biases, post steps.
  bool operands() {
    for (size_t n = 0; n < best_.nodes.size(); ++n) {
      Op op = best_.nodes[n].op;
      if (std::holds_alternative<Concat>(op))
        for (size_t i = 0; i < best_.nodes[n].inputs.size(); ++i)
          if (without(n, op, i)) return true;
      if (bool *bias = bias_of(op); bias && *bias) {
        *bias = false;
        if (without(n, op, 2)) return true;
        *bias = true;
      }
      if (post_of(op) && drop_step(n)) return true;
    }
    return false;
  }
  bool without(size_t n, const Op &op, size_t input) {
    return take_changed([&](Graph &g) {
      g.nodes[n].op = op;
      g.nodes[n].inputs.erase(g.nodes[n].inputs.begin() + int64_t(input));
    });
  }
  bool drop_step(size_t n) {
    const Op whole = best_.nodes[n].op;
    Op op = whole;
    size_t operand = *bias_of(op) ? 3 : 2;
    for (size_t i = 0; i < post_of(op)->size(); ++i, op = whole) {
      const bool binary = std::holds_alternative<Binary>((*post_of(op))[i].op);
      post_of(op)->erase(post_of(op)->begin() + int64_t(i));
      const bool taken =
          binary ? without(n, op, operand++) : take_changed([&](Graph &g) { g.nodes[n].op = op; });
      if (taken) return true;
    }
    return false;
  }

  bool attributes() {
    for (size_t n = 0; n < best_.nodes.size(); ++n)
      for (const Op &op : simpler(best_.nodes[n].op))
        if (take_changed([&](Graph &g) { g.nodes[n].op = op; })) return true;
    return false;
  }

  // Of inputs and constants: all that are of one size, or a single one. Results follow.
  bool dimensions() {
    std::set<int64_t> sizes;
    each_dimension(best_, [&](ValueId, size_t, int64_t size) { sizes.insert(size); });
    for (int64_t size : sizes)
      if (shrink([&](ValueId, size_t, int64_t s) { return s == size; })) return true;
    for (ValueId id = 0; id < best_.values.size(); ++id)
      for (size_t axis = 0; axis < best_.shape(id).size(); ++axis)
        if (shrink([&](ValueId i, size_t a, int64_t) { return i == id && a == axis; })) return true;
    return false;
  }
  // Of more than one element, without that of the images.
  template <typename Body> static void each_dimension(const Graph &graph, const Body &body) {
    for (ValueId id = 0; id < graph.values.size(); ++id) {
      const bool constant = graph.constant(id) != nullptr;
      if (!constant && !std::ranges::count(graph.inputs, id)) continue;
      const Shape shape = graph.shape(id);
      for (size_t axis = constant ? 0 : 1; axis < shape.size(); ++axis)
        if (shape[axis] > 1) body(id, axis, shape[axis]);
    }
  }
  // The chosen dimensions, to one, to a half, or by one.
  template <typename Choice> bool shrink(const Choice &chosen) {
    for (int step : {0, 1, 2})
      if (take_changed([&](Graph &g) {
            each_dimension(g, [&](ValueId id, size_t axis, int64_t size) {
              if (!chosen(id, axis, size)) return;
              Value &value = g.values[id];
              value.type.shape[axis] = step == 0 ? 1 : step == 1 ? size / 2 : size - 1;
              if (value.constant) value.constant = resized(value.constant, value.type.shape);
            });
          }))
        return true;
    return false;
  }

  // One number for all, or numbers that text shows.
  bool constants() {
    for (ValueId id = 0; id < best_.values.size(); ++id) {
      const ConstantRef &constant = best_.constant(id);
      if (!constant || constant->splat) continue;
      auto data = materialise(constant);
      if (!data || data->size() == 0) continue;
      auto becomes = [&](ConstantRef simple) {
        return take_changed([&](Graph &g) { g.values[id].constant = simple; });
      };
      if (data->dtype() == DType::f32 && becomes(splat_constant(data->f32()[0], data->shape())))
        return true;
      if (data->size() <= 64 && becomes(literal_constant(*data))) return true;
    }
    return false;
  }

  Graph best_;
  Cost cost_;
  const std::function<bool(const Graph &)> &still_fails_;
};

} // namespace

Graph reduce_graph(Graph failing, const std::function<bool(const Graph &)> &still_fails) {
  return Reducer(std::move(failing), still_fails).run();
}

std::optional<std::vector<Tensor>> finite_results(const Graph &graph,
                                                  std::span<const Tensor> inputs) {
  auto results = evaluate(graph, inputs);
  if (!results) return std::nullopt;
  for (const Tensor &result : *results)
    if (result.dtype() == DType::f32 &&
        !std::ranges::all_of(result.f32(), [](float x) { return std::isfinite(x); }))
      return std::nullopt;
  return std::move(*results);
}

} // namespace lathe::core
