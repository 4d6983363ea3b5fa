// The reference evaluator's ops against their definitions: numbers worked out by hand or by PyTorch
// 1.13 in float64, a naive convolution, and identities.
#include "tests/tensors.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace lathe::core;

namespace {

Error refused(const Op &op, const std::vector<Tensor> &inputs) {
  auto results = evaluate(op, inputs);
  REQUIRE(!results);
  return results.error();
}

// Values in -1 to 1 without a pattern that a wrong index would preserve.
Tensor scrambled(Shape shape, uint32_t seed) {
  Tensor tensor(DType::f32, std::move(shape));
  uint32_t state = seed * 2654435761u + 1;
  for (float &x : tensor.f32_mutable()) {
    state = state * 1664525u + 1013904223u;
    x = float(state >> 8) / 8388608.0f - 1;
  }
  return tensor;
}
template <typename T> Tensor integers(DType dtype, Shape shape, std::vector<T> values) {
  Tensor tensor(dtype, std::move(shape));
  std::ranges::copy(values, tensor.as_mutable<T>().begin());
  return tensor;
}

void check_near(const Tensor &tensor, const std::vector<double> &expected, double error = 1e-6) {
  REQUIRE(size_t(tensor.size()) == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(tensor.f32()[i] - expected[i]) <= error * std::max(1.0, std::abs(expected[i])));
  }
}
// The definition, all seven loops of it.
std::vector<double> naive_conv(const Conv &op, const Tensor &x, const Tensor &w, const Shape &y) {
  const Shape &xs = x.shape();
  const int64_t in = xs[1] / op.groups, out = y[1] / op.groups;
  std::vector<double> sums;
  for (int64_t n = 0; n < y[0]; ++n)
    for (int64_t m = 0; m < y[1]; ++m)
      for (int64_t oy = 0; oy < y[2]; ++oy)
        for (int64_t ox = 0; ox < y[3]; ++ox) {
          double sum = 0;
          for (int64_t c = 0; c < in; ++c)
            for (int64_t kh = 0; kh < op.kernel.h; ++kh)
              for (int64_t kw = 0; kw < op.kernel.w; ++kw) {
                int64_t iy = oy * op.stride.h + kh * op.dilation.h - op.pad.top;
                int64_t ix = ox * op.stride.w + kw * op.dilation.w - op.pad.left;
                if (iy < 0 || iy >= xs[2] || ix < 0 || ix >= xs[3]) continue;
                int64_t channel = m / out * in + c;
                sum +=
                    double(x.f32()[size_t(((n * xs[1] + channel) * xs[2] + iy) * xs[3] + ix)]) *
                    double(w.f32()[size_t(((m * in + c) * op.kernel.h + kh) * op.kernel.w + kw)]);
              }
          sums.push_back(sum);
        }
  return sums;
}

const double inf = std::numeric_limits<double>::infinity();

} // namespace

TEST_CASE("functions of one value") {
  const Tensor x = floats({7}, {-7, -2.5, -0.5, 0, 0.75, 3.5, 8});
  const std::pair<Unary, std::vector<double>> cases[] = {
      {{UnaryKind::identity}, {-7, -2.5, -0.5, 0, 0.75, 3.5, 8}},
      {{UnaryKind::relu}, {0, 0, 0, 0, 0.75, 3.5, 8}},
      {{UnaryKind::leaky_relu, 0.25f}, {-1.75, -0.625, -0.125, 0, 0.75, 3.5, 8}},
      {{UnaryKind::clip, 0, 6}, {0, 0, 0, 0, 0.75, 3.5, 6}},
      {{UnaryKind::sigmoid},
       {0.00091105119, 0.07585818, 0.37754067, 0.5, 0.6791787, 0.97068777, 0.99966465}},
      {{UnaryKind::tanh},
       {-0.99999834, -0.9866143, -0.46211716, 0, 0.63514895, 0.9981779, 0.99999977}},
      {{UnaryKind::hard_sigmoid, 1 / 6.0f, 0.5f}, {0, 0.083333333, 0.41666667, 0.5, 0.625, 1, 1}},
      {{UnaryKind::hard_swish}, {0, -0.20833333, -0.20833333, 0, 0.46875, 3.5, 8}},
      {{UnaryKind::elu, 1.5f}, {-1.4986322, -1.3768725, -0.59020401, 0, 0.75, 3.5, 8}},
      {{UnaryKind::exp},
       {0.00091188197, 0.082084999, 0.60653066, 1, 2.1170000, 33.115452, 2980.9580}},
      {{UnaryKind::neg}, {7, 2.5, 0.5, 0, -0.75, -3.5, -8}},
      {{UnaryKind::abs}, {7, 2.5, 0.5, 0, 0.75, 3.5, 8}},
  };
  for (const auto &[op, expected] : cases) {
    CAPTURE(to_string(op.kind));
    check_near(one(op, {x}), expected, 2e-7);
  }
  const Tensor positive = floats({3}, {0.25f, 1, 2});
  check_near(one(Unary{UnaryKind::log}, {positive}), {-1.3862944, 0, 0.69314718}, 1e-7);
  check_near(one(Unary{UnaryKind::sqrt}, {positive}), {0.5, 1, 1.4142136}, 1e-7);
}

