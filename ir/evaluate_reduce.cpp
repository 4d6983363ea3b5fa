// The evaluator's ops that look at several elements: pools, means, normalisations. Sums are float64
// and results are rounded once.
#include "ir/evaluate_ops.h"
#include "ir/strided.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lathe::core {
namespace {

constexpr double lowest = -std::numeric_limits<double>::infinity();

// The taps of a window along one axis: [first, last) lie inside the picture, the first `padded`
// before the padding's end.
struct Taps {
  int64_t start, first, last, padded;
  Taps(int64_t output, int64_t kernel, int64_t stride, int64_t dilation, int64_t extent,
       int64_t pad_before, int64_t pad_after)
      : start(output * stride - pad_before) {
    auto before = [&](int64_t end) {
      return std::clamp<int64_t>((end - start + dilation - 1) / dilation, 0, kernel);
    };
    first = before(0);
    last = before(extent);
    padded = before(extent + pad_after);
  }
};

double pool_window(const Pool &op, const float *plane, int64_t width, const Taps &rows,
                   const Taps &columns) {
  double sum = 0, most = lowest;
  for (int64_t kh = rows.first; kh < rows.last; ++kh)
    for (int64_t kw = columns.first; kw < columns.last; ++kw) {
      const double value =
          plane[(rows.start + kh * op.dilation.h) * width + columns.start + kw * op.dilation.w];
      sum += value;
      most = larger(most, value);
    }
  if (op.kind == PoolKind::max) return most;
  if (op.kind == PoolKind::sum) return sum;
  const int64_t inside = (rows.last - rows.first) * (columns.last - columns.first);
  const int64_t taps = op.count_include_pad ? rows.padded * columns.padded : inside;
  return sum / double(std::max<int64_t>(1, taps));
}

} // namespace

Tensors compute(const Pool &op, const Operands &a) {
  Tensor y = a.result();
  const Tensor x = prepared(op, a.in);
  float *out = y.f32_mutable().data();
  const int64_t planes = a.shape()[0] * a.shape()[1], h = a.shape()[2], w = a.shape()[3];
  int64_t index = 0;
  Pulse pulse(a.budget);
  for (int64_t p = 0; p < planes; ++p)
    for (int64_t oy = 0; oy < y.shape()[2]; ++oy) {
      const Taps rows(oy, op.kernel.h, op.stride.h, op.dilation.h, h, op.pad.top, op.pad.bottom);
      for (int64_t ox = 0; ox < y.shape()[3]; ++ox) {
        const Taps columns(ox, op.kernel.w, op.stride.w, op.dilation.w, w, op.pad.left,
                           op.pad.right);
        pulse.beat((rows.last - rows.first) * (columns.last - columns.first) + 1);
        const double sum = pool_window(op, x.f32().data() + p * h * w, w, rows, columns);
        out[index] = finish(op, a.in, p % a.shape()[1], index, sum);
        ++index;
      }
    }
  return {y};
}

Tensors compute(const GlobalPool &op, const Operands &a) {
  Tensor y = a.result();
  const auto area = static_cast<size_t>(a.shape()[2] * a.shape()[3]);
  const float *plane = a.x().f32().data();
  for (float &result : y.f32_mutable()) {
    double sum = 0, most = lowest;
    for (size_t i = 0; i < area; ++i) {
      sum += plane[i];
      most = larger<double>(most, plane[i]);
    }
    result = static_cast<float>(op.kind == PoolKind::max ? most : sum / double(area));
    plane += area;
  }
  return {y};
}

Tensors compute(const Lrn &op, const Operands &a) {
  Tensor y = a.result();
  const Axis channel(a.shape(), 1);
  const float *from = a.x().f32().data();
  float *to = y.f32_mutable().data();
  Pulse pulse(a.budget);
  for (int64_t n = 0; n < channel.before; ++n)
    for (int64_t c = 0; c < channel.extent; ++c) {
      const int64_t first = std::max<int64_t>(0, c - (op.size - 1) / 2);
      const int64_t last = std::min(channel.extent - 1, c + op.size / 2);
      for (int64_t i = 0; i < channel.behind; ++i) {
        auto at = [&](int64_t j) { return (n * channel.extent + j) * channel.behind + i; };
        pulse.beat(16 + last - first); // a power takes as long as some additions
        double squares = 0;
        for (int64_t j = first; j <= last; ++j)
          squares += double{from[at(j)]} * double{from[at(j)]};
        const double base = op.k + double{op.alpha} / double(op.size) * squares;
        to[at(c)] = static_cast<float>(from[at(c)] * std::pow(base, -double{op.beta}));
      }
    }
  return {y};
}

