// The reference convolution and dense layer: sums in float64. Plain loops, but the innermost runs
// along an output row (or along K), so that a compiler keeps the machine busy: full-size networks
// take seconds.
#include "ir/evaluate_ops.h"

#include <algorithm>
#include <thread>

// One copy per instruction set, chosen at load time. Not under sanitizers, which cannot follow.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
#define LATHE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LATHE_CLONES
#endif

namespace lathe {
namespace {

constexpr int64_t channels_at_once = 4;

// sums[m][x] += weights[m] * row[x * stride] for four output channels.
LATHE_CLONES void accumulate_row(double *__restrict sums, int64_t pitch, const double *weights,
                                 const float *__restrict row, int64_t stride, int64_t count) {
  double *s0 = sums, *s1 = sums + pitch, *s2 = sums + 2 * pitch, *s3 = sums + 3 * pitch;
  const double w0 = weights[0], w1 = weights[1], w2 = weights[2], w3 = weights[3];
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) {
      double x = row[i];
      s0[i] += w0 * x;
      s1[i] += w1 * x;
      s2[i] += w2 * x;
      s3[i] += w3 * x;
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      double x = row[i * stride];
      s0[i] += w0 * x;
      s1[i] += w1 * x;
      s2[i] += w2 * x;
      s3[i] += w3 * x;
    }
  }
}

LATHE_CLONES double dot(const float *__restrict a, const float *__restrict b, int64_t count) {
  double lanes[16] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (int64_t l = 0; l < 16; ++l) lanes[l] += double(a[i + l]) * double(b[i + l]);
  double sum = 0;
  for (; i < count; ++i) sum += double(a[i]) * double(b[i]);
  for (double lane : lanes) sum += lane;
  return sum;
}

// Runs body(begin, end) over [0, count), on two threads where there is enough to do.
template <typename Body> void in_parallel(int64_t count, double work, const Body &body) {
  if (work < 3e7 || count < 2) return body(0, count);
  std::thread other([&] { body(0, count / 2); });
  body(count / 2, count);
  other.join();
}

// Post steps on one finished sum; operand i of the node is read at the same flat index.
double finish(const std::vector<PostOp> &post, std::span<const Tensor> operands, int64_t index,
              double value) {
  size_t next = 0;
  for (const PostOp &step : post) {
    if (auto *unary = std::get_if<Unary>(&step.op))
      value = apply(*unary, value);
    else
      value = apply(std::get<Binary>(step.op).kind, value,
                    double(operands[next++].f32()[static_cast<size_t>(index)]));
  }
  return value;
}

// What convolve_block needs to know of the layer.
struct ConvShape {
  int64_t in_c, in_h, in_w, out_c, out_h, out_w, group_in, group_out;
};

} // namespace

Tensor evaluate_conv(const Conv &op, std::span<const Tensor> in, const Type &type) {
  Tensor result(DType::f32, type.shape);
  const Shape &xs = in[0].shape(), &ys = type.shape;
  const ConvShape s{xs[1], xs[2], xs[3], ys[1], ys[2], ys[3], xs[1] / op.groups, ys[1] / op.groups};
  const float *x = in[0].f32().data(), *w = in[1].f32().data();
  float *y = result.f32_mutable().data();
  auto operands = in.subspan(fixed_inputs(op));
  const int64_t taps = op.kernel.h * op.kernel.w,
                blocks_per_group = (s.group_out + channels_at_once - 1) / channels_at_once;

  // Output channels [m, m + 4) of a group, all rows of one image.
  auto block = [&](int64_t image, int64_t group, int64_t m, std::vector<double> &sums) {
    const int64_t live = std::min(channels_at_once, s.group_out - m),
                  first = group * s.group_out + m;
    for (int64_t oy = 0; oy < s.out_h; ++oy) {
      std::ranges::fill(sums, 0.0);
      for (int64_t c = 0; c < s.group_in; ++c) {
        const float *plane = x + (image * s.in_c + group * s.group_in + c) * s.in_h * s.in_w;
        for (int64_t kh = 0; kh < op.kernel.h; ++kh) {
          int64_t iy = oy * op.stride.h - op.pad.top + kh * op.dilation.h;
          if (iy < 0 || iy >= s.in_h) continue;
          for (int64_t kw = 0; kw < op.kernel.w; ++kw) {
            double weights[channels_at_once] = {};
            for (int64_t i = 0; i < live; ++i)
              weights[i] = w[((first + i) * s.group_in + c) * taps + kh * op.kernel.w + kw];
            // Output columns whose tap falls inside the picture.
            int64_t shift = kw * op.dilation.w - op.pad.left;
            int64_t from = shift >= 0 ? 0 : (-shift + op.stride.w - 1) / op.stride.w;
            int64_t to = std::min(s.out_w, (s.in_w - 1 - shift + op.stride.w) / op.stride.w);
            if (s.in_w - 1 - shift < 0 || from >= to) continue;
            accumulate_row(sums.data() + from, s.out_w, weights,
                           plane + iy * s.in_w + from * op.stride.w + shift, op.stride.w,
                           to - from);
          }
        }
      }
      for (int64_t i = 0; i < live; ++i)
        for (int64_t ox = 0; ox < s.out_w; ++ox) {
          int64_t index = ((image * s.out_c + first + i) * s.out_h + oy) * s.out_w + ox;
          double sum = sums[static_cast<size_t>(i * s.out_w + ox)];
          if (op.bias) sum += double(in[2].f32()[static_cast<size_t>(first + i)]);
          y[index] = static_cast<float>(finish(op.post, operands, index, sum));
        }
    }
  };
  const int64_t blocks = xs[0] * op.groups * blocks_per_group;
  const double work = double(element_count(ys)) * double(s.group_in * taps);
  in_parallel(blocks, work, [&](int64_t begin, int64_t end) {
    std::vector<double> sums(static_cast<size_t>(channels_at_once * s.out_w));
    for (int64_t b = begin; b < end; ++b) {
      int64_t group = b / blocks_per_group % op.groups, image = b / blocks_per_group / op.groups;
      block(image, group, b % blocks_per_group * channels_at_once, sums);
    }
  });
  return result;
}

Tensor evaluate_dense(const Dense &op, std::span<const Tensor> in, const Type &type) {
  Tensor result(DType::f32, type.shape);
  const int64_t images = type.shape[0], outputs = type.shape[1], depth = in[0].shape()[1];
  const float *x = in[0].f32().data(), *w = in[1].f32().data();
  float *y = result.f32_mutable().data();
  auto operands = in.subspan(fixed_inputs(op));
  in_parallel(outputs, double(images * outputs) * double(depth), [&](int64_t begin, int64_t end) {
    for (int64_t n = 0; n < images; ++n)
      for (int64_t m = begin; m < end; ++m) {
        double sum = dot(x + n * depth, w + m * depth, depth);
        if (op.bias) sum += double(in[2].f32()[static_cast<size_t>(m)]);
        int64_t index = n * outputs + m;
        y[index] = static_cast<float>(finish(op.post, operands, index, sum));
      }
  });
  return result;
}

} // namespace lathe
