// A network as a library of plain C functions: its kernels, the code that calls them one after the
// other, and the checks before. The structs are those of the header that runtime/c_header.cpp
// writes.
#include "codegen/emitter.h"
#include "ir/system/memory.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <fmt/format.h>
#include <map>

namespace lathe::core {

// --- What a library is

namespace {

constexpr uint64_t checksum_factor = 0x9e3779b97f4a7c15; // odd, its bits spread: 2^64 over phi
constexpr int checksum_shift = 32;

int64_t bytes_of(const Plan &plan, const Type &type, int64_t images) {
  return element_count(type.shape) * int64_t(size_of(type.dtype)) * (plan.batched ? images : 1);
}

} // namespace

uint64_t weights_identifier(uint64_t plans, std::span<const std::byte> content) {
  uint64_t sum = plans;
  for (size_t i = 0; i + 8 <= content.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, &content[i], 8);
    sum = (sum ^ word) * checksum_factor;
    sum ^= sum >> checksum_shift;
  }
  return sum;
}

int64_t NetworkLibrary::input_bytes(size_t i) const {
  return bytes_of(interface(), interface().inputs[i], images);
}
int64_t NetworkLibrary::output_bytes(size_t j) const {
  return bytes_of(interface(), interface().outputs[j], images);
}
int64_t NetworkLibrary::arena_bytes() const {
  int64_t most = 64; // never nothing, so that what is allocated has an address
  for (const Variant &v : variants)
    most = std::max(most, whole_lines(v.plan->arena_bytes.at(images)));
  return most;
}
int64_t NetworkLibrary::scratch_per_thread() const {
  int64_t most = 0;
  for (const Variant &v : variants) most = std::max(most, v.plan->scratch_per_thread());
  return most;
}

std::span<const LibraryStatusText> library_statuses() {
  static constexpr std::array statuses{
      LibraryStatusText{"OK", "done"},
      LibraryStatusText{"NULL_ARGUMENT", "a pointer is null"},
      LibraryStatusText{"MISALIGNED", "a pointer is not aligned as it must be"},
      LibraryStatusText{"SMALL_ARENA", "the arena is smaller than so many threads need"},
      LibraryStatusText{
          "BAD_PARALLEL",
          "less than one thread or more than 1024, or threads but no function to use them"},
      LibraryStatusText{"WRONG_WEIGHTS",
                        "the weights are not those that this code was compiled with"},
      LibraryStatusText{"UNSUPPORTED_CPU", "this CPU lacks what the code was compiled for"},
      LibraryStatusText{"UNINITIALISED", "the network was not initialised"},
  };
  static_assert(statuses.size() == size_t(LibraryStatus::uninitialised) + 1);
  return statuses;
}

const Target &baseline(Arch arch) { // known_targets lists the widest first
  const Target *last = nullptr;
  for (const Target &target : known_targets())
    if (target.arch == arch) last = &target;
  return *last;
}

// --- Its code

namespace {

// Where the fields of the header's structs lie, and those that the jobs of a fork share.
enum NetworkField : uint8_t { network_weights = 0, network_variant = 8 };
enum ParallelField : uint8_t { parallel_for = 0, parallel_pool = 8, parallel_threads = 16 };
enum ForkField : uint8_t {
  fork_kernel = 0,
  fork_args = 8,
  fork_tasks = 16,
  fork_chunk = 24,
  fork_scratch = 32,
  fork_per_thread = 40,
  fork_next = 64, // in a cache line of its own: everybody writes it
  fork_bytes = 128
};

constexpr int64_t arena_alignment = 64;

class LibraryEmitter {
public:
  LibraryEmitter(const NetworkLibrary &library, llvm::Module &module)
      : library_(library), module_(module), context_(module.getContext()),
        base_(baseline(library.interface().target.arch)), ptr_(llvm::PointerType::get(context_, 0)),
        i64_(llvm::Type::getInt64Ty(context_)), i32_(llvm::Type::getInt32Ty(context_)),
        void_(llvm::Type::getVoidTy(context_)) {}