Tensors compute(const Softmax &op, const Operands &a) {
  Tensor y = a.result();
  if (y.size() == 0) return {y};
  const Axis axis(a.shape(), op.axis);
  const float *from = a.x().f32().data();
  float *to = y.f32_mutable().data();
  for (int64_t n = 0; n < axis.before; ++n)
    for (int64_t i = 0; i < axis.behind; ++i) {
      auto at = [&](int64_t c) { return (n * axis.extent + c) * axis.behind + i; };
      double most = lowest, sum = 0;
      for (int64_t c = 0; c < axis.extent; ++c) most = larger<double>(most, from[at(c)]);
      for (int64_t c = 0; c < axis.extent; ++c) sum += std::exp(from[at(c)] - most);
      for (int64_t c = 0; c < axis.extent; ++c) {
        const double shifted = from[at(c)] - most;
        to[at(c)] = static_cast<float>(op.log ? shifted - std::log(sum) : std::exp(shifted) / sum);
      }
    }
  return {y};
}

namespace {

// Elements of type T, reduced in type Wide.
template <typename T, typename Wide> Tensor reduce(const Reduce &op, const Operands &a) {
  Shape kept = a.shape();
  for (int64_t axis : op.axes) kept[Axis(a.shape(), axis).position] = 1;
  using Limits = std::numeric_limits<Wide>;
  Wide start = op.kind == ReduceKind::prod;
  if (op.kind == ReduceKind::max)
    start = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  if (op.kind == ReduceKind::min) start = Limits::has_infinity ? Limits::infinity() : Limits::max();
  // Whole numbers wrap around, as kernels' do.
  using Sum = std::conditional_t<std::is_integral_v<Wide>, uint64_t, Wide>;
  auto combine = [&](Wide x, Wide y) -> Wide {
    switch (op.kind) {
    case ReduceKind::max:
      return larger(x, y);
    case ReduceKind::min:
      return smaller(x, y);
    case ReduceKind::prod:
      return static_cast<Wide>(static_cast<Sum>(x) * static_cast<Sum>(y));
    case ReduceKind::mean:
    case ReduceKind::sum:
      break;
    }
    return static_cast<Wide>(static_cast<Sum>(x) + static_cast<Sum>(y));
  };
  std::vector<Wide> results(static_cast<size_t>(element_count(kept)), start);
  const T *from = a.x().as<T>().data();
  for_each_row<2>(a.shape(), {row_major_strides(a.shape()), broadcast_strides(kept, a.shape())},
                  [&](const auto &offset, int64_t length, const auto &step) {
                    for (int64_t i = 0; i < length; ++i) {
                      Wide &result = results[static_cast<size_t>(offset[1] + i * step[1])];
                      result = combine(result, static_cast<Wide>(from[offset[0] + i * step[0]]));
                    }
                  });
  Tensor y = a.result();
  const auto taken = results.empty() ? 1 : a.x().size() / static_cast<int64_t>(results.size());
  const auto divisor = static_cast<Wide>(op.kind == ReduceKind::mean ? taken : 1);
  std::ranges::transform(results, y.as_mutable<T>().begin(), [&](Wide result) {
    return static_cast<T>(op.kind == ReduceKind::mean ? result / divisor : result);
  });
  return y;
}

// Calls body(offset of the first element, distance between elements, index of the extreme one) for
// every line along an axis. NaN is more extreme than any number.
template <typename Body>
void each_extreme(const Tensor &x, const Axis &axis, ArgKind kind, bool last, const Body &body) {
  const float *from = x.f32().data();
  for (int64_t n = 0; n < axis.before; ++n)
    for (int64_t i = 0; i < axis.behind; ++i) {
      const int64_t first = n * axis.extent * axis.behind + i;
      int64_t best = 0;
      for (int64_t c = 1; c < axis.extent; ++c) {
        const float now = from[first + c * axis.behind], held = from[first + best * axis.behind];
        const bool nan = std::isnan(now), held_nan = std::isnan(held);
        const bool better = kind == ArgKind::max ? now > held : now < held;
        const bool equal = now == held || (nan && held_nan);
        if (better || (nan && !held_nan) || (last && equal)) best = c;
      }
      body(first, axis.behind, best);
    }
}

} // namespace

Tensors compute(const Reduce &op, const Operands &a) {
  switch (a.types[0].dtype) { // sums of integers wrap, as hardware does
  case DType::i64:
    return {reduce<int64_t, int64_t>(op, a)};
  case DType::i32:
    return {reduce<int32_t, int64_t>(op, a)};
  default:
    return {reduce<float, double>(op, a)};
  }
}

Tensors compute(const ArgReduce &op, const Operands &a) {
  Tensor y = a.result();
  int64_t *to = y.as_mutable<int64_t>().data();
  each_extreme(a.x(), Axis(a.shape(), op.axis), op.kind, op.last,
               [&](int64_t, int64_t, int64_t best) { *to++ = best; });
  return {y};
}

Tensors compute(const Hardmax &op, const Operands &a) {
  Tensor y = a.result();
  std::ranges::fill(y.f32_mutable(), 0.0f);
  if (y.size() == 0) return {y};
  each_extreme(a.x(), Axis(a.shape(), op.axis), ArgKind::max, false,
               [&](int64_t first, int64_t step, int64_t best) {
                 y.f32_mutable()[static_cast<size_t>(first + best * step)] = 1;
               });
  return {y};
}

} // namespace lathe::core
