// Winograd's matrices: what they compute is the correlation, for any inputs.
#include "ir/winograd.h"

#include <cmath>
#include <doctest/doctest.h>
#include <random>

using namespace lathe::core;

namespace {

std::vector<double> times(const Matrix &m, const std::vector<double> &x) {
  std::vector<double> y(size_t(m.rows));
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t j = 0; j < m.cols; ++j) y[size_t(i)] += m.at(i, j) * x[size_t(j)];
  return y;
}

} // namespace

TEST_CASE(
    "every set of Winograd's matrices computes the correlation, also a tile's first outputs") {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(-1, 1);
  int sets = 0;
  for (int64_t outputs = 1; outputs <= 8; ++outputs)
    for (int64_t taps = 1; taps <= 8; ++taps) {
      if (!has_winograd(outputs, taps)) continue;
      CAPTURE(outputs);
      CAPTURE(taps);
      ++sets;
      std::vector<double> filter(static_cast<size_t>(taps));
      for (double &x : filter) x = uniform(random);
      const std::vector<double> filters = times(winograd_matrices(outputs, taps).filter, filter);
      for (int64_t wanted = 1; wanted <= outputs; ++wanted) {
        CAPTURE(wanted);
        std::vector<double> input(size_t(wanted + taps - 1));
        for (double &x : input) x = uniform(random);
        const WinogradMatrices &m = winograd_matrices(outputs, taps, wanted);
        std::vector<double> product = times(m.input, input);
        for (size_t i = 0; i < product.size(); ++i) product[i] *= filters[i];
        const std::vector<double> got = times(m.output, product);
        REQUIRE(got.size() == size_t(wanted));
        for (int64_t i = 0; i < wanted; ++i) {
          double expected = 0;
          for (int64_t k = 0; k < taps; ++k) expected += filter[size_t(k)] * input[size_t(i + k)];
          CHECK(std::abs(got[size_t(i)] - expected) < 1e-10);
        }
      }
    }
  CHECK(sets > 10);
}
