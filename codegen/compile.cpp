// Kernel specs to an object file or text, through a TargetMachine made from Target alone.
#include "codegen/archive.h"
#include "codegen/emitter.h"
#include "codegen/llvm.h"
#include "codegen/llvm_memory.h"
#include "ir/system/fork.h"
#include "ir/system/threads.h"

#include <functional>
#include <map>
#include <optional>
#include <set>

namespace lathe::core {
namespace {

// What LLVM takes at most for a unit of our code, and for itself once, with room to spare.
constexpr size_t reserve_bytes = 16 << 20;
// What LLVM takes for a kernel in a module, about.
constexpr int64_t function_bytes = 1 << 19;

void initialise_llvm() {
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
}

Result<LlvmOwner<llvm::TargetMachine>> target_machine(const Target &target) {
  std::string message;
  const llvm::Target *found = llvm::TargetRegistry::lookupTarget(target.triple, message);
  if (!found) return fail(ErrorCode::internal, "LLVM lacks the target: " + message);
  llvm::TargetOptions options;
  options.AllowFPOpFusion = llvm::FPOpFusion::Strict; // only the FMAs that we wrote
  return LlvmOwner(found->createTargetMachine(target.triple, target.cpu, target.features, options,
                                              llvm::Reloc::PIC_, llvm::CodeModel::Small,
                                              llvm::CodeGenOptLevel::Less));
}

// What the emitters leave to LLVM: common subexpressions and loop-invariant address arithmetic. Put
// together by hand, since LLVM's PassBuilder brings every pass that there is into the program.
void tidy(llvm::Module &module, llvm::TargetMachine &machine) {
  struct Analyses {
    llvm::LoopAnalysisManager loops;
    llvm::FunctionAnalysisManager functions;
    llvm::ModuleAnalysisManager modules;
  };
  const auto analyses = make_llvm<Analyses>();
  auto &[loops, functions, modules] = *analyses;
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
  std::visit([&](const auto &s) { emit(s, target, kernel_symbol(spec, target), module); }, spec);
}

// What is compiled at a time, as a module: functions of these specs' kernels, those that kernels
// share once in all.
struct Unit {
  std::vector<size_t> specs;
  std::set<std::string> functions;
  size_t instructions = 0;
};

// All that an image consists of.
struct Parts {
  std::vector<Unit> units;                                   // to compile
  std::map<std::string_view, std::span<const char>> objects; // from an archive, by function
  // Adds a function of the archive, with all that it calls; false if that does not have it.
  bool take(std::string_view name, const CodeArchive *archive) {
    const CodeArchive::Function *function = archive ? archive->find(name) : nullptr;
    if (!function) return false;
    if (objects.emplace(function->name, function->object).second)
      for (std::string_view other : function->calls) take(other, archive);
    return true;
  }
};

// What is compiled: a function each, largest first, so that threads end together; but small ones in
// groups, since a module takes LLVM as long as a hundred instructions.
Parts parts_of(std::span<const KernelSpec> specs, const Target &target,
               const CodeArchive *archive) {
  constexpr size_t small = 100, enough = 300;
  Parts parts;
  std::vector<Unit> &units = parts.units;
  const auto context = make_llvm<llvm::LLVMContext>();
  const auto units_module = make_llvm<llvm::Module>("units", *context);
  llvm::Module &module = *units_module;
  std::optional<size_t> group;
  std::set<std::string> known;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (parts.take(kernel_symbol(specs[i], target), archive)) continue;
    fill(module, specs[i], target);
    for (const llvm::Function &function : module) {
      std::string name = function.getName().str();
      if (function.isDeclaration() || !known.insert(name).second) continue;
      if (parts.take(name, archive)) continue;
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
  return parts;
}

// For objects that are linked into one image: nothing is seen from outside, nothing replaced. Other
// functions than the `kept` ones are declared, if these need them.
void keep(llvm::Module &module, const std::set<std::string> &kept) {
  for (llvm::Function &function : module) {
    if (function.isIntrinsic()) continue;
    if (!kept.contains(function.getName().str())) function.deleteBody();
    function.setLinkage(llvm::GlobalValue::ExternalLinkage);
    function.setVisibility(llvm::GlobalValue::HiddenVisibility);
  }
  for (llvm::Function &function : llvm::make_early_inc_range(module))
    if (function.isDeclaration() && function.use_empty()) function.eraseFromParent();
}

// Makes module after module for a target, on one thread.
class Compiler {
public:
  static Result<Compiler> create(const Target &target) {
    LATHE_CHECK(prepare(target));
    return unprepared(target);
  }
  // What must be done once in a process, before anything else: best by a thread that works alone,
  // so that no other takes the memory that it has in reserve.
  static Result<void> prepare(const Target &target);

  Result<ObjectCode> object(std::span<const KernelSpec> specs) {
    LATHE_TRY(auto module, build(specs));
    return object_of(*module);
  }
  Result<ObjectCode> object(std::span<const KernelSpec> specs, const Unit &unit) {
    LATHE_TRY(auto module, build_with([&](llvm::Module &all) -> Result<void> {
                for (size_t spec : unit.specs) fill(all, specs[spec], target_);
                keep(all, unit.functions);
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
      : target_(target), context_(make_llvm<llvm::LLVMContext>()) {}
  static Result<Compiler> unprepared(const Target &target) {
    Compiler compiler(target);
    LATHE_TRY(compiler.machine_, target_machine(target));
    return compiler;
  }

  using Module = LlvmOwner<llvm::Module>;
  // A module of what `fill` puts there; functions may say for themselves what CPU they are for.
  Result<Module> build_with(const std::function<Result<void>(llvm::Module &)> &fill) {
    auto module = make_llvm<llvm::Module>("lathe", *context_);
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
    const auto passes = make_llvm<llvm::legacy::PassManager>();
    if (machine_->addPassesToEmitFile(*passes, stream, nullptr, type))
      return fail(ErrorCode::internal, "LLVM cannot write code for " + target_.triple);
    passes->run(module);
    return bytes;
  }
  Result<ObjectCode> object_of(llvm::Module &module) {
    LATHE_TRY(auto bytes, generate(module, llvm::CodeGenFileType::ObjectFile));
    return ObjectCode{std::vector<char>(bytes.begin(), bytes.end())};
  }

  Target target_;
  LlvmOwner<llvm::LLVMContext> context_;
  LlvmOwner<llvm::TargetMachine> machine_;
};

ForkMutex prepare_mutex;

// What LLVM makes once in a process, and guards with locks that would stay taken if something were
// thrown meanwhile, or at a fork: tables of targets and of passes, as the first code needs them.
Result<void> Compiler::prepare(const Target &target) {
  enum class State : uint8_t { not_yet, broken, done };
  static constinit std::atomic<State> states[2] = {};
  std::atomic<State> &state = states[size_t(target.arch)];
  if (state.load(std::memory_order_acquire) == State::done) return {};
  const std::lock_guard lock(prepare_mutex);
  LATHE_TRY(const LlvmReserve reserve, LlvmReserve::hold(reserve_bytes));
  if (states[0] == State::broken || states[1] == State::broken)
    return fail(ErrorCode::limit, "the code generator once ran out of memory as it started, "
                                  "and cannot be started again in this process");
  if (state == State::done) return {};
  const LlvmReserve::ForAll reserve_for_all;
  state = State::broken; // should anything be thrown
  initialise_llvm();
  LATHE_TRY(Compiler compiler, unprepared(target));
  LATHE_TRY(auto module, compiler.build_with([](llvm::Module &m) -> Result<void> {
    llvm::IRBuilder<> b(m.getContext());
    auto *type = llvm::FunctionType::get(b.getVoidTy(), {b.getPtrTy()}, false);
    auto *f = llvm::Function::Create(type, llvm::Function::ExternalLinkage, "first", m);
    b.SetInsertPoint(llvm::BasicBlock::Create(m.getContext(), "entry", f));
    auto *x = b.CreateLoad(b.getFloatTy(), f->getArg(0));
    b.CreateStore(b.CreateFMul(x, x), f->getArg(0));
    b.CreateRetVoid();
    return {};
  }));
  LATHE_TRY(const ObjectCode object, compiler.object_of(*module));
  const std::span<const char> bytes(object.bytes);
  LATHE_CHECK(link_image(std::span(&bytes, 1)));
  state.store(State::done, std::memory_order_release);
  return {};
}

// Of a library: its functions say for themselves what CPU they are for.
Result<Compiler> library_compiler(const NetworkLibrary &library) {
  return Compiler::create(baseline(library.interface().target.arch));
}

} // namespace

Result<ObjectCode> compile_kernels(std::span<const KernelSpec> specs, const Target &target) {
  LATHE_TRY(Compiler compiler, Compiler::create(target));
  return compiler.object(specs);
}

namespace {

// Of all units, on so many threads at most.
Result<std::vector<ObjectCode>> compile_units(std::span<const KernelSpec> specs,
                                              std::span<const Unit> units, const Target &target,
                                              int threads, const Budget &budget) {
  if (!units.empty()) LATHE_CHECK(Compiler::prepare(target));
  std::vector<std::optional<Compiler>> compilers(size_t(std::max(threads, 1)));
  std::vector<Result<ObjectCode>> compiled(units.size());
  auto compile = [&](const Unit &unit, int thread) -> Result<ObjectCode> {
    LATHE_CHECK(budget.check("generating code"));
    LATHE_TRY(const LlvmReserve reserve, LlvmReserve::hold(reserve_bytes));
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
  return objects;
}

} // namespace

Result<CodeImage> compile_image(std::span<const KernelSpec> specs, const Target &target,
                                int threads, const Budget &budget, const CodeArchive *archive) {
  throw_when_out_of_memory();
  std::optional<LlvmReserve> reserve;
  LATHE_TRY(reserve, LlvmReserve::hold(reserve_bytes));
  const Parts parts = parts_of(specs, target, archive);
  reserve.reset(); // every unit has its own
  LATHE_TRY(const std::vector<ObjectCode> compiled,
            compile_units(specs, parts.units, target, threads, budget));
  std::vector<std::span<const char>> objects;
  for (const ObjectCode &object : compiled) objects.emplace_back(object.bytes);
  for (const auto &[name, object] : parts.objects) objects.push_back(object);
  LATHE_TRY(reserve, LlvmReserve::hold(reserve_bytes));
  LATHE_TRY(CodeImage image, link_image(objects));
  for (const Unit &unit : parts.units) image.compiled += unit.functions.size();
  return image;
}

namespace {

// Register tiles of the specs' forms, with fewer pixels: as many as any spec has, down to one unit.
std::vector<KernelSpec> smaller_tiles(std::span<const KernelSpec> specs, const Target &target) {
  std::map<std::string, ConvSpec> forms; // by their names, the largest
  auto add = [&](const auto &self, const ConvSpec &spec) -> void {
    ConvSpec form = spec;
    form.smaller_tile = false;
    form.prologue = Prologue::none;
    form.gathered = 0;
    form.pre.clear();
    form.source.clear();
    form.pool.reset();
    ConvSpec any = form;
    any.tile_pixels = any.vector_pixels;
    ConvSpec &largest = forms.emplace(kernel_symbol(any, target), form).first->second;
    largest.tile_pixels = std::max(largest.tile_pixels, form.tile_pixels);
    for (const ConvSpec &source : spec.source) self(self, source);
  };
  for (const KernelSpec &spec : specs)
    if (auto *conv = std::get_if<ConvSpec>(&spec)) add(add, *conv);
  std::vector<KernelSpec> tiles;
  for (auto &[name, form] : forms)
    for (ConvSpec tile = form; tile.tile_pixels > 0; tile.tile_pixels -= tile.vector_pixels)
      tiles.emplace_back(tile);
  return tiles;
}

// The names of the functions that one refers to.
std::vector<std::string> references(const llvm::Function &function) {
  std::set<std::string> names;
  for (const llvm::BasicBlock &block : function)
    for (const llvm::Instruction &instruction : block)
      for (const llvm::Value *operand : instruction.operands())
        if (auto *other = llvm::dyn_cast<llvm::Function>(operand))
          if (!other->isIntrinsic()) names.insert(other->getName().str());
  return {names.begin(), names.end()};
}

} // namespace

Result<std::string> compile_archive(std::span<const KernelSpec> specs, const Target &target,
                                    int threads) {
  std::vector<KernelSpec> all(specs.begin(), specs.end());
  const std::vector<KernelSpec> tiles = smaller_tiles(specs, target);
  all.insert(all.end(), tiles.begin(), tiles.end());
  std::vector<Unit> units; // a function each
  std::vector<std::vector<std::string>> calls;
  std::set<std::string> known;
  for (size_t i = specs.size(); i < all.size(); ++i) known.insert(kernel_symbol(all[i], target));
  for (const KernelSpec &spec : specs) known.erase(kernel_symbol(spec, target));
  const auto context = make_llvm<llvm::LLVMContext>();
  const auto all_module = make_llvm<llvm::Module>("archive", *context);
  llvm::Module &module = *all_module;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!module.getFunction(kernel_symbol(all[i], target))) fill(module, all[i], target);
    for (const llvm::Function &function : module) {
      std::string name = function.getName().str();
      if (function.isDeclaration() || !known.insert(name).second) continue;
      units.push_back({.specs = {i}, .functions = {name}});
      calls.push_back(references(function));
    }
  }
  LATHE_TRY(const std::vector<ObjectCode> objects, compile_units(all, units, target, threads, {}));
  std::string archive;
  for (size_t i = 0; i < units.size(); ++i)
    archive += encode({.name = *units[i].functions.begin(),
                       .calls = {calls[i].begin(), calls[i].end()},
                       .object = objects[i].bytes});
  return archive;
}

Result<std::string> print_kernels(std::span<const KernelSpec> specs, const Target &target,
                                  CodeText form) {
  LATHE_TRY(Compiler compiler, Compiler::create(target));
  return compiler.text(specs, form);
}

namespace {

// Whether the library has sizes, for as many threads as a run may name, and the budget allows it.
Result<Grant> check_library(const NetworkLibrary &library, const Budget &budget) {
  size_t kernels = 0;
  for (const NetworkLibrary::Variant &variant : library.variants) {
    LATHE_CHECK(variant.plan->sized(library.images, most_threads));
    std::set<std::string> names;
    for (const Kernel &kernel : variant.plan->kernels)
      names.insert(kernel_symbol(kernel.spec, variant.plan->target));
    kernels += names.size();
  }
  LATHE_CHECK(budget.check("generating code"));
  return budget.take(int64_t(kernels) * function_bytes, "generating code");
}

} // namespace

Result<ObjectCode> compile_library(const NetworkLibrary &library, const Budget &budget) {
  LATHE_TRY(const Grant grant, check_library(library, budget));
  LATHE_TRY(Compiler compiler, library_compiler(library));
  return compiler.object(library);
}

Result<std::string> print_library(const NetworkLibrary &library, CodeText form,
                                  const Budget &budget) {
  LATHE_TRY(const Grant grant, check_library(library, budget));
  LATHE_TRY(Compiler compiler, library_compiler(library));
  return compiler.text(library, form);
}

} // namespace lathe::core
