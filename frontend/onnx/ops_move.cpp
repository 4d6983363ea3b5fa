// Ops that only move elements or make constants.
#include "frontend/onnx/import.h"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>

namespace lathe::core::onnx {
namespace {

// A list that old opsets keep in an attribute and new ones, from `since` on, in an input.
std::optional<std::vector<int64_t>> list(Call &c, Bytes attribute, size_t input, int64_t since) {
  if (c.opset >= since) {
    if (!c.has(input)) return std::nullopt;
    return c.known_integers(input);
  }
  if (!c.has_attribute(attribute)) return std::nullopt;
  return c.integers(attribute);
}

Values concat(Call &c) {
  const Values parts = c.inputs();
  if (parts.empty()) c.invalid("a concat of nothing");
  return {c.add(Concat{c.integer("axis", 1)}, parts)};
}

Values split(Call &c) {
  const ValueId x = c.input(0);
  const int64_t axis = c.axis(c.integer("axis", 0), c.rank(x)), extent = c.shape(x)[size_t(axis)];
  auto sizes = list(c, "split", 1, 13);
  if (!sizes && c.has(1)) sizes = c.known_integers(1); // opset 1 knew both
  if (!sizes) { // equal parts, the last one smaller if need be
    const auto parts = int64_t(c.output_count());
    if (c.has_attribute("num_outputs") && c.integer("num_outputs", 0) != parts)
      c.invalid("num_outputs and outputs disagree");
    const int64_t each = (extent + parts - 1) / parts;
    sizes.emplace();
    for (int64_t i = 0; i < parts; ++i)
      sizes->push_back(std::clamp<int64_t>(extent - i * each, 0, each));
  }
  if (sizes->size() < c.output_count())
    c.invalid("more outputs than parts", fmt::format("{}", sizes->size()),
              fmt::format("{}", c.output_count()));
  return c.add_all(Split{axis, *sizes}, {x});
}

Values slice(Call &c) {
  const ValueId x = c.input(0);
  auto starts = list(c, "starts", 1, 10), ends = list(c, "ends", 2, 10);
  auto axes = list(c, "axes", 3, 10);
  if (!starts || !ends) c.invalid("a slice needs starts and ends");
  const size_t n = starts->size();
  if (!axes) {
    axes.emplace(n);
    std::iota(axes->begin(), axes->end(), int64_t{0});
  }
  std::vector<int64_t> steps(n, 1);
  if (c.opset >= 10 && c.has(4)) steps = c.known_integers(4);
  // Backwards from before the first element is from the first: not NumPy's rule, but ONNX's.
  for (size_t i = 0; i < n && axes->size() == n && steps.size() == n; ++i)
    if (steps[i] < 0)
      (*starts)[i] = std::max((*starts)[i], -c.shape(x)[size_t(c.axis((*axes)[i], c.rank(x)))]);
  return {c.add(Slice{*axes, *starts, *ends, steps}, {x})};
}

// Padding by what lies inside: each output position's source, as an index.
int64_t mirrored(int64_t i, int64_t extent) {
  if (extent == 1) return 0;
  const int64_t period = 2 * (extent - 1), phase = ((i % period) + period) % period;
  return phase < extent ? phase : period - phase;
}

Values pad(Call &c) {
  ValueId x = c.input(0);
  const auto rank = size_t(c.rank(x));
  auto pads = list(c, c.opset < 2 ? "paddings" : "pads", 1, 11);
  if (!pads) c.invalid("a pad needs paddings");
  const Bytes mode = c.text("mode", "constant");
  std::vector<int64_t> axes(rank);
  std::iota(axes.begin(), axes.end(), int64_t{0});
  if (c.has(3)) axes = c.axes(c.known_integers(3), int64_t(rank));
  if (pads->size() != 2 * axes.size())
    c.invalid("wrong number of paddings", fmt::format("{}", 2 * axes.size()),
              fmt::format("{}", pads->size()));
  float value = 0;
  if (c.opset < 11)
    value = c.number("value", 0);
  else if (c.has(2))
    value = c.known_number(2);
  constexpr int64_t most = 1 << 24;
  for (int64_t p : *pads)
    if (p < -most || p > most) c.invalid("bad padding", "", fmt::format("{}", p));
  if (mode != "constant" && mode != "edge" && mode != "reflect" && mode != "wrap")
    c.unsupported("a mode of padding", "constant, edge, reflect or wrap", clean(mode));
  Pad op{std::vector<int64_t>(rank), std::vector<int64_t>(rank), value};
  bool constant = false;
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto a = size_t(axes[i]);
    const int64_t before = (*pads)[i], after = (*pads)[i + axes.size()], extent = c.shape(x)[a];
    if (before < 0 || after < 0)
      x = c.pad_or_crop(x, a, std::min<int64_t>(before, 0), std::min<int64_t>(after, 0));
    op.before[a] = std::max<int64_t>(0, before);
    op.after[a] = std::max<int64_t>(0, after);
    if (mode == "constant" || (op.before[a] == 0 && op.after[a] == 0)) {
      constant = constant || op.before[a] > 0 || op.after[a] > 0;
      continue;
    }
    const int64_t kept = c.shape(x)[a];
    if (extent < 1 || kept < 1) c.invalid("padding by the edge of nothing");
    c.spend(kept + op.before[a] + op.after[a]);
    std::vector<int64_t> sources;
    for (int64_t o = -op.before[a]; o < kept + op.after[a]; ++o)
      sources.push_back(mode == "edge"   ? std::clamp<int64_t>(o, 0, kept - 1)
                        : mode == "wrap" ? ((o % kept) + kept) % kept
                                         : mirrored(o, kept));
    const auto count = int64_t(sources.size());
    x = c.add(Gather{int64_t(a)}, {x, c.constant(Tensor::of(std::move(sources), {count}))});
    op.before[a] = op.after[a] = 0;
  }
  if (constant) x = c.add(op, {x});
  return {x == c.input(0) ? c.unary(UnaryKind::identity, x) : x};
}

Values reshape(Call &c) {
  const ValueId x = c.input(0);
  auto target = list(c, "shape", 1, 5);
  if (!target) c.invalid("a reshape needs a shape");
  Reshape op{*target};
  if (c.flag("allowzero") && std::ranges::count(*target, 0)) {
    // A zero is a size: nothing is copied, and nothing is left open.
    for (int64_t d : *target)
      if (d < 0) c.invalid("a reshape with a zero and an open dimension");
    if (element_count(c.shape(x)) != 0) c.invalid("reshape changes the number of elements");
    return {c.reshape(x, *target)}; // nothing of x is left
  }
  // What stays the same in front is copied, so that it may be another batch.
  for (size_t d = 0; d < op.shape.size() && d < c.shape(x).size(); ++d) {
    if (op.shape[d] != 0 && op.shape[d] != c.shape(x)[d]) break;
    op.shape[d] = 0;
  }
  return {c.add(op, {x})};
}

Values flatten(Call &c) { return {c.add(Flatten{c.integer("axis", 1)}, {c.input(0)})}; }

Values transpose(Call &c) {
  const ValueId x = c.input(0);
  std::vector<int64_t> perm = c.integers("perm");
  if (perm.empty())
    for (int64_t d = c.rank(x); d-- > 0;) perm.push_back(d);
  return {c.add(Transpose{perm}, {x})};
}

Values squeeze(Call &c) {
  const ValueId x = c.input(0);
  auto given = list(c, "axes", 1, 13);
  std::vector<bool> gone(c.shape(x).size());
  if (given)
    for (int64_t a : c.axes(*given, c.rank(x))) {
      if (c.shape(x)[size_t(a)] != 1)
        c.invalid("squeezed dimensions have one element", "", to_string(c.shape(x)));
      gone[size_t(a)] = true;
    }
  Shape shape;
  for (size_t d = 0; d < gone.size(); ++d)
    if (!gone[d] && (given || c.shape(x)[d] != 1)) shape.push_back(c.shape(x)[d]);
  return {c.add(Reshape{shape}, {x})};
}

Values unsqueeze(Call &c) {
  const ValueId x = c.input(0);
  auto given = list(c, "axes", 1, 13);
  if (!given) c.invalid("unsqueeze needs axes");
  const int64_t rank = c.rank(x) + int64_t(given->size());
  if (rank > 64) c.invalid("too many dimensions");
  Shape shape(size_t(rank), 0);
  for (int64_t a : c.axes(*given, rank)) shape[size_t(a)] = 1;
  size_t next = 0;
  for (int64_t &d : shape)
    if (d == 0) d = c.shape(x)[next++];
  return {c.add(Reshape{shape}, {x})};
}

Values expand(Call &c) { return {c.add(Expand{c.known_integers(1)}, {c.input(0)})}; }

// One axis after the other: a dimension of one is expanded, others are gathered again and again.
ValueId tile(Call &c, ValueId x, const std::vector<int64_t> &repeats) {
  if (int64_t(repeats.size()) != c.rank(x))
    c.invalid("tile needs one number per dimension", fmt::format("{}", c.rank(x)),
              fmt::format("{}", repeats.size()));
  Shape wide(repeats.size(), 1);
  for (size_t d = 0; d < repeats.size(); ++d) {
    const int64_t extent = c.shape(x)[d], most = 1 << 22;
    if (repeats[d] < 0 || (extent > 0 && repeats[d] > most / extent))
      c.invalid("bad number of repeats", fmt::format("at most {} elements", most),
                fmt::format("{} times {}", repeats[d], extent));
    if (repeats[d] == 1) continue;
    if (extent == 1) {
      wide[d] = repeats[d];
      continue;
    }
    c.spend(extent * repeats[d]);
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < extent * repeats[d]; ++i) indices.push_back(i % extent);
    const auto count = int64_t(indices.size());
    x = c.add(Gather{int64_t(d)}, {x, c.constant(Tensor::of(std::move(indices), {count}))});
  }
  return c.add(Expand{wide}, {x});
}
Values tile(Call &c) {
  const ValueId x = c.input(0);
  if (c.opset >= 6) return {tile(c, x, c.known_integers(1))};
  std::vector<int64_t> repeats(c.shape(x).size(), 1);
  const int64_t axis = c.axis(c.known_integer(2), c.rank(x));
  repeats[size_t(axis)] = c.known_integer(1);
  return {tile(c, x, repeats)};
}

