// The matrices of Winograd's minimal filtering: fewer multiplications for several neighbouring
// outputs of a small filter than one by one.
#pragma once

#include "ir/ops.h"

#include <cstdint>
#include <vector>

namespace lathe::core {

struct Matrix { // row-major
  int64_t rows = 0, cols = 0;
  std::vector<double> elements;
  double &at(int64_t i, int64_t j) { return elements[size_t(i * cols + j)]; }
  double at(int64_t i, int64_t j) const { return elements[size_t(i * cols + j)]; }
};

// F(m, r) in one dimension: m outputs of a filter with r taps from the n = m + r - 1 inputs d
// under them, y = output * ((filter * g) .* (input * d)). Two dimensions nest it: the filter g
// becomes filter_h * g * filter_w^T, and so on.
// Source: Toom-Cook interpolation, as in Lavin and Gray 2016, "Fast Algorithms for Convolutional
// Neural Networks", section 4, with points of little rounding error: 0, ±sqrt(1/2), ±sqrt(2)
// (Barabasz et al. 2020, "Error Analysis and Improving the Accuracy of Winograd Convolution for
// Deep Neural Networks", measure such sets).
//
// A tile at the picture's edge, of which only m' < m outputs are wanted, takes n' = m' + r - 1 of
// the same points, the first ones: F(m', r), with filters as F(m, r) transforms them.
struct WinogradMatrices {
  Matrix output, filter, input; // m x n, n x r, n x n
};

// How a convolution is filtered that way: a tile of outputs at a time, from tiles anchored at the
// result's first row and column. Stride and dilation are 1.
struct Winograd {
  Size2 outputs = {}, kernel = {}; // 1 in a dimension: no transform there
  // Whether filters are transformed while the convolution runs, and not beforehand: arithmetic for
  // memory, since the transformed ones take points() / kernel times as much.
  bool from_taps = false;
  Size2 points() const { return {outputs.h + kernel.h - 1, outputs.w + kernel.w - 1}; }
  bool operator==(const Winograd &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("outputs", &Winograd::outputs), field("kernel", &Winograd::kernel),
                           field("from_taps", &Winograd::from_taps));
  }
};

std::string to_string(const Winograd &winograd); // its outputs: "4", "2x4", "4 from taps"

// Whether there is a set of points for it.
bool has_winograd(int64_t outputs, int64_t taps);
// `wanted` of the outputs, by the first points; of all, unless told otherwise.
const WinogradMatrices &winograd_matrices(int64_t outputs, int64_t taps, int64_t wanted);
inline const WinogradMatrices &winograd_matrices(int64_t outputs, int64_t taps) {
  return winograd_matrices(outputs, taps, outputs);
}

} // namespace lathe::core
