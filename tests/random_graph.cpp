#include "tests/random_graph.h"
#include "ir/evaluate.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>
#include <random>
#include <set>
#include <utility>

namespace lathe::core {
namespace {

class Maker {
public:
  explicit Maker(uint64_t seed) : random_(seed) { graph_.name = fmt::format("random_{}", seed); }

  Graph run() {
    int64_t inputs = chance(0.2) ? 2 : 1;
    for (int64_t i = 0; i < inputs; ++i)
      push_exact(graph_.add_input(fmt::format("x{}", i),
                                  {DType::f32, {1, pick(1, 9), pick(5, 19), pick(5, 19)}}));
    int64_t layers = pick(2, 12);
    for (int64_t i = 0; i < layers; ++i) grow();
    ValueId last = pictures_.back();
    if (chance(0.4)) last = classify(last);
    graph_.outputs.push_back(last);
    for (int64_t i = pick(0, 2); i > 0; --i) graph_.outputs.push_back(any_picture());
    remove_dead_code(graph_);
    return std::move(graph_);
  }

private:
  int64_t pick(int64_t low, int64_t high) {
    return low + int64_t(random_() % uint64_t(std::max<int64_t>(1, high - low + 1)));
  }
  template <typename T, size_t n> T any_of(const T (&choices)[n]) {
    return choices[pick(0, int64_t(n) - 1)];
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
  ValueId number(float value) {
    return graph_.add_constant(fmt::format("k{}", weights_++), splat_constant(value, {1}));
  }
  // Appends a node if its types work out; random attributes sometimes do not, nor does a node
  // whose operand did not.
  std::optional<ValueId> add(Op op, std::vector<std::optional<ValueId>> inputs) {
    std::vector<ValueId> ids;
    for (auto input : inputs) {
      if (!input) return std::nullopt;
      ids.push_back(*input);
    }
    auto id =
        graph_.add_node(fmt::format("n{}", graph_.nodes.size()), std::move(op), std::move(ids));
    if (!id) return std::nullopt;
    int64_t elements = element_count(graph_.shape(*id));
    // What is empty or large nobody reads: dead code.
    return elements >= 1 && elements <= 20'000 ? std::optional(*id) : std::nullopt;
  }
  void push(std::optional<ValueId> id) {
    if (id && graph_.shape(*id).size() == 4) pictures_.push_back(*id);
  }
  // Of a value that the inputs' bits decide: moved, compared or rounded once, never summed up.
  void push_exact(std::optional<ValueId> id) {
    push(id);
    if (id) exact_.insert(*id);
  }
  // Of what moves or chooses elements of x.
  void push_like(ValueId x, std::optional<ValueId> id) {
    return exact_.contains(x) ? push_exact(id) : push(id);
  }

  void grow() {
    ValueId x = chance(0.7) ? pictures_.back() : any_picture();
    if (element_count(graph_.shape(x)) < 50 && chance(0.7)) x = any_picture(); // or all end so
    any_step(x);
  }
  void any_step(ValueId x) {
    using Step = void (Maker::*)(ValueId);
    static constexpr Step steps[] = {&Maker::convolution,
                                     &Maker::convolution,
                                     &Maker::convolution,
                                     &Maker::convolution,
                                     &Maker::pool,
                                     &Maker::pool,
                                     &Maker::activate,
                                     &Maker::positive,
                                     &Maker::batch_norm,
                                     &Maker::arithmetic,
                                     &Maker::arithmetic,
                                     &Maker::bounds,
                                     &Maker::concat,
                                     &Maker::slice,
                                     &Maker::split,
                                     &Maker::pad,
                                     &Maker::lrn,
                                     &Maker::residual,
                                     &Maker::softmax,
                                     &Maker::transpose,
                                     &Maker::gather,
                                     &Maker::expand,
                                     &Maker::discrete,
                                     &Maker::discrete,
                                     &Maker::reshape,
                                     &Maker::reduce,
                                     &Maker::dense_inside,
                                     &Maker::siblings,
                                     &Maker::nothing,
                                     &Maker::gate,
                                     &Maker::linear_pair,
                                     &Maker::pool_and_pointwise,
                                     &Maker::low_rank,
                                     &Maker::whole_map,
                                     &Maker::behind_activation,
                                     &Maker::grouped,
                                     &Maker::parts,
                                     &Maker::parts,
                                     &Maker::parts};
    (this->*any_of(steps))(x);
  }

  // Continuous everywhere: rounding errors stay small.
  Op activation() {
    static constexpr UnaryKind kinds[] = {
        UnaryKind::relu,    UnaryKind::leaky_relu,   UnaryKind::clip,       UnaryKind::sigmoid,
        UnaryKind::tanh,    UnaryKind::hard_sigmoid, UnaryKind::hard_swish, UnaryKind::elu,
        UnaryKind::abs,     UnaryKind::neg,          UnaryKind::identity,   UnaryKind::erf,
        UnaryKind::softplus};
    Unary op{any_of(kinds)};
    if (op.kind == UnaryKind::leaky_relu || op.kind == UnaryKind::elu) op.alpha = real(0.05, 0.9);
    if (op.kind == UnaryKind::clip) op.alpha = real(-1, 0), op.beta = real(0.2, 2);
    if (op.kind == UnaryKind::hard_sigmoid) op.alpha = real(0.1, 0.5), op.beta = real(0.2, 0.6);
    return op;
  }
  void activate(ValueId x) { push(add(activation(), {x})); }

  // Functions that only some numbers keep small, or have at all.
  void positive(ValueId x) {
    if (chance(0.4)) return push(add(Unary{UnaryKind::exp}, {add(Unary{UnaryKind::tanh}, {x})}));
    auto above = add(Binary{BinaryKind::add}, {add(Unary{UnaryKind::abs}, {x}), number(0.5f)});
    push(add(Unary{chance(0.5) ? UnaryKind::log : UnaryKind::sqrt}, {above}));
  }

  void convolution(ValueId x) {
    const Shape s = graph_.shape(x);
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
    if (conv.groups > 1 && chance(0.5)) channels = s[1]; // as many out as in
    if (channels > 48) return;
    conv.bias = chance(0.6);
    auto y = layer(conv, x, {channels, s[1] / conv.groups, conv.kernel.h, conv.kernel.w});
    push(y);
    if (y && chance(0.4)) batch_norm(*y);
    if (y && chance(0.5)) activate(pictures_.back());
  }
  // As many channels out as in, few in a group: a vector may hold several.
  void grouped(ValueId x) {
    static constexpr int64_t sizes[] = {1, 1, 1, 2, 2, 3, 4, 8};
    const int64_t channels = graph_.shape(x)[1];
    int64_t size = any_of(sizes);
    if (channels % size) size = 1;
    Conv conv;
    conv.groups = channels / size;
    conv.kernel = {pick(1, 3), pick(1, 3)};
    conv.stride = {pick(1, 2), pick(1, 2)};
    if (chance(0.2)) conv.dilation = {pick(1, 2), pick(1, 2)};
    if (chance(0.5)) conv.pad = {conv.kernel.h / 2, conv.kernel.w / 2, pick(0, 1), pick(0, 1)};
    conv.bias = chance(0.5);
    auto y = layer(conv, x, {channels, size, conv.kernel.h, conv.kernel.w});
    push(y);
    if (y && chance(0.4)) activate(*y);
  }

  // Parts of a value, which others lie between, each in front of some layer, whose result is
  // wanted.
  void parts(ValueId x) {
    for (ValueId part : chance(0.3) ? merged(x) : taken(made(x))) {
      const size_t before = pictures_.size();
      chance(0.4) ? grouped(part) : any_step(part);
      if (pictures_.size() > before) graph_.outputs.push_back(pictures_.back());
    }
  }
  // Channels as vectors have lanes, or one beside.
  int64_t wide() {
    static constexpr int64_t counts[] = {4, 8, 8, 12, 16, 16, 24, 32, 48};
    return any_of(counts) + (chance(0.3) ? pick(-1, 1) : 0);
  }
  // At most seven rows and columns of them.
  std::optional<ValueId> widened(ValueId x, int64_t channels) {
    const Shape s = graph_.shape(x);
    Conv conv;
    conv.stride = {(s[2] + 6) / 7, (s[3] + 6) / 7};
    conv.bias = chance(0.5);
    return layer(conv, x, {channels, s[1], 1, 1});
  }
  // What any layer makes of many channels; or these, or x.
  ValueId made(ValueId x) {
    if (chance(0.2)) return x;
    const auto y = widened(x, wide());
    if (!y) return x;
    push(y);
    if (chance(0.7)) any_step(*y);
    return pictures_.back();
  }
  std::vector<ValueId> taken(ValueId whole) {
    const Shape s = graph_.shape(whole);
    const int64_t channels = s[1], few = std::min<int64_t>(3, channels - 1);
    if (channels < 2) return {whole};
    const int64_t cut = chance(0.5) ? pick(1, few) : pick(1, channels - 1);
    std::vector<ValueId> all;
    auto take = [&](const Op &op) {
      if (!add(op, {whole})) return;
      for (ValueId part : graph_.nodes.back().outputs) all.push_back(part);
    };
    const int64_t ways = pick(2, 3);
    if (chance(0.3))
      take(Slice{{1}, {cut}, {INT64_MAX}, {1}});
    else if (chance(0.3))
      take(Slice{{1, 2, 3}, {0, s[2] / 3, 0}, {channels - cut, s[2], s[3]}, {1, 1, pick(1, 2)}});
    else if (chance(0.3) && channels % ways == 0)
      take(Split{1, std::vector<int64_t>(size_t(ways), channels / ways)});
    else
      take(chance(0.5) ? Split{1, {cut, channels - cut}} : Split{1, {channels - cut, cut}});
    for (ValueId part : all) push_like(whole, part);
    return all;
  }
  // Results of convolutions that become one.
  std::vector<ValueId> merged(ValueId x) {
    const int64_t channels = wide(), cut = pick(1, channels - 1);
    const std::optional<Op> function = chance(0.5) ? std::optional(activation()) : std::nullopt;
    std::vector<ValueId> all;
    for (int64_t of_part : {cut, channels - cut}) {
      auto y = widened(x, of_part);
      if (function) y = add(*function, {y});
      if (!y) return {};
      all.push_back(*y);
    }
    return all;
  }

  // Convolutions of one input that may become one.
  void siblings(ValueId x) {
    Conv conv;
    conv.stride = {pick(1, 2), pick(1, 2)};
    const std::optional<Op> function = chance(0.5) ? std::optional(activation()) : std::nullopt;
    std::optional<ValueId> sum;
    for (int64_t i = pick(2, 3); i > 0; --i) {
      conv.bias = chance(0.5);
      auto y = layer(conv, x, {pick(1, 5), graph_.shape(x)[1], 1, 1});
      if (function) y = add(*function, {y});
      y = add(Reduce{ReduceKind::max, {1}, true}, {y});
      sum = sum ? add(Binary{BinaryKind::sub}, {y, sum}) : y;
    }
    push(sum);
  }
  // Two convolutions with nothing between them, one of which is 1x1.
  void linear_pair(ValueId x) {
    const int64_t channels = graph_.shape(x)[1], middle = pick(1, 16), k = pick(1, 3);
    Conv point, window;
    point.bias = chance(0.5), window.bias = chance(0.5);
    window.kernel = {k, k};
    if (chance(0.4)) window.pad = {k / 2, k / 2, k / 2, k / 2};
    const bool point_first = chance(0.5);
    auto y = layer(point_first ? point : window, x,
                   point_first ? Shape{middle, channels, 1, 1} : Shape{middle, channels, k, k});
    if (!y) return;
    const int64_t last = pick(1, 8);
    push(layer(point_first ? window : point, *y,
               point_first ? Shape{last, middle, k, k} : Shape{last, middle, 1, 1}));
  }
  // An average pool and a 1x1 convolution, in either order.
  void pool_and_pointwise(ValueId x) {
    const int64_t channels = graph_.shape(x)[1];
    Pool pool;
    pool.kind = PoolKind::average;
    pool.kernel = {3, 3}, pool.pad = {1, 1, 1, 1};
    if (chance(0.5)) pool.stride = {2, 2};
    if (chance(0.3)) pool.pad = {};
    pool.count_include_pad = chance(0.5);
    Conv conv;
    conv.bias = chance(0.5);
    if (chance(0.3)) x = add(Unary{UnaryKind::relu}, {x}).value_or(x);
    const Shape w{pick(1, 12), channels, 1, 1};
    std::optional<ValueId> y;
    if (chance(0.5))
      y = add(pool, {layer(conv, x, w)});
    else if (auto pooled = add(pool, {x}))
      y = layer(conv, *pooled, w);
    push(chance(0.5) ? add(activation(), {y}) : y);
  }
  // A convolution whose weights are the product of narrow ones.
  void low_rank(ValueId x) {
    const int64_t in = graph_.shape(x)[1], out = pick(4, 12), k = pick(1, 3);
    Tensor weights(DType::f32, {out, in, k, k});
    const bool input_side = chance(0.5); // which of the two unfoldings has the rank
    for (float &w : weights.f32_mutable()) w = 0;
    for (int64_t rank = pick(1, 3); rank > 0; --rank) {
      std::vector<float> a(size_t(out * k * k)), b(size_t(in * k * k));
      for (auto *list : {&a, &b})
        for (float &v : *list) v = real(-1, 1);
      for (int64_t i = 0; i < weights.size(); ++i) {
        const int64_t m = i / (in * k * k), c = i / (k * k) % in, t = i % (k * k);
        weights.f32_mutable()[size_t(i)] += (input_side ? a[size_t(m * k * k + t)] * b[size_t(c)]
                                                        : a[size_t(m)] * b[size_t(c * k * k + t)]) /
                                            float(std::sqrt(double(in * k * k)));
      }
    }
    const std::string name = fmt::format("w{}", weights_++);
    Conv conv;
    conv.kernel = {k, k}, conv.pad = {k / 2, k / 2, k / 2, k / 2};
    push(add(conv, {x, graph_.add_constant(name, bound_constant(name, weights))}));
  }
  void whole_map(ValueId x) {
    const Shape s = graph_.shape(x);
    if (s[1] * s[2] * s[3] > 3000) return;
    Conv conv;
    conv.kernel = {s[2], s[3]};
    conv.bias = chance(0.5);
    auto y = layer(conv, x, {pick(1, 20), s[1], s[2], s[3]});
    push(chance(0.5) ? add(activation(), {y}) : y);
  }
  // What others read as well, normalised and activated before a convolution or pool.
  void behind_activation(ValueId x) {
    const size_t before = pictures_.size();
    batch_norm(x);
    activate(pictures_.back());
    const ValueId y = pictures_.back();
    pictures_.resize(before); // nobody else reads these
    chance(0.7) ? convolution(y) : pool(y);
    residual(x);
  }
  // A convolution or dense layer whose results are about as large as its operand.
  template <LayerOp L> std::optional<ValueId> layer(L op, ValueId x, const Shape &w) {
    if constexpr (requires { op.kernel; }) op.kernel = {w[2], w[3]};
    const double scale = 1.7 / std::sqrt(double(element_count(w) / w[0]));
    std::vector<std::optional<ValueId>> inputs{x};
    if (w.size() == 2 && chance(0.2)) // as a matrix product has it
      inputs.push_back(add(Transpose{{1, 0}}, {weight({w[1], w[0]}, -scale, scale)}));
    else
      inputs.push_back(weight(w, -scale, scale));
    if (op.bias) inputs.push_back(weight({w[0]}, -0.5, 0.5));
    return add(op, inputs);
  }

  void pool(ValueId x) {
    if (chance(0.2)) {
      const bool max = chance(0.5);
      auto y = add(GlobalPool{max ? PoolKind::max : PoolKind::average}, {x});
      return max ? push_like(x, y) : push(y);
    }
    Pool pool;
    pool.kind = chance(0.4) ? PoolKind::max : chance(0.7) ? PoolKind::average : PoolKind::sum;
    pool.kernel = {pick(1, 4), pick(1, 4)};
    pool.stride = {pick(1, 3), pick(1, 3)};
    if (chance(0.15)) pool.dilation = {pick(1, 2), pick(1, 2)};
    auto pad = [&](int64_t kernel) { return pick(0, (kernel - 1) / 2); };
    pool.pad = {pad(pool.kernel.h), pad(pool.kernel.w), pad(pool.kernel.h), pad(pool.kernel.w)};
    pool.ceil_mode = chance(0.4);
    pool.count_include_pad = chance(0.4);
    if (chance(0.1)) pool.kernel = {graph_.shape(x)[2], graph_.shape(x)[3]}, pool.pad = {};
    auto y = add(pool, {x});
    if (pool.kind == PoolKind::max) return push_like(x, y);
    push(pool.kind == PoolKind::sum ? divided(y, pool.kernel.h * pool.kernel.w) : y);
  }
  // A sum of several, as small as one again.
  std::optional<ValueId> divided(std::optional<ValueId> sum, int64_t terms) {
    return chance(0.5) ? add(Binary{BinaryKind::div}, {sum, number(float(terms))})
                       : add(Binary{BinaryKind::mul}, {sum, number(1 / float(terms))});
  }

  void batch_norm(ValueId x) {
    const int64_t c = graph_.shape(x)[1];
    push(add(BatchNorm{1e-5f}, {x, weight({c}, 0.5, 1.5), weight({c}, -0.5, 0.5),
                                weight({c}, -0.5, 0.5), weight({c}, 0.5, 1.5)}));
  }

  void arithmetic(ValueId x) {
    static constexpr BinaryKind kinds[] = {BinaryKind::add, BinaryKind::sub, BinaryKind::mul,
                                           BinaryKind::min, BinaryKind::max, BinaryKind::prelu,
                                           BinaryKind::div, BinaryKind::pow};
    const BinaryKind kind = any_of(kinds);
    std::optional<ValueId> base = x;
    if (kind == BinaryKind::pow) base = add(Unary{UnaryKind::sigmoid}, {x}); // not negative
    const Shape s = graph_.shape(x);
    const Shape shapes[] = {{1},    {s[1], 1, 1}, {s[1], 1, 1},      {1, s[1], 1, 1},
                            {s[3]}, {s[2], 1},    {s[1], s[2], s[3]}};
    ValueId other = weight(any_of(shapes), 0.5, 1.5); // away from zero: it may divide
    if (chance(0.2)) other = add(Unary{UnaryKind::sqrt}, {other}).value();
    bool swap = kind != BinaryKind::div && kind != BinaryKind::pow && chance(0.3);
    push(swap ? add(Binary{kind}, {other, base}) : add(Binary{kind}, {base, other}));
  }
  // A ReLU6 as exporters spell it.
  void bounds(ValueId x) {
    auto y = add(Binary{BinaryKind::max}, {x, number(chance(0.4) ? 0 : real(-2, 0))});
    if (chance(0.7)) y = add(Binary{BinaryKind::min}, {number(real(0.5, 3)), y});
    if (chance(0.4)) y = add(Unary{UnaryKind::relu}, {y});
    push_like(x, y);
  }

  void residual(ValueId x) {
    const Shape s = graph_.shape(x);
    for (ValueId other : pictures_) // the first of the same shape, or one that broadcasts
      if (other != x && broadcast(graph_.shape(other), s)) {
        static constexpr BinaryKind kinds[] = {BinaryKind::add, BinaryKind::add, BinaryKind::sub,
                                               BinaryKind::max, BinaryKind::min};
        push(add(Binary{any_of(kinds)}, {x, other}));
        if (chance(0.5)) activate(pictures_.back());
        return;
      }
  }
  // Channels weighed by what the picture as a whole looks like.
  void gate(ValueId x) {
    auto weights = add(Unary{UnaryKind::sigmoid}, {add(GlobalPool{}, {x})});
    push(add(Binary{BinaryKind::mul}, {x, weights}));
  }

  void concat(ValueId x) {
    const Shape s = graph_.shape(x);
    int64_t axis = chance(0.7) ? 1 : pick(1, 3);
    std::vector<std::optional<ValueId>> parts{x};
    for (ValueId other : pictures_) {
      Shape o = graph_.shape(other);
      o[size_t(axis)] = s[size_t(axis)];
      if (o == s && parts.size() < 4 && chance(0.8)) parts.push_back(other);
    }
    if (parts.size() == 1 && chance(0.8)) parts.push_back(add(activation(), {x}));
    push(add(Concat{axis}, parts));
  }

  void split(ValueId x) {
    const int64_t axis = chance(0.6) ? 1 : pick(1, 3);
    Split split{chance(0.3) ? axis - 4 : axis, {}};
    int64_t rest = graph_.shape(x)[size_t(axis)];
    while (rest > 0 && split.sizes.size() < 3) {
      split.sizes.push_back(pick(1, rest));
      rest -= split.sizes.back();
    }
    if (rest > 0) split.sizes.push_back(rest);
    if (!add(split, {x})) return;
    for (ValueId part : std::vector(graph_.nodes.back().outputs))
      if (chance(0.8)) push_like(x, part);
  }

  void slice(ValueId x) {
    const Shape s = graph_.shape(x);
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
    push_like(x, add(slice, {x}));
  }

  void pad(ValueId x) {
    const bool zeros = chance(0.5);
    const Pad pad{{0, zeros ? 0 : pick(0, 2), pick(0, 2), pick(0, 2)},
                  {0, zeros ? 0 : pick(0, 2), pick(0, 2), pick(0, 2)},
                  zeros ? 0 : real(-1, 1)};
    push_like(x, add(pad, {x}));
    if (zeros) (chance(0.5) ? convolution(pictures_.back()) : this->pool(pictures_.back()));
  }
  void lrn(ValueId x) {
    push(add(Lrn{pick(1, 6), real(0.1, 2), chance(0.5) ? 0.75f : real(0.3, 1.2), real(1, 2)}, {x}));
  }
  void softmax(ValueId x) { push(add(Softmax{pick(1, 3), chance(0.5)}, {x})); }
  void transpose(ValueId x) {
    std::vector<int64_t> perm{1, 2, 3};
    std::shuffle(perm.begin(), perm.end(), random_);
    push_like(x, add(Transpose{{0, perm[0], perm[1], perm[2]}}, {x}));
  }
  void gather(ValueId x) {
    const int64_t axis = pick(1, 3), extent = graph_.shape(x)[size_t(axis)];
    std::vector<int64_t> indices(size_t(pick(1, 7)));
    for (int64_t &i : indices) i = pick(-extent, extent - 1);
    push_like(x, add(Gather{axis}, {x, integers(indices)}));
  }
  ValueId integers(std::vector<int64_t> values) {
    const auto n = int64_t(values.size());
    return graph_.add_constant("integers", literal_constant(Tensor::of(std::move(values), {n})));
  }
  void expand(ValueId x) {
    const Shape s = graph_.shape(x);
    push(add(Expand{s}, {add(Reduce{ReduceKind::mean, {pick(1, 3)}, true}, {x})}));
  }
  // Changes nothing, in one of the ways that models have.
  void nothing(ValueId x) {
    const Shape s = graph_.shape(x);
    const Op ops[] = {Dropout{real(0, 0.9)},        Cast{DType::f32},
                      Unary{UnaryKind::identity},   Slice{{2}, {0}, {INT64_MAX}, {1}},
                      Reshape{{0, -1, s[2], s[3]}}, Transpose{{0, 1, 2, 3}},
                      Expand{{1, s[1], 1, s[3]}}};
    push_like(x, add(any_of(ops), {x}));
  }

  void reshape(ValueId x) {
    const Shape s = graph_.shape(x);
    if (chance(0.5)) // through two dimensions and back
      return push_like(x, add(Reshape{{0, s[1] * s[2], 1, s[3]}}, {add(Flatten{1}, {x})}));
    push_like(x, add(Reshape{{0, s[1] * s[3], s[2], 1}}, {x}));
  }

  void reduce(ValueId x) {
    static constexpr ReduceKind kinds[] = {ReduceKind::mean, ReduceKind::sum, ReduceKind::max,
                                           ReduceKind::min, ReduceKind::prod};
    Reduce reduce{any_of(kinds), {}, chance(0.6)};
    Shape kept = graph_.shape(x);
    int64_t terms = 1;
    for (int64_t axis = 3; axis >= (chance(0.3) ? 2 : 1); --axis) {
      if (chance(0.3)) continue;
      reduce.axes.push_back(chance(0.3) ? axis - 4 : axis);
      terms *= std::exchange(kept[size_t(axis)], 1);
    }
    std::optional<ValueId> from = x; // factors near 1, or the product would be nothing or all
    if (reduce.kind == ReduceKind::prod)
      from = add(Unary{UnaryKind::clip, 1 - 1 / float(terms), 1 + 1 / float(terms)}, {x});
    auto y = add(reduce, {from});
    if (!reduce.keep_dims) y = add(Reshape{{0, kept[1], kept[2], kept[3]}}, {y});
    push(reduce.kind == ReduceKind::sum ? divided(y, terms) : y);
  }

  // What jumps where rounding errors could push it over the edge: of exact values only, so that
  // whoever computes the graph sees the same bits.
  void discrete(ValueId) {
    const ValueId x = *std::next(exact_.begin(), pick(0, int64_t(exact_.size()) - 1));
    if (graph_.shape(x).size() != 4) return;
    static constexpr UnaryKind kinds[] = {UnaryKind::floor, UnaryKind::ceil,
                                          UnaryKind::thresholded_relu};
    Unary function{any_of(kinds)};
    if (function.kind == UnaryKind::thresholded_relu) function.alpha = real(-0.5, 0.5);
    switch (pick(0, 3)) {
    case 0:
      return push_exact(add(function, {x}));
    case 1:
      return push_exact(add(Hardmax{pick(1, 3)}, {x}));
    case 2:
      return index(x);
    default:
      return through_integers(x);
    }
  }
  void index(ValueId x) {
    ArgReduce arg{chance(0.5) ? ArgKind::max : ArgKind::min, pick(1, 3), chance(0.6), chance(0.5)};
    Shape s = graph_.shape(x);
    s[size_t(arg.axis)] = 1;
    auto y = add(Cast{DType::f32}, {add(arg, {x})});
    if (!arg.keep_dims) y = add(Reshape{{0, s[1], s[2], s[3]}}, {y});
    push(add(Binary{BinaryKind::mul}, {y, number(0.125f)}));
  }
  void through_integers(ValueId x) {
    static constexpr DType types[] = {DType::i64, DType::i32, DType::boolean};
    const DType type = any_of(types);
    auto y = add(Cast{type}, {x});
    if (type != DType::boolean && chance(0.5))
      y = add(Unary{chance(0.5) ? UnaryKind::neg : UnaryKind::abs}, {y});
    if (type == DType::i64 && chance(0.5)) {
      static constexpr BinaryKind kinds[] = {BinaryKind::add, BinaryKind::sub, BinaryKind::mul,
                                             BinaryKind::min, BinaryKind::max, BinaryKind::div};
      const Binary with{any_of(kinds)};
      y = add(with, {y, integers({pick(1, 3)})});
    }
    if (chance(0.3)) y = add(Slice{{pick(1, 3)}, {-1}, {INT64_MIN}, {-pick(1, 2)}}, {y});
    push_exact(add(Cast{DType::f32}, {y}));
  }

  // A dense layer with what comes behind it, of a value of two dimensions.
  std::optional<ValueId> dense(ValueId x, int64_t outputs) {
    if (const int64_t columns = graph_.shape(x)[1]; columns > 1 && chance(0.15)) // not the first
      x = add(Slice{{1}, {pick(1, columns - 1)}, {INT64_MAX}, {1}}, {x}).value_or(x);
    const int64_t more = chance(0.15) ? pick(1, 9) : 0; // that nobody wants
    auto y = layer(Dense{.bias = chance(0.6), .post = {}}, x, {outputs + more, graph_.shape(x)[1]});
    if (more > 0) y = add(Slice{{-1}, {0}, {outputs}, {1}}, {y});
    const Shape vector{outputs};
    if (chance(0.2)) y = add(Binary{BinaryKind::mul}, {y, weight(vector, 0.5, 1.5)});
    if (chance(0.2)) y = add(Binary{BinaryKind::add}, {weight({1, outputs}, -1, 1), y});
    if (chance(0.2))
      y = add(BatchNorm{}, {y, weight(vector, 0.5, 1.5), weight(vector, -0.5, 0.5),
                            weight(vector, -0.5, 0.5), weight(vector, 0.5, 1.5)});
    if (chance(0.4)) y = add(activation(), {y});
    return chance(0.2) ? add(Dropout{}, {y}) : y;
  }
  std::optional<ValueId> flat(ValueId x) {
    const Op mean = Reduce{ReduceKind::mean, {2, 3}, false};
    auto y = add(chance(0.3) ? mean : Op(Flatten{1}), {x});
    return y && graph_.shape(*y)[1] <= 3000 ? y : std::nullopt;
  }
  void dense_inside(ValueId x) {
    const int64_t c = pick(1, 5), h = pick(1, 4), w = pick(1, 4);
    if (auto from = flat(x)) push(add(Reshape{{0, c, h, w}}, {dense(*from, c * h * w)}));
  }
  ValueId classify(ValueId x) {
    auto y = flat(x);
    if (y) y = dense(*y, pick(1, 37));
    if (y && chance(0.6)) y = add(Softmax{-1, chance(0.5)}, {y});
    return y.value_or(x);
  }

  std::mt19937_64 random_;
  Graph graph_;
  std::vector<ValueId> pictures_; // values of four dimensions
  std::set<ValueId> exact_;
  int weights_ = 0;
};

// Whether two ways of computing an op on floats may differ in the last bits.
struct Rounds {
  bool operator()(const Unary &op) const {
    return op.kind != UnaryKind::relu && op.kind != UnaryKind::clip && op.kind != UnaryKind::neg &&
           op.kind != UnaryKind::abs && op.kind != UnaryKind::identity && !jumps(op.kind);
  }
  bool operator()(const Binary &op) const {
    return op.kind != BinaryKind::min && op.kind != BinaryKind::max;
  }
  bool operator()(const Pool &op) const { return op.kind != PoolKind::max; }
  bool operator()(const GlobalPool &op) const { return op.kind != PoolKind::max; }
  bool operator()(const Reduce &op) const {
    return op.kind != ReduceKind::max && op.kind != ReduceKind::min;
  }
  template <typename T> bool operator()(const T &) const {
    return std::is_same_v<T, Conv> || std::is_same_v<T, Dense> || std::is_same_v<T, Lrn> ||
           std::is_same_v<T, BatchNorm> || std::is_same_v<T, Softmax>;
  }
  static bool jumps(UnaryKind kind) {
    return kind == UnaryKind::floor || kind == UnaryKind::ceil ||
           kind == UnaryKind::thresholded_relu;
  }
};
// Whether operands that differ in the last bits may give results that differ altogether.
bool jumps(const Op &op) {
  auto *unary = std::get_if<Unary>(&op);
  auto *cast = std::get_if<Cast>(&op);
  return (unary && Rounds::jumps(unary->kind)) || (cast && cast->to != DType::f32) ||
         std::holds_alternative<ArgReduce>(op) || std::holds_alternative<Hardmax>(op);
}

} // namespace

bool jumps_alike(const Graph &graph) {
  std::vector<bool> rounded(graph.values.size());
  for (const Node &node : graph.nodes) {
    const bool from = std::ranges::any_of(node.inputs, [&](ValueId id) { return rounded[id]; });
    if (from && jumps(node.op)) return false;
    const bool floats = graph.type(node.outputs[0]).dtype == DType::f32;
    for (ValueId id : node.outputs) rounded[id] = floats && (from || std::visit(Rounds{}, node.op));
  }
  return true;
}

Graph random_graph(uint64_t seed) { return Maker(seed).run(); }

std::vector<Tensor> random_inputs(const Graph &graph, uint64_t seed, int64_t images) {
  std::mt19937_64 random(seed * 77 + 5);
  std::vector<Tensor> inputs;
  for (ValueId id : graph.inputs) {
    Shape shape = graph.shape(id);
    shape[0] = images;
    Tensor tensor(DType::f32, shape);
    for (float &x : tensor.f32_mutable()) x = float(double(random() >> 11) * 0x1p-53 * 3 - 1.5);
    inputs.push_back(evaluate(Cast{graph.type(id).dtype}, {&tensor, 1}).value()[0]);
  }
  return inputs;
}

} // namespace lathe::core
