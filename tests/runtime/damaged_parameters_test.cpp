// Whether the plan's checker sees what machine code sees: every parameter of every kernel is
// damaged in turn, and what the checker lets pass must not change the answer.
#include "runtime/guarded.h"
#include "tests/runtime/compiled.h"

#include <csignal>
#include <fmt/format.h>
#include <map>
#include <sys/wait.h>
#include <unistd.h>

using namespace lathe::core;

namespace {

// Whether `same` holds, asked in a process of its own: kernels that are told nonsense may fault.
bool holds_in_child(const std::function<bool()> &same) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    alarm(20);
    _exit(same() ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

struct Seen {
  int noticed = 0, harmless = 0;
};

} // namespace

TEST_CASE("parameters that the checker lets pass do not change the answer") {
  std::map<std::string, Seen> seen; // by kind of kernel
  constexpr int64_t images = 2;
  const Target target = host_target();
  for (uint64_t seed = 0; seed < 24; ++seed) {
    CAPTURE(seed);
    const Graph graph = random_graph(seed);
    const auto executable = compile(graph, target, {}, {.jitter = seed % 2 ? seed : 0});
    const auto inputs = random_inputs(graph, seed, images);
    const Plan &plan = executable->plan();
    if (!plan.batched) continue;
    REQUIRE(check_plan(plan, executable->graph(), images));
    const auto right = run_guarded(*executable, inputs, images);
    REQUIRE_MESSAGE(right, to_string(right.error()));
    for (size_t k = 0; k < plan.kernels.size(); ++k) {
      const KernelSpec &spec = plan.kernels[k].spec;
      if (std::holds_alternative<ConvSpec>(spec)) continue; // see plan_test
      const auto kind = std::string(
          std::visit([]<typename S>(const S &) { return std::string_view(S::name); }, spec));
      for (size_t p = 0; p < plan.kernels[k].params.size(); ++p)
        for (int64_t change : {4, -1}) {
          CAPTURE(kernel_name(spec, target));
          CAPTURE(p);
          CAPTURE(change);
          Plan broken = plan;
          broken.kernels[k].params[p].fixed += change;
          if (!check_plan(broken, executable->graph(), images)) {
            ++seen[kind].noticed;
            continue;
          }
          ++seen[kind].harmless;
          CHECK(holds_in_child([&] {
            const auto outputs =
                run_guarded(*executable, inputs, images, {.plan = &broken, .before_task = nullptr});
            if (!outputs) return false;
            for (size_t j = 0; j < outputs->size(); ++j)
              if (!same_bits((*outputs)[j], (*right)[j])) return false;
            return true;
          }));
        }
    }
  }
  for (const auto &[kind, counts] : seen) {
    CAPTURE(kind);
    CHECK(counts.noticed > 0);
  }
  CHECK(seen.size() >= 6);
}
