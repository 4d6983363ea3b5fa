// The reference convolution and dense layer. Sums, bias and the fused steps behind them stay in
// float64; only the stored result is rounded, once. Plain loops, but the innermost runs along an
// output row (or along K), so that a compiler keeps the machine busy: full-size networks take
// seconds.
#include "ir/evaluate_ops.h"

#include "ir/system/threads.h"

#include <algorithm>

// One copy per instruction set, chosen at load time. Which one cannot matter: the product of two
// floats is exact in a double, so a fused multiply-add rounds as the two operations do, and the
// order of additions is the source's. Sanitizers cannot follow the choice.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define LATHE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LATHE_CLONES
#endif

namespace lathe::core {
namespace {

constexpr int64_t channels_at_once = 4, columns_at_once = 512;
using Sums = double[channels_at_once][columns_at_once]; // fits a first-level cache

struct Layer {
  const Conv &op;
  int64_t in_c, in_h, in_w, out_c, out_h, out_w;
  int64_t group_in, group_out; // channels of one group
  const float *weights;
};

// Part of a row of output pixels, in up to four channels of one group.
struct Piece {
  const float *input; // the group's first plane
  int64_t channel, channels, row, column, columns;
};

// False if the time was over.
LATHE_CLONES bool sum_piece(const Layer &layer, const Piece &piece, Sums &sums, Pulse &pulse) {
  const Conv &op = layer.op;
  const int64_t taps = op.kernel.h * op.kernel.w, filter = layer.group_in * taps;
  for (double *channel : {sums[0], sums[1], sums[2], sums[3]})
    std::fill_n(channel, piece.columns, 0.0);
  for (int64_t c = 0; c < layer.group_in; ++c)
    for (int64_t kh = 0; kh < op.kernel.h; ++kh) {
      if (!pulse.goes_on(op.kernel.w * piece.columns)) return false;
      const int64_t y = piece.row * op.stride.h - op.pad.top + kh * op.dilation.h;
      const bool outside = y < 0 || y >= layer.in_h;
      const float *row = piece.input + (c * layer.in_h + (outside ? 0 : y)) * layer.in_w;
      for (int64_t kw = 0; kw < op.kernel.w; ++kw) {
        // Output columns [first, last) of the piece whose tap falls inside the picture.
        const int64_t stride = op.stride.w;
        const int64_t start = piece.column * stride - op.pad.left + kw * op.dilation.w;
        int64_t first = start >= 0 ? 0 : std::min(piece.columns, (-start + stride - 1) / stride);
        int64_t last = start >= layer.in_w
                           ? 0
                           : std::min(piece.columns, (layer.in_w - 1 - start) / stride + 1);
        if (outside || last <= first) first = last = 0;
        double w[channels_at_once] = {};
        for (int64_t m = 0; m < piece.channels; ++m) {
          w[m] = layer.weights[(piece.channel + m) * filter + c * taps + kh * op.kernel.w + kw];
          if (std::isfinite(w[m])) continue;
          for (int64_t i = 0; i < first; ++i) sums[m][i] += w[m] * 0; // padding
          for (int64_t i = last; i < piece.columns; ++i) sums[m][i] += w[m] * 0;
        }
        auto accumulate = [&](int64_t step) {
          for (int64_t i = first; i < last; ++i) {
            const double x = row[start + i * step];
            sums[0][i] += w[0] * x;
            sums[1][i] += w[1] * x;
            sums[2][i] += w[2] * x;
            sums[3][i] += w[3] * x;
          }
        };
        stride == 1 ? accumulate(1) : accumulate(stride);
      }
    }
  return true;
}

LATHE_CLONES double dot(const float *a, const float *b, int64_t count) {
  constexpr int64_t lanes = 16;
  double partial[lanes] = {}, sum = 0;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    for (int64_t l = 0; l < lanes; ++l) partial[l] += double{a[i + l]} * double{b[i + l]};
  for (; i < count; ++i) sum += double{a[i]} * double{b[i]};
  for (double lane : partial) sum += lane;
  return sum;
}

// Runs body(begin, end) over [0, count), on two threads where there is enough to do and the system
// gives one.
template <typename Body> void in_parallel(int64_t count, double work, const Body &body) {
  const int64_t half = work < 3e7 ? 0 : count / 2;
  parallel_each(2, half > 0 ? 2 : 1,
                [&](size_t part, int) { part == 0 ? body(0, half) : body(half, count); });
}

} // namespace

Tensors compute(const Conv &op, const Operands &a) {
  Tensor result = a.result();
  const Shape &xs = a.shape(), &ys = result.shape();
  Layer layer{.op = op,
              .in_c = xs[1],
              .in_h = xs[2],
              .in_w = xs[3],
              .out_c = ys[1],
              .out_h = ys[2],
              .out_w = ys[3],
              .group_in = xs[1] / op.groups,
              .group_out = ys[1] / op.groups,
              .weights = a.in[1].f32().data()};
  const Size2 one{};
  if (op.kernel == one && op.stride == one &&
      op.pad == Pads{}) { // rows do not matter: one long row
    layer.in_w = layer.out_w = xs[2] * xs[3];
    layer.in_h = layer.out_h = 1;
  }
  const Tensor input = prepared(op, a.in);
  const float *x = input.f32().data();
  float *y = result.f32_mutable().data();

  // All rows of up to four output channels, from `channel` on, of one image. False if the time was
  // over.
  auto compute_channels = [&](int64_t image, int64_t group, int64_t channel, int64_t channels,
                              Pulse &pulse) {
    const float *input =
        x + (image * layer.in_c + group * layer.group_in) * layer.in_h * layer.in_w;
    Sums sums;
    for (int64_t row = 0; row < layer.out_h; ++row)
      for (int64_t column = 0; column < layer.out_w; column += columns_at_once) {
        const int64_t columns = std::min(columns_at_once, layer.out_w - column);
        if (!sum_piece(layer, {input, channel, channels, row, column, columns}, sums, pulse))
          return false;
        for (int64_t m = 0; m < channels; ++m) {
          const int64_t plane = image * layer.out_c + channel + m;
          const int64_t index = (plane * layer.out_h + row) * layer.out_w + column;
          for (int64_t i = 0; i < columns; ++i)
            y[index + i] = finish(op, a.in, channel + m, index + i, sums[m][i]);
        }
      }
    return true;
  };
  const int64_t blocks = (layer.group_out + channels_at_once - 1) / channels_at_once; // per group
  const double work =
      double(result.size()) * double(layer.group_in) * double(op.kernel.h * op.kernel.w);
  in_parallel(xs[0] * op.groups * blocks, work, [&](int64_t begin, int64_t end) {
    Pulse pulse(a.budget);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t image = b / blocks / op.groups, group = b / blocks % op.groups;
      const int64_t done = b % blocks * channels_at_once;
      if (!compute_channels(image, group, group * layer.group_out + done,
                            std::min(channels_at_once, layer.group_out - done), pulse))
        return;
    }
  });
  if (a.budget.over()) throw OutOfTime();
  return {result};
}

Tensors compute(const Dense &op, const Operands &a) {
  Tensor result = a.result();
  const int64_t images = a.shape()[0], depth = a.shape()[1], outputs = result.shape()[1];
  const float *x = a.x().f32().data(), *w = a.in[1].f32().data();
  float *y = result.f32_mutable().data();
  in_parallel(outputs, double(result.size()) * double(depth), [&](int64_t begin, int64_t end) {
    Pulse pulse(a.budget);
    for (int64_t n = 0; n < images; ++n)
      for (int64_t m = begin; m < end; ++m) {
        if (!pulse.goes_on(depth)) return;
        const int64_t index = n * outputs + m;
        y[index] = finish(op, a.in, m, index, dot(x + n * depth, w + m * depth, depth));
      }
  });
  if (a.budget.over()) throw OutOfTime();
  return {result};
}

} // namespace lathe::core
