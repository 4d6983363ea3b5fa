// Ops that choose elements by indices or conditions that are known: choices among what is only
// known at run time become a Gather. Those that count or order elements are computed.
#include "frontend/onnx/known_elements.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <map>
#include <numeric>

namespace lathe::core::onnx {

ValueId pick(Call &c, ValueId a, std::optional<ValueId> b, std::vector<int64_t> indices,
             Shape shape) {
  const int64_t count_a = element_count(c.shape(a));
  c.spend(2 * int64_t(indices.size()));
  // Images that stay apart may be another number of them: one of an image's elements is chosen by
  // its place in the image.
  const bool one_image = !shape.empty() && shape[0] == 1 && c.rank(a) > 0 && c.shape(a)[0] == 1 &&
                         (!b || (c.rank(*b) > 0 && c.shape(*b)[0] == 1));
  const int64_t axis = one_image ? 1 : 0;
  auto row = [&](ValueId x) {
    const int64_t n = element_count(c.shape(x));
    return c.reshape(x, one_image ? Shape{1, n} : Shape{n});
  };
  ValueId all = row(a);
  if (b && std::ranges::any_of(indices, [&](int64_t i) { return i >= count_a; }))
    all = c.add(Concat{axis}, {all, row(*b)});
  const auto count = int64_t(indices.size());
  return c.reshape(c.add(Gather{axis}, {all, c.constant(Tensor::of(std::move(indices), {count}))}),
                   shape);
}

ValueId choose(Call &c, const Tensor &condition, ValueId x, ValueId y) {
  const auto first = condition.as<uint8_t>();
  std::vector<int64_t> indices(first.size());
  for (size_t i = 0; i < first.size(); ++i) indices[i] = int64_t(first[i] ? i : first.size() + i);
  return pick(c, x, y, std::move(indices), condition.shape());
}

namespace {

// From the front; throws if it is outside.
int64_t index_in(Call &c, int64_t index, int64_t extent) {
  if (index < -extent || index >= extent)
    c.invalid("an index outside of its dimension", fmt::format("{} to {}", -extent, extent - 1),
              fmt::format("{}", index));
  return index < 0 ? index + extent : index;
}
int64_t product(const Shape &shape, size_t begin, size_t end) {
  return std::accumulate(shape.begin() + int64_t(begin), shape.begin() + int64_t(end), int64_t{1},
                         std::multiplies<>());
}

// Every place of a shape in turn, the last dimension first.
bool next_place(std::vector<int64_t> &place, const Shape &shape) {
  for (size_t d = place.size(); d-- > 0;) {
    if (++place[d] < shape[d]) return true;
    place[d] = 0;
  }
  return false;
}

// Where the slices begin that rows of indices name, in elements of x, and how long they are.
struct Slices {
  std::vector<int64_t> begin;
  int64_t length = 0;
};
Slices slices_of(Call &c, const Shape &x, const Tensor &indices, size_t batch_dims) {
  const Shape &rows = indices.shape();
  if (rows.empty() || x.empty()) c.invalid("indices or data are scalars", "1 dimension or more");
  const auto k = size_t(std::max<int64_t>(0, rows.back()));
  if (batch_dims >= rows.size() || batch_dims + k > x.size())
    c.invalid("indices name more dimensions than there are", fmt::format("at most {}", x.size()),
              fmt::format("{}", batch_dims + k));
  for (size_t d = 0; d < batch_dims; ++d)
    if (rows[d] != x[d]) c.invalid("batch dimensions disagree", to_string(x), to_string(rows));
  const std::vector<int64_t> all = integers_of(c, indices);
  const int64_t count = product(rows, 0, rows.size() - 1), batches = product(rows, 0, batch_dims);
  c.spend(count);
  Slices s{{}, product(x, batch_dims + k, x.size())};
  for (int64_t row = 0; row < count; ++row) {
    int64_t at = batches > 0 ? row / (count / batches) : 0;
    for (size_t i = 0; i < k; ++i) {
      const int64_t extent = x[batch_dims + i];
      at = at * extent + index_in(c, all[size_t(row) * k + i], extent);
    }
    s.begin.push_back(at * s.length);
  }
  return s;
}

Values gather_nd(Call &c) {
  const ValueId x = c.input(0);
  const auto batch_dims = size_t(c.integer("batch_dims", 0));
  if (batch_dims >= c.shape(x).size()) c.invalid("bad batch_dims");
  const Tensor indices = c.known(1);
  const Slices s = slices_of(c, c.shape(x), indices, batch_dims);
  // Whole slices: rows of a table.
  const auto k = size_t(indices.shape().back());
  const Shape from = c.shape(x);
  const int64_t rows = product(from, 0, batch_dims + k);
  Shape shape(indices.shape().begin(), indices.shape().end() - 1), table{rows};
  shape.insert(shape.end(), from.begin() + int64_t(batch_dims + k), from.end());
  table.insert(table.end(), from.begin() + int64_t(batch_dims + k), from.end());
  std::vector<int64_t> chosen;
  for (int64_t begin : s.begin) chosen.push_back(s.length > 0 ? begin / s.length : 0);
  const auto count = int64_t(chosen.size());
  const ValueId picked =
      c.add(Gather{0}, {c.reshape(x, table), c.constant(Tensor::of(std::move(chosen), {count}))});
  return {c.reshape(picked, shape)};
}

// Indices of the same rank as x, into one of its dimensions: the element of x that each names.
std::vector<int64_t> elements_along(Call &c, const Shape &x, const Tensor &indices, int64_t axis) {
  const Shape &shape = indices.shape();
  if (shape.size() != x.size())
    c.invalid("indices have the wrong rank", fmt::format("{}", x.size()),
              fmt::format("{}", shape.size()));
  const std::vector<int64_t> all = integers_of(c, indices), strides = row_major_strides(x);
  std::vector<int64_t> chosen, place(shape.size());
  for (int64_t index : all) {
    int64_t at = 0;
    for (size_t d = 0; d < place.size(); ++d)
      at += strides[d] *
            (int64_t(d) == axis ? index_in(c, index, x[d]) : index_in(c, place[d], x[d]));
    chosen.push_back(at);
    next_place(place, shape);
  }
  return chosen;
}

Values gather_elements(Call &c) {
  const ValueId x = c.input(0);
  const Tensor indices = c.known(1);
  const int64_t axis = c.axis(c.integer("axis", 0), c.rank(x));
  c.spend(indices.size());
  return {pick(c, x, std::nullopt, elements_along(c, c.shape(x), indices, axis), indices.shape())};
}

// x with updates written, or added and so on, at elements.
ValueId scatter(Call &c, ValueId x, ValueId updates, const std::vector<int64_t> &elements) {
  if (c.type(x).dtype != c.type(updates).dtype) c.invalid("data and updates of different types");
  if (int64_t(elements.size()) != element_count(c.shape(updates)))
    c.invalid("updates of the wrong shape", fmt::format("{} elements", elements.size()),
              to_string(c.shape(updates)));
  const Bytes reduction = c.text("reduction", "none");
  const auto count = size_t(element_count(c.shape(x)));
  c.spend(int64_t(count));
  if (reduction == "none") { // of two updates of one element, the last
    std::vector<int64_t> chosen(count);
    std::iota(chosen.begin(), chosen.end(), int64_t{0});
    for (size_t i = 0; i < elements.size(); ++i) chosen[size_t(elements[i])] = int64_t(count + i);
    return pick(c, x, updates, std::move(chosen), c.shape(x));
  }
  const Tensor data = c.operand_value(x), more = c.operand_value(updates);
  return with_elements(data, [&]<typename T>(std::span<const T> from) {
    Tensor result(data.dtype(), data.shape());
    const std::span<T> to = result.as_mutable<T>();
    std::ranges::copy(from, to.begin());
    for (size_t i = 0; i < elements.size(); ++i) {
      T &y = to[size_t(elements[i])];
      const T update = more.as<T>()[i];
      if (reduction == "add")
        y = T(y + update);
      else if (reduction == "mul")
        y = T(y * update);
      else if (reduction == "max")
        y = std::max(y, update);
      else if (reduction == "min")
        y = std::min(y, update);
      else
        c.invalid("bad reduction", "none, add, mul, max or min", clean(reduction));
    }
    return c.constant(std::move(result));
  });
}

Values scatter_nd(Call &c) {
  const ValueId x = c.input(0), updates = c.input(2);
  const Slices s = slices_of(c, c.shape(x), c.known(1), 0);
  c.spend(element_count(c.shape(updates)));
  std::vector<int64_t> elements;
  if (int64_t(s.begin.size()) * s.length != element_count(c.shape(updates)))
    c.invalid("updates of the wrong shape",
              fmt::format("{} slices of {}", s.begin.size(), s.length),
              to_string(c.shape(updates)));
  for (int64_t begin : s.begin)
    for (int64_t i = 0; i < s.length; ++i) elements.push_back(begin + i);
  return {scatter(c, x, updates, elements)};
}
Values scatter_elements(Call &c) {
  const ValueId x = c.input(0), updates = c.input(2);
  const Tensor indices = c.known(1);
  const int64_t axis = c.axis(c.integer("axis", 0), c.rank(x));
  c.spend(indices.size());
  return {scatter(c, x, updates, elements_along(c, c.shape(x), indices, axis))};
}

// --- Parts of a tensor

Values trilu(Call &c) {
  const ValueId x = c.input(0);
  const int64_t rank = c.rank(x), offset = c.has(1) ? c.known_integer(1) : 0;
  const bool upper = c.flag("upper", true);
  if (rank < 2) c.invalid("the input has the wrong rank", "2 dimensions or more");
  const Shape shape = c.shape(x);
  const int64_t h = shape[size_t(rank - 2)], w = shape[size_t(rank - 1)];
  c.spend(element_count(shape));
  Tensor kept(DType::boolean, shape);
  for (int64_t i = 0; i < kept.size(); ++i) {
    const int64_t above = i % w - i / w % h; // how far right of the diagonal
    kept.as_mutable<uint8_t>()[size_t(i)] = upper ? above >= offset : above <= offset;
  }
  return {choose(c, kept, x, c.cast(c.filled(0, shape), c.type(x).dtype))};
}

Values compress(Call &c) {
  ValueId x = c.input(0);
  const bool whole = !c.has_attribute("axis");
  if (whole) x = c.reshape(x, {element_count(c.shape(x))});
  const int64_t axis = whole ? 0 : c.axis(c.integer("axis", 0), c.rank(x));
  const std::vector<int64_t> kept = integers_of(c, c.known(1));
  if (int64_t(kept.size()) > c.shape(x)[size_t(axis)])
    c.invalid("a condition longer than its dimension");
  std::vector<int64_t> indices;
  for (size_t i = 0; i < kept.size(); ++i)
    if (kept[i] != 0) indices.push_back(int64_t(i));
  const auto count = int64_t(indices.size());
  return {c.add(Gather{axis}, {x, c.constant(Tensor::of(std::move(indices), {count}))})};
}

Values reverse_sequence(Call &c) {
  const ValueId x = c.input(0);
  const int64_t time = c.axis(c.integer("time_axis", 0), c.rank(x)),
                batch = c.axis(c.integer("batch_axis", 1), c.rank(x));
  const std::vector<int64_t> lengths = c.known_integers(1);
  const Shape shape = c.shape(x);
  if (time == batch || int64_t(lengths.size()) != shape[size_t(batch)])
    c.invalid("one length per sequence", fmt::format("{}", shape[size_t(batch)]),
              fmt::format("{}", lengths.size()));
  const std::vector<int64_t> strides = row_major_strides(shape);
  c.spend(element_count(shape));
  std::vector<int64_t> chosen(size_t(element_count(shape))), place(shape.size());
  for (int64_t &element : chosen) {
    const int64_t length = lengths[size_t(place[size_t(batch)])];
    if (length < 0 || length > shape[size_t(time)]) c.invalid("a length outside of the sequence");
    element = 0;
    for (size_t d = 0; d < place.size(); ++d)
      element +=
          strides[d] * (int64_t(d) == time && place[d] < length ? length - 1 - place[d] : place[d]);
    next_place(place, shape);
  }
  return {pick(c, x, std::nullopt, std::move(chosen), shape)};
}

// --- What depends on all elements

Values cum_sum(Call &c) {
  const Tensor x = c.operand(0);
  const int64_t axis = c.axis(c.known_integer(1), c.rank(c.input(0)));
  const bool exclusive = c.flag("exclusive"), reverse = c.flag("reverse");
  c.spend(x.size());
  const int64_t step = row_major_strides(x.shape())[size_t(axis)], extent = x.shape()[size_t(axis)];
  return {with_elements(x, [&]<typename T>(std::span<const T> from) {
    Tensor result(x.dtype(), x.shape());
    const std::span<T> to = result.as_mutable<T>();
    for (int64_t i = 0; i < x.size(); ++i) {
      if (i / step % extent != 0) continue; // not the first of its row
      using Sum = std::conditional_t<std::is_floating_point_v<T>, double, uint64_t>;
      Sum sum = 0;
      for (int64_t k = 0; k < extent; ++k) {
        const auto at = size_t(i + step * (reverse ? extent - 1 - k : k));
        if (exclusive) to[at] = T(sum);
        sum += Sum(from[at]);
        if (!exclusive) to[at] = T(sum);
      }
    }
    return c.constant(std::move(result));
  })};
}

Values non_zero(Call &c) {
  const Tensor x = c.operand(0);
  const Shape &shape = x.shape();
  c.spend(x.size() * std::max<int64_t>(1, int64_t(shape.size())));
  std::vector<std::vector<int64_t>> places(shape.size());
  int64_t count = 0;
  with_elements(x, [&](auto elements) {
    std::vector<int64_t> place(shape.size());
    for (auto e : elements) {
      if (e != 0) {
        ++count;
        for (size_t d = 0; d < place.size(); ++d) places[d].push_back(place[d]);
      }
      next_place(place, shape);
    }
  });
  std::vector<int64_t> all;
  for (const auto &row : places) all.insert(all.end(), row.begin(), row.end());
  return {c.constant(Tensor::of(std::move(all), {int64_t(shape.size()), count}))};
}

// NaN is the largest; of equals the one with the lower index comes first.
template <typename T> bool before(T a, T b, bool largest) {
  if (a != a || b != b) return largest ? a != a && b == b : b != b && a == a;
  return largest ? a > b : a < b;
}

Values top_k(Call &c) {
  const Tensor x = c.operand(0);
  const int64_t axis = c.axis(c.integer("axis", -1), c.rank(c.input(0))),
                k = c.opset < 10 ? c.integer("k", -1) : c.known_integer(1),
                extent = x.shape()[size_t(axis)];
  const bool largest = c.flag("largest", true);
  if (k < 0 || k > extent) c.invalid("bad k", fmt::format("0 to {}", extent), fmt::format("{}", k));
  c.flag("sorted", true); // sorted is one of the orders that unsorted allows
  c.spend(2 * x.size());
  Shape shape = x.shape();
  shape[size_t(axis)] = k;
  const int64_t step = row_major_strides(x.shape())[size_t(axis)];
  Tensor values(x.dtype(), shape), places(DType::i64, shape);
  with_elements(x, [&]<typename T>(std::span<const T> from) {
    std::vector<int64_t> order(static_cast<size_t>(extent));
    const int64_t rows = extent > 0 ? x.size() / extent : 0;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t begin = row / step * step * extent + row % step;
      std::iota(order.begin(), order.end(), int64_t{0});
      std::ranges::stable_sort(order, [&](int64_t a, int64_t b) {
        return before(from[size_t(begin + a * step)], from[size_t(begin + b * step)], largest);
      });
      const int64_t to = row / step * step * k + row % step;
      for (int64_t i = 0; i < k; ++i) {
        values.as_mutable<T>()[size_t(to + i * step)] =
            from[size_t(begin + order[size_t(i)] * step)];
        places.as_mutable<int64_t>()[size_t(to + i * step)] = order[size_t(i)];
      }
    }
  });
  return {c.constant(std::move(values)), c.constant(std::move(places))};
}

// Different elements, sorted or in the order of their first places; along no axis.
Values unique(Call &c) {
  if (c.has_attribute("axis")) c.unsupported("unique slices along an axis");
  const Tensor x = c.operand(0);
  c.spend(4 * x.size());
  const bool sorted = c.flag("sorted", true);
  return with_elements(x, [&]<typename T>(std::span<const T> from) {
    std::map<T, std::vector<int64_t>> places;
    for (size_t i = 0; i < from.size(); ++i) {
      if (from[i] != from[i]) c.unsupported("unique elements with NaN");
      places[from[i]].push_back(int64_t(i));
    }
    std::vector<const std::vector<int64_t> *> groups;
    for (const auto &[value, group] : places) groups.push_back(&group);
    if (!sorted) std::ranges::sort(groups, {}, [](const auto *group) { return group->front(); });
    std::vector<int64_t> first, inverse(from.size()), counts;
    for (const auto *group : groups) {
      for (int64_t place : *group) inverse[size_t(place)] = int64_t(first.size());
      first.push_back(group->front());
      counts.push_back(int64_t(group->size()));
    }
    const auto n = int64_t(first.size());
    Tensor values(x.dtype(), {n});
    for (size_t i = 0; i < first.size(); ++i) values.as_mutable<T>()[i] = from[size_t(first[i])];
    return Values{c.constant(std::move(values)), c.constant(Tensor::of(std::move(first), {n})),
                  c.constant(Tensor::of(std::move(inverse), {x.size()})),
                  c.constant(Tensor::of(std::move(counts), {n}))};
  });
}

// --- Made of indices

Values one_hot(Call &c) {
  const Tensor indices = c.operand(0), values = c.known(2);
  const ValueId whole = c.cast(c.input(1), DType::i64); // of any type
  const Tensor depths = c.known_value(whole);
  if (depths.size() != 1 || depths.as<int64_t>()[0] < 0 || values.size() != 2)
    c.invalid("a depth and two values are needed");
  const int64_t depth = depths.as<int64_t>()[0], rank = int64_t(indices.shape().size()),
                axis = c.axis(c.integer("axis", -1), rank + 1);
  Shape shape = indices.shape();
  shape.insert(shape.begin() + axis, depth);
  auto count = checked_element_count(shape);
  if (!count) c.invalid("impossible shape", "", to_string(shape));
  c.spend(*count);
  const std::vector<int64_t> all = with_elements(indices, [](auto elements) {
    return std::vector<int64_t>(elements.begin(), elements.end());
  });
  const int64_t behind = product(shape, size_t(axis) + 1, shape.size());
  return {with_elements(values, [&]<typename T>(std::span<const T> off_on) {
    Tensor result(values.dtype(), shape);
    const std::span<T> to = result.as_mutable<T>();
    std::ranges::fill(to, off_on[0]);
    for (size_t i = 0; i < all.size(); ++i) {
      const int64_t index = all[i] < 0 ? all[i] + depth : all[i];
      if (index < 0 || index >= depth) continue; // beyond: all off
      const int64_t before = int64_t(i) / behind, rest = int64_t(i) % behind;
      to[size_t((before * depth + index) * behind + rest)] = off_on[1];
    }
    return c.constant(std::move(result));
  })};
}

Values eye_like(Call &c) {
  const ValueId x = c.input(0);
  if (c.rank(x) != 2) c.invalid("the input has the wrong rank", "2 dimensions");
  const Shape shape = c.shape(x);
  const int64_t offset = std::clamp(c.integer("k", 0), -shape[0], shape[1]);
  const auto dtype = c.has_attribute("dtype") ? graph_type(int32_t(c.integer("dtype", 0)))
                                              : std::optional(c.type(x).dtype);
  if (!dtype) c.unsupported("a type that Lathe does not compute with");
  c.spend(element_count(shape));
  Tensor result = Tensor::splat(0, shape);
  for (int64_t row = 0; row < shape[0]; ++row)
    if (row + offset >= 0 && row + offset < shape[1])
      result.f32_mutable()[size_t(row * shape[1] + row + offset)] = 1;
  return {c.cast(c.constant(std::move(result)), *dtype)};
}

} // namespace

std::span<const HandlerEntry> index_handlers() {
  static constexpr HandlerEntry table[] = {
      {"Compress", compress, "axis"},
      {"CumSum", cum_sum, "exclusive reverse"},
      {"EyeLike", eye_like, "dtype k"},
      {"GatherElements", gather_elements, "axis"},
      {"GatherND", gather_nd, "batch_dims@12"},
      {"NonZero", non_zero},
      {"OneHot", one_hot, "axis"},
      {"ReverseSequence", reverse_sequence, "batch_axis time_axis"},
      {"Scatter", scatter_elements, "axis"},
      {"ScatterElements", scatter_elements, "axis reduction@16"},
      {"ScatterND", scatter_nd, "reduction@16"},
      {"TopK", top_k, "axis k@-9 largest@11 sorted@11"},
      {"Trilu", trilu, "upper"},
      {"Unique", unique, "axis sorted"},
  };
  return table;
}

} // namespace lathe::core::onnx
