// What all kernel emitters share: a builder that knows the target's vectors, structured loops,
// masked memory, and elementwise arithmetic. Private to code generation.
#pragma once

#include "codegen/codegen.h"
#include "codegen/llvm_ir.h"

#include <functional>
#include <string>
#include <vector>

namespace lathe::core {

using IrValue = llvm::Value *;
using IrValues = std::vector<IrValue>;

class Emitter {
public:
  // Begins `name(args, begin, end, scratch)` with `operands` addresses at the head of args.
  Emitter(llvm::Module &module, const Target &target, const std::string &name, size_t operands);
  // Begins an internal function of the same module.
  Emitter(llvm::Module &module, const Target &target, llvm::Function *function);

  llvm::Module &module;
  llvm::LLVMContext &context;
  const Target &target;
  llvm::IRBuilder<> ir;
  llvm::Function *function;
  IrValue args = nullptr, begin = nullptr, end = nullptr, scratch = nullptr; // of a kernel
  // For a function that does a kernel's work.
  void set_arguments(size_t operands, IrValue args, IrValue begin, IrValue end, IrValue scratch);

  llvm::Type *f32 = nullptr, *i64 = nullptr, *ptr = nullptr;
  llvm::Type *vector(int64_t lanes) const {
    return llvm::FixedVectorType::get(f32, unsigned(lanes));
  }
  llvm::Type *vector() const { return vector(target.lanes()); }

  llvm::Type *type_of(DType dtype) const; // i8 for a bool
  IrValue operand(int index);             // an address
  IrValue param(int index);               // an i64
  // A member of the spec's Params, or of a member of that: param(&Params::in, &Pitches::row).
  template <typename Struct, typename Member, typename... Rest>
  IrValue param(Member Struct::*member, Rest... rest) {
    return param(int(leaf(member, rest...)));
  }
  IrValue address_of_operand(int index); // where it is listed
  IrValue address_of_param(int index);
  IrValue load_invariant(llvm::Type *type, IrValue pointer); // of what nobody writes meanwhile
  IrValue constant(int64_t value) const;
  IrValue zero(llvm::Type *type) const { return llvm::Constant::getNullValue(type); }
  IrValue splat(llvm::Type *type, double value) const { return llvm::ConstantFP::get(type, value); }
  llvm::Type *wide(llvm::Type *type) const { // f64 instead of f32
    return type->getWithNewType(llvm::Type::getDoubleTy(context));
  }
  IrValue broadcast(IrValue scalar, int64_t lanes);

  // Integer arithmetic without the builder's noise.
  IrValue add(IrValue a, IrValue b) { return ir.CreateAdd(a, b); }
  IrValue sub(IrValue a, IrValue b) { return ir.CreateSub(a, b); }
  IrValue mul(IrValue a, IrValue b) { return ir.CreateMul(a, b); }
  IrValue div(IrValue a, IrValue b) { return ir.CreateUDiv(a, b); }
  IrValue rem(IrValue a, IrValue b) { return ir.CreateURem(a, b); }
  IrValue minimum(IrValue a, IrValue b);
  IrValue maximum(IrValue a, IrValue b);
  IrValue offset(IrValue pointer, IrValue bytes); // pointer + bytes
  IrValue offset(IrValue pointer, int64_t bytes) { return offset(pointer, constant(bytes)); }

  // for (i = first; i < last; i += step) carried = body(i, carried). Returns the last carried.
  using LoopBody = std::function<IrValues(IrValue index, const IrValues &carried)>;
  IrValues loop(IrValue first, IrValue last, IrValue step, IrValues carried, const LoopBody &body);
  void loop(IrValue first, IrValue last, IrValue step, const std::function<void(IrValue)> &body);
  void loop(IrValue count, const std::function<void(IrValue)> &body) {
    loop(constant(0), count, constant(1), body);
  }
  // The same for a trip count that is known not to be zero: the test stands at the end.
  IrValues loop_nonempty(IrValue count, IrValues carried, const LoopBody &body);
  void when(
      IrValue condition, const std::function<void()> &then_body,
      const std::function<void()> &else_body = [] {});

  // Leaves the function with `value`, or goes on.
  void return_if(IrValue condition, IrValue value);

