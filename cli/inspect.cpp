// lathe inspect and lathe dump: what a model is, and what becomes of it.
#include "cli/memory_picture.h"
#include "cli/verbs.h"
#include "frontend/onnx.h"
#include "frontend/weights.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace lathe::core::cli {
namespace {

using Json = nlohmann::ordered_json;

struct InspectOptions : ModelOptions {
  std::string format = "text", after;
  bool memory_plan = false;
};

// The graph after all passes, and its plan.
Result<std::pair<Graph, Plan>> plan_of(Graph graph, const ModelOptions &o) {
  LATHE_TRY(CompileOptions options, compile_options(o));
  LATHE_CHECK(run_passes(graph, options.passes));
  LATHE_TRY(Plan plan, plan_for(graph, options));
  return std::pair(std::move(graph), std::move(plan));
}

Json values_json(const Graph &graph, const std::vector<ValueId> &ids) {
  Json list = Json::array();
  for (ValueId id : ids)
    list.push_back({{"name", graph.values[id].name},
                    {"dtype", to_string(graph.type(id).dtype)},
                    {"shape", graph.shape(id)}});
  return list;
}

Result<void> inspect_json(const Graph &graph, const ModelOptions &o) {
  GraphSummary s = summarise(graph);
  LATHE_TRY(auto planned, plan_of(graph, o));
  const Plan &plan = planned.second;
  Json layers = Json::array();
  for (const LayerSummary &l : s.layers)
    layers.push_back({{"name", l.name},
                      {"op", l.op},
                      {"output_shape", l.output_shape},
                      {"parameters", l.parameters},
                      {"multiplies", l.multiplies}});
  Json json = {{"name", graph.name},
               {"inputs", values_json(graph, graph.inputs)},
               {"outputs", values_json(graph, graph.outputs)},
               {"layers", std::move(layers)},
               {"parameters", s.parameters},
               {"multiplies", s.multiplies},
               {"weighted_layers", s.weighted_layers},
               {"weight_bytes", s.weight_bytes},
               {"arena_bytes", plan.arena_bytes.at(1)},
               {"arena_lower_bound_bytes", plan.arena_lower_bound_bytes.at(1)},
               {"scratch_bytes", plan.scratch_bytes}};
  // Names come from files: bytes that are not UTF-8 are replaced.
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  return {};
}

Result<void> inspect_text(const Graph &graph, const ModelOptions &o) {
  GraphSummary s = summarise(graph);
  size_t width = 12;
  for (const LayerSummary &l : s.layers)
    width = std::max(width, std::min<size_t>(l.name.size(), 48));
  for (ValueId id : graph.inputs)
    fmt::print("input {:<{}}  {}\n", graph.values[id].name, width + 14,
               course_shape(graph.shape(id)));
  fmt::print("{:<{}}  {:<20}{:>16}{:>15}{:>18}\n", "layer", width, "op", "output", "parameters",
             "multiplies");
  for (const LayerSummary &l : s.layers)
    fmt::print("{:<{}}  {:<20}{:>16}{:>15}{:>18}\n", l.name, width, l.op,
               course_shape(l.output_shape), l.parameters ? grouped(l.parameters) : "",
               l.multiplies ? grouped(l.multiplies) : "");
  fmt::print("{}: {} parameters, {} multiplies per picture, {} weighted layers deep\n", graph.name,
             grouped(s.parameters), grouped(s.multiplies), s.weighted_layers);
  LATHE_TRY(auto planned, plan_of(graph, o));
  const Plan &plan = planned.second;
  fmt::print("arena {} bytes per picture (lower bound {}), scratch {} bytes per thread, weights {} "
             "bytes\n",
             grouped(plan.arena_bytes.at(1)), grouped(plan.arena_lower_bound_bytes.at(1)),
             grouped(plan.scratch_bytes), grouped(s.weight_bytes));
  return {};
}

// Graphviz: one box per layer.
std::string dot(const Graph &graph) {
  auto quote = [](std::string_view text) {
    std::string quoted = "\"";
    for (char c : text) {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    return quoted + "\"";
  };
  std::string text = fmt::format("digraph {} {{\n  node [shape=box, fontname=\"sans-serif\"];\n",
                                 quote(graph.name));
  std::vector<std::string> maker(graph.values.size());
  for (ValueId id : graph.inputs) {
    maker[id] = "input " + graph.values[id].name;
    text += fmt::format("  {} [shape=oval];\n", quote(maker[id]));
  }
  for (const Node &node : graph.nodes) {
    for (ValueId id : node.outputs) maker[id] = node.name;
    text += fmt::format("  {} [label={}];\n", quote(node.name),
                        quote(fmt::format("{} | {} | {}", node.name, op_name(node.op),
                                          course_shape(graph.shape(node.outputs[0])))));
    for (ValueId id : node.inputs)
      if (!maker[id].empty())
        text += fmt::format("  {} -> {};\n", quote(maker[id]), quote(node.name));
  }
  return text + "}\n";
}

Result<void> list_bundled() {
  fmt::print("{:<24}{:>14}{:>15}{:>18}{:>10}{:>9}\n", "bundled network", "input", "parameters",
             "multiplies", "weighted", "weights");
  for (const std::string &name : bundled_models()) {
    LATHE_TRY(Graph graph, load_model(name));
    GraphSummary s = summarise(graph);
    fmt::print("{:<24}{:>14}{:>15}{:>18}{:>10}{:>9}\n", name,
               course_shape(graph.shape(graph.inputs[0])), grouped(s.parameters),
               grouped(s.multiplies), s.weighted_layers,
               bundled_weights(name).empty() ? "random" : "trained");
  }
  return {};
}

Result<void> inspect(const InspectOptions &o) {
  if (o.model.empty()) return list_bundled();
  // A file for other programs is of use with its weights.
  LATHE_TRY(Graph graph, o.format == "onnx" ? load_with_weights(o) : load_to_look(o));
  if (!o.after.empty()) {
    PipelineOptions passes = pass_options(o);
    passes.stop_after = o.after;
    LATHE_CHECK(run_passes(graph, passes));
  }
  if (o.memory_plan) {
    LATHE_TRY(auto planned, plan_of(std::move(graph), o));
    fmt::print("{}", o.format == "svg" ? memory_svg(planned.second, planned.first)
                                       : print(planned.second));
    return {};
  }
  if (o.format == "svg")
    return fail(ErrorCode::usage, "--format svg is a picture of the memory: add --memory-plan");
  if (o.format == "json") return inspect_json(graph, o);
  if (o.format == "onnx") {
    LATHE_TRY(std::string bytes, write_onnx(graph, o.budget));
    std::fwrite(bytes.data(), 1, bytes.size(), stdout); // main asks whether all arrived
    return {};
  }
  if (o.format == "dot") {
    fmt::print("{}", dot(graph));
    return {};
  }
  return inspect_text(graph, o);
}

struct DumpOptions : ModelOptions {
  std::string after, emit = "graph";
};

Result<void> dump(const DumpOptions &o) {
  LATHE_TRY(Graph graph, load_to_look(o));
  if (o.emit == "weights") {
    LATHE_TRY(graph, load_with_weights(o));
    const std::string bytes = encode_safetensors(named_weights(graph));
    std::fwrite(bytes.data(), 1, bytes.size(), stdout); // main asks whether all arrived
    return {};
  }
  PipelineOptions passes = pass_options(o);
  if (o.emit == "graph") {
    bool all = o.after == "all";
    if (!all) passes.stop_after = o.after;
    if (all) {
      fmt::print("# as written\n{}", print(graph));
      passes.after_each = [](const Pass &pass, const Graph &g) {
        fmt::print("\n# after {}: {}\n{}", pass.name, pass.why, print(g));
      };
    }
    LATHE_TRY(auto reports, run_passes(graph, passes));
    if (!all) fmt::print("{}", print(graph));
    if (o.verbose) print_reports(reports);
    return {};
  }
  LATHE_TRY(auto planned, plan_of(std::move(graph), o));
  const Plan &plan = planned.second;
  if (o.emit == "plan") {
    fmt::print("{}", print(plan));
    return {};
  }
  std::vector<KernelSpec> specs;
  for (const Kernel &kernel : plan.kernels)
    if (!std::ranges::count(specs, kernel.spec)) specs.push_back(kernel.spec);
  LATHE_TRY(
      std::string text,
      print_kernels(specs, plan.target, o.emit == "llvm" ? CodeText::llvm : CodeText::assembly));
  fmt::print("{}", text);
  return {};
}

} // namespace

void add_inspect(CLI::App &app, Action &action) {
  auto *verb = app.add_subcommand(
      "inspect", "layers, shapes and counts; without a model: the bundled networks");
  auto o = std::make_shared<InspectOptions>();
  add_model_options(*verb, *o, false);
  verb->add_option("--format", o->format, "text, json, dot, onnx, or svg (of the memory plan)")
      ->check(CLI::IsMember({"text", "json", "dot", "onnx", "svg"}))
      ->capture_default_str();
  verb->add_option("--after", o->after, "show the graph as this pass leaves it");
  verb->add_flag("--memory-plan", o->memory_plan, "where every value lies");
  verb->callback([o, &action] { action = [o] { return inspect(*o); }; });
}

void add_dump(CLI::App &app, Action &action) {
  auto *verb =
      app.add_subcommand("dump", "print the graph, the plan, LLVM IR, assembly or the weights");
  auto o = std::make_shared<DumpOptions>();
  add_model_options(*verb, *o);
  verb->add_option("--after", o->after, "a pass, or all");
  verb->add_option("--emit", o->emit, "graph, plan, llvm, asm, or weights (a safetensors file)")
      ->check(CLI::IsMember({"graph", "plan", "llvm", "asm", "weights"}))
      ->capture_default_str();
  verb->callback([o, &action] { action = [o] { return dump(*o); }; });
}

} // namespace lathe::core::cli
