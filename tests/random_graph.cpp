#include "tests/random_graph.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <random>

namespace lathe {
namespace {

class Maker {
public:
  explicit Maker(uint64_t seed) : random_(seed) { graph_.name = fmt::format("random_{}", seed); }

  Graph run() {
    int64_t inputs = chance(0.2) ? 2 : 1;
    for (int64_t i = 0; i < inputs; ++i)
      pictures_.push_back(graph_.add_input(
          fmt::format("x{}", i), {DType::f32, {1, pick(1, 9), pick(5, 19), pick(5, 19)}}));
    int64_t layers = pick(2, 12);
    for (int64_t i = 0; i < layers; ++i) grow();
    ValueId last = pictures_.back();
    if (chance(0.5)) last = classify(last);
    graph_.outputs.push_back(last);
    for (int64_t i = pick(0, 2); i > 0; --i) graph_.outputs.push_back(any_picture());
    remove_dead_code(graph_);
    return std::move(graph_);
  }

private:
  int64_t pick(int64_t low, int64_t high) {
    return low + int64_t(random_() % uint64_t(std::max<int64_t>(1, high - low + 1)));
  }
  bool chance(double p) { return double(random_() >> 11) * 0x1p-53 < p; }
  float real(double low, double high) {
    return float(low + (high - low) * double(random_() >> 11) * 0x1p-53);
  }
  ValueId any_picture() { return pictures_[size_t(pick(0, int64_t(pictures_.size()) - 1))]; }

  ValueId weight(Shape shape, double low, double high) {
    Tensor tensor(DType::f32, std::move(shape));
    for (float &x : tensor.f32_mutable()) x = real(low, high);
    std::string name = fmt::format("w{}", weights_++);
    return graph_.add_constant(name, bound_constant(name, tensor));
  }
  // Appends a node if its types work out; random attributes sometimes do not.
  std::optional<ValueId> add(Op op, std::vector<ValueId> inputs) {
    auto id =
        graph_.add_node(fmt::format("n{}", graph_.nodes.size()), std::move(op), std::move(inputs));
    if (!id) return std::nullopt;
    int64_t elements = element_count(graph_.shape(*id));
    // What is empty or large nobody reads: dead code.
    return elements >= 1 && elements <= 60'000 ? std::optional(*id) : std::nullopt;
  }
  void push(std::optional<ValueId> id) {
    if (id && graph_.shape(*id).size() == 4) pictures_.push_back(*id);
  }

  void grow() {
    ValueId x = chance(0.7) ? pictures_.back() : any_picture();
    const Shape s = graph_.shape(x);
    switch (pick(0, 17)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return convolution(x, s);
    case 4:
      return pool(x);
    case 5:
      return push(add(activation(), {x}));
    case 6:
      return batch_norm(x, s);
    case 7:
      return arithmetic(x, s);
    case 8:
      return concat(x, s);
    case 9:
      return slice(x, s);
    case 10:
      return push(add(Pad{{0, pick(0, 2), pick(0, 2), pick(0, 2)},
                          {0, pick(0, 2), pick(0, 2), pick(0, 2)},
                          real(-1, 1)},
                      {x}));
    case 11:
      return push(add(
          Lrn{pick(1, 6), real(0.1, 2), chance(0.5) ? 0.75f : real(0.3, 1.2), real(1, 2)}, {x}));
    case 12:
      return residual(x, s);
    case 13:
      return push(add(Softmax{pick(1, 3), chance(0.5)}, {x}));
    case 14: {
      std::vector<int64_t> perm{1, 2, 3};
      std::shuffle(perm.begin(), perm.end(), random_);
      return push(add(Transpose{{0, perm[0], perm[1], perm[2]}}, {x}));
    }
    case 15: {
      const int64_t axis = pick(1, 3);
      std::vector<int64_t> indices(size_t(pick(1, 7)));
      for (int64_t &i : indices) i = pick(-s[size_t(axis)], s[size_t(axis)] - 1);
      const auto n = int64_t(indices.size());
      ValueId by =
          graph_.add_constant("indices", literal_constant(Tensor::of(std::move(indices), {n})));
      return push(add(Gather{axis}, {x, by}));
    }
    case 16: {
      auto mean = add(Reduce{ReduceKind::mean, {pick(1, 3)}, true}, {x});
      if (mean) push(add(Expand{s}, {*mean}));
      return;
    }
    default:
      return reshape_or_reduce(x, s);
    }
  }

