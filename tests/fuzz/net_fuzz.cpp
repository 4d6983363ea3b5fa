// libFuzzer's target for `.net` files: a whole graph or a typed error, and the graph's text reads
// back. The input is a file and, behind each byte 0, a file that it may include: "1", "2", ...
#include "frontend/net.h"
#include "tests/fuzz/fuzz.h"

#include <charconv>
#include <string>
#include <vector>

using namespace lathe::core;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::vector<std::string> files(1);
  for (char c : text_of(data, size))
    if (c == '\0')
      files.emplace_back();
    else
      files.back() += c;
  NetOptions options;
  options.include = [&](const std::string &name) -> Result<std::string> {
    size_t number = 0;
    std::from_chars(name.data(), name.data() + name.size(), number);
    if (number < 1 || number >= files.size()) return fail(ErrorCode::io, "no such file");
    return files[number];
  };
  const auto graph = parse_net(files[0], "fuzz.net", options);
  if (!graph) {
    require(graph.error().code != ErrorCode::internal);
    return 0;
  }
  require(verify(*graph).has_value());
  if (graph->nodes.size() > 10'000) return 0; // a matter of time, not of safety
  const std::string text = print(*graph);
  const auto again = parse_graph(text);
  require(again && print(*again) == text);
  return 0;
}
