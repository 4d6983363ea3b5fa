// Sliding windows: convolutions and pools over one, two or three spatial dimensions, in terms of
// the two that the graph knows.
#include "frontend/onnx/import.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core::onnx {
namespace {

constexpr int64_t most = 1 << 24; // of any window parameter; the graph's own limit

struct Window {
  std::vector<int64_t> kernel, stride, dilation, before, after;
  size_t rank() const { return kernel.size(); }
  int64_t reach(size_t d) const { return (kernel[d] - 1) * dilation[d] + 1; }
};

Size2 pair(const std::vector<int64_t> &v) { return {v[0], v[1]}; }
Pads pads(const Window &w) { return {w.before[0], w.before[1], w.after[0], w.after[1]}; }

void check(Call &c, Bytes what, const std::vector<int64_t> &values, int64_t least) {
  for (int64_t v : values)
    if (v < least || v > most)
      c.invalid(fmt::format("bad {}", what), fmt::format("{} to {}", least, most),
                fmt::format("{}", v));
}

// The spatial dimensions of N,C,... as integers of their own.
std::vector<int64_t> spatial(Call &c, ValueId x) {
  const Shape &s = c.shape(x);
  if (s.size() < 3 || s.size() > 5)
    c.unsupported("the number of spatial dimensions", "1 to 3", to_string(s));
  return {s.begin() + 2, s.end()};
}

Window read_window(Call &c, const std::vector<int64_t> &extents, std::vector<int64_t> kernel) {
  const size_t n = extents.size();
  Window w;
  w.kernel = c.has_attribute("kernel_shape") ? c.spatial("kernel_shape", n, 1) : std::move(kernel);
  if (w.kernel.size() != n) c.invalid("attribute kernel_shape is missing");
  w.stride = c.spatial("strides", n, 1);
  w.dilation = c.spatial("dilations", n, 1);
  check(c, "kernel size", w.kernel, 1);
  check(c, "stride", w.stride, 1);
  check(c, "dilation", w.dilation, 1);
  const std::vector<int64_t> given = c.spatial("pads", 2 * n, 0);
  check(c, "padding", given, 0);
  w.before.assign(given.begin(), given.begin() + int64_t(n));
  w.after.assign(given.begin() + int64_t(n), given.end());
  const Bytes automatic = c.text("auto_pad", "NOTSET");
  if (automatic == "NOTSET" || automatic.empty()) return w;
  const bool lower = automatic == "SAME_LOWER";
  if (automatic != "VALID" && automatic != "SAME_UPPER" && !lower)
    c.invalid("bad auto_pad", "NOTSET, VALID, SAME_UPPER or SAME_LOWER", clean(automatic));
  for (size_t d = 0; d < n; ++d) {
    // As many positions as strides begin in the picture.
    const int64_t positions = (extents[d] + w.stride[d] - 1) / w.stride[d];
    const int64_t total =
        automatic == "VALID"
            ? 0
            : std::max<int64_t>(0, (positions - 1) * w.stride[d] + w.reach(d) - extents[d]);
    w.before[d] = lower ? total - total / 2 : total / 2;
    w.after[d] = total - w.before[d];
  }
  return w;
}

// --- Convolution

ValueId conv2(Call &c, ValueId x, ValueId weight, std::optional<ValueId> bias, const Window &w,
              int64_t groups) {
  Conv op;
  op.kernel = pair(w.kernel);
  op.stride = pair(w.stride);
  op.dilation = pair(w.dilation);
  op.pad = pads(w);
  op.groups = groups;
  op.bias = bias.has_value();
  Values inputs{x, weight};
  if (bias) inputs.push_back(*bias);
  return c.add(op, inputs);
}

// A dimension of one in front of the only spatial one.
Window flat(const Window &w) {
  Window result = w;
  for (auto *v : {&result.kernel, &result.stride, &result.dilation}) v->insert(v->begin(), 1);
  for (auto *v : {&result.before, &result.after}) v->insert(v->begin(), 0);
  return result;
}
// The last two of three.
Window planar(const Window &w) {
  Window result = w;
  for (auto *v : {&result.kernel, &result.stride, &result.dilation, &result.before, &result.after})
    v->erase(v->begin());
  return result;
}

// Three dimensions: the sum over the taps in depth of convolutions of planes.
ValueId conv3(Call &c, ValueId x, ValueId weight, std::optional<ValueId> bias, const Window &w,
              int64_t groups) {
  if (w.kernel[0] > 64) c.unsupported("a kernel over 64 planes deep");
  x = c.pad_or_crop(x, 2, w.before[0], w.after[0]);
  const Shape s = c.shape(x), k = c.shape(weight);
  if (k.size() != 5 || k[2] != w.kernel[0])
    c.invalid("the weight has the wrong shape", "", to_string(k));
  const int64_t planes = (s[2] - w.reach(0)) / w.stride[0] + 1;
  if (s[2] < w.reach(0)) c.invalid("the window does not fit");
  std::optional<ValueId> sum;
  for (int64_t tap = 0; tap < w.kernel[0]; ++tap) {
    const int64_t first = tap * w.dilation[0];
    ValueId part = c.slice(x, 2, first, first + (planes - 1) * w.stride[0] + 1, w.stride[0]);
    part = c.reshape(c.transpose(part, {0, 2, 1, 3, 4}), {s[0] * planes, s[1], s[3], s[4]});
    ValueId plane = c.reshape(c.slice(weight, 2, tap, tap + 1), {k[0], k[1], k[3], k[4]});
    ValueId product = conv2(c, part, plane, tap == 0 ? bias : std::nullopt, planar(w), groups);
    sum = sum ? c.binary(BinaryKind::add, *sum, product) : product;
  }
  const Shape y = c.shape(*sum);
  return c.transpose(c.reshape(*sum, {s[0], planes, y[1], y[2], y[3]}), {0, 2, 1, 3, 4});
}

ValueId convolve(Call &c, ValueId x, ValueId weight, std::optional<ValueId> bias, const Window &w,
                 int64_t groups) {
  if (w.rank() == 2) return conv2(c, x, weight, bias, w, groups);
  if (w.rank() == 3) return conv3(c, x, weight, bias, w, groups);
  const Shape s = c.shape(x), k = c.shape(weight);
  if (k.size() != 3) c.invalid("the weight has the wrong rank", "3 dimensions", to_string(k));
  const ValueId y = conv2(c, c.reshape(x, {s[0], s[1], 1, s[2]}),
                          c.reshape(weight, {k[0], k[1], 1, k[2]}), bias, flat(w), groups);
  const Shape out = c.shape(y);
  return c.reshape(y, {out[0], out[1], out[3]});
}

std::vector<int64_t> kernel_of(Call &c, ValueId weight, size_t rank) {
  const Shape &s = c.shape(weight);
  if (s.size() != rank + 2)
    c.invalid("the weight has the wrong rank", fmt::format("{} dimensions", rank + 2),
              to_string(s));
  return {s.begin() + 2, s.end()};
}
std::optional<ValueId> bias_of(Call &c) {
  return c.has(2) ? std::optional(c.input(2)) : std::nullopt;
}

Values conv(Call &c) {
  const ValueId x = c.input(0), weight = c.input(1);
  const std::vector<int64_t> extents = spatial(c, x);
  const Window w = read_window(c, extents, kernel_of(c, weight, extents.size()));
  return {convolve(c, x, weight, bias_of(c), w, c.integer("group", 1))};
}

// --- Transposed convolution: zeros between the elements, then a convolution with the turned kernel
// (Dumoulin and Visin 2016, section 4.5).

// step - 1 zeros between neighbours along an axis.
ValueId spread(Call &c, ValueId x, size_t axis, int64_t step) {
  if (step == 1) return x;
  Shape apart = c.shape(x), merged = apart;
  const int64_t extent = apart[axis];
  apart.insert(apart.begin() + int64_t(axis) + 1, 1);
  merged[axis] = extent * step;
  ValueId padded = c.pad_or_crop(c.reshape(x, apart), axis + 1, 0, step - 1);
  return c.slice(c.reshape(padded, merged), int64_t(axis), 0, (extent - 1) * step + 1);
}

// C,M/g,k... -> M,C/g,k... with every spatial axis reversed.
ValueId turned(Call &c, ValueId weight, int64_t groups) {
  const Shape k = c.shape(weight);
  const auto n = int64_t(k.size());
  if (groups < 1 || groups > most || k[0] % groups)
    c.invalid("channels do not divide into groups", fmt::format("a multiple of {}", groups),
              fmt::format("{}", k[0]));
  Shape apart{groups, k[0] / groups}, merged{k[1] * groups, k[0] / groups};
  apart.insert(apart.end(), k.begin() + 1, k.end());
  merged.insert(merged.end(), k.begin() + 2, k.end());
  std::vector<int64_t> perm{0, 2, 1};
  for (int64_t d = 3; d <= n; ++d) perm.push_back(d);
  ValueId result = c.reshape(c.transpose(c.reshape(weight, apart), perm), merged);
  for (int64_t d = 2; d < n; ++d)
    if (k[size_t(d)] > 1) result = c.slice(result, d, -1, INT64_MIN, -1);
  return result;
}

// Fills in the paddings that output_shape or auto_pad ask for, as ConvTranspose documents them.
void pad_for_output(Call &c, Window &w, const std::vector<int64_t> &extents,
                    const std::vector<int64_t> &extra) {
  const size_t n = extents.size();
  const Bytes automatic = c.text("auto_pad", "NOTSET");
  std::vector<int64_t> wanted = c.integers("output_shape");
  if (wanted.size() == n + 2)
    wanted.erase(wanted.begin(), wanted.begin() + 2); // opset 1 had N,C too
  const bool same = automatic == "SAME_UPPER" || automatic == "SAME_LOWER";
  if (wanted.empty() && !same) return;
  if (!wanted.empty() && wanted.size() != n)
    c.invalid("attribute output_shape has the wrong length");
  for (size_t d = 0; d < n; ++d) {
    const int64_t size = wanted.empty() ? extents[d] * w.stride[d] : wanted[d];
    if (size < 1 || size > (int64_t{1} << 40))
      c.invalid("bad output_shape", "", fmt::format("{}", size));
    // Where less than nothing is cut away, the output is longer than what the windows reach: with
    // output_shape at its end (so ONNX's reference and ONNX Runtime), else on both sides.
    const int64_t cut = (extents[d] - 1) * w.stride[d] + extra[d] + w.reach(d) - size;
    const int64_t split = wanted.empty() ? cut : std::max<int64_t>(0, cut), half = split >> 1;
    w.before[d] = automatic == "SAME_UPPER" ? half : split - half;
    w.after[d] = cut - w.before[d];
  }
}

Values conv_transpose(Call &c) {
  ValueId x = c.input(0);
  const ValueId weight = c.input(1);
  const std::vector<int64_t> extents = spatial(c, x);
  const size_t n = extents.size();
  Window w = read_window(c, extents, kernel_of(c, weight, n));
  if (c.text("auto_pad", "NOTSET") != "NOTSET") // means another thing here
    w.before = w.after = std::vector<int64_t>(n, 0);
  const std::vector<int64_t> extra = c.spatial("output_padding", n, 0);
  check(c, "output_padding", extra, 0);
  pad_for_output(c, w, extents, extra);
  const int64_t groups = c.integer("group", 1);
  for (size_t d = 0; d < n; ++d) {
    x = spread(c, x, d + 2, w.stride[d]);
    w.before[d] = w.reach(d) - 1 - w.before[d];
    w.after[d] = w.reach(d) - 1 - w.after[d] + extra[d];
    if (w.before[d] < 0 || w.after[d] < 0)
      x = c.pad_or_crop(x, d + 2, std::min<int64_t>(0, w.before[d]),
                        std::min<int64_t>(0, w.after[d]));
    w.before[d] = std::max<int64_t>(0, w.before[d]);
    w.after[d] = std::max<int64_t>(0, w.after[d]);
    w.stride[d] = 1;
  }
  return {convolve(c, x, turned(c, weight, groups), bias_of(c), w, groups)};
}

// --- Pools

ValueId pool2(Call &c, ValueId x, PoolKind kind, const Window &w, bool ceil_mode, bool with_pad) {
  Pool op;
  op.kind = kind;
  op.kernel = pair(w.kernel);
  op.stride = pair(w.stride);
  op.dilation = pair(w.dilation);
  op.pad = pads(w);
  op.ceil_mode = ceil_mode;
  op.count_include_pad = with_pad;
  return c.add(op, {x});
}

// Windows are products of intervals, so that a pool over three dimensions is one over two of them
// and then one over the third.
ValueId pool(Call &c, ValueId x, PoolKind kind, const Window &w, bool ceil_mode, bool with_pad) {
  if (w.rank() == 2) return pool2(c, x, kind, w, ceil_mode, with_pad);
  const Shape s = c.shape(x);
  if (w.rank() == 1) {
    const ValueId y =
        pool2(c, c.reshape(x, {s[0], s[1], 1, s[2]}), kind, flat(w), ceil_mode, with_pad);
    const Shape out = c.shape(y);
    return c.reshape(y, {out[0], out[1], out[3]});
  }
  const ValueId planes =
      pool2(c, c.reshape(x, {s[0], s[1] * s[2], s[3], s[4]}), kind, planar(w), ceil_mode, with_pad);
  const Shape p = c.shape(planes);
  Window deep;
  deep.kernel = {w.kernel[0], 1};
  deep.stride = {w.stride[0], 1};
  deep.dilation = {w.dilation[0], 1};
  deep.before = {w.before[0], 0};
  deep.after = {w.after[0], 0};
  const ValueId y =
      pool2(c, c.reshape(planes, {s[0], s[1], s[2], p[2] * p[3]}), kind, deep, ceil_mode, with_pad);
  return c.reshape(y, {s[0], s[1], c.shape(y)[2], p[2], p[3]});
}

ValueId windowed(Call &c, ValueId x, PoolKind kind) {
  const Window w = read_window(c, spatial(c, x), {});
  return pool(c, x, kind, w, c.flag("ceil_mode"), c.flag("count_include_pad"));
}

Values max_pool(Call &c) {
  if (c.wants(1)) c.unsupported("the indices of maxima");
  return {windowed(c, c.input(0), PoolKind::max)};
}
Values average_pool(Call &c) { return {windowed(c, c.input(0), PoolKind::average)}; }

// (sum |x|^p)^(1/p)
template <typename Sum> Values norm_of(Call &c, const Sum &sum) {
  const float p = c.opset < 2 ? c.number("p", 2) : float(c.integer("p", 2));
  const ValueId x = c.input(0);
  if (p == 2) return {c.unary(UnaryKind::sqrt, sum(c.binary(BinaryKind::mul, x, x)))};
  const ValueId magnitude = c.unary(UnaryKind::abs, x);
  if (p == 1) return {sum(magnitude)};
  const ValueId total = sum(c.binary(BinaryKind::pow, magnitude, c.scalar(p)));
  return {c.binary(BinaryKind::pow, total, c.scalar(1 / p))};
}
Values lp_pool(Call &c) {
  return norm_of(c, [&](ValueId x) { return windowed(c, x, PoolKind::sum); });
}

std::vector<int64_t> spatial_axes(Call &c, ValueId x) {
  if (c.rank(x) < 3)
    c.invalid("nothing to pool", "N,C and spatial dimensions", to_string(c.shape(x)));
  std::vector<int64_t> axes;
  for (int64_t d = 2; d < c.rank(x); ++d) axes.push_back(d);
  return axes;
}
template <PoolKind pooled, ReduceKind reduced> Values global_pool(Call &c) {
  const ValueId x = c.input(0);
  if (c.rank(x) == 4) return {c.add(GlobalPool{pooled}, {x})};
  return {c.add(Reduce{reduced, spatial_axes(c, x)}, {x})};
}
Values global_lp_pool(Call &c) {
  return norm_of(
      c, [&](ValueId x) { return c.add(Reduce{ReduceKind::sum, spatial_axes(c, x)}, {x}); });
}

} // namespace

std::span<const HandlerEntry> window_handlers() {
  static constexpr HandlerEntry table[] = {
      {"AveragePool", average_pool,
       "auto_pad ceil_mode@10 count_include_pad@7 dilations@19 kernel_shape pads strides"},
      {"Conv", conv, "auto_pad dilations group kernel_shape pads strides"},
      {"ConvTranspose", conv_transpose,
       "auto_pad dilations group kernel_shape output_padding output_shape pads strides"},
      {"GlobalAveragePool", global_pool<PoolKind::average, ReduceKind::mean>},
      {"GlobalLpPool", global_lp_pool, "p"},
      {"GlobalMaxPool", global_pool<PoolKind::max, ReduceKind::max>},
      {"LpPool", lp_pool, "auto_pad ceil_mode@18 dilations@18 kernel_shape p pads strides"},
      {"MaxPool", max_pool,
       "auto_pad ceil_mode@10 dilations@10 kernel_shape pads ~storage_order@8 strides"},
  };
  return table;
}

} // namespace lathe::core::onnx
