// Kernel specs to an object file or text, through a TargetMachine made from Target alone.
#include "codegen/codegen.h"
#include "codegen/emitter.h"

#include <functional>
#include <mutex>

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

// What the emitters leave to LLVM: common subexpressions and loop-invariant address arithmetic.
void tidy(llvm::Module &module, llvm::TargetMachine &machine) {
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager graphs;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(graphs);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, graphs, modules);
  llvm::ModulePassManager passes;
  if (auto error = builder.parsePassPipeline(
          passes, "function(mem2reg,instsimplify,early-cse,loop-mssa(licm),simplifycfg)"))
    llvm::consumeError(std::move(error));
  passes.run(module, modules);
}

struct Built {
  std::unique_ptr<llvm::LLVMContext> context;
  std::unique_ptr<llvm::Module> module;
  std::unique_ptr<llvm::TargetMachine> machine;
};

// A module of what `fill` puts there; functions say for themselves what CPU they are for.
Result<Built> build(const Target &target, const std::function<Result<void>(llvm::Module &)> &fill) {
  Built built;
  LATHE_TRY(built.machine, target_machine(target));
  built.context = std::make_unique<llvm::LLVMContext>();
  built.module = std::make_unique<llvm::Module>("lathe", *built.context);
  built.module->setTargetTriple(target.triple);
  built.module->setDataLayout(built.machine->createDataLayout());
  LATHE_CHECK(fill(*built.module));
  std::string message;
  llvm::raw_string_ostream stream(message);
  if (llvm::verifyModule(*built.module, &stream))
    return fail(Error{.code = ErrorCode::internal,
                      .message = "generated code does not verify",
                      .detail = message});
  tidy(*built.module, *built.machine);
  return built;
}

Result<Built> build(std::span<const KernelSpec> specs, const Target &target) {
  return build(target, [&](llvm::Module &module) -> Result<void> {
    for (const KernelSpec &spec : specs) {
      std::string name = kernel_name(spec, target);
      std::visit([&](const auto &s) { emit(s, target, name, module); }, spec);
    }
    return {};
  });
}

Result<Built> build(const NetworkLibrary &library) {
  return build(baseline(library.interface().target.arch),
               [&](llvm::Module &module) { return emit(library, module); });
}

Result<llvm::SmallVector<char, 0>> generate(const Built &built, llvm::CodeGenFileType type) {
  llvm::SmallVector<char, 0> bytes;
  llvm::raw_svector_ostream stream(bytes);
  llvm::legacy::PassManager passes;
  if (built.machine->addPassesToEmitFile(passes, stream, nullptr, type))
    return fail(ErrorCode::internal,
                "LLVM cannot write code for " + built.machine->getTargetTriple().str());
  passes.run(*built.module);
  return bytes;
}

Result<ObjectCode> object_of(const Built &built) {
  LATHE_TRY(auto bytes, generate(built, llvm::CodeGenFileType::ObjectFile));
  return ObjectCode{std::vector<char>(bytes.begin(), bytes.end())};
}

Result<std::string> text_of(const Built &built, CodeText form) {
  if (form == CodeText::assembly) {
    LATHE_TRY(auto bytes, generate(built, llvm::CodeGenFileType::AssemblyFile));
    return std::string(bytes.begin(), bytes.end());
  }
  std::string text;
  llvm::raw_string_ostream stream(text);
  built.module->print(stream, nullptr);
  return text;
}

} // namespace

Result<ObjectCode> compile_kernels(std::span<const KernelSpec> specs, const Target &target) {
  LATHE_TRY(Built built, build(specs, target));
  return object_of(built);
}

Result<std::string> print_kernels(std::span<const KernelSpec> specs, const Target &target,
                                  CodeText form) {
  LATHE_TRY(Built built, build(specs, target));
  return text_of(built, form);
}

Result<ObjectCode> compile_library(const NetworkLibrary &library) {
  LATHE_TRY(Built built, build(library));
  return object_of(built);
}

Result<std::string> print_library(const NetworkLibrary &library, CodeText form) {
  LATHE_TRY(Built built, build(library));
  return text_of(built, form);
}

} // namespace lathe::core