Values gather(Call &c) {
  const ValueId x = c.input(0), indices = c.input(1);
  const int64_t axis = c.axis(c.integer("axis", 0), c.rank(x));
  if (c.is_constant(indices)) {
    const Tensor known = c.known(1);
    const int64_t extent = c.shape(x)[size_t(axis)];
    for (int64_t i = 0; i < known.size(); ++i) {
      const int64_t index = known.dtype() == DType::i64   ? known.as<int64_t>()[size_t(i)]
                            : known.dtype() == DType::i32 ? int64_t{known.as<int32_t>()[size_t(i)]}
                                                          : -extent - 1;
      if (index < -extent || index >= extent)
        c.invalid("an index outside of the gathered dimension",
                  fmt::format("{} to {}", -extent, extent - 1), fmt::format("{}", index));
    }
  }
  return {c.add(Gather{axis}, {x, indices})};
}

Values dropout(Call &c) {
  const ValueId x = c.input(0);
  bool training = c.opset < 7 && c.has_attribute("is_test") && !c.flag("is_test") && c.wants(1);
  if (c.opset >= 12 && c.has(2)) {
    const Tensor flag = c.known(2);
    training = flag.dtype() != DType::boolean || flag.size() != 1 || flag.as<uint8_t>()[0];
  }
  float rate = c.opset < 12 ? c.number("ratio", 0.5f) : c.has(1) ? c.known_number(1) : 0.5f;
  if (training && rate != 0) c.unsupported("dropout in training mode", Obstacle::training_mode);
  Values results{c.add(Dropout{rate}, {x})};
  if (c.wants(1)) { // everything passes
    ValueId ones = c.filled(1, c.shape(x));
    results.push_back(c.opset < 10 ? ones : c.cast(ones, DType::boolean));
  }
  return results;
}

