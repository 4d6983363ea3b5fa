// Kernel specs to an object file or text, through a TargetMachine made from Target alone.
#include "codegen/codegen.h"
#include "codegen/emitter.h"
#include "ir/threads.h"

#include <functional>
#include <mutex>
#include <optional>
#include <set>

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
      llvm::CodeModel::Small, llvm::CodeGenOptLevel::Less));
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

void fill(llvm::Module &module, const KernelSpec &spec, const Target &target) {
  std::visit([&](const auto &s) { emit(s, target, kernel_name(spec, target), module); }, spec);
}

// What is compiled at a time, as a module: functions of these specs' kernels, those that kernels
// share once in all.
struct Unit {
  std::vector<size_t> specs;
  std::set<std::string> functions;
  size_t instructions = 0;
};

// A function each, largest first, so that threads end together; but small ones in groups, since a
// module takes LLVM as long as a hundred instructions.
std::vector<Unit> units_of(std::span<const KernelSpec> specs, const Target &target) {
  constexpr size_t small = 100, enough = 300;
  llvm::LLVMContext context;
  llvm::Module module("units", context);
  std::vector<Unit> units;
  std::optional<size_t> group;
  std::set<std::string> known;
  for (size_t i = 0; i < specs.size(); ++i) {
    fill(module, specs[i], target);
    for (const llvm::Function &function : module) {
      std::string name = function.getName().str();
      if (function.isDeclaration() || !known.insert(name).second) continue;
      const size_t instructions = function.getInstructionCount();
      const bool joins = instructions < small;
      if (!joins || !group || units[*group].instructions >= enough) {
        if (joins) group = units.size();
        units.emplace_back();
      }
      Unit &unit = joins ? units[*group] : units.back();
      if (unit.specs.empty() || unit.specs.back() != i) unit.specs.push_back(i);
      unit.functions.insert(std::move(name));
      unit.instructions += instructions;
    }
  }
  std::ranges::stable_sort(units, std::ranges::greater{}, &Unit::instructions);
  return units;
}

// For objects that are linked into one image: nothing is seen from outside, nothing replaced.
void keep_or_declare(llvm::Function &function, const std::set<std::string> &kept) {
  if (function.isIntrinsic()) return;
  if (!kept.contains(function.getName().str())) function.deleteBody();
  function.setLinkage(llvm::GlobalValue::ExternalLinkage);
  function.setVisibility(llvm::GlobalValue::HiddenVisibility);
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
  Result<ObjectCode> object(std::span<const KernelSpec> specs, const Unit &unit) {
    LATHE_TRY(auto module, build_with([&](llvm::Module &all) -> Result<void> {
                for (size_t spec : unit.specs) fill(all, specs[spec], target_);
                for (llvm::Function &function : all) keep_or_declare(function, unit.functions);
                return {};
              }));
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
      for (const KernelSpec &spec : specs) fill(module, spec, target_);
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

Result<CodeImage> compile_image(std::span<const KernelSpec> specs, const Target &target,
                                int threads, const Deadline &deadline) {
  const std::vector<Unit> units = units_of(specs, target);
  std::vector<std::optional<Compiler>> compilers(size_t(std::max(threads, 1)));
  std::vector<Result<ObjectCode>> compiled(units.size());
  auto compile = [&](const Unit &unit, int thread) -> Result<ObjectCode> {
    LATHE_CHECK(deadline.check());
    std::optional<Compiler> &compiler = compilers[size_t(thread)];
    if (!compiler) {
      LATHE_TRY(compiler, Compiler::create(target));
    }
    return compiler->object(specs, unit);
  };
  parallel_each(units.size(), threads,
                [&](size_t i, int thread) { compiled[i] = compile(units[i], thread); });
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
