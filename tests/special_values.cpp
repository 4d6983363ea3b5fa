#include "tests/special_values.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <limits>
#include <random>
#include <stdexcept>
#include <tuple>

namespace lathe::core {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// A graph whose every node is a result.
class Maker {
public:
  explicit Maker(std::string name, bool sums = true)
      : case_{std::move(name), {}, sums, !sums, true} {
    case_.graph.name = case_.name;
  }
  ValueId input(Shape shape) {
    return graph().add_input(fmt::format("x{}", graph().inputs.size()),
                             {DType::f32, std::move(shape)});
  }
  ValueId add(Op op, std::vector<ValueId> inputs, bool shown = true) {
    auto id = graph().add_node(fmt::format("n{}", graph().nodes.size()), std::move(op),
                               std::move(inputs));
    if (!id) throw std::logic_error(case_.name + ": " + to_string(id.error()));
    if (shown) graph().outputs.push_back(*id);
    return *id;
  }
  ValueId unary(UnaryKind kind, ValueId x, float alpha = 0, float beta = 0) {
    return add(Unary{kind, alpha, beta}, {x}, false);
  }
  ValueId constant(ConstantRef value) {
    return graph().add_constant(fmt::format("c{}", graph().values.size()), std::move(value));
  }
  ValueId scalar(float value) { return constant(splat_constant(value, {1})); }
  // Weights of magnitude 1, or so near zero that sums of many stay near 1.
  ValueId weights(Shape shape, float magnitude = 1) {
    Tensor tensor(DType::f32, std::move(shape));
    for (float &w : tensor.f32_mutable())
      w = (float(random_() % 2001) / 1000 - 1 + 1e-3f) * magnitude;
    return constant(literal_constant(std::move(tensor)));
  }
  ValueId literal(Tensor tensor) { return constant(literal_constant(std::move(tensor))); }
  // Behind `x`, with weights, and with a bias if it has one; not yet a result.
  ValueId convolve(Conv conv, ValueId x, int64_t channels) {
    std::vector<ValueId> inputs{
        x, weights({channels, graph().shape(x)[1] / conv.groups, conv.kernel.h, conv.kernel.w})};
    if (conv.bias) inputs.push_back(weights({channels}));
    return add(conv, inputs, false);
  }
  void show(ValueId id) { graph().outputs.push_back(id); }
  SpecialCase without_images() {
    case_.images = false;
    return done();
  }
  SpecialCase without_signs() {
    case_.signs = false;
    return done();
  }
  SpecialCase done() { return std::move(case_); }
  Graph &graph() { return case_.graph; }

private:
  SpecialCase case_;
  std::mt19937 random_{17};
};

// A square window.
Conv window(int64_t size, int64_t pad = 0, int64_t stride = 1, int64_t groups = 1) {
  Conv conv;
  conv.kernel = {size, size};
  conv.stride = {stride, stride};
  conv.pad = {pad, pad, pad, pad};
  conv.groups = groups;
  return conv;
}
Conv with_bias(Conv conv) {
  conv.bias = true;
  return conv;
}
Pool pool(PoolKind kind, Size2 size, Size2 stride = {}, Pads pad = {}) {
  Pool pool;
  pool.kind = kind;
  pool.kernel = size;
  pool.stride = stride;
  pool.pad = pad;
  return pool;
}

constexpr UnaryKind unary_kinds[] = {UnaryKind::identity, UnaryKind::relu,      UnaryKind::sigmoid,
                                     UnaryKind::tanh,     UnaryKind::exp,       UnaryKind::log,
                                     UnaryKind::sqrt,     UnaryKind::neg,       UnaryKind::abs,
                                     UnaryKind::floor,    UnaryKind::ceil,      UnaryKind::erf,
                                     UnaryKind::softplus, UnaryKind::hard_swish};
constexpr BinaryKind binary_kinds[] = {BinaryKind::add,   BinaryKind::sub, BinaryKind::mul,
                                       BinaryKind::div,   BinaryKind::min, BinaryKind::max,
                                       BinaryKind::prelu, BinaryKind::pow};

SpecialCase unary() {
  Maker m("unary", false);
  const ValueId x = m.input({1, 3, 5, 37});
  for (UnaryKind kind : unary_kinds) m.add(Unary{kind}, {x});
  for (auto [alpha, beta] : {std::pair{-1.0f, 2.0f},
                             {0.0f, 6.0f},
                             {0.0f, infinity},
                             {-infinity, 0.5f},
                             {-infinity, infinity},
                             {2.0f, 1.0f}})
    m.add(Unary{UnaryKind::clip, alpha, beta}, {x});
  for (UnaryKind kind : {UnaryKind::leaky_relu, UnaryKind::elu, UnaryKind::thresholded_relu})
    for (float alpha : {0.25f, 0.0f, 1.5f}) m.add(Unary{kind, alpha}, {x});
  m.add(Unary{UnaryKind::hard_sigmoid, 0.2f, 0.5f}, {x});
  m.add(Dropout{0.5f}, {x});
  return m.done();
}

SpecialCase binary() {
  Maker m("binary", false);
  const ValueId x = m.input({1, 3, 5, 37}), y = m.input({1, 3, 5, 37});
  const ValueId vector = m.weights({3, 1, 1});
  for (BinaryKind kind : binary_kinds) {
    m.add(Binary{kind}, {x, y});
    m.add(Binary{kind}, {x, x});
    m.add(Binary{kind}, {x, m.scalar(0.5f)});
    m.add(Binary{kind}, {x, vector});
    if (kind != BinaryKind::pow) m.add(Binary{kind}, {vector, x});
  }
  for (float exponent : {2.0f, 3.0f, -1.0f, -2.0f, 0.0f, infinity, -infinity})
    m.add(Binary{BinaryKind::pow}, {x, m.scalar(exponent)});
  for (float base : {-1.0f, 2.0f, infinity, -infinity})
    m.add(Binary{BinaryKind::pow}, {m.scalar(base), x});
  return m.done();
}

// As exporters write ReLU and ReLU6, with the number on either side.
SpecialCase bounds() {
  Maker m("bounds", false);
  const ValueId x = m.input({1, 3, 5, 37});
  auto bound = [&](BinaryKind kind, ValueId of, float by, bool first) {
    const ValueId number = m.scalar(by);
    return m.add(Binary{kind}, {first ? number : of, first ? of : number}, false);
  };
  for (bool first : {false, true}) {
    const ValueId low = bound(BinaryKind::max, x, -1, first);
    m.show(bound(BinaryKind::min, low, 1, first));
    m.show(bound(BinaryKind::max, bound(BinaryKind::min, x, 1.25f, first), -0.5f, first));
    m.show(m.unary(UnaryKind::relu, bound(BinaryKind::min, x, 0.75f, first)));
    m.show(bound(BinaryKind::max, m.unary(UnaryKind::clip, x, -1, 0.5f), 1, first));
    m.show(bound(BinaryKind::min, x, nan, first));
    m.show(bound(BinaryKind::max, x, infinity, first));
  }
  return m.without_signs();
}

SpecialCase pools() {
  Maker m("pools");
  const ValueId x = m.input({1, 5, 11, 13}), wide = m.input({1, 19, 17, 18});
  const Pads one{1, 1, 1, 1};
  for (PoolKind kind : {PoolKind::max, PoolKind::average, PoolKind::sum}) {
    auto both = [&](Pool op) {
      op.count_include_pad = kind == PoolKind::average && op.pad.top > 0;
      m.add(op, {x});
      m.add(op, {wide});
    };
    both(pool(kind, {2, 2}, {2, 2}));
    both(pool(kind, {3, 3}, {1, 1}, one));
    both(pool(kind, {3, 2}, {2, 1}, {2, 1, 0, 0}));
    both(pool(kind, {1, 7}, {1, 1}, {0, 3, 0, 3}));
    both(pool(kind, {5, 4}, {3, 3}, {2, 2, 2, 2}));
    both(pool(kind, {1, 1}, {2, 2}));
    Pool apart = pool(kind, {2, 3}, {1, 2}, {1, 2, 1, 2}), more = pool(kind, {3, 3}, {2, 2});
    apart.dilation = {2, 2};
    more.ceil_mode = true;
    both(apart);
    both(more);
  }
  m.add(pool(PoolKind::average, {17, 18}), {wide}); // summed in blocks
  m.add(pool(PoolKind::sum, {17, 17}), {wide});
  for (PoolKind kind : {PoolKind::max, PoolKind::average}) {
    m.add(GlobalPool{kind}, {x});
    m.add(GlobalPool{kind}, {wide});
    const ValueId active = m.unary(UnaryKind::relu, m.unary(UnaryKind::neg, wide)); // `pre`
    const ValueId pooled = m.add(pool(kind, {3, 3}, {2, 2}, one), {active}, false);
    m.show(m.unary(UnaryKind::leaky_relu, pooled, 0.1f)); // `post`
  }
  return m.done();
}

const std::vector<std::vector<int64_t>> reduced_axes{{1}, {2}, {3}, {2, 3}, {1, 3}, {1, 2, 3}};

SpecialCase reductions() {
  Maker m("reductions");
  const ValueId x = m.input({1, 5, 6, 11}), wide = m.input({1, 19, 3, 130});
  for (ReduceKind kind : {ReduceKind::mean, ReduceKind::sum, ReduceKind::max, ReduceKind::min})
    for (const std::vector<int64_t> &axes : reduced_axes) {
      m.add(Reduce{kind, axes, true}, {x});
      m.add(Reduce{kind, axes, false}, {wide});
    }
  return m.done();
}

SpecialCase running_products() {
  Maker m("running products");
  const ValueId x = m.input({1, 5, 6, 11});
  for (const std::vector<int64_t> &axes : reduced_axes)
    m.add(Reduce{ReduceKind::prod, axes, true}, {x});
  SpecialCase made = m.done();
  made.multiplies = true;
  return made;
}

// Of one dimension, and over what carries the images elsewhere.
SpecialCase lines() {
  Maker m("lines");
  const ValueId x = m.input({300}), y = m.input({4, 3, 7});
  for (ReduceKind kind : {ReduceKind::mean, ReduceKind::sum, ReduceKind::max, ReduceKind::min}) {
    m.add(Reduce{kind, {0}, true}, {x});
    m.add(Reduce{kind, {0}, false}, {y});
    m.add(Reduce{kind, {0, 2}, true}, {y});
    m.add(Reduce{kind, {0, 1, 2}, false}, {y});
  }
  return m.without_images();
}

SpecialCase extremes() {
  Maker m("extremes", false);
  const ValueId x = m.input({1, 5, 6, 11});
  for (int64_t axis : {1, 2, 3}) {
    for (ArgKind kind : {ArgKind::max, ArgKind::min})
      for (bool last : {false, true}) m.add(ArgReduce{kind, axis, last, last}, {x});
    m.add(Hardmax{axis}, {x});
  }
  return m.done();
}

SpecialCase normalisations() {
  Maker m("normalisations");
  const ValueId x = m.input({1, 9, 4, 7}), rows = m.input({1, 1, 1100});
  for (bool log : {false, true}) {
    for (int64_t axis : {1, 2, 3}) m.add(Softmax{axis, log}, {x});
    m.add(Softmax{2, log}, {rows});
  }
  for (float beta : {0.75f, 0.5f, 0.6f, 1.0f})
    for (int64_t size : {3, 4}) m.add(Lrn{size, 0.5f, beta, 1}, {x});
  // In front of everything, so that nothing can take it along; and into a convolution.
  auto norm = [&](ValueId of) {
    const int64_t channels = m.graph().shape(of)[1];
    const ValueId variance = m.add(Unary{UnaryKind::exp}, {m.weights({channels})}, false);
    return m.add(
        BatchNorm{},
        {of, m.weights({channels}), m.weights({channels}), m.weights({channels}), variance}, false);
  };
  m.show(norm(x));
  m.show(m.unary(UnaryKind::relu, norm(m.convolve(window(3, 1), x, 6))));
  return m.done();
}

SpecialCase convolutions() {
  Maker m("convolutions");
  const ValueId x = m.input({1, 16, 7, 9}), odd = m.input({1, 13, 6, 11}),
                few = m.input({1, 3, 12, 10}), grey = m.input({1, 1, 9, 14});
  for (ValueId of : {x, odd, few, grey})
    for (int64_t channels : {4, 17}) {
      m.show(m.convolve(window(1), of, channels));
      m.show(m.convolve(with_bias(window(3, 1)), of, channels));
      m.show(m.convolve(window(5, 2, 2), of, channels));
    }
  m.show(m.convolve(with_bias(window(5)), grey, 6));
  Conv dilated = window(3, 2), flat = window(1);
  dilated.dilation = {2, 2};
  flat.kernel = {1, 3};
  flat.stride = {2, 1};
  flat.pad = {0, 2, 0, 0};
  m.show(m.convolve(dilated, x, 8));
  m.show(m.convolve(flat, odd, 40));
  // Depthwise, and groups of two, four, many, and of different sizes.
  m.show(m.convolve(with_bias(window(3, 1, 1, 16)), x, 16));
  m.show(m.convolve(window(3, 1, 2, 13), odd, 13));
  for (int64_t groups : {2, 4, 8}) m.show(m.convolve(window(3, 1, 1, groups), x, 16));
  m.show(m.convolve(window(3, 1, 1, 4), x, 36));
  m.show(m.convolve(window(3, 1, 1, 3), few, 6));
  return m.done();
}

// With what comes before and behind them, and with what runs in the same kernel.
SpecialCase layers() {
  Maker m("layers");
  const ValueId x = m.input({1, 8, 12, 10}), flat = m.input({1, 37});
  const Conv padded = with_bias(window(3, 1));
  for (UnaryKind kind :
       {UnaryKind::relu, UnaryKind::leaky_relu, UnaryKind::sigmoid, UnaryKind::hard_swish})
    m.show(m.unary(kind, m.convolve(padded, x, 11), 0.1f));
  m.show(m.unary(UnaryKind::clip, m.convolve(padded, x, 8), 0, 6));
  for (BinaryKind kind : {BinaryKind::add, BinaryKind::max, BinaryKind::min})
    m.show(m.add(Binary{kind}, {m.convolve(padded, x, 8), x}, false));
  for (int64_t groups : {1, 8}) { // steps in front
    const ValueId scaled = m.add(Binary{BinaryKind::mul}, {x, m.weights({8, 1, 1})}, false);
    m.show(m.convolve(window(3, 1, 1, groups), m.unary(UnaryKind::relu, scaled), 8));
  }
  for (PoolKind kind : {PoolKind::max, PoolKind::average})
    for (auto [size, step, pad] : {std::tuple{2, 2, 0}, {3, 2, 1}, {3, 3, 0}}) {
      const ValueId active = m.unary(UnaryKind::relu, m.convolve(padded, x, 20));
      m.show(m.add(pool(kind, {size, size}, {step, step}, {pad, pad, pad, pad}), {active}, false));
    }
  m.show(m.convolve(padded, m.convolve(window(1), m.convolve(padded, x, 12), 12), 9)); // chains
  const ValueId halved = m.add(pool(PoolKind::average, {2, 2}, {2, 2}), {x}, false);
  m.show(m.convolve(with_bias(window(1)), halved, 6));
  auto dense = [&](int64_t outputs, ValueId of) {
    return m.add(Dense{.bias = true, .post = {}},
                 {of, m.weights({outputs, m.graph().shape(of)[1]}), m.weights({outputs})}, false);
  };
  m.show(dense(19, flat));
  m.show(m.unary(UnaryKind::relu, dense(5, flat)));
  return m.done();
}

// Weights that are not finite: of a padded tap, too.
SpecialCase weights() {
  Maker m("weights");
  const ValueId x = m.input({1, 8, 7, 9});
  auto special = [&](Shape shape) {
    Tensor tensor(DType::f32, std::move(shape));
    for (size_t i = 0; i < size_t(tensor.size()); ++i)
      tensor.f32_mutable()[i] = i % 53 == 7    ? infinity
                                : i % 61 == 11 ? -infinity
                                : i % 97 == 3  ? nan
                                               : float(i % 7) - 3.5f;
    return m.literal(std::move(tensor));
  };
  for (int64_t stride : {1, 2})
    for (int64_t groups : {1, 2, 4, 8})
      for (int64_t dilation : {1, 2}) {
        Conv conv = window(3, 0, stride, groups);
        conv.dilation = {dilation, 1};
        conv.pad = {2, 1, 0, 3};
        m.add(conv, {x, special({groups == 8 ? 8 : 12, 8 / groups, 3, 3})});
      }
  return m.done();
}

// Rows of weights that are made at run time, special ones too.
SpecialCase products() {
  Maker m("products");
  const ValueId x = m.input({3, 37}), w = m.input({19, 37}), b = m.input({19});
  m.add(Dense{}, {x, w});
  m.add(Dense{.bias = true, .post = {}}, {x, w, b});
  return m.without_images();
}

SpecialCase moves() {
  Maker m("moves", false);
  const ValueId x = m.input({1, 6, 5, 7}), y = m.input({1, 6, 5, 7});
  m.add(Concat{1}, {x, y});
  m.add(Concat{3}, {y, m.add(Transpose{{0, 1, 2, 3}}, {x}, false)});
  m.add(Slice{{1, 3}, {1, -1}, {5, INT64_MIN}, {2, -1}}, {x});
  for (float value : {0.0f, nan, -infinity}) m.add(Pad{{0, 1, 2, 0}, {0, 0, 1, 3}, value}, {x});
  m.add(Reshape{{0, -1}}, {x});
  m.add(Flatten{1}, {y});
  m.add(Transpose{{0, 3, 1, 2}}, {x});
  m.add(Expand{{1, 6, 5, 7}}, {m.add(Slice{{2}, {1}, {2}, {1}}, {x}, false)});
  const ValueId indices = m.literal(Tensor::of(std::vector<int64_t>{2, -1, 0, 2}, {4}));
  for (int64_t axis : {1, 2, 3}) m.add(Gather{axis}, {x, indices});
  const ValueId first = m.add(Split{1, {2, 4}}, {x}, false);
  m.show(first);
  for (DType type : {DType::i32, DType::i64, DType::boolean}) {
    const ValueId cast = m.add(Cast{type}, {x});
    m.add(Cast{DType::f32}, {cast});
  }
  return m.done();
}

bool same(float a, float b, bool signs) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b && (!signs || std::signbit(a) == std::signbit(b));
}

} // namespace