// --- Constants

Values constant(Call &c) {
  static constexpr Bytes unread[] = {"sparse_value", "value_string", "value_strings"};
  for (Bytes name : unread)
    if (c.has_attribute(name)) c.unsupported(fmt::format("constants of the form {}", name));
  if (c.has_attribute("value_float"))
    return {c.constant(Tensor::of({c.number("value_float", 0)}, {}))};
  if (c.has_attribute("value_int"))
    return {c.constant(Tensor::of(std::vector<int64_t>{c.integer("value_int", 0)}, {}))};
  if (c.has_attribute("value_floats")) {
    std::vector<float> values = c.numbers("value_floats");
    const auto n = int64_t(values.size());
    return {c.constant(Tensor::of(std::move(values), {n}))};
  }
  if (c.has_attribute("value_ints")) {
    std::vector<int64_t> values = c.integers("value_ints");
    const auto n = int64_t(values.size());
    return {c.constant(Tensor::of(std::move(values), {n}))};
  }
  return {c.constant(c.tensor("value"))};
}

Values constant_of_shape(Call &c) {
  const Shape shape = c.known_integers(0);
  if (auto count = checked_element_count(shape); !count)
    c.invalid("impossible shape of a constant", "", to_string(shape));
  const Tensor value = c.has_attribute("value") ? c.tensor("value") : Tensor::splat(0, {1});
  if (value.size() != 1) c.invalid("the value of a filled constant has one element");
  if (value.dtype() == DType::f32 && c.unbinds_weights() && element_count(shape) > 1)
    return {c.weight(named_constant(c.result_name(), {DType::f32, shape}))};
  if (value.dtype() == DType::f32) return {c.filled(value.f32()[0], shape)};
  return {c.add(Expand{shape}, {c.constant(value.reshaped({}))})};
}

