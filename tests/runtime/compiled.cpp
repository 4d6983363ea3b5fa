#include "tests/runtime/compiled.h"

#include <cstring>
#include <fmt/format.h>

namespace lathe::core {

std::vector<Target> runnable_targets() {
  std::vector<Target> targets;
  for (const Target &target : known_targets())
    if (host_supports(target)) targets.push_back(target);
  return targets;
}

Result<std::vector<Tensor>> try_run(const std::shared_ptr<const Executable> &executable,
                                    const std::vector<Tensor> &inputs, int64_t images,
                                    const std::shared_ptr<ThreadPool> &pool) {
  LATHE_TRY(auto request, Request::create(executable, images, pool));
  for (size_t i = 0; i < inputs.size(); ++i) LATHE_CHECK(request->set_input(i, inputs[i]));
  request->run();
  std::vector<Tensor> outputs;
  for (size_t j = 0; j < executable->plan().outputs.size(); ++j) {
    Tensor copy(request->output(j).dtype(), request->output(j).shape());
    std::memcpy(copy.raw_mutable(), request->output(j).raw(), copy.bytes());
    outputs.push_back(copy);
  }
  return outputs;
}
std::vector<Tensor> run(const std::shared_ptr<const Executable> &executable,
                        const std::vector<Tensor> &inputs, int64_t images,
                        const std::shared_ptr<ThreadPool> &pool) {
  auto outputs = try_run(executable, inputs, images, pool);
  REQUIRE_MESSAGE(outputs, to_string(outputs.error()));
  return *outputs;
}

bool same_bits(const Tensor &a, const Tensor &b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

Result<std::shared_ptr<const Executable>> try_compile(const Graph &graph, const Target &target,
                                                      const std::vector<std::string> &disabled,
                                                      const PlanOptions &plan) {
  CompileOptions options;
  options.plan = plan;
  options.target = target;
  options.passes.disabled = disabled;
  options.passes.strict = plan.strict;
  return Executable::compile(graph, options);
}
std::shared_ptr<const Executable> compile(const Graph &graph, const Target &target,
                                          const std::vector<std::string> &disabled,
                                          const PlanOptions &plan) {
  auto executable = try_compile(graph, target, disabled, plan);
  REQUIRE_MESSAGE(executable, to_string(executable.error()));
  return *executable;
}

namespace {

// Image n of a tensor.
Tensor image(const Tensor &batch, int64_t n) {
  Shape shape = batch.shape();
  size_t bytes = batch.bytes() / size_t(shape[0]);
  shape[0] = 1;
  Tensor one(batch.dtype(), shape);
  std::memcpy(one.raw_mutable(), batch.raw() + size_t(n) * bytes, bytes);
  return one;
}

// What is wrong with an output; empty if it is near the reference.
std::string fault(const Tensor &output, const Tensor &reference) {
  if (output.shape() != reference.shape() || output.dtype() != reference.dtype())
    return "another type";
  if (output.dtype() != DType::f32) return same_bits(output, reference) ? "" : "other bits";
  const Comparison c = compare(output, reference);
  if (c.within(1e-4)) return "";
  return fmt::format("an error of {} at {}, of at most {}", c.largest_error, c.worst,
                     c.largest_reference);
}

} // namespace

Result<std::string> fault(const std::shared_ptr<const Executable> &executable,
                          const std::vector<Tensor> &inputs,
                          const std::vector<Tensor> &references) {
  static auto two_threads = std::make_shared<ThreadPool>(2);
  LATHE_TRY(const auto outputs, try_run(executable, inputs, 3, nullptr));
  if (outputs.size() != references.size()) return "the wrong number of outputs";
  for (size_t j = 0; j < outputs.size(); ++j)
    if (std::string wrong = fault(outputs[j], references[j]); !wrong.empty())
      return fmt::format("output {}: {}", j, wrong);
  LATHE_TRY(const auto threaded, try_run(executable, inputs, 3, two_threads));
  for (size_t j = 0; j < outputs.size(); ++j)
    if (!same_bits(outputs[j], threaded[j]))
      return fmt::format("output {}: other bits with two threads", j);
  for (int64_t n : {0, 2}) {
    std::vector<Tensor> single;
    for (const Tensor &input : inputs) single.push_back(image(input, n));
    LATHE_TRY(const auto alone, try_run(executable, single, 1, n == 0 ? nullptr : two_threads));
    for (size_t j = 0; j < outputs.size(); ++j)
      if (!same_bits(alone[j], image(outputs[j], n)))
        return fmt::format("output {}: other bits for image {} alone", j, n);
  }
  return "";
}

void check(const std::shared_ptr<const Executable> &executable, const std::vector<Tensor> &inputs,
           const std::vector<Tensor> &references) {
  auto wrong = fault(executable, inputs, references);
  REQUIRE_MESSAGE(wrong, to_string(wrong.error()));
  CHECK_MESSAGE(wrong->empty(), *wrong);
}

} // namespace lathe::core
