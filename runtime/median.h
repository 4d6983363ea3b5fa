// The middle of several measurements: what a shared machine disturbs least.
#pragma once

#include <algorithm>
#include <vector>

namespace lathe::core {

// Of at least one value.
inline double median(std::vector<double> values) {
  auto middle = values.begin() + std::ptrdiff_t(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

} // namespace lathe::core
