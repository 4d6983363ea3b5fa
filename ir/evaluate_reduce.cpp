// The evaluator's ops that look at several elements: pools, means, normalisations. Sums are float64
// and results are rounded once.
#include "ir/evaluate_ops.h"
#include "ir/strided.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lathe {
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

float pool_window(const Pool &op, const float *plane, int64_t width, const Taps &rows,
                  const Taps &columns) {
  double sum = 0, most = lowest;
  for (int64_t kh = rows.first; kh < rows.last; ++kh)
    for (int64_t kw = columns.first; kw < columns.last; ++kw) {
      const double value =
          plane[(rows.start + kh * op.dilation.h) * width + columns.start + kw * op.dilation.w];
      sum += value;
      most = std::max(most, value);
    }
  if (op.kind == PoolKind::max) return static_cast<float>(most);
  const int64_t inside = (rows.last - rows.first) * (columns.last - columns.first);
  const int64_t taps = op.count_include_pad ? rows.padded * columns.padded : inside;
  return static_cast<float>(sum / double(std::max<int64_t>(1, taps)));
}

} // namespace

Tensors compute(const Pool &op, const Operands &a) {
  Tensor y = a.result();
  float *out = y.f32_mutable().data();
  const int64_t planes = a.shape()[0] * a.shape()[1], h = a.shape()[2], w = a.shape()[3];
  for (int64_t p = 0; p < planes; ++p)
    for (int64_t oy = 0; oy < y.shape()[2]; ++oy) {
      const Taps rows(oy, op.kernel.h, op.stride.h, op.dilation.h, h, op.pad.top, op.pad.bottom);
      for (int64_t ox = 0; ox < y.shape()[3]; ++ox) {
        const Taps columns(ox, op.kernel.w, op.stride.w, op.dilation.w, w, op.pad.left,
                           op.pad.right);
        *out++ = pool_window(op, a.x().f32().data() + p * h * w, w, rows, columns);
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
      most = std::max<double>(most, plane[i]);
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
  for (int64_t n = 0; n < channel.before; ++n)
    for (int64_t c = 0; c < channel.extent; ++c) {
      const int64_t first = std::max<int64_t>(0, c - (op.size - 1) / 2);
      const int64_t last = std::min(channel.extent - 1, c + op.size / 2);
      for (int64_t i = 0; i < channel.behind; ++i) {
        auto at = [&](int64_t j) { return (n * channel.extent + j) * channel.behind + i; };
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
      for (int64_t c = 0; c < axis.extent; ++c) most = std::max<double>(most, from[at(c)]);
      for (int64_t c = 0; c < axis.extent; ++c) sum += std::exp(from[at(c)] - most);
      for (int64_t c = 0; c < axis.extent; ++c) {
        const double shifted = from[at(c)] - most;
        to[at(c)] = static_cast<float>(op.log ? shifted - std::log(sum) : std::exp(shifted) / sum);
      }
    }
  return {y};
}

Tensors compute(const ReduceMean &op, const Operands &a) {
  Shape kept = a.shape();
  for (int64_t axis : op.axes) kept[Axis(a.shape(), axis).position] = 1;
  std::vector<double> sums(static_cast<size_t>(element_count(kept)), 0.0);
  const float *from = a.x().f32().data();
  for_each_row<2>(a.shape(), {row_major_strides(a.shape()), broadcast_strides(kept, a.shape())},
                  [&](const auto &offset, int64_t length, const auto &step) {
                    for (int64_t i = 0; i < length; ++i)
                      sums[static_cast<size_t>(offset[1] + i * step[1])] +=
                          from[offset[0] + i * step[0]];
                  });
  Tensor y = a.result();
  const double count = sums.empty() ? 1 : double(a.x().size()) / double(sums.size());
  std::ranges::transform(sums, y.f32_mutable().begin(),
                         [&](double sum) { return static_cast<float>(sum / count); });
  return {y};
}

} // namespace lathe
