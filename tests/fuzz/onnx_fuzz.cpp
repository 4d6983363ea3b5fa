// libFuzzer's target for the ONNX importer: any bytes give a whole graph or a typed error.
#include "frontend/onnx.h"
#include "passes/pipeline.h"
#include "passes/plan.h"

#include <cstdlib>

using namespace lathe::core;

namespace {

// Graphs of moderate size go on to the planner; for others that is a matter of time, not of safety.
bool is_moderate(const Graph &graph) {
  if (graph.nodes.size() > 1000) return false;
  for (const Value &value : graph.values)
    if (element_count(value.type.shape) > (1 << 20)) return false;
  return true;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  // Beside a folder that does not exist: external data is refused, and nothing is opened.
  auto model =
      OnnxModel::parse(std::as_bytes(std::span(data, size)), nullptr, "/nowhere/model.onnx");
  if (!model) return 0;
  for (bool unbind : {false, true}) {
    OnnxOptions options;
    options.unbind_weights = unbind;
    auto graph = model->graph(options);
    if (!graph) {
      if (graph.error().code == ErrorCode::internal) std::abort();
      continue;
    }
    if (!verify(*graph)) std::abort();
    if (unbind || !is_moderate(*graph)) continue;
    if (!run_passes(*graph) || !verify(*graph)) std::abort();
    auto plan = make_plan(*graph, known_targets()[0]);
    if (!plan && plan.error().code == ErrorCode::internal) std::abort();
  }
  return 0;
}
