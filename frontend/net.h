// The `.net` language: networks as people write them. docs/net-language.md is its manual.
#pragma once

#include "ir/graph.h"

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace lathe::core {

struct NetOptions {
  std::map<std::string, double> parameters; // override the network's defaults
  // The text of an included file, by the plain name that stands in the include.
  std::function<Result<std::string>(const std::string &)> include;
};

// One picture: inputs get a leading dimension of 1. Weights are named constants without data.
// Errors: invalid, with file, line, column and an excerpt; further errors follow in `detail`.
Result<Graph> parse_net(std::string_view text, std::string_view file_name,
                        const NetOptions &options = {});
// Includes are looked up beside the file.
Result<Graph> load_net(const std::string &path, const NetOptions &options = {});

} // namespace lathe::core