TEST_CASE("functions of two values, broadcast") {
  const Tensor a = floats({2, 3}, {-1, 2, -3, 4, -5, 6}), b = floats({3}, {2, -4, 8});
  auto pair = [&](BinaryKind kind) { return list(one(Binary{kind}, {a, b})); };
  CHECK(pair(BinaryKind::add) == std::vector<float>{1, -2, 5, 6, -9, 14});
  CHECK(pair(BinaryKind::sub) == std::vector<float>{-3, 6, -11, 2, -1, -2});
  CHECK(pair(BinaryKind::mul) == std::vector<float>{-2, -8, -24, 8, 20, 48});
  CHECK(pair(BinaryKind::div) == std::vector<float>{-0.5, -0.5, -0.375, 2, 1.25, 0.75});
  CHECK(pair(BinaryKind::min) == std::vector<float>{-1, -4, -3, 2, -5, 6});
  CHECK(pair(BinaryKind::max) == std::vector<float>{2, 2, 8, 4, -4, 8});
  CHECK(pair(BinaryKind::prelu) == std::vector<float>{-2, 2, -24, 4, 20, 6});

  const Op sub = Binary{BinaryKind::sub};
  const Tensor column = floats({2, 1}, {10, 20}), row = floats({1, 3}, {1, 2, 3});
  const Tensor outer = one(sub, {column, row});
  CHECK(outer.shape() == Shape{2, 3});
  CHECK(list(outer) == std::vector<float>{9, 8, 7, 19, 18, 17});
  CHECK(list(one(sub, {floats({}, {1}), row})) == std::vector<float>{0, -1, -2});
  CHECK(one(sub, {floats({}, {1}), floats({}, {3})}).f32()[0] == -2);
  CHECK(one(sub, {Tensor(DType::f32, {0, 3}), row}).size() == 0);

  // Repeated in the middle, on both sides, and with ones that vanish.
  const Tensor left = counting({2, 1, 3, 1}), right = counting({1, 4, 1, 2});
  const Tensor both = one(Binary{BinaryKind::mul}, {left, right});
  REQUIRE(both.shape() == Shape{2, 4, 3, 2});
  for (size_t i = 0; i < 48; ++i)
    CHECK(both.f32()[i] == left.f32()[i / 24 * 3 + i / 2 % 3] * right.f32()[i / 6 % 4 * 2 + i % 2]);
}

TEST_CASE("integers: exact beyond 2^53, wrapping, and division that cannot trap") {
  const int64_t big = (int64_t{1} << 53) + 1, least = std::numeric_limits<int64_t>::min();
  const Tensor a = Tensor::of(std::vector<int64_t>{big, -7, least, 5}, {4});
  const Tensor b = Tensor::of(std::vector<int64_t>{2, 2, -1, 0}, {4});
  auto pair = [&](BinaryKind kind) { return list<int64_t>(one(Binary{kind}, {a, b})); };
  CHECK(pair(BinaryKind::add) == std::vector<int64_t>{big + 2, -5, INT64_MAX, 5});
  CHECK(pair(BinaryKind::sub) == std::vector<int64_t>{big - 2, -9, least + 1, 5});
  CHECK(pair(BinaryKind::mul) == std::vector<int64_t>{2 * big, -14, least, 0});
  CHECK(pair(BinaryKind::div) == std::vector<int64_t>{big / 2, -3, least, 0});
  CHECK(pair(BinaryKind::min) == std::vector<int64_t>{2, -7, least, 0});
  CHECK(pair(BinaryKind::max) == std::vector<int64_t>{big, 2, -1, 5});
  const Tensor small = integers<int32_t>(DType::i32, {2}, {INT32_MAX, 3});
  const Tensor one32 = integers<int32_t>(DType::i32, {1}, {1});
  CHECK(list<int32_t>(one(Binary{BinaryKind::add}, {small, one32})) ==
        std::vector<int32_t>{INT32_MIN, 4});
  CHECK(refused(Binary{}, {small, b}).code == ErrorCode::invalid);
}

