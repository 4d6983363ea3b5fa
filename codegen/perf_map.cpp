// Names of generated functions for Linux's perf: /tmp/perf-PID.map, if the environment variable
// LATHE_PERF_MAP is set. The format: tools/perf/Documentation/jit-interface.txt of Linux.
#include "codegen/perf_map.h"

#include <cstdio>
#include <cstdlib>
#include <unistd.h>

namespace lathe::core {
namespace {

class PerfMap : public llvm::orc::ObjectLinkingLayer::Plugin {
public:
  void modifyPassConfig(llvm::orc::MaterializationResponsibility &, llvm::jitlink::LinkGraph &,
                        llvm::jitlink::PassConfiguration &passes) override {
    // Nothing refers to local functions any more; they are wanted all the same.
    passes.PrePrunePasses.push_back([](llvm::jitlink::LinkGraph &graph) {
      for (auto *symbol : graph.defined_symbols())
        if (symbol->isCallable()) symbol->setLive(true);
      return llvm::Error::success();
    });
    passes.PostFixupPasses.push_back([](llvm::jitlink::LinkGraph &graph) {
      const std::string path = "/tmp/perf-" + std::to_string(getpid()) + ".map";
      std::FILE *map = std::fopen(path.c_str(), "a");
      if (!map) return llvm::Error::success(); // nobody will look
      for (auto *symbol : graph.defined_symbols())
        if (symbol->hasName() && symbol->isCallable())
          std::fprintf(map, "%llx %llx %s\n",
                       static_cast<unsigned long long>(symbol->getAddress().getValue()),
                       static_cast<unsigned long long>(symbol->getSize()),
                       symbol->getName().str().c_str());
      std::fclose(map);
      return llvm::Error::success();
    });
  }
  llvm::Error notifyFailed(llvm::orc::MaterializationResponsibility &) override {
    return llvm::Error::success();
  }
  llvm::Error notifyRemovingResources(llvm::orc::JITDylib &, llvm::orc::ResourceKey) override {
    return llvm::Error::success();
  }
  void notifyTransferringResources(llvm::orc::JITDylib &, llvm::orc::ResourceKey,
                                   llvm::orc::ResourceKey) override {}
};

} // namespace

void add_perf_map(llvm::orc::ObjectLinkingLayer &layer) {
  if (std::getenv("LATHE_PERF_MAP")) layer.addPlugin(std::make_shared<PerfMap>());
}

} // namespace lathe::core
