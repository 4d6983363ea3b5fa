#include "frontend/suggest.h"

#include <algorithm>
#include <numeric>

namespace lathe::core {

static size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] != b[j])});
      diagonal = above;
    }
  }
  return row.back();
}

std::string nearest(std::string_view name, const std::vector<std::string> &candidates) {
  if (name.size() > 200) return "";
  std::string best;
  size_t least = std::max<size_t>(1, name.size() / 3) + 1;
  for (const std::string &candidate : candidates) {
    if (candidate.size() > 200) continue;
    size_t d = distance(name, candidate);
    if (d < least && d < name.size()) {
      least = d;
      best = candidate;
    }
  }
  return best;
}

} // namespace lathe::core
