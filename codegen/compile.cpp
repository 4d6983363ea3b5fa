// Kernel specs to an object file or text, through a TargetMachine made from Target alone.
#include "codegen/codegen.h"
#include "codegen/emitter.h"
#include "ir/threads.h"

#include <functional>
#include <mutex>
#include <optional>

namespace lathe::core {
namespace {

void initialise_llvm() {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser();
    LLVMInitializeAArch64TargetInfo();
    LLVMInitializeAArch64Target();
    LLVMInitializeAArch64TargetMC();
    LLVMInitializeAArch64AsmPrinter();
    LLVMInitializeAArch64AsmParser();
  });
}

Result<std::unique_ptr<llvm::TargetMachine>> target_machine(const Target &target) {
  initialise_llvm();
  std::string message;
  const llvm::Target *found = llvm::TargetRegistry::lookupTarget(target.triple, message);
  if (!found) return fail(ErrorCode::internal, "LLVM lacks the target: " + message);
  llvm::TargetOptions options;
  options.AllowFPOpFusion = llvm::FPOpFusion::Strict; // only the FMAs that we wrote
  return std::unique_ptr<llvm::TargetMachine>(found->createTargetMachine(
      target.triple, target.cpu, target.features, options, llvm::Reloc::PIC_,
      llvm::CodeModel::Small, llvm::CodeGenOptLevel::Default));
}

// What the emitters leave to LLVM: common subexpressions and loop-invariant address arithmetic. Put
// together by hand, since LLVM's PassBuilder brings every pass that there is into the program.
void tidy(llvm::Module &module, llvm::TargetMachine &machine) {
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::ModuleAnalysisManager modules;
  modules.registerPass([] { return llvm::PassInstrumentationAnalysis(); });
  modules.registerPass([&] { return llvm::FunctionAnalysisManagerModuleProxy(functions); });
  loops.registerPass([] { return llvm::PassInstrumentationAnalysis(); });
  loops.registerPass([&] { return llvm::FunctionAnalysisManagerLoopProxy(functions); });
  functions.registerPass([] { return llvm::PassInstrumentationAnalysis(); });
  functions.registerPass([&] { return llvm::ModuleAnalysisManagerFunctionProxy(modules); });
  functions.registerPass([&] { return llvm::LoopAnalysisManagerFunctionProxy(loops); });
  functions.registerPass([&] { return machine.getTargetIRAnalysis(); });
  functions.registerPass([] { return llvm::TargetLibraryAnalysis(); });
  functions.registerPass([] { return llvm::AssumptionAnalysis(); });
  functions.registerPass([] { return llvm::DominatorTreeAnalysis(); });
  functions.registerPass([] { return llvm::LoopAnalysis(); });
  functions.registerPass([] { return llvm::ScalarEvolutionAnalysis(); });
  functions.registerPass([] { return llvm::MemorySSAAnalysis(); });
  functions.registerPass([] { return llvm::BasicAA(); });
  functions.registerPass([] {
    llvm::AAManager aliases;
    aliases.registerFunctionAnalysis<llvm::BasicAA>();
    return aliases;
  });
  llvm::FunctionPassManager passes;
  passes.addPass(llvm::PromotePass());
  passes.addPass(llvm::InstSimplifyPass());
  passes.addPass(llvm::EarlyCSEPass());
  passes.addPass(llvm::createFunctionToLoopPassAdaptor(llvm::LICMPass(llvm::LICMOptions()),
                                                       /*UseMemorySSA=*/true));
  passes.addPass(llvm::SimplifyCFGPass());
  llvm::createModuleToFunctionPassAdaptor(std::move(passes)).run(module, modules);
}

// Makes module after module for a target, on one thread.
class Compiler {
public:
  static Result<Compiler> create(const Target &target) {
    Compiler compiler(target);
    LATHE_TRY(compiler.machine_, target_machine(target));
    return compiler;
  }

  Result<ObjectCode> object(std::span<const KernelSpec> specs) {
    LATHE_TRY(auto module, build(specs));
    return object_of(*module);
  }
  Result<ObjectCode> object(const NetworkLibrary &library) {
    LATHE_TRY(auto module, build(library));
    return object_of(*module);
  }
  template <typename What> Result<std::string> text(const What &what, CodeText form) {
    LATHE_TRY(auto module, build(what));
    if (form == CodeText::assembly) {
      LATHE_TRY(auto bytes, generate(*module, llvm::CodeGenFileType::AssemblyFile));
      return std::string(bytes.begin(), bytes.end());
    }
    std::string text;
    llvm::raw_string_ostream stream(text);
    module->print(stream, nullptr);
    return text;
  }

private:
  explicit Compiler(const Target &target)
      : target_(target), context_(std::make_unique<llvm::LLVMContext>()) {}