  Op activation() {
    static constexpr UnaryKind kinds[] = {
        UnaryKind::relu,    UnaryKind::leaky_relu,   UnaryKind::clip,       UnaryKind::sigmoid,
        UnaryKind::tanh,    UnaryKind::hard_sigmoid, UnaryKind::hard_swish, UnaryKind::elu,
        UnaryKind::abs,     UnaryKind::neg,          UnaryKind::identity,   UnaryKind::erf,
        UnaryKind::softplus};
    Unary op{kinds[pick(0, 12)]};
    if (op.kind == UnaryKind::leaky_relu || op.kind == UnaryKind::elu) op.alpha = real(0.05, 0.9);
    if (op.kind == UnaryKind::clip) op.alpha = real(-1, 0), op.beta = real(0.2, 2);
    if (op.kind == UnaryKind::hard_sigmoid) op.alpha = real(0.1, 0.5), op.beta = real(0.2, 0.6);
    return op;
  }

  void convolution(ValueId x, const Shape &s) {
    Conv conv;
    conv.kernel = {pick(1, 4), pick(1, 4)};
    conv.stride = {pick(1, 2), pick(1, 3)};
    if (chance(0.2)) conv.dilation = {pick(1, 2), pick(1, 2)};
    if (chance(0.6)) conv.pad = {pick(0, 2), pick(0, 2), pick(0, 2), pick(0, 2)};
    if (chance(0.35)) conv.kernel = conv.stride = conv.dilation = {1, 1}, conv.pad = {};
    std::vector<int64_t> divisors;
    for (int64_t g = 1; g <= s[1]; ++g)
      if (s[1] % g == 0) divisors.push_back(g);
    if (chance(0.3)) conv.groups = divisors[size_t(pick(0, int64_t(divisors.size()) - 1))];
    int64_t channels = conv.groups * (conv.groups > 1 ? pick(1, 3) : pick(1, 40));
    if (channels > 48) return;
    conv.bias = chance(0.6);
    double scale = 1.7 / std::sqrt(double(s[1] / conv.groups * conv.kernel.h * conv.kernel.w));
    std::vector<ValueId> inputs{
        x, weight({channels, s[1] / conv.groups, conv.kernel.h, conv.kernel.w}, -scale, scale)};
    if (conv.bias) inputs.push_back(weight({channels}, -0.5, 0.5));
    auto y = add(conv, inputs);
    push(y);
    if (y && chance(0.4)) batch_norm(*y, graph_.shape(*y));
    if (y && chance(0.5)) push(add(activation(), {pictures_.back()}));
  }

  void pool(ValueId x) {
    if (chance(0.2))
      return push(add(GlobalPool{chance(0.5) ? PoolKind::max : PoolKind::average}, {x}));
    Pool pool;
    pool.kind = chance(0.4) ? PoolKind::max : chance(0.7) ? PoolKind::average : PoolKind::sum;
    pool.kernel = {pick(1, 4), pick(1, 4)};
    pool.stride = {pick(1, 3), pick(1, 3)};
    if (chance(0.15)) pool.dilation = {pick(1, 2), pick(1, 2)};
    auto pad = [&](int64_t kernel) { return pick(0, (kernel - 1) / 2); };
    pool.pad = {pad(pool.kernel.h), pad(pool.kernel.w), pad(pool.kernel.h), pad(pool.kernel.w)};
    pool.ceil_mode = chance(0.4);
    pool.count_include_pad = chance(0.4);
    push(add(pool, {x}));
  }

  void batch_norm(ValueId x, const Shape s) {
    push(add(BatchNorm{1e-5f}, {x, weight({s[1]}, 0.5, 1.5), weight({s[1]}, -0.5, 0.5),
                                weight({s[1]}, -0.5, 0.5), weight({s[1]}, 0.5, 1.5)}));
  }

  void arithmetic(ValueId x, const Shape &s) {
    static constexpr BinaryKind kinds[] = {BinaryKind::add, BinaryKind::sub, BinaryKind::mul,
                                           BinaryKind::min, BinaryKind::max, BinaryKind::prelu,
                                           BinaryKind::div, BinaryKind::pow};
    BinaryKind kind = kinds[pick(0, 7)];
    if (kind == BinaryKind::pow) { // of a base that is not negative
      auto base = add(Unary{UnaryKind::sigmoid}, {x});
      if (!base) return;
      x = *base;
    }
    Shape shapes[] = {{1}, {s[1], 1, 1}, {1, s[1], 1, 1}, {s[3]}, {s[2], 1}, {s[1], s[2], s[3]}};
    ValueId other = weight(shapes[pick(0, 5)], 0.5, 1.5); // away from zero: it may divide
    bool swap = kind != BinaryKind::div && kind != BinaryKind::pow && chance(0.3);
    push(add(Binary{kind}, swap ? std::vector{other, x} : std::vector{x, other}));
  }