  Result<void> emit() {
    take_tasks_ = take_tasks();
    run_tasks_ = run_tasks();
    threads_ = threads();
    check_header_ = check_header();
    for (const NetworkLibrary::Variant &variant : library_.variants) {
      LATHE_TRY(llvm::Function * check, emit_cpu_check(variant.plan->target, module_));
      cpu_checks_.push_back(check);
      variants_.push_back(run_variant(variant));
    }
    initialise();
    run();
    check_weights();
    error();
    target();
    return {};
  }

private:
  llvm::Function *make(const std::string &name, llvm::Type *result, std::vector<llvm::Type *> types,
                       bool is_public = false) {
    auto *function = llvm::Function::Create(llvm::FunctionType::get(result, types, false),
                                            is_public ? llvm::Function::ExternalLinkage
                                                      : llvm::Function::InternalLinkage,
                                            is_public ? library_.name + "_" + name : name, module_);
    if (!is_public) function->addFnAttr(llvm::Attribute::NoInline);
    return function;
  }
  Emitter begin(llvm::Function *function) { return {module_, base_, function}; }
  IrValue status(LibraryStatus status) { return llvm::ConstantInt::get(i32_, uint64_t(status)); }
  IrValue field(Emitter &e, llvm::Type *type, IrValue object, int64_t at) {
    return e.ir.CreateLoad(type, e.offset(object, at));
  }
  IrValue misaligned(Emitter &e, IrValue pointer, int64_t alignment) {
    IrValue low = e.ir.CreateAnd(e.ir.CreatePtrToInt(pointer, i64_), e.constant(alignment - 1));
    return e.ir.CreateIsNotNull(low);
  }

  // --- Subnormal numbers count as zero, as they do in a Request

  IrValue flush_subnormals(Emitter &e) { // returns the mode before
    if (base_.arch == Arch::aarch64) {
      IrValue before = e.ir.CreateIntrinsic(i64_, llvm::Intrinsic::aarch64_get_fpcr, {});
      set_mode(e, e.ir.CreateOr(before, uint64_t{1} << 24));
      return before;
    }
    IrValue memory = e.local(i32_);
    e.ir.CreateIntrinsic(void_, llvm::Intrinsic::x86_sse_stmxcsr, {memory});
    IrValue before = e.ir.CreateLoad(i32_, memory);
    set_mode(e, e.ir.CreateOr(before, 0x8040)); // flush to zero, denormals are zero
    return before;
  }
  void set_mode(Emitter &e, IrValue mode) {
    if (base_.arch == Arch::aarch64) {
      e.ir.CreateIntrinsic(void_, llvm::Intrinsic::aarch64_set_fpcr, {mode});
      return;
    }
    IrValue memory = e.local(i32_);
    e.ir.CreateStore(mode, memory);
    e.ir.CreateIntrinsic(void_, llvm::Intrinsic::x86_sse_ldmxcsr, {memory});
  }

  // --- Kernels on one thread or on many

  void call_kernel(Emitter &e, IrValue kernel, IrValue args, IrValue begin, IrValue end,
                   IrValue scratch) {
    auto *type = llvm::FunctionType::get(void_, {ptr_, i64_, i64_, ptr_}, false);
    e.ir.CreateCall(type, kernel, {args, begin, end, scratch});
  }

  // What each job of a fork does: chunks of tasks, until none is left.
  llvm::Function *take_tasks() {
    auto *function = make("take_tasks", void_, {ptr_, i32_});
    Emitter e = begin(function);
    IrValue context = function->getArg(0), job = e.ir.CreateSExt(function->getArg(1), i64_);
    IrValue before = flush_subnormals(e);
    IrValue kernel = field(e, ptr_, context, fork_kernel),
            args = field(e, ptr_, context, fork_args);
    IrValue tasks = field(e, i64_, context, fork_tasks),
            chunk = field(e, i64_, context, fork_chunk);
    IrValue per_thread = field(e, i64_, context, fork_per_thread);
    IrValue scratch = e.offset(field(e, ptr_, context, fork_scratch), e.mul(job, per_thread));
    auto take = [&] { // the first task of the next chunk
      return e.ir.CreateAtomicRMW(llvm::AtomicRMWInst::Add, e.offset(context, fork_next), chunk,
                                  llvm::MaybeAlign(8), llvm::AtomicOrdering::Monotonic);
    };
    auto *head = llvm::BasicBlock::Create(context_, "next", function);
    auto *work = llvm::BasicBlock::Create(context_, "work", function);
    auto *done = llvm::BasicBlock::Create(context_, "done", function);
    e.ir.CreateBr(head);
    e.ir.SetInsertPoint(head);
    IrValue first = take();
    e.ir.CreateCondBr(e.ir.CreateICmpSLT(first, tasks), work, done);
    e.ir.SetInsertPoint(work);
    call_kernel(e, kernel, args, first, e.minimum(tasks, e.add(first, chunk)), scratch);
    e.ir.CreateBr(head);
    e.ir.SetInsertPoint(done);
    set_mode(e, before);
    e.ir.CreateRetVoid();
    return function;
  }

