// Structured control flow, masked memory and basic arithmetic on top of LLVM's IRBuilder.
#include "codegen/emitter.h"

#include <cassert>

namespace lathe::core {

using llvm::BasicBlock;
using IrType = llvm::Type;

Emitter::Emitter(llvm::Module &module, const Target &target, const std::string &name,
                 size_t operands)
    : Emitter(module, target, [&] {
        llvm::LLVMContext &context = module.getContext();
        IrType *pointer = llvm::PointerType::get(context, 0), *word = IrType::getInt64Ty(context);
        auto *type = llvm::FunctionType::get(IrType::getVoidTy(context),
                                             {pointer, word, word, pointer}, false);
        return llvm::Function::Create(type, llvm::Function::ExternalLinkage, name, module);
      }()) {
  set_arguments(operands, function->getArg(0), function->getArg(1), function->getArg(2),
                function->getArg(3));
}

Emitter::Emitter(llvm::Module &m, const Target &t, llvm::Function *f)
    : module(m), context(m.getContext()), target(t),
      ir(BasicBlock::Create(m.getContext(), "entry", f)), function(f),
      f32(IrType::getFloatTy(m.getContext())), i64(IrType::getInt64Ty(m.getContext())),
      ptr(llvm::PointerType::get(m.getContext(), 0)) {
  function->addFnAttr(llvm::Attribute::NoUnwind);
  function->addFnAttr("target-cpu", target.cpu);
  function->addFnAttr("target-features", target.features);
  function->addFnAttr("prefer-vector-width", std::to_string(target.vector_bytes * 8));
  function->addFnAttr("min-legal-vector-width", std::to_string(target.vector_bytes * 8));
}

void Emitter::set_arguments(size_t operands, IrValue all, IrValue first, IrValue last,
                            IrValue memory) {
  args = all;
  begin = first;
  end = last;
  scratch = memory;
  first_param_ = static_cast<int>(operands);
}

IrValue Emitter::constant(int64_t value) const {
  return llvm::ConstantInt::get(i64, static_cast<uint64_t>(value), true);
}

IrValue Emitter::operand(int index) { return load_invariant(ptr, address_of_operand(index)); }
IrValue Emitter::address_of_operand(int index) { return offset(args, 8 * index); }
IrValue Emitter::param(int index) { return load_invariant(i64, address_of_param(index)); }
IrValue Emitter::address_of_param(int index) { return offset(args, 8 * (first_param_ + index)); }
IrValue Emitter::load_invariant(IrType *type, IrValue pointer) {
  auto *load = ir.CreateLoad(type, pointer);
  load->setMetadata(llvm::LLVMContext::MD_invariant_load, llvm::MDNode::get(context, {}));
  return load;
}

IrValue Emitter::broadcast(IrValue scalar, int64_t lanes) {
  return ir.CreateVectorSplat(static_cast<unsigned>(lanes), scalar);
}

IrValue Emitter::minimum(IrValue a, IrValue b) {
  return ir.CreateSelect(ir.CreateICmpSLT(a, b), a, b);
}
IrValue Emitter::maximum(IrValue a, IrValue b) {
  return ir.CreateSelect(ir.CreateICmpSGT(a, b), a, b);
}
IrValue Emitter::offset(IrValue pointer, IrValue bytes) {
  return ir.CreateGEP(ir.getInt8Ty(), pointer, bytes);
}

// --- Loops

IrValues Emitter::loop(IrValue first, IrValue last, IrValue step, IrValues carried,
                       const LoopBody &body) {
  BasicBlock *before = ir.GetInsertBlock();
  auto *head = BasicBlock::Create(context, "loop", function);
  auto *inside = BasicBlock::Create(context, "body", function);
  auto *after = BasicBlock::Create(context, "after", function);
  ir.CreateBr(head);

  ir.SetInsertPoint(head);
  auto *index = ir.CreatePHI(i64, 2);
  index->addIncoming(first, before);
  std::vector<llvm::PHINode *> phis;
  for (IrValue value : carried) {
    phis.push_back(ir.CreatePHI(value->getType(), 2));
    phis.back()->addIncoming(value, before);
  }
  ir.CreateCondBr(ir.CreateICmpSLT(index, last), inside, after);

  ir.SetInsertPoint(inside);
  IrValues results = body(index, IrValues(phis.begin(), phis.end()));
  assert(results.size() == phis.size());
  index->addIncoming(add(index, step), ir.GetInsertBlock());
  for (size_t i = 0; i < phis.size(); ++i) phis[i]->addIncoming(results[i], ir.GetInsertBlock());
  ir.CreateBr(head);

  ir.SetInsertPoint(after);
  return IrValues(phis.begin(), phis.end());
}

void Emitter::loop(IrValue first, IrValue last, IrValue step,
                   const std::function<void(IrValue)> &body) {
  loop(first, last, step, {}, [&](IrValue index, const IrValues &) {
    body(index);
    return IrValues{};
  });
}

IrValues Emitter::loop_nonempty(IrValue count, IrValues carried, const LoopBody &body) {
  BasicBlock *before = ir.GetInsertBlock();
  auto *inside = BasicBlock::Create(context, "loop", function);
  ir.CreateBr(inside);

  ir.SetInsertPoint(inside);
  auto *index = ir.CreatePHI(i64, 2);
  index->addIncoming(constant(0), before);
  std::vector<llvm::PHINode *> phis;
  for (IrValue value : carried) {
    phis.push_back(ir.CreatePHI(value->getType(), 2));
    phis.back()->addIncoming(value, before);
  }
  IrValues results = body(index, IrValues(phis.begin(), phis.end()));
  IrValue next = add(index, constant(1));
  auto *after = BasicBlock::Create(context, "after", function);
  index->addIncoming(next, ir.GetInsertBlock());
  for (size_t i = 0; i < phis.size(); ++i) phis[i]->addIncoming(results[i], ir.GetInsertBlock());
  ir.CreateCondBr(ir.CreateICmpSLT(next, count), inside, after);
  ir.SetInsertPoint(after);
  return results;
}

void Emitter::when(IrValue condition, const std::function<void()> &then_body,
                   const std::function<void()> &else_body) {
  auto *yes = BasicBlock::Create(context, "then", function);
  auto *no = BasicBlock::Create(context, "else", function);
  auto *after = BasicBlock::Create(context, "after", function);
  ir.CreateCondBr(condition, yes, no);
  ir.SetInsertPoint(yes);
  then_body();
  ir.CreateBr(after);
  ir.SetInsertPoint(no);
  else_body();
  ir.CreateBr(after);
  ir.SetInsertPoint(after);
}

void Emitter::return_if(IrValue condition, IrValue value) {
  auto *leave = BasicBlock::Create(context, "leave", function);
  auto *go_on = BasicBlock::Create(context, "go_on", function);
  ir.CreateCondBr(condition, leave, go_on);
  ir.SetInsertPoint(leave);
  ir.CreateRet(value);
  ir.SetInsertPoint(go_on);
}

// --- Memory

IrValue Emitter::local(IrType *type, uint64_t alignment) {
  BasicBlock &entry = function->getEntryBlock();
  auto *memory = llvm::IRBuilder<>(&entry, entry.begin()).CreateAlloca(type);
  if (alignment) memory->setAlignment(llvm::Align(alignment));
  return memory;
}

IrValue Emitter::lane_mask(IrValue live_lanes, int64_t lanes) {
  std::vector<llvm::Constant *> numbers;
  for (int64_t i = 0; i < lanes; ++i) numbers.push_back(ir.getInt32(static_cast<uint32_t>(i)));
  IrValue limit = ir.CreateTrunc(minimum(live_lanes, constant(lanes)), ir.getInt32Ty());
  return ir.CreateICmpSLT(llvm::ConstantVector::get(numbers), broadcast(limit, lanes));
}

void Emitter::for_lanes(IrValue count, const std::function<void(IrValue, IrValue)> &body) {
  int64_t lanes = target.lanes();
  IrValue whole = mul(div(count, constant(lanes)), constant(lanes));
  loop(constant(0), whole, constant(lanes), [&](IrValue first) { body(first, nullptr); });
  when(ir.CreateICmpSLT(whole, count), [&] { body(whole, lane_mask(sub(count, whole), lanes)); });
}

IrValue Emitter::load(IrType *type, IrValue pointer, IrValue mask) {
  if (mask) return ir.CreateMaskedLoad(type, pointer, llvm::Align(4), mask, zero(type));
  return ir.CreateAlignedLoad(type, pointer, llvm::Align(4));
}

void Emitter::store(IrValue value, IrValue pointer, IrValue mask) {
  if (mask)
    ir.CreateMaskedStore(value, pointer, llvm::Align(4), mask);
  else
    ir.CreateAlignedStore(value, pointer, llvm::Align(4));
}

// --- Arithmetic

IrValue Emitter::table(const std::vector<double> &numbers) {
  const std::vector<float> rounded(numbers.begin(), numbers.end());
  llvm::Constant *values = llvm::ConstantDataArray::get(context, rounded);
  return new llvm::GlobalVariable(module, values->getType(), true,
                                  llvm::GlobalValue::PrivateLinkage, values);
}

void Emitter::prefetch(IrValue pointer, Fetch what) {
  const uint32_t write = what == Fetch::to_write, locality = what == Fetch::into_l2 ? 2 : 3;
  ir.CreateIntrinsic(llvm::Intrinsic::prefetch, {ptr},
                     {pointer, ir.getInt32(write), ir.getInt32(locality), ir.getInt32(1)});
}

IrValue Emitter::shuffle(IrValue vector, int64_t lanes,
                         const std::function<int64_t(int64_t)> &from) {
  llvm::SmallVector<int, 16> mask;
  for (int64_t lane = 0; lane < lanes; ++lane) mask.push_back(int(from(lane)));
  const auto all = llvm::cast<llvm::FixedVectorType>(vector->getType())->getNumElements();
  if (llvm::ShuffleVectorInst::isIdentityMask(mask, int(all))) return vector;
  return ir.CreateShuffleVector(vector, mask);
}

IrValues Emitter::interleave(const IrValues &vectors) {
  const int count = int(vectors.size()), lanes = target.lanes();
  IrValues result;
  for (int part = 0; part < count; ++part) {
    // Lane by lane: vector number `index % count`, its lane `index / count`. Two at a time: what
    // the next one gives is put among what the others gave.
    IrValue mixed = vectors[0];
    for (int v = 0; v < count; ++v) {
      llvm::SmallVector<int, 64> mask;
      for (int lane = 0; lane < lanes; ++lane) {
        const int index = part * lanes + lane;
        if (v == 0)
          mask.push_back(index / count);
        else
          mask.push_back(index % count == v ? lanes + index / count : lane);
      }
      mixed = ir.CreateShuffleVector(mixed, vectors[size_t(v)], mask);
    }
    result.push_back(mixed);
  }
  return result;
}

// As x86 can in single instructions: within every 128 bits 4x4 elements, by interleaving; then
// these quarters among each other, even and odd ones of two vectors at a time.
IrValues Emitter::transpose(IrValues rows) {
  const int lanes = int(rows.size()), quarters = lanes / 4;
  // Of vectors a and b: lane by lane which, of those of both in a row.
  auto both = [&](IrValue &a, IrValue &b, const std::function<int(int lane, int which)> &from) {
    llvm::SmallVector<int, 64> first, second;
    for (int lane = 0; lane < lanes; ++lane) {
      first.push_back(from(lane, 0));
      second.push_back(from(lane, 1));
    }
    IrValue low = ir.CreateShuffleVector(a, b, first);
    b = ir.CreateShuffleVector(a, b, second);
    a = low;
  };
  // Runs of so many elements, of the low or the high half of every 128 bits.
  auto interleave_halves = [&](int run) {
    return [=](int lane, int which) {
      const int in_quarter = lane % 4, source = in_quarter / run % 2;
      return source * lanes + lane / 4 * 4 + 2 * which + in_quarter / (2 * run) * run +
             in_quarter % run;
    };
  };
  auto alternate_quarters = [&](int lane, int which) {
    const int quarter = 2 * (lane / 4) + which; // of both vectors
    return 4 * quarter + lane % 4;
  };
  IrValues blocks(rows.size()); // [column in a quarter][four rows]
  for (int q = 0; q < quarters; ++q) {
    IrValue *r = &rows[size_t(4 * q)];
    both(r[0], r[1], interleave_halves(1));
    both(r[2], r[3], interleave_halves(1));
    both(r[0], r[2], interleave_halves(2));
    both(r[1], r[3], interleave_halves(2));
    const int order[] = {0, 2, 1, 3};
    for (int k = 0; k < 4; ++k) blocks[size_t(k * quarters + q)] = r[order[k]];
  }
  for (int k = 0; k < 4; ++k) {
    IrValue *b = &blocks[size_t(k * quarters)];
    for (int step = 1; step < quarters; step *= 2)
      for (int q = 0; q < quarters; ++q)
        if ((q & step) == 0) both(b[q], b[q + step], alternate_quarters);
  }
  for (int lane = 0; lane < lanes; ++lane)
    rows[size_t(lane)] = blocks[size_t(lane % 4 * quarters + lane / 4)];
  return rows;
}

void Emitter::transpose(const Transposition &copy,
                        const std::function<IrValue(IrValue, IrValue, IrValue)> &value) {
  const int64_t lanes = target.lanes();
  IrValue last = sub(copy.columns, constant(1));
  for_lanes(copy.columns, [&](IrValue column, IrValue column_mask) {
    loop(constant(0), copy.rows, constant(lanes), [&](IrValue row) {
      IrValue live = sub(copy.rows, row), mask = lane_mask(live, lanes);
      IrValue from = offset(copy.from, mul(row, constant(4)));
      IrValue to = offset(copy.to, add(mul(row, copy.to_row), mul(column, constant(4))));
      IrValues values;
      for (int64_t i = 0; i < lanes; ++i) { // behind the last column, that one again
        IrValue number = add(column, constant(i));
        if (column_mask) number = minimum(number, last);
        values.push_back(load(vector(), offset(from, mul(number, copy.from_column)), mask));
      }
      values = transpose(std::move(values));
      for (int64_t i = 0; i < lanes; ++i)
        when(ir.CreateICmpSLT(constant(i), live), [&] {
          store(value(values[size_t(i)], column, column_mask),
                offset(to, mul(copy.to_row, constant(i))), column_mask);
        });
    });
  });
}

IrValue Emitter::fma(IrValue a, IrValue b, IrValue c) {
  if (target.fma) return ir.CreateIntrinsic(llvm::Intrinsic::fma, {a->getType()}, {a, b, c});
  return ir.CreateFAdd(ir.CreateFMul(a, b), c);
}

// Compare and select: one minps or maxps, and the second operand's NaN never hides the first's.
IrValue Emitter::fmin(IrValue a, IrValue b) {
  return ir.CreateSelect(ir.CreateFCmpOGT(a, b), b, a);
}
IrValue Emitter::fmax(IrValue a, IrValue b) {
  return ir.CreateSelect(ir.CreateFCmpOLT(a, b), b, a);
}

namespace {
// The upper or lower half of a vector.
IrValue half(Emitter &e, IrValue vector, bool upper) {
  auto lanes = llvm::cast<llvm::FixedVectorType>(vector->getType())->getNumElements();
  std::vector<int> picked;
  for (unsigned i = 0; i < lanes / 2; ++i) picked.push_back(int(i + (upper ? lanes / 2 : 0)));
  return e.ir.CreateShuffleVector(vector, picked);
}
IrValue reduce(Emitter &e, IrValue vector, IrValue (*combine)(Emitter &, IrValue, IrValue)) {
  while (llvm::cast<llvm::FixedVectorType>(vector->getType())->getNumElements() > 1)
    vector = combine(e, half(e, vector, false), half(e, vector, true));
  return e.ir.CreateExtractElement(vector, uint64_t{0});
}
} // namespace

IrValue Emitter::horizontal_sum(IrValue vector) {
  return reduce(*this, vector,
                [](Emitter &e, IrValue a, IrValue b) { return e.ir.CreateFAdd(a, b); });
}
IrValue Emitter::horizontal_sums(IrValues vectors) {
  // Every vector holds parts of so many lanes, one of each sum; two become one, then halves.
  int64_t part = llvm::cast<llvm::FixedVectorType>(vectors[0]->getType())->getNumElements();
  int64_t parts = 1;
  auto add_halves = [&](IrValue a, IrValue b) { // the halves of all parts of both
    const int64_t half = part / 2, all = (b ? 2 : 1) * parts;
    llvm::SmallVector<int, 16> lower, upper;
    for (int64_t lane = 0; lane < all * half; ++lane) {
      lower.push_back(int(lane / half * part + lane % half));
      upper.push_back(lower.back() + int(half));
    }
    auto pick = [&](const llvm::SmallVector<int, 16> &lanes) {
      return b ? ir.CreateShuffleVector(a, b, lanes) : ir.CreateShuffleVector(a, lanes);
    };
    return ir.CreateFAdd(pick(lower), pick(upper));
  };
  for (; vectors.size() > 1; part /= 2, parts *= 2) {
    for (size_t i = 0; 2 * i < vectors.size(); ++i)
      vectors[i] = add_halves(vectors[2 * i], vectors[2 * i + 1]);
    vectors.resize(vectors.size() / 2);
  }
  for (; part > 1; part /= 2) vectors[0] = add_halves(vectors[0], nullptr);
  return vectors[0];
}
IrValue Emitter::horizontal_max(IrValue vector) {
  return reduce(*this, vector, [](Emitter &e, IrValue a, IrValue b) { return e.fmax(a, b); });
}

IrValues Emitter::no_blocks(IrType *type) { return {zero(wide(type)), zero(type), constant(0)}; }

IrValues Emitter::add_blocks(const IrValues &blocks, IrValue first, IrValue last,
                             const std::function<IrValue(IrValue, IrValue)> &add_term) {
  IrType *wide = blocks[0]->getType(), *narrow = blocks[1]->getType();
  IrValue block = constant(block_terms);
  // The terms [from, to), which fit into the last block.
  auto add_some = [&](const IrValues &state, IrValue from, IrValue to) {
    IrValue part = loop(from, to, constant(1), {state[1]}, [&](IrValue i, const IrValues &sum) {
      return IrValues{add_term(i, sum[0])};
    })[0];
    IrValue terms = add(state[2], sub(to, from)), full = ir.CreateICmpEQ(terms, block);
    IrValue total = ir.CreateFAdd(state[0], ir.CreateFPExt(part, wide));
    return IrValues{ir.CreateSelect(full, total, state[0]),
                    ir.CreateSelect(full, zero(narrow), part),
                    ir.CreateSelect(full, constant(0), terms)};
  };
  IrValue next = minimum(last, add(first, sub(block, blocks[2])));
  return loop(next, last, block, add_some(blocks, first, next),
              [&](IrValue from, const IrValues &state) {
                return add_some(state, from, minimum(add(from, block), last));
              });
}

IrValue Emitter::total_of(const IrValues &blocks) {
  return ir.CreateFAdd(blocks[0], ir.CreateFPExt(blocks[1], blocks[0]->getType()));
}

llvm::FunctionType *shared_type(llvm::Module &module, size_t pointers, size_t integers) {
  llvm::LLVMContext &context = module.getContext();
  std::vector<llvm::Type *> types(pointers, llvm::PointerType::get(context, 0));
  types.resize(pointers + integers, llvm::Type::getInt64Ty(context));
  return llvm::FunctionType::get(llvm::Type::getVoidTy(context), types, false);
}

llvm::Function *shared_function(llvm::Module &module, const Target &target, const std::string &name,
                                llvm::FunctionType *type,
                                const std::function<void(Emitter &)> &body) {
  if (llvm::Function *known = module.getFunction(name)) return known;
  auto *function = llvm::Function::Create(type, llvm::Function::InternalLinkage, name, module);
  function->addFnAttr(llvm::Attribute::NoInline);
  Emitter e(module, target, function);
  body(e);
  e.ir.CreateRetVoid();
  return function;
}

Target with_lanes(Target target, int64_t lanes) {
  target.vector_bytes = int(lanes * 4);
  return target;
}

IrValue emit_steps(Emitter &e, const std::vector<FusedOp> &steps, IrValue value,
                   const std::function<IrValue(int)> &operand) {
  int next = 0;
  for (const FusedOp &step : steps) {
    if (auto *unary = std::get_if<Unary>(&step.op))
      value = e.unary(*unary, value);
    else
      value = e.binary(std::get<Binary>(step.op).kind, value, operand(next++));
  }
  return value;
}

} // namespace lathe::core
