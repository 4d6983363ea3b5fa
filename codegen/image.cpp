// Links object code into an image that runs at any page: JITLink lays out and fixes up, into a
// plain buffer.
#include "codegen/codegen.h"
#include "codegen/llvm.h"

namespace lathe::core {
namespace {

namespace jitlink = llvm::jitlink;
using llvm::orc::ExecutorAddr;

// What JITLink believes the image's address to be.
constexpr uint64_t page = 4096;

// Lays a graph out behind the bytes that are there already.
class ImageMemory : public jitlink::JITLinkMemoryManager {
public:
  ImageMemory(std::vector<std::byte> &bytes, uint64_t base) : bytes_(bytes), base_(base) {}

  void allocate(const jitlink::JITLinkDylib *, jitlink::LinkGraph &graph,
                OnAllocatedFunction done) override {
    jitlink::BasicLayout layout(graph);
    uint64_t end = bytes_.size();
    for (auto &[group, segment] : layout.segments()) {
      end = llvm::alignTo(end, segment.Alignment);
      segment.Addr = ExecutorAddr(base_ + end);
      end += segment.ContentSize + segment.ZeroFillSize;
    }
    bytes_.resize(end);
    for (auto &[group, segment] : layout.segments())
      segment.WorkingMem =
          reinterpret_cast<char *>(bytes_.data() + (segment.Addr.getValue() - base_));
    if (auto error = layout.apply()) return done(std::move(error));
    done(std::make_unique<Laid>());
  }
  void deallocate(std::vector<FinalizedAlloc>, OnDeallocatedFunction done) override {
    done(llvm::Error::success());
  }

private:
  struct Laid : InFlightAlloc {
    void abandon(OnAbandonedFunction done) override { done(llvm::Error::success()); }
    void finalize(OnFinalizedFunction done) override { done(FinalizedAlloc(ExecutorAddr(page))); }
  };
  std::vector<std::byte> &bytes_;
  uint64_t base_;
};

class LinkContext : public jitlink::JITLinkContext {
public:
  LinkContext(CodeImage &image, uint64_t base, std::string &problem)
      : JITLinkContext(nullptr), image_(image), base_(base), memory_(image.bytes, base),
        problem_(problem) {}

  jitlink::JITLinkMemoryManager &getMemoryManager() override { return memory_; }
  void notifyFailed(llvm::Error error) override { problem_ = llvm::toString(std::move(error)); }
  void lookup(const LookupMap &symbols,
              std::unique_ptr<jitlink::JITLinkAsyncLookupContinuation> done) override {
    done->run(llvm::createStringError("a kernel calls " + symbols.begin()->first));
  }
  llvm::Error notifyResolved(jitlink::LinkGraph &) override { return llvm::Error::success(); }
  void notifyFinalized(jitlink::JITLinkMemoryManager::FinalizedAlloc done) override {
    done.release();
  }
  // Local functions too, for profilers; nothing else but what they refer to.
  jitlink::LinkGraphPassFunction getMarkLivePass(const llvm::Triple &) const override {
    return [](jitlink::LinkGraph &graph) {
      for (auto *symbol : graph.defined_symbols()) symbol->setLive(symbol->isCallable());
      return llvm::Error::success();
    };
  }
  llvm::Error modifyPassConfig(jitlink::LinkGraph &, jitlink::PassConfiguration &passes) override {
    passes.PostFixupPasses.push_back([this](jitlink::LinkGraph &graph) {
      for (auto *symbol : graph.defined_symbols())
        if (symbol->hasName() && symbol->isCallable())
          image_.symbols.push_back({.name = symbol->getName().str(),
                                    .offset = int64_t(symbol->getAddress().getValue() - base_),
                                    .size = int64_t(symbol->getSize())});
      return llvm::Error::success();
    });
    return llvm::Error::success();
  }

private:
  CodeImage &image_;
  uint64_t base_;
  ImageMemory memory_;
  std::string &problem_;
};

std::unexpected<Error> link_error(std::string detail) {
  return fail(Error{.code = ErrorCode::internal,
                    .message = "cannot link generated code",
                    .detail = std::move(detail)});
}

Result<CodeImage> link_at(std::span<const ObjectCode> objects, uint64_t base) {
  CodeImage image;
  for (const ObjectCode &object : objects) {
    const llvm::MemoryBufferRef buffer({object.bytes.data(), object.bytes.size()}, "kernels");
    auto graph = jitlink::createLinkGraphFromObject(buffer);
    if (!graph) return link_error(llvm::toString(graph.takeError()));
    std::string problem;
    jitlink::link(std::move(*graph), std::make_unique<LinkContext>(image, base, problem));
    if (!problem.empty()) return link_error(std::move(problem));
  }
  std::ranges::sort(image.symbols, {}, &CodeImage::Symbol::offset);
  return image;
}

} // namespace

Result<CodeImage> link_image(std::span<const ObjectCode> objects) {
  LATHE_TRY(CodeImage image, link_at(objects, page));
  // Whatever is not relative within the image differs elsewhere.
  LATHE_TRY(const CodeImage elsewhere, link_at(objects, (uint64_t{1} << 40) + page));
  if (image.bytes != elsewhere.bytes) return link_error("the code depends on its address");
  return image;
}

} // namespace lathe::core