  // Whole vectors lane by lane through contiguous memory, then what is left under a mask:
  // body(first element, mask or null, lanes).
  void for_lanes(IrValue count, const std::function<void(IrValue first, IrValue mask)> &body);
  IrValue lane_mask(IrValue live_lanes, int64_t lanes); // lane index < live_lanes

  // The address of numbers that are part of the code, as f32.
  IrValue table(const std::vector<double> &numbers);
  // Uninitialised memory on the function's stack, aligned for the type or to so many bytes.
  IrValue local(llvm::Type *type, uint64_t alignment = 0);
  IrValue load(llvm::Type *type, IrValue pointer, IrValue mask = nullptr); // dead lanes read 0
  void store(IrValue value, IrValue pointer, IrValue mask = nullptr);

  enum class Fetch : uint8_t { to_read, to_write, into_l2 };
  void prefetch(IrValue pointer, Fetch what);
  // Lane by lane, that lane of the vector; itself, where that is all of it in order.
  IrValue shuffle(IrValue vector, int64_t lanes, const std::function<int64_t(int64_t)> &from);
  // a0 b0 c0 a1 b1 c1 ... of equal vectors, as vectors of that length.
  IrValues interleave(const IrValues &vectors);
  // As many vectors as they have lanes, rows of a matrix: its columns.
  IrValues transpose(IrValues rows);
  // to[row][column] = value(from[column][row]), of f32; from each column, or row, to the next so
  // many bytes. `value` takes a vector of a row, its first column and a mask or null.
  struct Transposition {
    IrValue from, to, rows, columns, from_column, to_row;
  };
  void transpose(const Transposition &copy,
                 const std::function<IrValue(IrValue, IrValue, IrValue)> &value);

