// Runs when Lathe is built: compiles what the bundled networks need on the targets of this
// architecture, for `runtime/prebuilt.h`. Usage: lathe_prebuild OUTPUT [TARGET ...]
#include "codegen/archive.h"
#include "frontend/bundled.h"
#include "frontend/net.h"
#include "passes/pipeline.h"

#include <cstdio>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <thread>

namespace lathe::core {
namespace {

// What plans depend on: caches and speed of machines as they differ.
std::vector<Target> machines(const Target &target) {
  std::vector<Target> all{target};
  for (int64_t l2 : {512 << 10, 2 << 20}) all.emplace_back(target).l2_bytes = l2;
  Target &server = all.emplace_back(target);
  server.l1_bytes = 48 << 10, server.l2_bytes = 2 << 20, server.l3_bytes = 256 << 20;
  server.gflops = 179, server.l3_gbs = 30, server.memory_gbs = 15;
  Target &fast = all.emplace_back(target);
  fast.l1_bytes = 48 << 10, fast.l3_bytes = 32 << 20;
  fast.gflops = 250, fast.l3_gbs = 90, fast.memory_gbs = 38;
  return all;
}

// Layers of networks with depthwise and grouped convolutions, of which none is bundled.
Result<std::vector<Graph>> heirs() {
  std::vector<Graph> graphs;
  for (const char *function : {"relu", "relu6"})
    for (int channels : {16, 24, 32, 48, 144}) {
      std::string text = fmt::format("network heir {{\ninput image 3x56x56\n"
                                     "conv {0} 3x3 stride 2 pad 1; {1}\n",
                                     channels, function);
      for (int group : {1, 2, 4, 8})
        for (int stride : {1, 2})
          text += fmt::format("conv {0} 3x3 stride {1} pad 1 groups {2}; {3}\n", channels, stride,
                              channels / group, function);
      text += fmt::format("conv {0} 1x1\nadd {{ {{ conv {0} 1x1 }} {{ }} }}\nconv {0} 1x1; {1}\n"
                          "global_avgpool\nflatten\ndense 10\n}}\n",
                          channels, function);
      LATHE_TRY(graphs.emplace_back(), parse_net(text, "heir.net"));
    }
  return graphs;
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
        specs.emplace(kernel_name(kernel.spec, target), kernel.spec);
    }
  }
  std::vector<KernelSpec> all;
  for (auto &[name, spec] : specs) all.push_back(std::move(spec));
  return all;
}

Result<void> write(const std::string &path, std::span<const std::string> targets) {
  std::ofstream file(path, std::ios::binary);
  for (const std::string &name : targets) {
    LATHE_TRY(const Target target, find_target(name));
    LATHE_TRY(const std::vector<KernelSpec> specs, specs_for(target));
    LATHE_TRY(const std::string archive,
              compile_archive(specs, target, int(std::thread::hardware_concurrency())));
    file << archive;
  }
  if (!file.flush()) return fail(ErrorCode::io, "cannot write " + path);
  return {};
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