std::pair<int64_t, int64_t> range_of_shape(Call &c, int64_t rank) {
  auto bound = [&](Bytes name, int64_t otherwise) {
    const int64_t value = c.integer(name, otherwise);
    return std::clamp<int64_t>(value < 0 ? value + rank : value, 0, rank);
  };
  return {bound("start", 0), bound("end", rank)};
}
Values shape(Call &c) {
  const Shape &x = c.shape(c.input(0));
  auto [begin, end] = range_of_shape(c, int64_t(x.size()));
  std::vector<int64_t> sizes;
  for (int64_t d = begin; d < end; ++d) sizes.push_back(x[size_t(d)]);
  const auto n = int64_t(sizes.size());
  return {c.constant(Tensor::of(std::move(sizes), {n}))};
}
Values size(Call &c) {
  return {c.constant(Tensor::of(std::vector<int64_t>{element_count(c.shape(c.input(0)))}, {}))};
}

// --- Blocks of pixels and channels

int64_t block_size(Call &c) {
  const int64_t block = c.integer("blocksize", 0);
  if (c.rank(c.input(0)) != 4) c.invalid("the input has the wrong rank", "4 dimensions");
  if (block < 1 || block > 4096) c.invalid("bad block size", "", fmt::format("{}", block));
  return block;
}
Values depth_to_space(Call &c) {
  const ValueId x = c.input(0);
  const int64_t b = block_size(c);
  const Shape s = c.shape(x);
  const Bytes mode = c.text("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") c.invalid("bad mode", "DCR or CRD", clean(mode));
  if (s[1] % (b * b)) c.invalid("channels do not divide into blocks");
  const int64_t depth = s[1] / (b * b);
  const ValueId moved =
      mode == "DCR"
          ? c.transpose(c.reshape(x, {s[0], b, b, depth, s[2], s[3]}), {0, 3, 4, 1, 5, 2})
          : c.transpose(c.reshape(x, {s[0], depth, b, b, s[2], s[3]}), {0, 1, 4, 2, 5, 3});
  return {c.reshape(moved, {s[0], depth, s[2] * b, s[3] * b})};
}
Values space_to_depth(Call &c) {
  const ValueId x = c.input(0);
  const int64_t b = block_size(c);
  const Shape s = c.shape(x);
  if (s[2] % b || s[3] % b) c.invalid("the picture does not divide into blocks");
  const Bytes mode = c.text("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") c.invalid("bad mode", "DCR or CRD", clean(mode));
  const std::vector<int64_t> dcr{0, 3, 5, 1, 2, 4}, crd{0, 1, 3, 5, 2, 4};
  const ValueId moved =
      c.transpose(c.reshape(x, {s[0], s[1], s[2] / b, b, s[3] / b, b}), mode == "DCR" ? dcr : crd);
  return {c.reshape(moved, {s[0], s[1] * b * b, s[2] / b, s[3] / b})};
}

} // namespace

std::span<const HandlerEntry> move_handlers() {
  static constexpr HandlerEntry table[] = {
      {"Concat", concat, "axis"},
      {"Constant", constant,
       "sparse_value@11 value value_float@12 value_floats@12 value_int@12 value_ints@12 "
       "value_string@12 value_strings@12"},
      {"ConstantOfShape", constant_of_shape, "value"},
      {"DepthToSpace", depth_to_space, "blocksize mode@11"},
      {"Dropout", dropout, "~consumed_inputs@-5 is_test@-6 ratio@-11 ~seed@12"},
      {"Expand", expand},
      {"Flatten", flatten, "axis"},
      {"Gather", gather, "axis"},
      {"Pad", pad, "mode paddings@-1 pads@2-10 value@-10"},
      {"Reshape", reshape, "allowzero@14 ~consumed_inputs@-4 shape@-4"},
      {"Shape", shape, "end@15 start@15"},
      {"Size", size},
      {"Slice", slice, "axes@-9 ends@-9 starts@-9"},
      {"SpaceToDepth", space_to_depth, "blocksize mode@28"},
      {"Split", split, "axis num_outputs@18 split@-12"},
      {"Squeeze", squeeze, "axes@-12"},
      {"Tile", tile},
      {"Transpose", transpose, "perm"},
      {"Unsqueeze", unsqueeze, "axes@-12"},
  };
  return table;
}

} // namespace lathe::core::onnx