  void residual(ValueId x, const Shape &s) {
    for (ValueId other : pictures_) // the first of the same shape, or one that broadcasts
      if (other != x && broadcast(graph_.shape(other), s)) {
        push(add(Binary{chance(0.8) ? BinaryKind::add : BinaryKind::max}, {x, other}));
        if (chance(0.5)) push(add(activation(), {pictures_.back()}));
        return;
      }
  }

  void concat(ValueId x, const Shape &s) {
    int64_t axis = chance(0.7) ? 1 : pick(1, 3);
    std::vector<ValueId> parts{x};
    for (ValueId other : pictures_) {
      Shape o = graph_.shape(other);
      o[size_t(axis)] = s[size_t(axis)];
      if (o == s && parts.size() < 4 && chance(0.8)) parts.push_back(other);
    }
    if (parts.size() == 1) {
      auto branch = add(activation(), {x});
      if (branch) parts.push_back(*branch);
    }
    push(add(Concat{axis}, parts));
  }

  void slice(ValueId x, const Shape &s) {
    if (chance(0.4) && s[1] > 1) {
      int64_t first = pick(1, s[1] - 1);
      auto y = add(Split{1, {first, s[1] - first}}, {x});
      if (!y) return;
      push(y);
      push(ValueId(*y + 1));
      return;
    }
    Slice slice;
    for (int64_t axis = 1; axis <= 3; ++axis) {
      if (!chance(0.5)) continue;
      int64_t d = s[size_t(axis)], begin = pick(0, d - 1);
      slice.axes.push_back(chance(0.3) ? axis - 4 : axis);
      slice.begin.push_back(chance(0.3) ? begin - d : begin);
      slice.end.push_back(chance(0.3) ? INT64_MAX : pick(begin + 1, d));
      slice.step.push_back(pick(1, 3));
      if (chance(0.2)) { // backwards
        slice.begin.back() = -1;
        slice.end.back() = chance(0.5) ? INT64_MIN : begin - 1 < 0 ? INT64_MIN : begin - 1;
        slice.step.back() *= -1;
      }
    }
    push(add(slice, {x}));
  }

  void reshape_or_reduce(ValueId x, const Shape &s) {
    static constexpr ReduceKind kinds[] = {ReduceKind::mean, ReduceKind::sum, ReduceKind::max,
                                           ReduceKind::min};
    if (chance(0.3)) return push(add(Reduce{kinds[pick(0, 3)], {pick(1, 3)}, true}, {x}));
    if (chance(0.5)) { // through two dimensions and back
      auto flat = add(Flatten{1}, {x});
      if (flat) push(add(Reshape{{0, s[1] * s[2], 1, s[3]}}, {*flat}));
      return;
    }
    push(add(Reshape{{0, s[1] * s[3], s[2], 1}}, {x}));
  }

  ValueId classify(ValueId x) {
    auto flat =
        add(chance(0.3) ? Op(Reduce{ReduceKind::mean, {2, 3}, false}) : Op(Flatten{1}), {x});
    if (!flat) return x;
    int64_t depth = graph_.shape(*flat)[1], outputs = pick(1, 37);
    if (depth > 4000) return *flat;
    double scale = 1.7 / std::sqrt(double(depth));
    Dense dense{.bias = chance(0.7), .post = {}};
    std::vector<ValueId> inputs{*flat, weight({outputs, depth}, -scale, scale)};
    if (dense.bias) inputs.push_back(weight({outputs}, -0.5, 0.5));
    ValueId y = add(dense, inputs).value();
    if (chance(0.4)) y = add(activation(), {y}).value();
    return chance(0.6) ? add(Softmax{-1, chance(0.5)}, {y}).value() : y;
  }

  std::mt19937_64 random_;
  Graph graph_;
  std::vector<ValueId> pictures_; // values of four dimensions
  int weights_ = 0;
};

} // namespace

Graph random_graph(uint64_t seed) { return Maker(seed).run(); }

std::vector<Tensor> random_inputs(const Graph &graph, uint64_t seed, int64_t images) {
  std::mt19937_64 random(seed * 77 + 5);
  std::vector<Tensor> inputs;
  for (ValueId id : graph.inputs) {
    Shape shape = graph.shape(id);
    shape[0] = images;
    Tensor tensor(DType::f32, shape);
    for (float &x : tensor.f32_mutable()) x = float(double(random() >> 11) * 0x1p-53 * 3 - 1.5);
    inputs.push_back(tensor);
  }
  return inputs;
}

} // namespace lathe
