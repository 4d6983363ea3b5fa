// lathe verify: the compiled network against the slow reference, as a whole or layer by layer.
#include "cli/verbs.h"
#include "frontend/npy.h"
#include "ir/compare.h"
#include "ir/evaluate.h"

#include <fmt/format.h>

namespace lathe::cli {
namespace {

struct VerifyOptions : ModelOptions {
  std::string against = "reference";
  bool all_layers = false;
  double tolerance = 1e-4;
};

// All results of all layers become outputs, so that each can be compared.
void expose_all_layers(Graph &graph) {
  graph.outputs.clear();
  for (const Node &node : graph.nodes)
    graph.outputs.insert(graph.outputs.end(), node.outputs.begin(), node.outputs.end());
}

Result<void> verify_model(const VerifyOptions &o) {
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
  LATHE_CHECK(check_plan(executable->plan(), executable->graph(), o.batch));
  LATHE_TRY(auto request, Request::create(executable, o.batch, make_pool(o.threads)));
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < executable->plan().inputs.size(); ++i) {
    inputs.push_back(random_input(executable->plan(), i, o.batch, o.seed));
    LATHE_CHECK(request->set_input(i, inputs[i]));
  }
  request->run();
  std::vector<Tensor> references;
  if (o.against == "reference") {
    LATHE_TRY(references, evaluate(graph, inputs));
  } else {
    LATHE_TRY(Tensor file, read_npy(o.against));
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
    Comparison c = compare(request->output(j), references[j]);
    bool good = c.within(o.tolerance);
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
            .expected = fmt::format("errors of at most {:g} of the largest value", o.tolerance)});
}

} // namespace

void add_verify(CLI::App &app, Action &action) {
  auto *verb =
      app.add_subcommand("verify", "compare the compiled network with the float64 reference");
  auto o = std::make_shared<VerifyOptions>();
  add_model_options(*verb, *o);
  verb->add_option("--against", o->against,
                   "reference, or a .npy file with the expected scores before the softmax")
      ->capture_default_str();
  verb->add_flag("--all-layers", o->all_layers,
                 "compare every layer that is left after the passes");
  verb->add_option("--rtol", o->tolerance, "largest error allowed, relative to the largest value")
      ->capture_default_str();
  verb->add_option("--threads", o->threads, "default: what this process may use")
      ->check(CLI::Range(0, 1024));
  verb->add_option("--batch", o->batch, "number of images")->capture_default_str();
  verb->callback([o, &action] { action = [o] { return verify_model(*o); }; });
}

} // namespace lathe::cli
