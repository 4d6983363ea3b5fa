#include "ir/winograd.h"

#include <cmath>
#include <fmt/format.h>
#include <map>
#include <mutex>

namespace lathe::core {
namespace {

// The finite points; infinity is always one more.
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

WinogradMatrices make(int64_t outputs, int64_t taps) {
  const int64_t n = outputs + taps - 1;
  auto matrix = [](int64_t rows, int64_t cols) {
    return Matrix{rows, cols, std::vector<double>(size_t(rows * cols))};
  };
  WinogradMatrices m{matrix(outputs, n), matrix(n, taps), matrix(n, n)};
  const std::vector<double> finite = points(n - 1);
  for (int64_t j = 0; j < n; ++j) {
    const bool infinite = j == n - 1;
    const std::vector<double> row = product(finite, size_t(j));
    double scale = 1; // the polynomial at its own point
    for (size_t l = 0; !infinite && l < finite.size(); ++l)
      if (int64_t(l) != j) scale *= finite[size_t(j)] - finite[l];
    auto power = [&](int64_t e, int64_t highest) {
      return infinite ? double(e == highest) : std::pow(finite[size_t(j)], double(e));
    };
    for (int64_t i = 0; i < outputs; ++i) m.output.at(i, j) = power(i, outputs - 1);
    for (int64_t k = 0; k < taps; ++k) m.filter.at(j, k) = power(k, taps - 1) / scale;
    for (size_t i = 0; i < row.size(); ++i) m.input.at(j, int64_t(i)) = row[i];
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

const WinogradMatrices &winograd_matrices(int64_t outputs, int64_t taps) {
  static std::mutex mutex;
  static std::map<std::pair<int64_t, int64_t>, WinogradMatrices> known;
  std::lock_guard lock(mutex);
  auto [place, fresh] = known.try_emplace({outputs, taps});
  if (fresh) place->second = make(outputs, taps);
  return place->second;
}

} // namespace lathe::core
