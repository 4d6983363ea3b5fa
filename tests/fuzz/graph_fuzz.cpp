// libFuzzer's target for graphs as text: a whole graph or a typed error; what was read prints and
// reads back the same.
#include "ir/graph.h"
#include "tests/fuzz/fuzz.h"

using namespace lathe::core;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const auto graph = parse_graph(text_of(data, size));
  if (!graph) {
    require(graph.error().code != ErrorCode::internal);
    return 0;
  }
  require(verify(*graph).has_value());
  const std::string text = print(*graph);
  const auto again = parse_graph(text);
  require(again && print(*again) == text);
  return 0;
}
