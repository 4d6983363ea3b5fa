#include "ir/compare.h"

#include <cmath>
#include <limits>

namespace lathe::core {

Comparison compare(const Tensor &result, const Tensor &reference) {
  Comparison c;
  auto a = result.f32(), b = reference.f32();
  double squares = 0, reference_squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    double error = std::abs(double(a[i]) - double(b[i]));
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])))
      error = 0;
    else if (!std::isfinite(error))
      error = std::numeric_limits<double>::infinity();
    if (error > c.largest_error || c.worst < 0) {
      c.largest_error = std::max(c.largest_error, error);
      c.worst = int64_t(i);
    }
    squares += error * error;
    if (!std::isfinite(b[i])) continue;
    c.largest_reference = std::max(c.largest_reference, std::abs(double(b[i])));
    reference_squares += double(b[i]) * double(b[i]);
  }
  if (!a.empty()) {
    c.rms_error = std::sqrt(squares / double(a.size()));
    c.rms_reference = std::sqrt(reference_squares / double(a.size()));
  }
  return c;
}

Graph before_softmax(Graph graph) {
  Uses uses(graph);
  for (ValueId &id : graph.outputs) {
    int producer = uses.producer[id];
    if (producer >= 0 && std::holds_alternative<Softmax>(graph.nodes[size_t(producer)].op))
      id = graph.nodes[size_t(producer)].inputs[0];
  }
  remove_dead_code(graph);
  return graph;
}

} // namespace lathe::core