TEST_CASE("convolution is its definition") {
  struct Case {
    Shape x;
    int64_t channels;
    Size2 kernel, stride = {}, dilation = {};
    Pads pad = {};
    int64_t groups = 1;
  };
  const Case cases[] = {
      {{1, 1, 1, 1}, 1, {1, 1}},
      {{2, 3, 7, 9}, 5, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}},
      {{1, 7, 5, 11}, 9, {1, 1}},
      {{1, 7, 5, 11}, 9, {1, 1}, {2, 3}},
      {{1, 5, 5, 6}, 6, {1, 1}, {1, 1}, {1, 1}, {1, 0, 2, 1}},
      {{1, 2, 11, 13}, 3, {5, 2}, {2, 3}, {1, 1}, {0, 1, 3, 2}},
      {{1, 3, 13, 10}, 4, {3, 2}, {1, 2}, {2, 3}, {3, 0, 1, 4}},
      {{1, 4, 4, 4}, 7, {1, 7}, {1, 1}, {1, 1}, {0, 3, 0, 3}},
      {{2, 6, 5, 5}, 9, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, 3},
      {{1, 7, 6, 5}, 7, {3, 3}, {2, 1}, {1, 1}, {1, 0, 0, 1}, 7},
      {{1, 3, 6, 5}, 6, {2, 3}, {1, 1}, {1, 1}, {0, 1, 1, 1}, 3},
      {{1, 2, 3, 3}, 2, {3, 3}, {4, 4}, {1, 1}, {5, 6, 7, 8}},    // windows all in the padding
      {{1, 2, 2, 1100}, 5, {1, 3}, {1, 1}, {1, 1}, {0, 1, 0, 1}}, // rows in several pieces
      {{1, 2, 3, 1300}, 5, {2, 4}, {1, 2}, {1, 5}, {0, 9, 0, 2}},
  };
  uint32_t seed = 0;
  for (const Case &c : cases) {
    CAPTURE(seed);
    Conv op{.kernel = c.kernel,
            .stride = c.stride,
            .dilation = c.dilation,
            .pad = c.pad,
            .groups = c.groups,
            .bias = false,
            .post = {}};
    const Tensor x = scrambled(c.x, ++seed);
    const Tensor w = scrambled({c.channels, c.x[1] / c.groups, c.kernel.h, c.kernel.w}, ++seed);
    const Tensor y = one(op, {x, w});
    std::vector<double> expected = naive_conv(op, x, w, y.shape());
    check_near(y, expected, 1e-7);

    op.bias = true;
    const Tensor bias = scrambled({c.channels}, ++seed);
    const int64_t area = y.shape()[2] * y.shape()[3];
    for (size_t i = 0; i < expected.size(); ++i)
      expected[i] += bias.f32()[i / size_t(area) % size_t(c.channels)];
    check_near(one(op, {x, w, bias}), expected, 1e-7);
  }
}

TEST_CASE("a layer large enough for two threads is its definition too") {
  const Conv op{.kernel = {3, 3},
                .stride = {},
                .dilation = {},
                .pad = {1, 1, 1, 1},
                .bias = false,
                .post = {}};
  const Tensor x = scrambled({1, 65, 31, 29}, 1), w = scrambled({67, 65, 3, 3}, 2);
  const Tensor y = one(op, {x, w});
  check_near(y, naive_conv(op, x, w, y.shape()), 1e-7);
}

TEST_CASE("fused steps run in order, in float64, and round once") {
  Conv op{.kernel = {},
          .stride = {},
          .dilation = {},
          .pad = {},
          .bias = true,
          .post = {{Binary{BinaryKind::sub}}, {Unary{UnaryKind::relu}}, {Binary{BinaryKind::mul}}}};
  const Tensor x = floats({1, 1, 1, 3}, {1, 2, 3}), w = floats({1, 1, 1, 1}, {2});
  const Tensor bias = floats({1}, {1}), minus = floats({1, 1, 1, 3}, {1, 9, 2});
  const Tensor times = floats({1, 1, 1, 3}, {10, 20, 30});
  CHECK(list(one(op, {x, w, bias, minus, times})) == std::vector<float>{20, 0, 150});

  // 1 + 2^-40 does not survive a rounding to float32; its difference from 1 does.
  op.post = {{Binary{BinaryKind::sub}}};
  const float tiny = std::ldexp(1.0f, -40);
  const Tensor ones = floats({1, 1, 1, 1}, {1});
  CHECK(one(op, {ones, ones, floats({1}, {tiny}), ones}).f32()[0] == tiny);
  // Float32 would lose the 1 as well.
  const Tensor sum = one(Dense{}, {floats({1, 3}, {1e10f, 1, -1e10f}), floats({1, 3}, {1, 1, 1})});
  CHECK(sum.f32()[0] == 1);
}