  // As runtime/thread_pool.h has it, but for the grain.
  IrValue chunk_of(Emitter &e, IrValue tasks, IrValue threads) {
    auto ceil_div = [&](IrValue a, IrValue b) {
      return e.div(e.sub(e.add(a, b), e.constant(1)), b);
    };
    IrValue most = ceil_div(tasks, e.mul(threads, e.constant(4)));
    IrValue fewer = e.minimum(e.div(most, e.constant(2)), e.constant(8)); // candidates
    IrValues best{most, e.constant(INT64_MAX)};
    best = e.loop(e.constant(0), e.maximum(fewer, e.constant(1)), e.constant(1), best,
                  [&](IrValue i, const IrValues &so_far) {
                    IrValue chunk = e.sub(most, i);
                    IrValue last = e.mul(ceil_div(ceil_div(tasks, chunk), threads), chunk);
                    IrValue better = e.ir.CreateICmpSLT(last, so_far[1]);
                    return IrValues{e.ir.CreateSelect(better, chunk, so_far[0]),
                                    e.ir.CreateSelect(better, last, so_far[1])};
                  });
    return best[0];
  }

  // run_tasks(kernel, args, scratch, parallel, tasks, grain, scratch per thread): chunks as for
  // a host's threads (runtime/thread_pool.h). `parallel` is null for one thread.
  llvm::Function *run_tasks() {
    auto *function = make("run_tasks", void_, {ptr_, ptr_, ptr_, ptr_, i64_, i64_, i64_});
    Emitter e = begin(function);
    auto argument = [&](unsigned i) { return static_cast<IrValue>(function->getArg(i)); };
    IrValue kernel = argument(0), args = argument(1), scratch = argument(2), parallel = argument(3);
    IrValue tasks = argument(4), grain = argument(5), per_thread = argument(6);
    auto on_many = [&] {
      IrValue jobs = field(e, i32_, parallel, parallel_threads);
      IrValue chunk = chunk_of(e, tasks, e.ir.CreateSExt(jobs, i64_));
      IrValue context = e.local(llvm::ArrayType::get(e.ir.getInt8Ty(), fork_bytes), 64);
      for (auto [at, value] : {std::pair<int64_t, IrValue>{fork_kernel, kernel},
                               {fork_args, args},
                               {fork_tasks, tasks},
                               {fork_chunk, e.maximum(grain, chunk)},
                               {fork_scratch, scratch},
                               {fork_per_thread, per_thread},
                               {fork_next, e.constant(0)}})
        e.ir.CreateStore(value, e.offset(context, at));
      auto *type = llvm::FunctionType::get(void_, {ptr_, i32_, ptr_, ptr_}, false);
      e.ir.CreateCall(type, field(e, ptr_, parallel, parallel_for),
                      {field(e, ptr_, parallel, parallel_pool), jobs, take_tasks_, context});
    };
    auto on_one = [&] { call_kernel(e, kernel, args, e.constant(0), tasks, scratch); };
    e.when(e.ir.CreateIsNull(parallel), on_one, on_many);
    e.ir.CreateRetVoid();
    return function;
  }

  // How many there are; 0: not to be used.
  llvm::Function *threads() {
    auto *function = make("threads_of", i32_, {ptr_});
    Emitter e = begin(function);
    IrValue parallel = function->getArg(0);
    auto number = [&](uint32_t n) { return e.ir.getInt32(n); };
    e.return_if(e.ir.CreateIsNull(parallel), number(1));
    IrValue count = field(e, i32_, parallel, parallel_threads);
    e.return_if(e.ir.CreateICmpSLT(count, number(1)), number(0));
    e.return_if(e.ir.CreateICmpSGT(count, number(most_threads)), number(0));
    e.return_if(e.ir.CreateICmpEQ(count, number(1)), number(1));
    e.return_if(e.ir.CreateIsNull(field(e, ptr_, parallel, parallel_for)), number(0));
    e.ir.CreateRet(count);
    return function;
  }

  // --- The kernels of one target

