// Resize and Upsample: one axis after the other, each output position a weighted sum of a few input
// positions, which is one gather per tap. Formulas: the operator's documentation, and Keys 1981
// ("Cubic convolution interpolation for digital image processing") for the cubic kernel. Where the
// documentation leaves a choice, this is what ONNX Runtime and PyTorch compute: lengths and
// positions in f32, which decides what is nearest, and formulas with the resized length in whole
// elements.
#include "frontend/onnx/import.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace lathe::core::onnx {
namespace {

constexpr int64_t most_out = 1 << 24;

struct Method {
  enum Kind { nearest, linear, cubic } kind = nearest;
  // `rounding` also knows "simple", which is opset 10's: up where an axis shrinks, else down.
  Bytes coordinates = "half_pixel", rounding = "round_prefer_floor";
  double a = -0.75; // of the cubic kernel
  bool exclude_outside = false, antialias = false;
  float outside = 0; // what tf_crop_and_resize sees beyond the picture
};
struct AxisChange {
  int64_t in, out;
  float scale;
  float begin = 0, end = 1; // the part of the axis that tf_crop_and_resize sees
};

// Where output position i lies on the input axis.
float source(const Method &m, const AxisChange &x, int64_t i) {
  const auto at = float(i), in = float(x.in), out = float(x.out);
  if (m.coordinates == "asymmetric") return at / x.scale;
  if (m.coordinates == "align_corners") return x.out > 1 ? at * (in - 1) / (out - 1) : 0;
  if (m.coordinates == "pytorch_half_pixel") return x.out > 1 ? (at + 0.5f) / x.scale - 0.5f : 0;
  if (m.coordinates == "tf_half_pixel_for_nn") return (at + 0.5f) / x.scale;
  if (m.coordinates == "tf_crop_and_resize")
    return x.out > 1 ? x.begin * (in - 1) + at * (x.end - x.begin) * (in - 1) / (out - 1)
                     : 0.5f * (x.begin + x.end) * (in - 1);
  const float half = (at + 0.5f) / x.scale - 0.5f;
  if (m.coordinates == "half_pixel_symmetric") // the middle stays the middle
    return half + in / 2 * (1 - out / (x.scale * in));
  return half;
}

int64_t nearest(const Method &m, const AxisChange &x, float at) {
  const float down = std::floor(at), up = std::ceil(at);
  if (m.rounding == "floor") return int64_t(down);
  if (m.rounding == "ceil") return int64_t(up);
  if (m.rounding == "simple") return int64_t(x.scale < 1 ? up : down);
  if (at - down == up - at) return int64_t(m.rounding == "round_prefer_ceil" ? up : down);
  return int64_t(std::round(at));
}

double kernel(const Method &m, double distance) {
  const double d = std::abs(distance), a = m.a;
  if (m.kind == Method::linear) return std::max(0.0, 1 - d);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

// With antialias the kernel widens to cover all that an output position stands for.
double narrowing(const Method &m, const AxisChange &x) {
  return m.antialias ? std::min(1.0f, x.scale) : 1;
}
double reach(const Method &m, const AxisChange &x) {
  return (m.kind == Method::linear ? 1 : 2) / narrowing(m, x);
}

// The taps of one output position: input positions, not yet inside the axis, and weights.
struct Tap {
  int64_t position;
  double weight;
};
std::vector<Tap> taps_at(const Method &m, const AxisChange &x, int64_t i) {
  const float place = source(m, x, i);
  if (m.kind == Method::nearest) return {{nearest(m, x, place), 1}};
  const double at = place;
  const double narrow = narrowing(m, x);
  const auto first = int64_t(std::floor(-reach(m, x))) + 1;
  const double base =
      std::ceil(at) - 1; // as many positions below as above, one of them at whole `at`
  std::vector<Tap> taps;
  double sum = 0;
  for (int64_t k = first; k < 2 - first; ++k) {
    const auto position = int64_t(base) + k;
    double weight = kernel(m, (double(position) - at) * narrow);
    if (m.exclude_outside && (position < 0 || position >= x.in)) weight = 0;
    taps.push_back({position, weight});
    sum += weight;
  }
  if (m.antialias || m.exclude_outside)
    for (Tap &tap : taps) tap.weight /= sum;
  return taps;
}

ValueId resize_axis(Call &c, ValueId x, int64_t axis, const Method &m, const AxisChange &change) {
  if (m.kind != Method::nearest && reach(m, change) > 32)
    c.unsupported("a resize by over 64 taps along an axis");
  c.spend(8 * change.out);
  std::vector<std::vector<Tap>> positions;
  size_t taps = 0;
  for (int64_t i = 0; i < change.out; ++i) {
    positions.push_back(taps_at(m, change, i));
    taps = std::max(taps, positions.back().size());
  }
  Shape along(size_t(c.rank(x) - axis), 1);
  along[0] = change.out;
  std::optional<ValueId> sum;
  for (size_t t = 0; t < taps; ++t) {
    std::vector<int64_t> indices;
    std::vector<float> weights;
    for (const auto &list : positions) {
      indices.push_back(std::clamp<int64_t>(list[t].position, 0, change.in - 1));
      weights.push_back(float(list[t].weight));
    }
    if (std::ranges::all_of(weights, [](float w) { return w == 0; }) && (sum || t + 1 < taps))
      continue;
    const bool plain = std::ranges::all_of(weights, [](float w) { return w == 1; });
    ValueId by = c.constant(Tensor::of(std::move(indices), {change.out}));
    ValueId part = c.add(Gather{axis}, {x, by});
    if (!plain)
      part = c.binary(BinaryKind::mul, part, c.constant(Tensor::of(std::move(weights), along)));
    sum = sum ? c.binary(BinaryKind::add, *sum, part) : part;
  }
  if (m.coordinates != "tf_crop_and_resize") return *sum;
  std::vector<float> inside, beyond;
  for (int64_t i = 0; i < change.out; ++i) {
    const float at = source(m, change, i);
    const bool in = at >= 0 && at <= float(change.in - 1);
    inside.push_back(in);
    beyond.push_back(in ? 0 : m.outside);
  }
  if (std::ranges::all_of(inside, [](float v) { return v == 1; })) return *sum;
  ValueId kept = c.binary(BinaryKind::mul, *sum, c.constant(Tensor::of(std::move(inside), along)));
  return c.binary(BinaryKind::add, kept, c.constant(Tensor::of(std::move(beyond), along)));
}

ValueId resize(Call &c, ValueId x, const std::vector<int64_t> &axes, const Method &m,
               const std::vector<AxisChange> &changes) {
  if (c.type(x).dtype != DType::f32) c.unsupported("a resize of integers");
  const ValueId before = x;
  for (size_t i = 0; i < axes.size(); ++i) {
    const AxisChange &change = changes[i];
    if (change.in < 1 || change.out < 1 || change.out > most_out || !(change.scale > 0))
      c.invalid("bad scale or size of a resize", "more than nothing, of something",
                fmt::format("{} to {}, scale {}", change.in, change.out, change.scale));
    const bool whole =
        m.coordinates == "tf_crop_and_resize" && (change.begin != 0 || change.end != 1);
    if (change.in == change.out && change.scale == 1 && !whole) continue;
    x = resize_axis(c, x, axes[i], m, change);
  }
  return x == before ? c.unary(UnaryKind::identity, x) : x;
}

int64_t scaled(Call &c, int64_t in, float scale) {
  const float out = std::floor(float(in) * scale);
  if (!(out >= 0 && out <= 1e9)) c.invalid("bad scale", "", fmt::format("{}", scale));
  return int64_t(out);
}

Method::Kind kind_of(Call &c) {
  const Bytes mode = c.text("mode", "nearest");
  if (mode == "nearest") return Method::nearest;
  if (mode == "linear" || mode == "bilinear") return Method::linear;
  if (mode != "cubic") c.invalid("bad mode", "nearest, linear or cubic", clean(mode));
  return Method::cubic;
}

Values upsample(Call &c) {
  const ValueId x = c.input(0);
  Method m{.kind = kind_of(c), .coordinates = "asymmetric", .rounding = "floor"};
  std::vector<float> scales;
  if (c.opset < 7)
    scales = {1, 1, c.number("height_scale", 1), c.number("width_scale", 1)};
  else
    scales = c.opset < 9 ? c.numbers("scales") : c.known_numbers(1);
  if (int64_t(scales.size()) != c.rank(x)) c.invalid("an upsample needs one scale per dimension");
  std::vector<int64_t> axes;
  std::vector<AxisChange> changes;
  for (size_t d = 0; d < scales.size(); ++d) {
    const int64_t in = c.shape(x)[d];
    axes.push_back(int64_t(d));
    changes.push_back({in, scaled(c, in, scales[d]), scales[d]});
  }
  return {resize(c, x, axes, m, changes)};
}

Method read_method(Call &c) {
  Method m{.kind = kind_of(c)};
  if (c.opset < 11) {
    m.coordinates = "asymmetric";
    m.rounding = "simple";
    return m;
  }
  m.coordinates = c.text("coordinate_transformation_mode", "half_pixel");
  m.rounding = c.text("nearest_mode", "round_prefer_floor");
  m.a = c.number("cubic_coeff_a", -0.75f);
  m.exclude_outside = c.flag("exclude_outside");
  m.antialias = c.flag("antialias");
  m.outside = c.number("extrapolation_value", 0);
  static constexpr Bytes coordinates[] = {
      "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
      "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"};
  static constexpr Bytes roundings[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
  if (!std::ranges::count(coordinates, m.coordinates))
    c.unsupported("a mode of coordinates", "", clean(m.coordinates));
  if (!std::ranges::count(roundings, m.rounding))
    c.unsupported("a mode of rounding", "", clean(m.rounding));
  return m;
}

Values resize(Call &c) {
  const ValueId x = c.input(0);
  const int64_t rank = c.rank(x);
  const Method m = read_method(c);
  std::vector<int64_t> axes;
  if (c.has_attribute("axes")) {
    axes = c.axes(c.integers("axes"), rank);
  } else {
    for (int64_t d = 0; d < rank; ++d) axes.push_back(d);
  }
  const size_t n = axes.size(), scales_at = c.opset < 11 ? 1 : 2;
  // An input may be there and empty, as if it were not.
  std::vector<float> scales;
  if (c.has(scales_at)) scales = c.known_numbers(scales_at);
  std::vector<int64_t> sizes;
  if (c.opset >= 11 && c.has(3)) sizes = c.known_integers(3);
  if (scales.size() + sizes.size() != n || (!scales.empty() && !sizes.empty()))
    c.invalid("a resize needs a scale or a size per axis", fmt::format("{}", n),
              fmt::format("{} scales, {} sizes", scales.size(), sizes.size()));
  std::vector<float> regions;
  if (m.coordinates == "tf_crop_and_resize") {
    regions = c.known_numbers(1);
    if (regions.size() != 2 * n) c.invalid("a region needs begins and ends");
    for (float r : regions)
      if (!(std::abs(r) <= 1 << 20)) c.invalid("bad region", "", fmt::format("{}", r));
  } else if (c.opset >= 11 && c.has(1)) {
    c.input(1); // a region that no other mode looks at
  }
  const Bytes policy = c.text("keep_aspect_ratio_policy", "stretch");
  if (policy != "stretch" && policy != "not_larger" && policy != "not_smaller")
    c.invalid("bad keep_aspect_ratio_policy", "stretch, not_larger or not_smaller", clean(policy));
  for (size_t i = 0; i < sizes.size(); ++i)
    if (sizes[i] < 1 || sizes[i] > most_out || c.shape(x)[size_t(axes[i])] < 1)
      c.invalid("bad size of a resize", fmt::format("1 to {}, of something", most_out),
                fmt::format("{} to {}", c.shape(x)[size_t(axes[i])], sizes[i]));
  std::optional<float> common; // one scale for all axes
  for (size_t i = 0; i < sizes.size() && policy != "stretch"; ++i) {
    const float scale = float(sizes[i]) / float(c.shape(x)[size_t(axes[i])]);
    if (!common || (policy == "not_larger" ? scale < *common : scale > *common)) common = scale;
  }
  std::vector<AxisChange> changes;
  for (size_t i = 0; i < n; ++i) {
    const int64_t in = c.shape(x)[size_t(axes[i])];
    AxisChange change{in, 0, 1};
    if (!scales.empty())
      change = {in, scaled(c, in, scales[i]), scales[i]};
    else if (common)
      change = {in, int64_t(std::round(*common * float(in))), *common};
    else
      change = {in, sizes[i], float(sizes[i]) / float(in)};
    if (!regions.empty()) {
      change.begin = regions[i];
      change.end = regions[i + n];
    }
    changes.push_back(change);
  }
  return {resize(c, x, axes, m, changes)};
}

} // namespace

std::span<const HandlerEntry> resize_handlers() {
  static constexpr HandlerEntry table[] = {
      {"Resize", resize,
       "antialias@18 axes@18 coordinate_transformation_mode@11 cubic_coeff_a@11 exclude_outside@11 "
       "extrapolation_value@11 keep_aspect_ratio_policy@18 mode nearest_mode@11"},
      {"Upsample", upsample, "height_scale@-6 mode scales@7-8 width_scale@-6"}};
  return table;
}

} // namespace lathe::core::onnx