TEST_CASE("dense layers") {
  const Tensor x = floats({2, 3}, {1, 2, 3, -1, 0, 1});
  const Tensor w = floats({2, 3}, {1, 10, 100, 2, 20, 200}), bias = floats({2}, {0.5, -0.5});
  CHECK(list(one(Dense{}, {x, w})) == std::vector<float>{321, 642, 99, 198});
  CHECK(list(one(Dense{.bias = true, .post = {}}, {x, w, bias})) ==
        std::vector<float>{321.5, 641.5, 99.5, 197.5});
  const Dense fused{.bias = true, .post = {{Binary{BinaryKind::add}}, {Unary{UnaryKind::neg}}}};
  CHECK(list(one(fused, {x, w, bias, counting({2, 2})})) ==
        std::vector<float>{-322.5, -643.5, -102.5, -201.5});
  // Longer than the unrolled loop, and not a multiple of it.
  const Tensor longer = scrambled({1, 37}, 1), weights = scrambled({5, 37}, 2);
  std::vector<double> expected(5);
  for (size_t i = 0; i < 185; ++i)
    expected[i / 37] += double(longer.f32()[i % 37]) * double(weights.f32()[i]);
  check_near(one(Dense{}, {longer, weights}), expected, 1e-7);
}

TEST_CASE("average pools count as PyTorch counts") {
  auto average = [](const Tensor &x, Size2 kernel, Size2 stride, Pads pad, bool ceil, bool count) {
    return one(Pool{.kind = PoolKind::average,
                    .kernel = kernel,
                    .stride = stride,
                    .dilation = {},
                    .pad = pad,
                    .ceil_mode = ceil,
                    .count_include_pad = count},
               {x});
  };
  const Tensor five = counting({1, 1, 5, 5}), six = counting({1, 1, 6, 6});
  const Pads ring{1, 1, 1, 1};
  for (bool ceil : {false, true}) { // the same, since the windows fit exactly
    check_near(average(five, {3, 3}, {2, 2}, ring, ceil, false),
               {4, 5.5, 7, 11.5, 13, 14.5, 19, 20.5, 22});
    check_near(
        average(five, {3, 3}, {2, 2}, ring, ceil, true),
        {1.777778, 3.666667, 3.111111, 7.666667, 13, 9.666667, 8.444444, 13.66667, 9.777778});
  }
  check_near(average(six, {3, 3}, {2, 2}, ring, false, false),
             {4.5, 6, 8, 13.5, 15, 17, 25.5, 27, 29});
  check_near(average(six, {3, 3}, {2, 2}, ring, false, true),
             {2, 4, 5.333333, 9, 15, 17, 17, 27, 29});
  check_near(average(six, {3, 3}, {2, 2}, ring, true, false),
             {4.5, 6, 8, 9, 13.5, 15, 17, 18, 25.5, 27, 29, 30, 31.5, 33, 35, 36});
  // The last windows hang over the padding's end and count only their part inside it.
  check_near(average(six, {3, 3}, {2, 2}, ring, true, true),
             {2, 4, 5.333333, 3, 9, 15, 17, 9, 17, 27, 29, 15, 10.5, 16.5, 17.5, 9});
  const Tensor oblong = counting({1, 1, 4, 6});
  check_near(average(oblong, {2, 3}, {3, 2}, ring, true, false), {1.5, 3, 5, 6, 16.5, 18, 20, 21});
  check_near(average(oblong, {2, 3}, {3, 2}, ring, true, true),
             {0.5, 1.5, 2.5, 1.5, 11, 18, 20, 10.5});
}

TEST_CASE("maximum pools") {
  const Tensor five = counting({1, 1, 5, 5});
  Pool pool{.kind = PoolKind::max, .kernel = {2, 2}, .stride = {2, 2}, .dilation = {}, .pad = {}};
  CHECK(list(one(pool, {five})) == std::vector<float>{7, 9, 17, 19});
  pool.ceil_mode = true;
  CHECK(list(one(pool, {five})) == std::vector<float>{7, 9, 10, 17, 19, 20, 22, 24, 25});
  pool.stride = {3, 3}, pool.pad = {1, 1, 1, 1}; // a third window would start in the padding
  CHECK(list(one(pool, {five})) == std::vector<float>{1, 4, 16, 19});
  pool = {.kind = PoolKind::max, .kernel = {2, 2}, .stride = {}, .dilation = {2, 2}, .pad = {}};
  CHECK(list(one(pool, {five})) == std::vector<float>{13, 14, 15, 18, 19, 20, 23, 24, 25});
  // Padding never wins, though all values are below zero.
  pool = {.kind = PoolKind::max,
          .kernel = {3, 3},
          .stride = {2, 2},
          .dilation = {},
          .pad = {1, 1, 1, 1},
          .ceil_mode = true};
  const Tensor below = one(Unary{UnaryKind::neg}, {counting({1, 1, 6, 6})});
  CHECK(list(one(pool, {below})) == std::vector<float>{-1, -2, -4, -6, -7, -8, -10, -12, -19, -20,
                                                       -22, -24, -31, -32, -34, -36});
}

