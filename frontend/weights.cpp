// Binding by name. Random weights have a file of their own.
#include "frontend/weights.h"
#include "frontend/constants.h"
#include "frontend/suggest.h"

#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace lathe::core {

static Shape without_ones(Shape shape) {
  std::erase(shape, 1);
  return shape;
}

// The tensor that a constant names, in its shape, or what stands against it.
static Result<Tensor> fetch(const Constant &wanted, const WeightsFile &file) {
  auto refuse = [&](std::string found) { return fail(ErrorCode::invalid, std::move(found)); };
  const Shape *shape = file.find_shape(wanted.name);
  if (!shape) return refuse("is missing");
  if (without_ones(*shape) != without_ones(wanted.type.shape))
    return refuse(fmt::format("found {}", to_string(*shape)));
  auto tensor = file.tensor(wanted.name);
  if (!tensor) return refuse(fmt::format("{}: {}", tensor.error().message, tensor.error().found));
  if (tensor->dtype() != wanted.type.dtype)
    return refuse(fmt::format("found elements of {}", to_string(tensor->dtype())));
  return tensor->reshaped(wanted.type.shape);
}

Result<BindReport> bind_weights(Graph &graph, const WeightsFile &file) {
  constexpr size_t most_suggestions = 20; // each looks at every name of the file
  BindReport report;
  std::set<std::string> used;
  std::map<const Constant *, Tensor> found;
  std::vector<std::pair<const Constant *, std::string>> problems;
  for (const Value &value : graph.values) {
    if (!value.constant) continue;
    for_each_unbound(value.constant, [&](const Constant &constant) {
      used.insert(constant.name);
      if (found.contains(&constant)) return;
      auto tensor = fetch(constant, file);
      if (!tensor) problems.emplace_back(&constant, tensor.error().message);
      found[&constant] = tensor ? std::move(*tensor) : Tensor();
    });
  }
  std::ranges::copy_if(file.names(), std::back_inserter(report.unused),
                       [&](const std::string &name) { return !used.contains(name); });

  if (!problems.empty()) {
    Error error{.code = ErrorCode::invalid, .message = "", .file = file.path()};
    error.message = problems.size() == 1 ? "a weight of the network is missing or misshapen"
                                         : fmt::format("{} weights of the network are missing or "
                                                       "misshapen",
                                                       problems.size());
    size_t suggestions = 0;
    for (const auto &[constant, problem] : problems) {
      error.detail += fmt::format("{}  {}: expected {}, {}", error.detail.empty() ? "" : "\n",
                                  constant->name, to_string(constant->type.shape), problem);
      if (file.find_shape(constant->name) || ++suggestions > most_suggestions) continue;
      std::string near = nearest(constant->name, report.unused);
      if (!near.empty()) error.detail += fmt::format("; perhaps '{}'", near);
    }
    return fail(std::move(error));
  }
  for (Value &value : graph.values)
    if (value.constant)
      value.constant = with_data(value.constant, [&](const Constant &c) { return found.at(&c); });
  return report;
}

std::map<std::string, Tensor> named_weights(const Graph &graph) {
  std::map<std::string, Tensor> weights;
  for (const Value &value : graph.values) {
    if (!value.constant) continue;
    for_each_part(value.constant, [&](const Constant &part) {
      if (!part.name.empty() && part.data.defined()) weights.emplace(part.name, part.data);
    });
  }
  return weights;
}

} // namespace lathe::core
