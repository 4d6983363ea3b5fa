// Links object code into this process with ORC.
#include "codegen/codegen.h"
#include "codegen/llvm.h"
#include "codegen/perf_map.h"

namespace lathe::core {

struct JitCode::Impl {
  std::unique_ptr<llvm::orc::LLJIT> jit;
};

JitCode::JitCode(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
JitCode::~JitCode() = default;

namespace {
std::unexpected<Error> jit_error(llvm::Error error, std::string_view doing) {
  return fail(Error{.code = ErrorCode::internal,
                    .message = "cannot " + std::string(doing),
                    .detail = llvm::toString(std::move(error))});
}
} // namespace

Result<std::unique_ptr<JitCode>> JitCode::link(std::vector<ObjectCode> objects) {
  llvm::orc::LLJITBuilder builder;
  // JITLink writes code, then seals it: no page is writable and executable at once.
  builder.setObjectLinkingLayerCreator(
      [](llvm::orc::ExecutionSession &session,
         const llvm::Triple &) -> llvm::Expected<std::unique_ptr<llvm::orc::ObjectLayer>> {
        auto memory = llvm::jitlink::InProcessMemoryManager::Create();
        if (!memory) return memory.takeError();
        auto layer = std::make_unique<llvm::orc::ObjectLinkingLayer>(session, std::move(*memory));
        add_perf_map(*layer);
        return layer;
      });
  builder.setNumCompileThreads(0);
  auto machine = llvm::orc::JITTargetMachineBuilder::detectHost();
  if (!machine) return jit_error(machine.takeError(), "describe this machine to LLVM");
  builder.setJITTargetMachineBuilder(std::move(*machine));
  // Kernels call nothing and have no initialisers: no runtime support, no symbols of this process.
  builder.setPlatformSetUp(llvm::orc::setUpInactivePlatform);
  builder.setLinkProcessSymbolsByDefault(false);
  auto jit = builder.create();
  if (!jit) return jit_error(jit.takeError(), "start the JIT linker");
  auto impl = std::make_unique<Impl>();
  impl->jit = std::move(*jit);
  for (ObjectCode &object : objects) {
    llvm::SmallVector<char, 0> bytes(object.bytes.begin(), object.bytes.end());
    auto buffer = std::make_unique<llvm::SmallVectorMemoryBuffer>(std::move(bytes), "kernels",
                                                                  /*RequiresNullTerminator=*/false);
    if (auto error = impl->jit->addObjectFile(std::move(buffer)))
      return jit_error(std::move(error), "link generated code");
  }
  return std::unique_ptr<JitCode>(new JitCode(std::move(impl)));
}

Result<KernelFunction> JitCode::find(const std::string &name) const {
  auto address = impl_->jit->lookup(name);
  if (!address) return jit_error(address.takeError(), "find the kernel " + name);
  return address->toPtr<KernelFunction>();
}

} // namespace lathe::core