std::vector<SpecialCase> special_cases() {
  std::vector<SpecialCase> cases;
  for (auto *make : {unary, binary, bounds, pools, reductions, running_products, lines, extremes,
                     normalisations, convolutions, layers, weights, products, moves})
    cases.push_back(make());
  return cases;
}

std::vector<Tensor> special_inputs(const SpecialCase &of, Specials specials, uint64_t seed,
                                   int64_t images) {
  static const std::vector<float> lists[] = {
      {nan, -nan},
      {infinity, -infinity},
      {0.0f, -0.0f, 1e-40f, -1e-40f, 1.4e-45f, -1.4e-45f, 0x1p-126f, -0x1p-126f},
      {nan, infinity, -infinity, 0.0f, -0.0f, 1e-40f, -3e-42f, 1e-30f},
  };
  const std::vector<float> &list = lists[size_t(specials)];
  const uint64_t one_in = of.sums && specials != Specials::tiny ? 40 : 4;
  std::mt19937_64 random(seed * 31 + size_t(specials));
  std::vector<Tensor> inputs;
  for (ValueId id : of.graph.inputs) {
    Shape shape = of.graph.shape(id);
    if (images > 0) shape[0] = images;
    Tensor tensor(DType::f32, shape);
    for (float &x : tensor.f32_mutable()) {
      x = float(double(random() >> 11) * 0x1p-53 * 3 - 1.5);
      if (random() % one_in != 0) continue;
      const float special = list[random() % list.size()];
      if (!of.multiplies || !std::isnormal(special)) x = special;
    }
    inputs.push_back(std::move(tensor));
  }
  return inputs;
}

