// lathe verify: the compiled network against the slow reference, as a whole or layer by layer, or a
// test case of ONNX's against its expected outputs. lathe check: what stands in a model's way.
#include "cli/verbs.h"
#include "ir/compare.h"
#include "ir/evaluate.h"
#include "runtime/onnx_case.h"

#include <cstring>
#include <filesystem>
#include <fmt/format.h>

namespace lathe::core::cli {
namespace {

struct VerifyOptions : ModelOptions {
  std::string against = "reference";
  bool all_layers = false;
  std::vector<std::string> inputs; // [NAME=]FILE
  double rtol = -1,
         atol = -1; // rtol: by default 1e-4 of the largest value, 1e-3 for ONNX's cases
};

// All results of all layers become outputs, so that each can be compared.
void expose_all_layers(Graph &graph) {
  graph.outputs.clear();
  for (const Node &node : graph.nodes)
    graph.outputs.insert(graph.outputs.end(), node.outputs.begin(), node.outputs.end());
}

Result<void> verify_case(const VerifyOptions &o) {
  LATHE_TRY(CompileOptions options, compile_options(o));
  LATHE_CHECK(verify_onnx_case(o.model, options, o.rtol < 0 ? 1e-3 : o.rtol, o.atol));
  fmt::print("ok       {}\n", o.model);
  return {};
}

Result<void> verify_model(VerifyOptions o) {
  if (!is_bundled(o.model) && std::filesystem::is_directory(o.model)) return verify_case(o);
  const double tolerance = o.rtol < 0 ? 1e-4 : o.rtol;
  LATHE_TRY(std::vector<std::string> declared, input_names(o));
  LATHE_TRY(auto given, bind_names(o.inputs, declared, "input"));
  for (const Binding &binding : given) {
    LATHE_TRY(o.values[declared[binding.index]], read_tensor_file(binding.file));
  }
  LATHE_TRY(Graph written, load_with_weights(o));
  LATHE_TRY(CompileOptions options, compile_options(o));
  // Softmax hides errors: what stands before it is compared.
  Graph graph = before_softmax(std::move(written));
  if (o.all_layers) {
    LATHE_CHECK(run_passes(graph, options.passes));
    expose_all_layers(graph);
  }
  std::vector<std::string> names;
  for (ValueId id : graph.outputs) names.push_back(graph.values[id].name);
  LATHE_TRY(auto executable, compile(graph, o));
  const Plan &plan = executable->plan();
  const int64_t images = images_of(plan, o.batch);
  LATHE_CHECK(check_plan(plan, executable->graph(), images, o.budget));
  LATHE_TRY(auto request, Request::create(executable, images, make_pool(o.threads)));
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < plan.inputs.size(); ++i) {
    auto known = o.values.find(plan.input_names[i]);
    inputs.push_back(known == o.values.end() ? random_input(plan, i, images, o.seed)
                                             : known->second);
    if (is_float(inputs[i].dtype())) inputs[i] = to_floats(inputs[i], plan.inputs[i].dtype);
    LATHE_CHECK(request->set_input(i, inputs[i]));
  }
  request->run();
  std::vector<Tensor> references;
  if (o.against == "reference") {
    LATHE_TRY(references, evaluate(graph, inputs, {}, o.budget));
  } else {
    LATHE_TRY(Tensor file, read_tensor_file(o.against));
    references.push_back(std::move(file));
    if (references[0].shape() != request->output(0).shape())
      return fail(Error{.code = ErrorCode::invalid,
                        .message = "the reference has another shape",
                        .file = o.against,
                        .expected = to_string(request->output(0).shape()),
                        .found = to_string(references[0].shape())});
  }
  std::string first_bad;
  for (size_t j = 0; j < references.size(); ++j) {
    if (!is_float(references[j].dtype())) {
      const Tensor &found = request->output(j);
      bool same = std::memcmp(found.raw(), references[j].raw(), references[j].bytes()) == 0;
      fmt::print("{} {:<40} {}\n", same ? "ok      " : "MISMATCH", names[j],
                 to_string(found.dtype()));
      if (!same && first_bad.empty()) first_bad = names[j];
      continue;
    }
    Comparison c = compare(to_f32(request->output(j)), to_f32(references[j]));
    bool good = c.within(tolerance);
    fmt::print("{} {:<40} largest error {:.2e} of {:.3g} ({:.2e}), rms {:.2e}\n",
               good ? "ok      " : "MISMATCH", names[j], c.largest_error, c.largest_reference,
               c.largest_error / std::max(1e-300, c.largest_reference), c.rms_error);
    if (!good && first_bad.empty()) first_bad = names[j];
  }
  if (first_bad.empty()) return {};
  return fail(
      Error{.code = ErrorCode::mismatch,
            .message = "results differ from the reference",
            .node = first_bad,
            .expected = fmt::format("errors of at most {:g} of the largest value", tolerance)});
}

Result<void> check_model(const ModelOptions &o) {
  LATHE_TRY(Graph graph, load(o));
  const size_t nodes = graph.nodes.size();
  LATHE_TRY(CompileOptions options, compile_options(o));
  LATHE_CHECK(run_passes(graph, options.passes));
  LATHE_TRY(Plan plan, plan_for(graph, options));
  fmt::print("{}: {} layers, {} kernels; nothing stands in the way\n", o.model, nodes,
             plan.kernels.size());
  return {};
}

} // namespace

void add_check(CLI::App &app, Action &action) {
  auto *verb = app.add_subcommand("check", "list everything that stands in the way of a model");
  auto o = std::make_shared<ModelOptions>();
  add_model_options(*verb, *o);
  verb->add_option("--batch", o->batch, "number of images")->capture_default_str();
  verb->callback([o, &action] { action = [o] { return check_model(*o); }; });
}

void add_verify(CLI::App &app, Action &action) {
  auto *verb = app.add_subcommand(
      "verify", "compare the compiled network with the float64 reference, or run a folder in the "
                "layout of ONNX's tests");
  auto o = std::make_shared<VerifyOptions>();
  add_model_options(*verb, *o);
  verb->add_option("--against", o->against,
                   "reference, or a .npy file with the expected scores before the softmax")
      ->capture_default_str();
  verb->add_flag("--all-layers", o->all_layers,
                 "compare every layer that is left after the passes");
  verb->add_option("-i,--input", o->inputs, "[NAME=]FILE, .npy or ONNX .pb; without it: random");
  verb->add_option("--rtol", o->rtol,
                   "largest error allowed, relative to the largest value (1e-4), or in a case of "
                   "ONNX's to each value (1e-3)");
  verb->add_option(
      "--atol", o->atol,
      "in a case of ONNX's: allowed besides; without it 1e-7, of the largest value if above 1");
  verb->add_option("--threads", o->threads, "default: what this process may use")
      ->check(CLI::Range(0, 1024));
  verb->add_option("--batch", o->batch, "number of images")->capture_default_str();
  verb->callback([o, &action] { action = [o] { return verify_model(*o); }; });
}

} // namespace lathe::core::cli