  using KernelFunctions = std::map<std::string, llvm::Function *>;

  KernelFunctions kernels(const Plan &plan) {
    KernelFunctions functions;
    for (const Kernel &kernel : plan.kernels) {
      const std::string name = kernel_symbol(kernel.spec, plan.target);
      llvm::Function *&function = functions[name];
      if (function) continue;
      std::visit([&](const auto &s) { core::emit(s, plan.target, name, module_); }, kernel.spec);
      function = module_.getFunction(name);
      function->setLinkage(llvm::Function::InternalLinkage);
    }
    return functions;
  }

  // run.TARGET(weights, arena, inputs, outputs, parallel)
  llvm::Function *run_variant(const NetworkLibrary::Variant &variant) {
    const KernelFunctions functions = kernels(*variant.plan);
    const std::string &target = variant.plan->target.name;
    auto *function = make("run." + target, void_, {ptr_, ptr_, ptr_, ptr_, ptr_});
    Emitter e = begin(function);
    IrValues arguments;
    for (llvm::Argument &argument : function->args()) arguments.push_back(&argument);
    size_t number = 0;
    for (const Kernel &kernel : variant.plan->kernels) {
      // A function each: LLVM takes long over long blocks of code.
      auto *step = make(fmt::format("run.{}.{}", target, number++), void_,
                        std::vector<llvm::Type *>(arguments.size(), ptr_));
      run_kernel(step, variant, kernel,
                 functions.at(kernel_symbol(kernel.spec, variant.plan->target)));
      e.ir.CreateCall(step, arguments);
    }
    e.ir.CreateRetVoid();
    return function;
  }

  void run_kernel(llvm::Function *step, const NetworkLibrary::Variant &variant,
                  const Kernel &kernel, llvm::Function *code) {
    const Plan &plan = *variant.plan;
    Emitter e = begin(step);
    IrValue weights = step->getArg(0), arena = step->getArg(1), parallel = step->getArg(4);
    auto address = [&](const View &view) {
      const int64_t offset = view.offset.at(library_.images);
      switch (view.space) {
      case Space::weights:
        return e.offset(weights, variant.weights[size_t(view.index)] + offset);
      case Space::arena:
        return e.offset(arena, offset);
      case Space::input:
      case Space::output:
        break;
      }
      IrValue table = step->getArg(view.space == Space::input ? 2 : 3);
      return e.offset(field(e, ptr_, table, 8 * view.index), offset);
    };
    IrValues values;
    for (const View &view : kernel.operands) values.push_back(address(view));
    for (const Affine &param : kernel.params)
      values.push_back(e.constant(param.at(library_.images)));
    IrValue args = e.local(llvm::ArrayType::get(i64_, values.size()), 16);
    for (size_t i = 0; i < values.size(); ++i)
      e.ir.CreateStore(values[i], e.offset(args, int64_t(8 * i)));
    IrValue scratch = e.offset(arena, whole_lines(plan.arena_bytes.at(library_.images)));
    const int64_t tasks = kernel.tasks.at(library_.images);
    if (tasks > kernel.grain)
      e.ir.CreateCall(run_tasks_,
                      {code, args, scratch, parallel, e.constant(tasks), e.constant(kernel.grain),
                       e.constant(plan.scratch_per_thread())});
    else
      call_kernel(e, code, args, e.constant(0), e.constant(tasks), scratch);
    e.ir.CreateRetVoid();
  }

  // --- Weights

  // The library's own, where the caller gives none.
  void substitute_own(Emitter &e, IrValue &weights, IrValue &bytes) {
    if (library_.own_weights.empty()) return;
    if (!own_) {
      auto *data = llvm::ConstantDataArray::getRaw(
          llvm::StringRef(reinterpret_cast<const char *>(library_.own_weights.data()),
                          library_.own_weights.size()),
          library_.own_weights.size(), e.ir.getInt8Ty());
      own_ = new llvm::GlobalVariable(module_, data->getType(), true,
                                      llvm::GlobalValue::InternalLinkage, data, "weights");
      own_->setAlignment(llvm::Align(4096));
      own_->setSection(".rodata.weights");
    }
    IrValue none = e.ir.CreateIsNull(weights);
    weights = e.ir.CreateSelect(none, own_, weights);
    bytes = e.ir.CreateSelect(none, e.constant(library_.weights.bytes), bytes);
  }

