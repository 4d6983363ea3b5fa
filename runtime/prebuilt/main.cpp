// Runs when Lathe is built: compiles what the bundled networks need on the targets of this
// architecture, for `runtime/prebuilt.h`. Usage: lathe_prebuild OUTPUT [TARGET ...]
#include "codegen/archive.h"
#include "frontend/bundled.h"
#include "frontend/net.h"
#include "ir/system/output_file.h"
#include "passes/pipeline.h"

#include <cstdio>
#include <fmt/format.h>
#include <map>
#include <thread>

namespace lathe::core {
namespace {

// What plans depend on: measured machines, and others with smaller and larger caches.
std::vector<Target> machines(const Target &target) {
  std::vector<Target> all = measured_machines(target);
  for (int64_t l2 : {512 << 10, 2 << 20}) all.emplace_back(target).l2_bytes = l2;
  return all;
}

// Networks with depthwise and grouped convolutions, of which none is bundled: blocks as MobileNets
// and ResNeXts have them.
Result<std::vector<Graph>> heirs() {
  constexpr const char *text = R"(network heir {{
  input image 3x112x112
  conv {c} 3x3 stride 2 pad 1; {f}
  conv {c} 3x3 pad 1 groups {c}; {f}
  conv {c} 1x1
  add {{ {{ conv {wide} 1x1; {f}; conv {wide} 3x3 pad 1 groups {wide}; {f}; conv {c} 1x1 }} {{ }} }}
  conv {wide} 1x1; {f}
  conv {wide} 3x3 stride 2 pad 1 groups {wide}; {f}
  conv {c} 1x1
  conv 256 1x1; {f}
  conv 256 3x3 pad 1 groups {groups}; {f}
  conv 256 3x3 stride 2 pad 1 groups {groups}; {f}
  conv {wide} 1x1; {f}
  conv {wide} 3x3 stride 2 pad 1 groups {wide}; {f}
  conv 1280 1x1; {f}
  global_avgpool
}}
)";
  std::vector<Graph> graphs;
  for (const char *function : {"relu", "relu6"})
    for (auto [channels, group] : {std::pair{16, 2}, {24, 4}, {32, 8}, {48, 16}, {64, 4}}) {
      using namespace fmt::literals;
      LATHE_TRY(graphs.emplace_back(),
                parse_net(fmt::format(text, "c"_a = channels, "wide"_a = 6 * channels,
                                      "groups"_a = 256 / group, "f"_a = function),
                          "heir.net"));
    }
  return graphs;
}

// By Winograd, also for square pictures of other sizes: whatever is left for the tiles at the edge.
std::vector<KernelSpec> with_edges(const KernelSpec &spec) {
  std::vector<KernelSpec> all{spec};
  const auto *conv = std::get_if<ConvSpec>(&spec);
  if (!conv || !conv->winograd) return all;
  const Size2 outputs = conv->winograd->outputs;
  for (int64_t edge = 1; edge <= std::max(outputs.h, outputs.w); ++edge) {
    ConvSpec other = *conv;
    other.edge_outputs = {std::min(edge, outputs.h), std::min(edge, outputs.w)};
    all.push_back(std::move(other));
  }
  return all;
}

Result<std::vector<KernelSpec>> specs_for(const Target &target) {
  LATHE_TRY(std::vector<Graph> graphs, heirs());
  for (const std::string &name : bundled_models()) {
    LATHE_TRY(graphs.emplace_back(), load_bundled(name));
  }
  std::map<std::string, KernelSpec> specs;
  for (Graph &graph : graphs) {
    LATHE_CHECK(run_passes(graph));
    for (const Target &machine : machines(target)) {
      LATHE_TRY(const Plan plan, make_plan(graph, machine));
      for (const Kernel &kernel : plan.kernels)
        for (KernelSpec &spec : with_edges(kernel.spec))
          specs.emplace(kernel_symbol(spec, target), std::move(spec));
    }
  }
  std::vector<KernelSpec> all;
  for (auto &[name, spec] : specs) all.push_back(std::move(spec));
  return all;
}

Result<void> write(const std::string &path, std::span<const std::string> targets) {
  std::string all;
  for (const std::string &name : targets) {
    LATHE_TRY(const Target target, find_target(name));
    LATHE_TRY(const std::vector<KernelSpec> specs, specs_for(target));
    LATHE_TRY(const std::string archive,
              compile_archive(specs, target, int(std::thread::hardware_concurrency())));
    all += archive;
  }
  return write_file(path, {std::as_bytes(std::span(all))});
}

} // namespace
} // namespace lathe::core

int main(int count, char **arguments) {
  if (count < 2) return 2;
  const std::vector<std::string> targets(arguments + 2, arguments + count);
  auto written = lathe::core::write(arguments[1], targets);
  if (written) return 0;
  std::fprintf(stderr, "%s\n", to_string(written.error()).c_str());
  return 1;
}
