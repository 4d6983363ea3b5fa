// Binding by name. Random weights have a file of their own.
#include "frontend/weights.h"
#include "frontend/constants.h"
#include "frontend/suggest.h"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <set>
#include <unordered_map>
#include <unordered_set>

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

namespace {

bool must_be_given(const Constant &constant) {
  return unbound(constant) || (constant.type.dtype == DType::f32 && !constant.type.shape.empty());
}

std::string first_part(const std::string &name) { return name.substr(0, name.find('.')); }

// What checkpoints carry along that a network for inference has no place for: counters of batch
// norms, and heads beside the network ("aux1", "AuxLogits") unless it has this one.
bool is_harmless(const std::string &name, const std::set<std::string> &heads) {
  if (name.ends_with("num_batches_tracked")) return true;
  std::string head = first_part(name);
  if (heads.contains(head)) return false;
  std::ranges::transform(head, head.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return head.starts_with("aux") && head.size() < name.size();
}

// Names of the graph and of the file, side by side.
class Binding {
public:
  Binding(const WeightsFile &file, const BindOptions &options) : file_(file), options_(options) {}

  void want(const Constant &constant) {
    if (!is_named(constant) || !seen_.insert(&constant).second) return;
    wanted_.insert(constant.name);
    heads_.insert(first_part(constant.name));
    if (file_.find_shape(constant.name) || (must_be_given(constant) && !options_.partial)) {
      auto tensor = fetch(constant, file_);
      if (!tensor) problems_.emplace_back(&constant, tensor.error().message);
      if (tensor) found_[&constant] = std::move(*tensor);
    } else if (must_be_given(constant)) {
      (unbound(constant) ? missing_ : kept_).insert(constant.name);
    }
  }

  Result<BindReport> report() const {
    auto list = [](const std::set<std::string> &names) {
      return std::vector<std::string>(names.begin(), names.end());
    };
    BindReport report{{}, list(kept_), list(missing_)};
    std::vector<std::string> unknown;
    for (const std::string &name : file_.names()) {
      if (wanted_.contains(name)) continue;
      report.unused.push_back(name);
      if (!options_.ignore_unused && !is_harmless(name, heads_)) unknown.push_back(name);
    }
    if (problems_.empty() && unknown.empty()) return report;
    return fail(why_not(report.unused, unknown));
  }

  Tensor data_of(const Constant &constant) const {
    auto found = found_.find(&constant);
    return found == found_.end() ? Tensor() : found->second;
  }

private:
  Error why_not(const std::vector<std::string> &unused,
                const std::vector<std::string> &unknown) const {
    constexpr size_t most_suggestions = 20; // each looks at every name of the other side
    constexpr size_t most_unknown = 100;
    Error error{.code = ErrorCode::invalid, .message = "", .file = file_.path()};
    auto add = [](std::string &text, std::string_view separator, const std::string &more) {
      text += text.empty() ? more : fmt::format("{}{}", separator, more);
    };
    auto count = [&](size_t n, std::string_view one, std::string_view many) {
      if (n > 0)
        add(error.message, ", ", n == 1 ? std::string(one) : fmt::format("{} {}", n, many));
    };
    count(problems_.size(), "a weight of the network is missing or misshapen",
          "weights of the network are missing or misshapen");
    count(unknown.size(), "a tensor of the file belongs to no weight of the network",
          "tensors of the file belong to no weight of the network");
    size_t suggestions = 0;
    auto perhaps = [&](const std::string &name, const std::vector<std::string> &names) {
      if (++suggestions > most_suggestions) return std::string();
      const std::string near = nearest(name, names);
      return near.empty() ? near : fmt::format("; perhaps '{}'", near);
    };
    for (const auto &[constant, problem] : problems_)
      add(error.detail, "\n",
          fmt::format("  {}: expected {}, {}{}", constant->name, to_string(constant->type.shape),
                      problem,
                      file_.find_shape(constant->name) ? "" : perhaps(constant->name, unused)));
    const std::vector<std::string> names(wanted_.begin(), wanted_.end());
    for (size_t i = 0; i < std::min(unknown.size(), most_unknown); ++i)
      add(error.detail, "\n",
          fmt::format("  {}: no weight has this name{}", unknown[i], perhaps(unknown[i], names)));
    if (unknown.size() > most_unknown)
      add(error.detail, "\n", fmt::format("  and {} more", unknown.size() - most_unknown));
    return error;
  }

  const WeightsFile &file_;
  const BindOptions &options_;
  std::unordered_set<const Constant *> seen_;
  std::set<std::string> wanted_, heads_, kept_, missing_;
  std::unordered_map<const Constant *, Tensor> found_;
  std::vector<std::pair<const Constant *, std::string>> problems_;
};

} // namespace

Result<BindReport> bind_weights(Graph &graph, const WeightsFile &file, const BindOptions &options) {
  Binding binding(file, options);
  for (const Value &value : graph.values)
    if (value.constant)
      for_each_part(value.constant, [&](const Constant &part) { binding.want(part); });
  LATHE_TRY(BindReport report, binding.report());
  for (Value &value : graph.values)
    if (value.constant)
      value.constant =
          with_data(value.constant, [&](const Constant &part) { return binding.data_of(part); });
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
