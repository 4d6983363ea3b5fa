#include "ir/winograd.h"

#include "ir/system/fork.h"

#include <array>
#include <cmath>
#include <fmt/format.h>
#include <map>

namespace lathe::core {
namespace {

// The finite points; infinity is always one more, before them. Edges take the first ones.
std::vector<double> points(int64_t count) {
  const double half = std::sqrt(0.5), two = std::sqrt(2);
  switch (count) {
  case 0:
    return {};
  case 3:
    return {0, 1, -1};
  case 5:
    return {0, half, -half, two, -two};
  case 7:
    return {0, 1, -1, 0.55, -0.55, 1 / 0.55, -1 / 0.55};
  default:
    return {};
  }
}

// Coefficients of the product of x - p over all points but number `left_out`, lowest first.
std::vector<double> product(const std::vector<double> &points, size_t left_out) {
  std::vector<double> polynomial{1};
  for (size_t p = 0; p < points.size(); ++p) {
    if (p == left_out) continue;
    polynomial.push_back(0);
    for (size_t i = polynomial.size() - 1; i > 0; --i)
      polynomial[i] = polynomial[i - 1] - points[p] * polynomial[i];
    polynomial[0] *= -points[p];
  }
  for (double &coefficient : polynomial) // what cancels, but for rounding
    if (std::abs(coefficient) < 1e-12) coefficient = 0;
  return polynomial;
}

// The polynomial that is 0 at all points but one, at that one.
double value_at(const std::vector<double> &points, size_t own) {
  double value = 1;
  for (size_t p = 0; p < points.size(); ++p)
    if (p != own) value *= points[own] - points[p];
  return value;
}

WinogradMatrices make(int64_t outputs, int64_t taps, int64_t wanted) {
  const int64_t n = wanted + taps - 1;
  auto matrix = [](int64_t rows, int64_t cols) {
    return Matrix{rows, cols, std::vector<double>(size_t(rows * cols))};
  };
  WinogradMatrices m{matrix(wanted, n), matrix(n, taps), matrix(n, n)};
  const std::vector<double> all = points(outputs + taps - 2);
  const std::vector<double> finite(all.begin(), all.begin() + (n - 1));
  for (int64_t j = 0; j < n; ++j) { // infinity first
    const bool infinite = j == 0;
    const size_t own = infinite ? finite.size() : size_t(j - 1); // none: no factor is left out
    auto power = [&](int64_t e, int64_t highest) {
      return infinite ? double(e == highest) : std::pow(finite[own], double(e));
    };
    // Filters are divided by the value among all points; the rest of the division is the input's.
    const double scale = infinite ? 1 : value_at(all, own);
    const double input_scale = infinite ? 1 : scale / value_at(finite, own);
    const std::vector<double> row = product(finite, own);
    for (int64_t i = 0; i < wanted; ++i) m.output.at(i, j) = power(i, wanted - 1);
    for (int64_t k = 0; k < taps; ++k) m.filter.at(j, k) = power(k, taps - 1) / scale;
    for (size_t i = 0; i < row.size(); ++i) m.input.at(j, int64_t(i)) = input_scale * row[i];
  }
  return m;
}

} // namespace

std::string to_string(const Winograd &winograd) {
  const Size2 m = winograd.outputs;
  return (m.h == m.w ? fmt::format("{}", m.h) : fmt::format("{}x{}", m.h, m.w)) +
         (winograd.from_taps ? " from taps" : "");
}

bool has_winograd(int64_t outputs, int64_t taps) {
  const int64_t n = outputs + taps - 1;
  return outputs >= 1 && taps >= 1 && (n == 1 || n == 4 || n == 6 || n == 8);
}

static ForkMutex known_mutex;

const WinogradMatrices &winograd_matrices(int64_t outputs, int64_t taps, int64_t wanted) {
  const std::lock_guard lock(known_mutex);
  static std::map<std::array<int64_t, 3>, WinogradMatrices> known;
  const std::array key{outputs, taps, wanted};
  auto place = known.find(key); // never an entry without its matrices, also where memory ends
  if (place == known.end()) place = known.emplace(key, make(outputs, taps, wanted)).first;
  return place->second;
}

} // namespace lathe::core
