// Kernel specs to an object file or text, through a TargetMachine made from Target alone.
#include "codegen/codegen.h"
#include "codegen/emitter.h"

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

Result<Built> build(std::span<const KernelSpec> specs, const Target &target) {
  Built built;
  LATHE_TRY(built.machine, target_machine(target));
  built.context = std::make_unique<llvm::LLVMContext>();
  built.module = std::make_unique<llvm::Module>("lathe", *built.context);
  built.module->setTargetTriple(target.triple);
  built.module->setDataLayout(built.machine->createDataLayout());
  for (const KernelSpec &spec : specs) {
    std::string name = kernel_name(spec, target);
    std::visit([&](const auto &s) { emit(s, target, name, *built.module); }, spec);
  }
  std::string message;
  llvm::raw_string_ostream stream(message);
  if (llvm::verifyModule(*built.module, &stream))
    return fail(Error{.code = ErrorCode::internal,
                      .message = "generated code does not verify",
                      .detail = message});
  tidy(*built.module, *built.machine);
  return built;
}

Result<llvm::SmallVector<char, 0>> generate(std::span<const KernelSpec> specs, const Target &target,
                                            llvm::CodeGenFileType type) {
  LATHE_TRY(Built built, build(specs, target));
  llvm::SmallVector<char, 0> bytes;
  llvm::raw_svector_ostream stream(bytes);
  llvm::legacy::PassManager passes;
  if (built.machine->addPassesToEmitFile(passes, stream, nullptr, type))
    return fail(ErrorCode::internal, "LLVM cannot write code for " + target.triple);
  passes.run(*built.module);
  return bytes;
}

} // namespace

Result<ObjectCode> compile_kernels(std::span<const KernelSpec> specs, const Target &target) {
  LATHE_TRY(auto bytes, generate(specs, target, llvm::CodeGenFileType::ObjectFile));
  return ObjectCode{std::vector<char>(bytes.begin(), bytes.end())};
}

Result<std::string> print_kernels(std::span<const KernelSpec> specs, const Target &target,
                                  CodeText form) {
  if (form == CodeText::assembly) {
    LATHE_TRY(auto bytes, generate(specs, target, llvm::CodeGenFileType::AssemblyFile));
    return std::string(bytes.begin(), bytes.end());
  }
  LATHE_TRY(Built built, build(specs, target));
  std::string text;
  llvm::raw_string_ostream stream(text);
  built.module->print(stream, nullptr);
  return text;
}

} // namespace lathe::core