  // Arithmetic on f32 scalars and vectors.
  IrValue fma(IrValue a, IrValue b, IrValue c); // a * b + c, fused where the target can
  IrValue fmin(IrValue a, IrValue b);           // NaN in `a` propagates
  IrValue fmax(IrValue a, IrValue b);
  IrValue is_nan(IrValue x) { return ir.CreateFCmpUNO(x, x); }
  IrValue nan_or(IrValue a, IrValue b) { return ir.CreateSelect(is_nan(a), a, b); }
  IrValue horizontal_sum(IrValue vector); // halves added pairwise
  // The same of each of some equal vectors, a power of two of them: a vector of the sums.
  IrValue horizontal_sums(IrValues vectors);
  IrValue horizontal_max(IrValue vector);
  // A sum of blocks of `block_terms` terms: of whole blocks in float64, of the last one in f32, and
  // how many terms that has. The result does not depend on which terms are added together.
  IrValues no_blocks(llvm::Type *type);
  // With the terms [first, last): add(i, sum) adds one to the f32 sum of its block.
  IrValues add_blocks(const IrValues &blocks, IrValue first, IrValue last,
                      const std::function<IrValue(IrValue index, IrValue sum)> &add);
  IrValue total_of(const IrValues &blocks); // of float64
  IrValue convert(DType from, DType to, IrValue scalar);
  IrValue unary(const Unary &op, IrValue x);
  IrValue binary(BinaryKind kind, IrValue a, IrValue b);
  // The same for whole numbers: they wrap, and a division by zero gives zero.
  IrValue integer_unary(UnaryKind kind, IrValue x);
  IrValue integer_binary(BinaryKind kind, IrValue a, IrValue b);
  IrValue exp(IrValue x);
  IrValue log(IrValue x);
  IrValue power(IrValue x, double exponent); // of a positive x
  IrValue power(IrValue x, IrValue y);       // as C's pow
  IrValue floor(IrValue x);
  IrValue erf(IrValue x);
  IrValue softplus(IrValue x);
  IrValue absolute(IrValue x);

private:
  IrValue integer_like(llvm::Type *float_type, int64_t value) const;
  IrValue inverse_fourth_root(IrValue x);
  IrValue from_f16(IrValue bits); // scalars
  IrValue to_f16(IrValue x);
  IrValue to_bf16(IrValue x);
  int first_param_ = 0;
};

// Functions that kernels share: of so many addresses, then so many i64. The name says all that
// matters to the code, so that each is made once, by whoever asks first.
llvm::FunctionType *shared_type(llvm::Module &module, size_t pointers, size_t integers);
llvm::Function *shared_function(llvm::Module &module, const Target &target, const std::string &name,
                                llvm::FunctionType *type,
                                const std::function<void(Emitter &)> &body);

// The target, but with vectors of so many lanes.
Target with_lanes(Target target, int64_t lanes);

// Applies a layer's fused steps to `value`; `operand(i)` loads the i-th one's second operand.
IrValue emit_steps(Emitter &e, const std::vector<FusedOp> &steps, IrValue value,
                   const std::function<IrValue(int)> &operand);

// One row of a pool's result, as a function that kernels share.
struct PoolRow {
  IrValue params = nullptr; // the address of the first of PoolSpec's list
  IrValue bias = nullptr;   // addresses: of a vector over the channels, if there is one,
  IrValue in = nullptr;     // of the image's first pixel, which need not exist, and of the row
  IrValue out = nullptr;
  IrValue row = nullptr, channels = nullptr;
  IrValues pre = {}, post = {}; // of vectors over the channels; of this row in operands of `post`
  void emit(Emitter &e, const PoolSpec &spec) const;
};

// The transforms of a Winograd stage, as functions that kernels share. One tile of the input, for
// all channels:
struct WinogradInput {
  // `from`: the tile's first pixel; `to`: its place for the first point. Pitches in bytes. Behind
  // the last channel, lanes of a last vector hold anything, of what is read and what is written.
  IrValue from, to, row, pixel, point, channels;
  // Of so many points, the first ones in each dimension.
  static llvm::Function *function(llvm::Module &module, const Target &target, Size2 points,
                                  Size2 first);
  void call(Emitter &e, IrValue function) const; // an address

private:
  static llvm::FunctionType *type(llvm::Module &module);
};

// Filters of so many channels, for one panel of output channels, from their taps; of one row of the
// points, so that they stay in the L1 cache:
struct WinogradFilters {
  // `from`: taps as [channel][tap][lane], `to`: [point of the row][channel][lane], from each point
  // to the next `point` bytes; `panel`: bytes of all lanes.
  IrValue from, to, row, point, panel, channels;
  static llvm::Function *function(llvm::Module &module, const Target &target,
                                  const Winograd &winograd);
  void call(Emitter &e, IrValue function) const; // an address

private:
  static llvm::FunctionType *type(llvm::Module &module);
};

// One tile of the result, for one panel of its channels:
struct WinogradOutput {
  IrValue from, point;        // products of the first point; bytes from each to the next
  IrValue to, row, pixel;     // the tile's first pixel, which need not exist
  IrValue first_row, end_row; // that are wanted, of the tile's
  IrValue bias, live_channels;
  IrValues post, post_row, post_pixel;
  // Of the spec: the transform, the panel, mask, bias, post. Of the tile's outputs the first ones.
  static llvm::Function *function(llvm::Module &module, const Target &target, const ConvSpec &spec,
                                  Size2 outputs);
  void call(Emitter &e, IrValue function) const; // an address
};

// What every CPU of the architecture runs.
const Target &baseline(Arch arch);
// A function of the module without arguments, whether the CPU that calls it has what the target
// needs. Errors: internal, for a feature that there is no test for.
Result<llvm::Function *> emit_cpu_check(const Target &target, llvm::Module &module);
// The library's functions, public and internal, with their kernels. Errors: as emit_cpu_check.
Result<void> emit(const NetworkLibrary &library, llvm::Module &module);

// One per kernel spec; each emits the global function `name` into the module.
void emit(const ConvSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module);
void emit(const DenseSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module);
void emit(const MapSpec &spec, const Target &target, const std::string &name, llvm::Module &module);
void emit(const GatherSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module);
void emit(const PoolSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module);
void emit(const LrnSpec &spec, const Target &target, const std::string &name, llvm::Module &module);
void emit(const SoftmaxSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module);
void emit(const ArgSpec &spec, const Target &target, const std::string &name, llvm::Module &module);
void emit(const ReduceSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module);

} // namespace lathe::core