  using Module = std::unique_ptr<llvm::Module>;
  // A module of what `fill` puts there; functions may say for themselves what CPU they are for.
  Result<Module> build_with(const std::function<Result<void>(llvm::Module &)> &fill) {
    auto module = std::make_unique<llvm::Module>("lathe", *context_);
    module->setTargetTriple(target_.triple);
    module->setDataLayout(machine_->createDataLayout());
    LATHE_CHECK(fill(*module));
    std::string message;
    llvm::raw_string_ostream stream(message);
    if (llvm::verifyModule(*module, &stream))
      return fail(Error{.code = ErrorCode::internal,
                        .message = "generated code does not verify",
                        .detail = message});
    tidy(*module, *machine_);
    return module;
  }
  Result<Module> build(std::span<const KernelSpec> specs) {
    return build_with([&](llvm::Module &module) -> Result<void> {
      for (const KernelSpec &spec : specs) {
        std::string name = kernel_name(spec, target_);
        std::visit([&](const auto &s) { emit(s, target_, name, module); }, spec);
      }
      return {};
    });
  }
  Result<Module> build(const NetworkLibrary &library) {
    return build_with([&](llvm::Module &module) { return emit(library, module); });
  }

  Result<llvm::SmallVector<char, 0>> generate(llvm::Module &module, llvm::CodeGenFileType type) {
    llvm::SmallVector<char, 0> bytes;
    llvm::raw_svector_ostream stream(bytes);
    llvm::legacy::PassManager passes;
    if (machine_->addPassesToEmitFile(passes, stream, nullptr, type))
      return fail(ErrorCode::internal, "LLVM cannot write code for " + target_.triple);
    passes.run(module);
    return bytes;
  }
  Result<ObjectCode> object_of(llvm::Module &module) {
    LATHE_TRY(auto bytes, generate(module, llvm::CodeGenFileType::ObjectFile));
    return ObjectCode{std::vector<char>(bytes.begin(), bytes.end())};
  }

  Target target_;
  std::unique_ptr<llvm::LLVMContext> context_;
  std::unique_ptr<llvm::TargetMachine> machine_;
};

// Of a library: its functions say for themselves what CPU they are for.
Result<Compiler> library_compiler(const NetworkLibrary &library) {
  return Compiler::create(baseline(library.interface().target.arch));
}

} // namespace

Result<ObjectCode> compile_kernels(std::span<const KernelSpec> specs, const Target &target) {
  LATHE_TRY(Compiler compiler, Compiler::create(target));
  return compiler.object(specs);
}

// A module for each spec, so that their number is no matter of threads.
Result<CodeImage> compile_image(std::span<const KernelSpec> specs, const Target &target,
                                int threads, const Deadline &deadline) {
  std::vector<std::optional<Compiler>> compilers(size_t(std::max(threads, 1)));
  std::vector<Result<ObjectCode>> compiled(specs.size());
  auto compile = [&](size_t i, int thread) -> Result<ObjectCode> {
    LATHE_CHECK(deadline.check());
    std::optional<Compiler> &compiler = compilers[size_t(thread)];
    if (!compiler) {
      LATHE_TRY(compiler, Compiler::create(target));
    }
    return compiler->object(specs.subspan(i, 1));
  };
  parallel_each(specs.size(), threads,
                [&](size_t i, int thread) { compiled[i] = compile(i, thread); });
  std::vector<ObjectCode> objects;
  for (Result<ObjectCode> &object : compiled) {
    LATHE_TRY(objects.emplace_back(), std::move(object));
  }
  return link_image(objects);
}

Result<std::string> print_kernels(std::span<const KernelSpec> specs, const Target &target,
                                  CodeText form) {
  LATHE_TRY(Compiler compiler, Compiler::create(target));
  return compiler.text(specs, form);
}

Result<ObjectCode> compile_library(const NetworkLibrary &library) {
  LATHE_TRY(Compiler compiler, library_compiler(library));
  return compiler.object(library);
}

Result<std::string> print_library(const NetworkLibrary &library, CodeText form) {
  LATHE_TRY(Compiler compiler, library_compiler(library));
  return compiler.text(library, form);
}

} // namespace lathe::core