TEST_CASE("a pool with a vast kernel costs only the taps inside the picture") {
  const int64_t vast = 1 << 24;
  const Pool pool{.kind = PoolKind::average,
                  .kernel = {vast, vast},
                  .stride = {vast, vast},
                  .dilation = {},
                  .pad = {vast - 1, vast - 1, vast - 1, vast - 1}};
  CHECK(list(one(pool, {floats({1, 1, 1, 1}, {3})})) == std::vector<float>{3});
}

TEST_CASE("global pools, and means over axes") {
  const Tensor x = counting({1, 2, 2, 3});
  CHECK(list(one(GlobalPool{PoolKind::average}, {x})) == std::vector<float>{3.5, 9.5});
  CHECK(list(one(GlobalPool{PoolKind::max}, {x})) == std::vector<float>{6, 12});
  CHECK(one(GlobalPool{}, {x}).shape() == Shape{1, 2, 1, 1});

  CHECK(same_bits(one(Reduce{ReduceKind::mean, {2, 3}, true}, {x}), one(GlobalPool{}, {x})));
  const Tensor flat = one(Reduce{ReduceKind::mean, {-1, -2}, false}, {x});
  CHECK(flat.shape() == Shape{1, 2});
  CHECK(list(flat) == std::vector<float>{3.5, 9.5});
  CHECK(list(one(Reduce{ReduceKind::mean, {1}, true}, {x})) ==
        std::vector<float>{4, 5, 6, 7, 8, 9});
  CHECK(list(one(Reduce{ReduceKind::mean, {1, 3}, false}, {x})) == std::vector<float>{5, 8});
  CHECK(list(one(Reduce{ReduceKind::mean, {0, 1, 2, 3}, false}, {x})) == std::vector<float>{6.5});
  CHECK(list(one(Reduce{ReduceKind::mean, {}, true}, {x})) == list(x));
}

TEST_CASE("sums, extremes and products over axes, and over nothing") {
  const Tensor x = counting({1, 2, 2, 3});
  CHECK(list(one(Reduce{ReduceKind::sum, {1, 3}, false}, {x})) == std::vector<float>{30, 48});
  CHECK(list(one(Reduce{ReduceKind::max, {1}, false}, {x})) ==
        std::vector<float>{7, 8, 9, 10, 11, 12});
  CHECK(list(one(Reduce{ReduceKind::min, {2, 3}}, {x})) == std::vector<float>{1, 7});
  CHECK(list(one(Reduce{ReduceKind::prod, {3}}, {x})) == std::vector<float>{6, 120, 504, 1320});
  const Tensor none(DType::f32, {2, 0});
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const std::pair<ReduceKind, float> neutral[] = {{ReduceKind::sum, 0},
                                                  {ReduceKind::prod, 1},
                                                  {ReduceKind::max, -infinity},
                                                  {ReduceKind::min, infinity}};
  for (auto [kind, value] : neutral)
    CHECK(list(one(Reduce{kind, {1}, false}, {none})) == std::vector<float>{value, value});
  const Tensor whole = Tensor::of(std::vector<int64_t>{2, 3, 4}, {3});
  CHECK(one(Reduce{ReduceKind::prod, {0}, false}, {whole}).as<int64_t>()[0] == 24);
}

TEST_CASE("the first or last of equal extremes") {
  const Tensor x = floats({2, 4}, {3, 7, 7, 1, 5, 0, 0, 5});
  auto found = [&](const Op &op) {
    const Tensor ids = one(op, {x});
    return std::vector<int64_t>(ids.as<int64_t>().begin(), ids.as<int64_t>().end());
  };
  CHECK(found(ArgReduce{ArgKind::max, 1}) == std::vector<int64_t>{1, 0});
  CHECK(found(ArgReduce{ArgKind::max, 1, true, true}) == std::vector<int64_t>{2, 3});
  CHECK(found(ArgReduce{ArgKind::min, -1}) == std::vector<int64_t>{3, 1});
  CHECK(found(ArgReduce{ArgKind::min, -1, true, true}) == std::vector<int64_t>{3, 2});
  CHECK(found(ArgReduce{ArgKind::max, 0, false}) == std::vector<int64_t>{1, 0, 0, 1});
  CHECK(list(one(Hardmax{1}, {x})) == std::vector<float>{0, 1, 0, 0, 1, 0, 0, 0});
  CHECK(list(one(Hardmax{0}, {x})) == std::vector<float>{0, 1, 1, 0, 1, 0, 0, 1});
}

