// lathe explain: which layers of the model a kernel computes, which pass brought them together, and
// what else was considered for it.
#include "cli/verbs.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>

namespace lathe::core::cli {
namespace {

struct ExplainOptions : ModelOptions {
  std::string node;
};

// What became of every layer of the model as written.
class History {
public:
  explicit History(const Graph &written) {
    for (const Node &node : written.nodes)
      layers_[node.name] = {op_name(node.op), node.source, node.name, {}};
  }

  void record(const Pass &pass, const Graph &graph) {
    std::map<std::string, std::string> owner;
    for (const Node &node : graph.nodes) {
      owner[node.name] = node.name;
      for (const std::string &name : node.fused) owner[name] = node.name;
    }
    for (auto &[name, layer] : layers_) {
      auto found = owner.find(name);
      const std::string now = found == owner.end() ? "" : found->second;
      if (now == layer.owner) continue;
      layer.steps.push_back(now.empty() ? fmt::format("{} took it out", pass.name)
                                        : fmt::format("{} put it into {}", pass.name, now));
      layer.owner = now;
    }
  }

  bool knows(const std::string &name) const { return layers_.contains(name); }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto &[name, layer] : layers_) all.push_back(name);
    return all;
  }
  // One line about a layer, or about what a pass added.
  std::string line(const std::string &name) const {
    auto found = layers_.find(name);
    if (found == layers_.end()) return fmt::format("    {:<32} added by a pass\n", name);
    const Layer &layer = found->second;
    std::string text = fmt::format("    {:<32} {:<20}", name, layer.op);
    if (layer.source.line > 0) text += fmt::format(" {}:{}", layer.source.file, layer.source.line);
    for (const std::string &step : layer.steps) text += "; " + step;
    return text + "\n";
  }

private:
  struct Layer {
    std::string op;
    Source source;
    std::string owner;
    std::vector<std::string> steps;
  };
  std::map<std::string, Layer> layers_;
};

// One line for each algorithm that there was to choose from.
void print_candidates(const Choice &choice) {
  for (size_t i = 0; i < choice.candidates.size(); ++i) {
    const Candidate &c = choice.candidates[i];
    const std::string measured =
        c.measured ? fmt::format(", measured {:.1f} us", 1e6 * *c.measured) : "";
    const std::string added =
        c.extra_bytes ? fmt::format(", +{} bytes", grouped(c.extra_bytes)) : "";
    fmt::print("    candidate {:<22} estimated {:.1f} us{}{}: {}\n", algorithm_name(c.winograd),
               1e6 * c.estimated, measured, added, verdict(choice, i));
  }
}

Result<void> explain(const ExplainOptions &o) {
  LATHE_TRY(Graph graph, load_to_look(o));
  History history(graph);
  if (!o.node.empty() && !history.knows(o.node))
    return fail(Error{.code = ErrorCode::usage,
                      .message = "the model has no such layer",
                      .file = o.model,
                      .expected = "a name that `lathe inspect` shows",
                      .found = o.node});
  LATHE_TRY(CompileOptions options, compile_options(o));
  options.passes.after_each = [&](const Pass &pass, const Graph &g) { history.record(pass, g); };
  LATHE_CHECK(run_passes(graph, options.passes));
  LATHE_TRY(Plan plan, plan_for(graph, options));
  bool any = false;
  for (size_t k = 0; k < plan.kernels.size(); ++k) {
    const Kernel &kernel = plan.kernels[k];
    if (!o.node.empty() && !std::ranges::count(kernel.sources, o.node)) continue;
    any = true;
    fmt::print("kernel {}: {}\n", k, kernel_name(kernel.spec, plan.target));
    if (kernel.sources.empty()) fmt::print("    brings an output into the caller's layout\n");
    for (const std::string &name : kernel.sources) fmt::print("{}", history.line(name));
    print_candidates(kernel.choice);
  }
  if (!any)
    fmt::print("no kernel: it is a view of what others compute, or nothing is left of it\n{}",
               history.line(o.node));
  return {};
}

} // namespace

void add_explain(CLI::App &app, Action &action) {
  auto *verb =
      app.add_subcommand("explain", "which layers each kernel computes, and by which pass");
  auto o = std::make_shared<ExplainOptions>();
  add_model_options(*verb, *o);
  verb->add_option("NODE", o->node, "only what became of this layer");
  verb->callback([o, &action] { action = [o] { return explain(*o); }; });
}

} // namespace lathe::core::cli
