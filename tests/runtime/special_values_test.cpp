// NaN, infinities, zeros of both signs and subnormal numbers through every op, with strict
// numerics, on every target of this machine: as the evaluator has them.
#include "ir/op_table.h"
#include "tests/runtime/compiled.h"
#include "tests/special_values.h"

#include <fmt/format.h>
#include <set>

using namespace lathe::core;

namespace {

void check_case(const SpecialCase &special, const Target &target,
                const std::vector<std::string> &disabled, const PlanOptions &plan) {
  const auto executable = compile(special.graph, target, disabled, plan);
  const int64_t images = special.images ? 3 : 0;
  CHECK(executable->plan().batched == special.images);
  for (Specials specials : all_specials)
    for (uint64_t seed : {1, 2, 3}) {
      const auto inputs = special_inputs(special, specials, seed, images);
      std::vector<Tensor> read;
      for (const Tensor &input : inputs) read.push_back(flushed(input));
      const auto references = evaluate(special.graph, read);
      REQUIRE_MESSAGE(references, to_string(references.error()));
      const auto outputs = run(executable, inputs, std::max<int64_t>(1, images), nullptr);
      for (size_t j = 0; j < outputs.size(); ++j) {
        const std::string wrong = special_fault(special, outputs[j], (*references)[j]);
        CHECK_MESSAGE(wrong.empty(),
                      fmt::format("{} on {} without [{}], specials {}, seed {}: {} {}: {}",
                                  special.name, target.name, fmt::join(disabled, ", "),
                                  int(specials), seed, j,
                                  special.graph.values[special.graph.outputs[j]].name, wrong));
      }
    }
}

} // namespace

TEST_CASE("special values go through every op, of every kind") {
  std::set<std::string> found;
  for (const SpecialCase &special : special_cases())
    for (const Node &node : special.graph.nodes) found.insert(op_name(node.op));
  for (const auto &[name, op] : op_table()) CHECK_MESSAGE(found.contains(name), name);
}

TEST_CASE("special values, strictly, on every target of this machine") {
  for (const SpecialCase &special : special_cases())
    for (const Target &target : runnable_targets())
      check_case(special, target, {}, {.strict = true});
}

TEST_CASE("special values, strictly, with each pass left out") {
  for (const SpecialCase &special : special_cases())
    for (const Pass &pass : pipeline())
      if (pass.optional && !pass.reorders)
        check_case(special, host_target(), {std::string(pass.name)}, {.strict = true});
}

TEST_CASE("special values, strictly, in chains and other layouts") {
  for (const SpecialCase &special : special_cases())
    for (const Target &target : runnable_targets()) {
      PlanOptions plan;
      plan.strict = true;
      plan.jitter = 7;
      check_case(special, target, {}, plan);
      plan.chained = std::vector<bool>(1000, true);
      plan.smallest_blocks = true;
      check_case(special, target, {}, plan);
    }
}