TEST_CASE("NaN goes through every maximum and minimum, wherever it stands") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (size_t at = 0; at < 4; ++at) {
    CAPTURE(at);
    Tensor x = floats({1, 1, 2, 2}, {3, -infinity, infinity, 1});
    x.f32_mutable()[at] = nan;
    const Tensor line = x.reshaped({4}), numbers = floats({4}, {1, 2, 3, 4});
    auto is_nan = [&](const Op &op, const std::vector<Tensor> &inputs, size_t i = 0) {
      return std::isnan(one(op, inputs).f32()[i]);
    };
    Pool pool;
    pool.kernel = pool.stride = {2, 2};
    CHECK(is_nan(pool, {x}));
    CHECK(is_nan(GlobalPool{PoolKind::max}, {x}));
    for (ReduceKind kind : {ReduceKind::max, ReduceKind::min, ReduceKind::mean})
      CHECK(is_nan(Reduce{kind, {2, 3}, true}, {x}));
    for (BinaryKind kind : {BinaryKind::max, BinaryKind::min}) {
      CHECK(is_nan(Binary{kind}, {line, numbers}, at));
      CHECK(is_nan(Binary{kind}, {numbers, line}, at));
    }
    for (UnaryKind kind : {UnaryKind::relu, UnaryKind::clip, UnaryKind::thresholded_relu})
      CHECK(is_nan(Unary{kind, 0, 1}, {line}, at));
    for (ArgKind kind : {ArgKind::max, ArgKind::min})
      for (bool last : {false, true}) {
        const Tensor found = one(ArgReduce{kind, 0, true, last}, {line});
        CHECK(found.as<int64_t>()[0] == int64_t(at));
      }
    CHECK(one(Hardmax{0}, {line}).f32()[at] == 1);
  }
  const Tensor two = floats({4}, {nan, 5, nan, -5}); // of several the first, or the last
  for (ArgKind kind : {ArgKind::max, ArgKind::min}) {
    CHECK(one(ArgReduce{kind, 0, true, false}, {two}).as<int64_t>()[0] == 0);
    CHECK(one(ArgReduce{kind, 0, true, true}, {two}).as<int64_t>()[0] == 2);
  }
}

TEST_CASE("padding is zeros, which an infinite weight makes NaN of") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  Conv conv;
  conv.kernel = {3, 3};
  conv.pad = {1, 1, 1, 1};
  Tensor ones(DType::f32, {1, 1, 3, 3}), weights(DType::f32, {1, 1, 3, 3});
  std::ranges::fill(ones.f32_mutable(), 1.0f);
  std::ranges::fill(weights.f32_mutable(), 1.0f);
  weights.f32_mutable()[0] = infinity; // above, to the left
  const Tensor y = one(conv, {ones, weights});
  const Tensor padded = one(Pad{{0, 0, 1, 1}, {0, 0, 1, 1}, 0}, {ones});
  Conv bare;
  bare.kernel = {3, 3};
  const Tensor same = one(bare, {padded, weights});
  for (size_t i = 0; i < 9; ++i) {
    CAPTURE(i);
    CHECK(std::isnan(y.f32()[i]) == (i < 3 || i % 3 == 0));
    CHECK(std::isnan(same.f32()[i]) == std::isnan(y.f32()[i]));
    if (!std::isnan(y.f32()[i])) CHECK(y.f32()[i] == infinity);
  }
}

TEST_CASE("gather, expand, reversed slices, casts") {
  const Tensor x = counting({2, 3, 2});
  const Tensor ids = Tensor::of(std::vector<int64_t>{2, -3, 99, -99}, {2, 2}); // clamped
  CHECK(list(one(Gather{1}, {x, ids})) ==
        std::vector<float>{5, 6, 1, 2, 5, 6, 1, 2, 11, 12, 7, 8, 11, 12, 7, 8});
  CHECK(one(Gather{1}, {x, ids}).shape() == Shape{2, 2, 2, 2});
  CHECK(list(one(Expand{{2, 2, 3}}, {floats({2, 1}, {1, 2}).reshaped({2, 1})})) ==
        std::vector<float>{1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2});
  CHECK(list(one(Slice{{1, 2}, {-1, 0}, {INT64_MIN, 9}, {-2, 1}}, {x})) ==
        std::vector<float>{5, 6, 1, 2, 11, 12, 7, 8});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor values = floats({5}, {-1.9f, 0, 2.9f, 1e30f, nan});
  const Tensor whole = one(Cast{DType::i64}, {values}), set = one(Cast{DType::boolean}, {values});
  CHECK(std::vector<int64_t>(whole.as<int64_t>().begin(), whole.as<int64_t>().end()) ==
        std::vector<int64_t>{-1, 0, 2, INT64_MAX, 0});
  CHECK(std::vector<int>(set.as<uint8_t>().begin(), set.as<uint8_t>().end()) ==
        std::vector<int>{1, 0, 1, 1, 1});
  CHECK(list(one(Cast{DType::f32}, {set})) == std::vector<float>{1, 0, 1, 1, 1});
}

