// Links object code into an image that runs at any page: JITLink lays out and fixes up, into a
// plain buffer.
#include "codegen/codegen.h"
#include "codegen/llvm.h"
#include "codegen/llvm_memory.h"

#include <unordered_map>

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

using Graph = jitlink::LinkGraph;

Result<LlvmOwner<Graph>> graph_of(std::span<const char> object) {
  const llvm::MemoryBufferRef buffer({object.data(), object.size()}, "kernels");
  auto graph = jitlink::createLinkGraphFromObject(buffer);
  if (!graph) return link_error(llvm::toString(graph.takeError()));
  return LlvmOwner(graph->release());
}

// Adds a copy of all that `from`, the object of that number, holds. Blocks are laid out by address,
// so that different objects need different ones.
void add(Graph &to, Graph &from, uint64_t number) {
  auto name = [&](llvm::StringRef other) {
    auto own = to.allocateContent(llvm::ArrayRef(other.data(), other.size()));
    return llvm::StringRef(own.data(), own.size());
  };
  std::unordered_map<const jitlink::Block *, jitlink::Block *> blocks;
  std::unordered_map<const jitlink::Symbol *, jitlink::Symbol *> symbols;
  for (jitlink::Section &section : from.sections()) {
    jitlink::Section *place = to.findSectionByName(section.getName());
    if (!place) place = &to.createSection(name(section.getName()), section.getMemProt());
    for (jitlink::Block *block : section.blocks()) {
      const ExecutorAddr address = block->getAddress() + (number << 32);
      blocks[block] =
          block->isZeroFill()
              ? &to.createZeroFillBlock(*place, block->getSize(), address, block->getAlignment(),
                                        block->getAlignmentOffset())
              : &to.createContentBlock(*place, to.allocateContent(block->getContent()), address,
                                       block->getAlignment(), block->getAlignmentOffset());
    }
  }
  for (jitlink::Symbol *symbol : from.defined_symbols()) {
    jitlink::Block &block = *blocks[&symbol->getBlock()];
    symbols[symbol] =
        symbol->hasName()
            ? &to.addDefinedSymbol(block, symbol->getOffset(), name(symbol->getName()),
                                   symbol->getSize(), symbol->getLinkage(), symbol->getScope(),
                                   symbol->isCallable(), symbol->isLive())
            : &to.addAnonymousSymbol(block, symbol->getOffset(), symbol->getSize(),
                                     symbol->isCallable(), symbol->isLive());
  }
  for (jitlink::Symbol *symbol : from.external_symbols()) {
    jitlink::Symbol *&known = symbols[symbol];
    for (jitlink::Symbol *other : to.external_symbols())
      if (other->getName() == symbol->getName()) known = other;
    if (!known)
      known = &to.addExternalSymbol(name(symbol->getName()), symbol->getSize(),
                                    symbol->isWeaklyReferenced());
  }
  for (auto [block, copy] : blocks)
    for (const jitlink::Edge &edge : block->edges())
      copy->addEdge(edge.getKind(), edge.getOffset(), *symbols[&edge.getTarget()],
                    edge.getAddend());
}

// What one object declares and another defines becomes the same.
void resolve(Graph &graph) {
  std::unordered_map<std::string_view, jitlink::Symbol *> defined;
  for (jitlink::Symbol *symbol : graph.defined_symbols())
    if (symbol->hasName()) defined[std::string_view(symbol->getName())] = symbol;
  for (jitlink::Block *block : graph.blocks())
    for (jitlink::Edge &edge : block->edges())
      if (edge.getTarget().isExternal())
        if (auto found = defined.find(std::string_view(edge.getTarget().getName()));
            found != defined.end())
          edge.setTarget(*found->second);
  std::vector<jitlink::Symbol *> resolved;
  for (jitlink::Symbol *symbol : graph.external_symbols())
    if (defined.contains(std::string_view(symbol->getName()))) resolved.push_back(symbol);
  for (jitlink::Symbol *symbol : resolved) graph.removeExternalSymbol(*symbol);
}

Result<CodeImage> link_at(std::span<const std::span<const char>> objects, uint64_t base) {
  CodeImage image;
  if (objects.empty()) return image;
  LATHE_TRY(LlvmOwner<Graph> all, graph_of(objects.front()));
  for (size_t i = 1; i < objects.size(); ++i) {
    LATHE_TRY(const LlvmOwner<Graph> graph, graph_of(objects[i]));
    add(*all, *graph, i);
  }
  resolve(*all);
  std::string problem;
  jitlink::link(std::unique_ptr<Graph>(all.release()),
                std::make_unique<LinkContext>(image, base, problem));
  if (!problem.empty()) return link_error(std::move(problem));
  std::ranges::sort(image.symbols, {}, &CodeImage::Symbol::offset);
  return image;
}

} // namespace

Result<CodeImage> link_image(std::span<const std::span<const char>> objects) {
  throw_when_out_of_memory();
  LATHE_TRY(CodeImage image, link_at(objects, page));
  // Whatever is not relative within the image differs elsewhere.
  LATHE_TRY(const CodeImage elsewhere, link_at(objects, (uint64_t{1} << 40) + page));
  if (image.bytes != elsewhere.bytes) return link_error("the code depends on its address");
  return image;
}

} // namespace lathe::core