Tensor flushed(const Tensor &tensor) {
  Tensor result(DType::f32, tensor.shape());
  std::ranges::transform(tensor.f32(), result.f32_mutable().begin(), [](float x) {
    return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
  });
  return result;
}

std::string special_fault(const SpecialCase &of, const Tensor &result, const Tensor &reference) {
  if (result.dtype() != reference.dtype() || result.shape() != reference.shape())
    return "another type";
  if (reference.dtype() != DType::f32)
    return std::memcmp(result.raw(), reference.raw(), reference.bytes()) == 0 ? "" : "other bits";
  double largest = 0;
  for (float x : reference.f32())
    if (std::isfinite(x)) largest = std::max(largest, std::abs(double(x)));
  for (size_t i = 0; i < size_t(reference.size()); ++i) {
    const float found = result.f32()[i], right = reference.f32()[i];
    if (same(found, right, of.signs)) continue;
    if (found == right) return fmt::format("another sign of zero than {} at {}", right, i);
    const double allowed =
        of.sums ? 1e-5 * largest + 1e-37 : 1e-5 * std::abs(double(right)) + 1e-37;
    if (!(std::abs(double(found) - double(right)) <= allowed))
      return fmt::format("{} instead of {} at {}", found, right, i);
  }
  return {};
}

} // namespace lathe::core