TEST_CASE("local response normalisation; even sizes reach further up") {
  const Tensor x = floats({1, 6, 1, 1}, {1, -2, 3, 0.5, -1.5, 2});
  const std::pair<int64_t, std::vector<double>> cases[] = {
      {1, {0.5029734, -0.7071068, 0.736947, 0.2840866, -0.6381955, 0.7071068}},
      {2, {0.4131307, -0.5766476, 1.002477, 0.2424505, -0.5784624, 0.8773827}},
      {3, {0.4579064, -0.6659068, 1.02103, 0.1795902, -0.6446528, 0.8683529}},
      {4, {0.3710877, -0.7375704, 1.073262, 0.178877, -0.690672, 0.9286455}},
      {5, {0.3993841, -0.7943915, 1.136061, 0.1784523, -0.5799893, 0.9629319}},
      {7, {0.436743, -0.8401484, 1.181438, 0.1969064, -0.6000219, 0.8545925}}};
  for (const auto &[size, expected] : cases) {
    CAPTURE(size);
    check_near(one(Lrn{size, 0.5f, 0.75f, 2}, {x}), expected);
  }
  // Every pixel by itself, every image by itself.
  const Tensor many = scrambled({2, 5, 3, 2}, 3), all_at_once = one(Lrn{3, 1, 0.75f, 1}, {many});
  for (size_t n = 0; n < 2; ++n)
    for (size_t i = 0; i < 6; ++i) {
      std::vector<float> pixel, expected;
      for (size_t c = 0; c < 5; ++c) {
        pixel.push_back(many.f32()[(n * 5 + c) * 6 + i]);
        expected.push_back(all_at_once.f32()[(n * 5 + c) * 6 + i]);
      }
      CHECK(list(one(Lrn{3, 1, 0.75f, 1}, {floats({1, 5, 1, 1}, pixel)})) == expected);
    }
}

TEST_CASE("batch norm is its formula") {
  const std::vector<Tensor> parameters{floats({2}, {2, -1}), floats({2}, {0.5, 3}),
                                       floats({2}, {2, 5}), floats({2}, {4, 0.25})};
  auto with = [&](Tensor x) {
    std::vector<Tensor> inputs{std::move(x)};
    inputs.insert(inputs.end(), parameters.begin(), parameters.end());
    return inputs;
  };
  const std::vector<double> expected{-0.49875234, 0.5,       1.4987523,  2.4975047,
                                     3,           1.0388386, -0.9223227, -2.8834841};
  check_near(one(BatchNorm{0.01f}, with(counting({1, 2, 2, 2}))), expected);
  check_near(one(BatchNorm{0.01f}, with(counting({1, 2, 4}))), expected); // any rank from two
}

TEST_CASE("softmax") {
  const Tensor x = floats({3}, {1, 2, 4});
  check_near(one(Softmax{0, false}, {x}), {0.042010066, 0.1141952, 0.84379473}, 1e-7);
  check_near(one(Softmax{-1, true}, {x}), {-3.169846, -2.169846, -0.16984602}, 1e-7);
  check_near(one(Softmax{0, false}, {floats({3}, {1000, 1000, -1000})}), {0.5, 0.5, 0});
  check_near(one(Softmax{0, true}, {floats({2}, {1000, -1000})}), {0, -2000});

  const Tensor values = scrambled({2, 3, 4, 5}, 1);
  for (int64_t axis = -4; axis < 4; ++axis) {
    CAPTURE(axis);
    const Tensor p = one(Softmax{axis, false}, {values}), log = one(Softmax{axis, true}, {values});
    const int64_t extent = values.shape()[size_t(axis < 0 ? axis + 4 : axis)];
    const Tensor means = one(Reduce{ReduceKind::mean, {axis}, true}, {p});
    for (float mean : means.f32()) CHECK(std::abs(mean * float(extent) - 1) < 1e-6);
    for (size_t i = 0; i < p.f32().size(); ++i)
      CHECK(std::abs(std::exp(log.f32()[i]) - p.f32()[i]) < 1e-6);
  }
}