  // check_header(weights, bytes) returns a status.
  llvm::Function *check_header() {
    auto *function = make("check_header", i32_, {ptr_, i64_});
    Emitter e = begin(function);
    IrValue weights = function->getArg(0), bytes = function->getArg(1);
    e.return_if(e.ir.CreateIsNull(weights), status(LibraryStatus::null_argument));
    e.return_if(misaligned(e, weights, arena_alignment), status(LibraryStatus::misaligned));
    e.return_if(e.ir.CreateICmpNE(bytes, e.constant(int64_t(library_.weights.bytes))),
                status(LibraryStatus::wrong_weights));
    using H = WeightsHeader;
    for (auto [at, value] :
         {std::pair(offsetof(H, magic), std::bit_cast<uint64_t>(library_.weights.magic)),
          {offsetof(H, bytes), library_.weights.bytes},
          {offsetof(H, plans), library_.weights.plans},
          {offsetof(H, identifier), library_.weights.identifier}})
      e.return_if(e.ir.CreateICmpNE(field(e, i64_, weights, int64_t(at)),
                                    e.constant(static_cast<int64_t>(value))),
                  status(LibraryStatus::wrong_weights));
    e.ir.CreateRet(status(LibraryStatus::ok));
    return function;
  }

  // NAME_check_weights(weights, bytes)
  void check_weights() {
    auto *function = make("check_weights", i32_, {ptr_, i64_}, true);
    Emitter e = begin(function);
    IrValue weights = function->getArg(0), bytes = function->getArg(1);
    substitute_own(e, weights, bytes);
    IrValue result = e.ir.CreateCall(check_header_, {weights, bytes});
    e.return_if(e.ir.CreateIsNotNull(result), result);
    auto number = [&](uint64_t n) { return e.constant(static_cast<int64_t>(n)); };
    IrValue sum =
        e.loop(number(sizeof(WeightsHeader)), number(library_.weights.bytes), number(8),
               {number(library_.weights.plans)}, [&](IrValue at, const IrValues &carried) {
                 IrValue word = e.ir.CreateLoad(i64_, e.offset(weights, at));
                 IrValue next = e.mul(e.ir.CreateXor(carried[0], word), number(checksum_factor));
                 return IrValues{e.ir.CreateXor(next, e.ir.CreateLShr(next, checksum_shift))};
               })[0];
    e.return_if(e.ir.CreateICmpNE(sum, number(library_.weights.identifier)),
                status(LibraryStatus::wrong_weights));
    e.ir.CreateRet(status(LibraryStatus::ok));
  }

  // --- The public functions

  // NAME_init(network, weights, bytes). Only a success leaves a variant's number, from 1 on.
  void initialise() {
    auto *function = make("init", i32_, {ptr_, ptr_, i64_}, true);
    Emitter e = begin(function);
    IrValue network = function->getArg(0), weights = function->getArg(1),
            bytes = function->getArg(2);
    e.return_if(e.ir.CreateIsNull(network), status(LibraryStatus::null_argument));
    e.ir.CreateStore(e.ir.getInt32(0), e.offset(network, network_variant));
    IrValue variant = e.ir.getInt32(0);
    for (size_t v = variants_.size(); v-- > 0;)
      variant = e.ir.CreateSelect(e.ir.CreateCall(cpu_checks_[v]), e.ir.getInt32(uint32_t(v + 1)),
                                  variant);
    e.return_if(e.ir.CreateIsNull(variant), status(LibraryStatus::unsupported_cpu));
    substitute_own(e, weights, bytes);
    IrValue result = e.ir.CreateCall(check_header_, {weights, bytes});
    e.return_if(e.ir.CreateIsNotNull(result), result);
    e.ir.CreateStore(weights, e.offset(network, network_weights));
    e.ir.CreateStore(variant, e.offset(network, network_variant));
    e.ir.CreateRet(status(LibraryStatus::ok));
  }

