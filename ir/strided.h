// Walking several strided views of one index space at once: broadcasting, slices, transposes.
// Strides and offsets count elements.
#pragma once

#include "ir/tensor.h"

#include <array>

namespace lathe::core {

// Strides that read a tensor of `shape` as if broadcast to `to`: 0 along repeated dimensions.
inline std::vector<int64_t> broadcast_strides(const Shape &shape, const Shape &to) {
  std::vector<int64_t> own = row_major_strides(shape), strides(to.size(), 0);
  for (size_t i = 0; i < shape.size(); ++i)
    if (shape[i] != 1) strides[to.size() - shape.size() + i] = own[i];
  return strides;
}

// Visits every index of `shape` in row-major order, in rows as long as all views allow:
// body(offsets, length, strides within the row), one offset and one stride per view.
template <size_t views, typename Body>
void for_each_row(const Shape &shape, const std::array<std::vector<int64_t>, views> &strides,
                  const Body &body) {
  if (element_count(shape) == 0) return;
  using PerView = std::array<int64_t, views>;
  struct Dimension {
    int64_t extent;
    PerView step;
  };
  // A dimension joins the one before it if no view can tell the two from one longer dimension.
  std::vector<Dimension> dimensions;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 1) continue;
    Dimension next{shape[d], {}};
    bool joins = !dimensions.empty();
    for (size_t v = 0; v < views; ++v) {
      next.step[v] = strides[v][d];
      joins = joins && dimensions.back().step[v] == next.step[v] * next.extent;
    }
    if (joins) {
      next.extent *= dimensions.back().extent;
      dimensions.back() = next;
    } else {
      dimensions.push_back(next);
    }
  }
  Dimension row{1, {}};
  if (!dimensions.empty()) {
    row = dimensions.back();
    dimensions.pop_back();
  }
  PerView offsets{};
  std::vector<int64_t> index(dimensions.size(), 0);
  while (true) {
    body(offsets, row.extent, row.step);
    size_t d = dimensions.size();
    while (true) { // the odometer's next reading
      if (d == 0) return;
      const Dimension &wheel = dimensions[--d];
      for (size_t v = 0; v < views; ++v) offsets[v] += wheel.step[v];
      if (++index[d] < wheel.extent) break;
      for (size_t v = 0; v < views; ++v) offsets[v] -= wheel.step[v] * wheel.extent;
      index[d] = 0;
    }
  }
}

} // namespace lathe::core