TEST_CASE("moving elements of every type") {
  const Tensor samples[] = {
      counting({2, 3, 2}),
      Tensor::of(std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, INT64_MAX}, {2, 3, 2}),
      integers<int32_t>(DType::i32, {2, 3, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, INT32_MIN}),
      integers<uint8_t>(DType::boolean, {2, 3, 2}, {1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1, 0})};
  for (const Tensor &x : samples) {
    CAPTURE(to_string(x.dtype()));
    const size_t bytes = size_of(x.dtype());
    auto picks = [&](const Tensor &y, Shape shape, const std::vector<size_t> &sources) {
      CHECK(y.dtype() == x.dtype());
      CHECK(y.shape() == shape);
      REQUIRE(size_t(y.size()) == sources.size());
      for (size_t i = 0; i < sources.size(); ++i)
        CHECK(std::memcmp(y.raw() + i * bytes, x.raw() + sources[i] * bytes, bytes) == 0);
    };
    const std::vector<size_t> same{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    picks(one(Unary{UnaryKind::identity}, {x}), {2, 3, 2}, same);
    picks(one(Dropout{}, {x}), {2, 3, 2}, same);
    picks(one(Reshape{{0, -1}}, {x}), {2, 6}, same);
    picks(one(Reshape{{3, 1, -1, 2}}, {x}), {3, 1, 2, 2}, same);
    picks(one(Flatten{0}, {x}), {1, 12}, same);
    picks(one(Flatten{-1}, {x}), {6, 2}, same);
    picks(one(Transpose{{2, 0, 1}}, {x}), {2, 2, 3}, {0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11});
    picks(one(Transpose{{0, 2, 1}}, {x}), {2, 2, 3}, {0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11});
    picks(one(Concat{-1}, {x, x}), {2, 3, 4},
          {0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8, 9, 8, 9, 10, 11, 10, 11});
    picks(one(Slice{{1}, {1}, {3}, {1}}, {x}), {2, 2, 2}, {2, 3, 4, 5, 8, 9, 10, 11});
    picks(one(Slice{{-2, 0}, {-3, 1}, {INT64_MAX, 2}, {2, 1}}, {x}), {1, 2, 2}, {6, 7, 10, 11});
    picks(one(Slice{{1}, {-2}, {-1}, {1}}, {x}), {2, 1, 2}, {2, 3, 8, 9});
    picks(one(Slice{{1}, {INT64_MIN}, {-1}, {1}}, {x}), {2, 2, 2}, {0, 1, 2, 3, 6, 7, 8, 9});
    picks(one(Slice{{0}, {1}, {1}, {1}}, {x}), {0, 3, 2}, {});
    picks(one(Slice{{1}, {1}, {3}, {int64_t{1} << 40}}, {x}), {2, 1, 2}, {2, 3, 8, 9});
    const auto parts = all(Split{1, {1, 0, 2}}, {x});
    REQUIRE(parts.size() == 3);
    picks(parts[0], {2, 1, 2}, {0, 1, 6, 7});
    picks(parts[1], {2, 0, 2}, {});
    picks(parts[2], {2, 2, 2}, {2, 3, 4, 5, 8, 9, 10, 11});
    CHECK(same_bits(one(Concat{1}, parts), x));
    const Tensor padded = one(Pad{{0, 1, 2}, {1, 0, 0}, 1}, {x});
    CHECK(padded.shape() == Shape{3, 4, 4});
    CHECK(same_bits(one(Slice{{0, 1, 2}, {0, 1, 2}, {2, 4, 4}, {1, 1, 1}}, {padded}), x));
  }
}

TEST_CASE("padding has its value, of any type") {
  CHECK(list(one(Pad{{1}, {2}, -1.5f}, {counting({2})})) ==
        std::vector<float>{-1.5, 1, 2, -1.5, -1.5});
  const Tensor i = Tensor::of(std::vector<int64_t>{7}, {1});
  CHECK(list<int64_t>(one(Pad{{1}, {0}, 3}, {i})) == std::vector<int64_t>{3, 7});
  CHECK(list<int64_t>(one(Pad{{1}, {0}, float(inf)}, {i})) == std::vector<int64_t>{INT64_MAX, 7});
  CHECK(list<int64_t>(one(Pad{{1}, {0}, float(-inf)}, {i})) == std::vector<int64_t>{INT64_MIN, 7});
  CHECK(list<int64_t>(one(Pad{{1}, {0}, NAN}, {i})) == std::vector<int64_t>{0, 7});
}

TEST_CASE("results too large for memory are errors") {
  const Tensor x = counting({1, 1});
  CHECK(refused(Pad{{1 << 20, 1 << 19}, {0, 0}, 0}, {x}).code == ErrorCode::limit);
  auto vast = materialise(splat_constant(1, {1 << 20, 1 << 19}));
  REQUIRE(!vast);
  CHECK(vast.error().code == ErrorCode::limit);
}
