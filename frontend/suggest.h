// "did you mean": the candidate nearest to a misspelt name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lathe::core {

// Empty if nothing is near: within a third of the name's length by Levenshtein's distance.
std::string nearest(std::string_view name, const std::vector<std::string> &candidates);

} // namespace lathe::core
