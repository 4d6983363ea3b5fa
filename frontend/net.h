// The `.net` language: networks as people write them. docs/net-language.md is its manual.
#pragma once

#include "ir/budget.h"
#include "ir/graph.h"

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::core {

struct NetOptions {
  std::map<std::string, double> parameters; // override the network's defaults
  // The text of an included file, by the plain name that stands in the include.
  std::function<Result<std::string>(const std::string &)> include;
  // Where what is allowed and yet looks wrong is told, a line each, with its place.
  std::vector<std::string> *warnings = nullptr;
  Budget budget = {};
};

// One picture: inputs get a leading dimension of 1. Weights are named constants without data.
// Errors: invalid, with file, line, column and an excerpt; further errors follow in `detail`.
Result<Graph> parse_net(std::string_view text, std::string_view file_name,
                        const NetOptions &options = {});
// Includes are looked up beside the file (MappedFile::open_beneath).
Result<Graph> load_net(const std::string &path, const NetOptions &options = {});

} // namespace lathe::core