  // NAME_run(network, arena, arena bytes, inputs, outputs, parallel)
  void run() {
    auto *function = make("run", i32_, {ptr_, ptr_, i64_, ptr_, ptr_, ptr_}, true);
    Emitter e = begin(function);
    auto argument = [&](unsigned i) { return static_cast<IrValue>(function->getArg(i)); };
    IrValue network = argument(0), arena = argument(1), bytes = argument(2), inputs = argument(3),
            outputs = argument(4), parallel = argument(5);
    auto refuse = [&](IrValue condition, LibraryStatus why) {
      e.return_if(condition, status(why));
    };
    refuse(e.ir.CreateIsNull(network), LibraryStatus::null_argument);
    IrValue variant = field(e, i32_, network, network_variant);
    refuse(e.ir.CreateICmpUGE(e.ir.CreateSub(variant, e.ir.getInt32(1)),
                              e.ir.getInt32(uint32_t(variants_.size()))),
           LibraryStatus::uninitialised);
    IrValue threads = e.ir.CreateCall(threads_, {parallel});
    refuse(e.ir.CreateIsNull(threads), LibraryStatus::bad_parallel);
    refuse(e.ir.CreateIsNull(arena), LibraryStatus::null_argument);
    refuse(misaligned(e, arena, arena_alignment), LibraryStatus::misaligned);
    IrValue scratch =
        e.mul(e.ir.CreateSExt(threads, i64_), e.constant(library_.scratch_per_thread()));
    refuse(e.ir.CreateICmpULT(bytes, e.add(scratch, e.constant(library_.arena_bytes()))),
           LibraryStatus::small_arena);
    const auto check_all = [&](IrValue table, const std::vector<Type> &types) {
      if (!types.empty()) refuse(e.ir.CreateIsNull(table), LibraryStatus::null_argument);
      for (size_t i = 0; i < types.size(); ++i) {
        IrValue pointer = field(e, ptr_, table, int64_t(8 * i));
        refuse(e.ir.CreateIsNull(pointer), LibraryStatus::null_argument);
        refuse(misaligned(e, pointer, int64_t(size_of(types[i].dtype))), LibraryStatus::misaligned);
      }
    };
    check_all(inputs, library_.interface().inputs);
    check_all(outputs, library_.interface().outputs);

    IrValue before = flush_subnormals(e);
    IrValue one = e.ir.CreateICmpEQ(threads, e.ir.getInt32(1));
    IrValues arguments{field(e, ptr_, network, network_weights), arena, inputs, outputs,
                       e.ir.CreateSelect(one, llvm::Constant::getNullValue(ptr_), parallel)};
    for (size_t v = 0; v < variants_.size(); ++v)
      e.when(e.ir.CreateICmpEQ(variant, e.ir.getInt32(uint32_t(v + 1))),
             [&] { e.ir.CreateCall(variants_[v], arguments); });
    set_mode(e, before);
    e.ir.CreateRet(status(LibraryStatus::ok));
  }

  IrValue text(Emitter &e, std::string_view content) {
    return e.ir.CreateGlobalString(llvm::StringRef(content.data(), content.size()), "text", 0,
                                   &module_);
  }

  // NAME_error(status)
  void error() {
    auto *function = make("error", ptr_, {i32_}, true);
    Emitter e = begin(function);
    const auto statuses = library_statuses();
    for (size_t s = 0; s < statuses.size(); ++s)
      e.return_if(e.ir.CreateICmpEQ(function->getArg(0), e.ir.getInt32(uint32_t(s))),
                  text(e, statuses[s].meaning));
    e.ir.CreateRet(text(e, "no status of this library"));
  }

  // NAME_target(network)
  void target() {
    auto *function = make("target", ptr_, {ptr_}, true);
    Emitter e = begin(function);
    IrValue network = function->getArg(0), none = llvm::Constant::getNullValue(ptr_);
    e.return_if(e.ir.CreateIsNull(network), none);
    IrValue variant = field(e, i32_, network, network_variant);
    for (size_t v = 0; v < variants_.size(); ++v)
      e.return_if(e.ir.CreateICmpEQ(variant, e.ir.getInt32(uint32_t(v + 1))),
                  text(e, library_.variants[v].plan->target.name));
    e.ir.CreateRet(none);
  }

  const NetworkLibrary &library_;
  llvm::Module &module_;
  llvm::LLVMContext &context_;
  const Target &base_;
  llvm::Type *ptr_, *i64_, *i32_, *void_;
  llvm::Function *take_tasks_ = nullptr, *run_tasks_ = nullptr, *threads_ = nullptr,
                 *check_header_ = nullptr;
  llvm::GlobalVariable *own_ = nullptr;
  std::vector<llvm::Function *> cpu_checks_, variants_;
};

} // namespace

Result<void> emit(const NetworkLibrary &library, llvm::Module &module) {
  return LibraryEmitter(library, module).emit();
}

} // namespace lathe::core
