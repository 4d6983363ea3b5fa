// Elementwise chains, copies, casts and gathers over up to six strided dimensions.
#include "codegen/emitter.h"

#include <utility>

namespace lathe::core {

namespace {

using P = MapSpec::Params; // also what GatherSpec's begin with

IrValue stride(Emitter &e, int operand, int64_t dimension) {
  return e.param(int(leaves<P>() + loop_count * size_t(operand)) + int(dimension));
}

// What MapSpec and GatherSpec share: bases of all operands for the first of the rows that a task
// covers, and how many it does.
void each_task(Emitter &e, int operands,
               const std::function<void(const IrValues &bases, IrValue rows)> &body) {
  IrValue tasks_per_outer = e.param(&P::tasks_per_outer), per_task = e.param(&P::rows_per_task);
  e.loop(e.begin, e.end, e.constant(1), [&](IrValue task) {
    IrValue chunk = e.rem(task, tasks_per_outer), rest = e.div(task, tasks_per_outer);
    IrValues outer(4);
    for (int64_t d = 3; d >= 0; --d) {
      outer[size_t(d)] = e.rem(rest, e.param(&P::extents, size_t(d)));
      rest = e.div(rest, e.param(&P::extents, size_t(d)));
    }
    IrValue first = e.mul(chunk, per_task);
    IrValue last = e.minimum(e.add(first, per_task), e.param(&P::extents, 4));
    IrValues bases;
    for (int i = 0; i < operands; ++i) {
      IrValue bytes = e.mul(first, stride(e, i, 4));
      for (int64_t d = 0; d < 4; ++d)
        bytes = e.add(bytes, e.mul(outer[size_t(d)], stride(e, i, d)));
      bases.push_back(e.offset(e.operand(i), bytes));
    }
    body(bases, e.sub(last, first));
  });
}

// Bases of all operands for every row of a task.
void each_row(Emitter &e, const IrValues &bases, IrValue rows,
              const std::function<void(const IrValues &bases)> &body) {
  e.loop(rows, [&](IrValue row) {
    IrValues of_row;
    for (size_t i = 0; i < bases.size(); ++i)
      of_row.push_back(e.offset(bases[i], e.mul(row, stride(e, int(i), 4))));
    body(of_row);
  });
}

// Then, one by one, the addresses of a row's elements.
void each_element(Emitter &e, const IrValues &bases, IrValue length,
                  const std::function<void(const IrValues &addresses)> &body) {
  IrValues strides;
  for (size_t i = 0; i < bases.size(); ++i) strides.push_back(stride(e, int(i), loop_count - 1));
  e.loop(e.constant(0), length, e.constant(1), bases, [&](IrValue, const IrValues &addresses) {
    body(addresses);
    IrValues next;
    for (size_t i = 0; i < addresses.size(); ++i)
      next.push_back(e.offset(addresses[i], strides[i]));
    return next;
  });
}

} // namespace

void emit(const MapSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  const int count = static_cast<int>(spec.operands.size());
  Emitter e(module, target, name, size_t(count));
  // The steps, on f32, or on whole numbers; then perhaps a cast.
  const bool whole = !is_float(spec.from), cast = spec.from != spec.to;
  const bool vectors = spec.from == DType::f32 && !cast;
  auto result = [&](const std::function<IrValue(int)> &load) {
    IrValue value = load(0);
    int next = 1;
    for (const MapStep &step : spec.steps) {
      if (auto *unary = std::get_if<Unary>(&step.op)) {
        value = whole ? e.integer_unary(unary->kind, value) : e.unary(*unary, value);
      } else {
        const BinaryKind kind = std::get<Binary>(step.op).kind;
        IrValue a = value, b = load(next++);
        if (step.swapped) std::swap(a, b);
        value = whole ? e.integer_binary(kind, a, b) : e.binary(kind, a, b);
      }
    }
    return e.convert(spec.from, spec.to, value);
  };
  auto element = [&](const IrValues &at) {
    IrValue value = result([&](int i) {
      return e.ir.CreateAlignedLoad(e.type_of(spec.from), at[size_t(i)], llvm::Align(1));
    });
    e.ir.CreateAlignedStore(value, at.back(), llvm::Align(1));
  };
  auto vector = [&](const IrValues &bases, IrValue first, IrValue mask) {
    IrValue bytes = e.mul(first, e.constant(4));
    IrValue value = result([&](int i) -> IrValue {
      IrValue base = bases[size_t(i)];
      if (spec.operands[size_t(i)] == Inner::broadcast)
        return e.broadcast(e.load(e.f32, base), target.lanes());
      return e.load(e.vector(), e.offset(base, bytes), mask);
    });
    e.store(value, e.offset(bases.back(), bytes), mask);
  };

  IrValue length = e.param(&P::extents, 5);
  auto row = [&](const IrValues &bases) {
    if (vectors && std::ranges::count(spec.operands, Inner::strided) == 0)
      return e.for_lanes(length, [&](IrValue first, IrValue mask) { vector(bases, first, mask); });
    each_element(e, bases, length, element);
  };
  // From one layout to another: what lies in columns there is contiguous across the rows here.
  const bool may_transpose = vectors && spec.steps.empty() && spec.operands.size() == 2 &&
                             spec.operands[0] == Inner::strided &&
                             spec.operands[1] == Inner::contiguous;
  each_task(e, count, [&](const IrValues &bases, IrValue rows) {
    if (!may_transpose) return each_row(e, bases, rows, row);
    e.when(
        e.ir.CreateICmpEQ(stride(e, 0, 4), e.constant(4)),
        [&] {
          e.transpose({.from = bases[0],
                       .to = bases[1],
                       .rows = rows,
                       .columns = length,
                       .from_column = stride(e, 0, 5),
                       .to_row = stride(e, 1, 4)},
                      [](IrValue value, IrValue, IrValue) { return value; });
        },
        [&] { each_row(e, bases, rows, row); });
  });
  e.ir.CreateRetVoid();
}

void emit(const GatherSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  using G = GatherSpec;
  Emitter e(module, target, name, 3);
  IrValue zero = e.constant(0), extent = e.param(&G::Params::axis_extent),
          pitch = e.param(&G::Params::axis_stride);
  // The byte offset along the axis that the index at `at` stands for.
  auto along_axis = [&](IrValue at) {
    llvm::Type *type = e.type_of(spec.indices_type);
    IrValue index = e.ir.CreateSExt(e.ir.CreateAlignedLoad(type, at, llvm::Align(4)), e.i64);
    IrValue wrapped =
        e.ir.CreateSelect(e.ir.CreateICmpSLT(index, zero), e.add(index, extent), index);
    return e.mul(e.minimum(e.maximum(wrapped, zero), e.sub(extent, e.constant(1))), pitch);
  };
  llvm::Type *element = e.ir.getIntNTy(unsigned(8 * spec.element_bytes));
  IrValue length = e.param(&P::extents, 5);
  auto row = [&](const IrValues &bases) {
    if (spec.rows) {
      IrValue from = e.offset(bases[G::input], along_axis(bases[G::indices]));
      e.for_lanes(length, [&](IrValue first, IrValue mask) {
        IrValue bytes = e.mul(first, e.constant(4));
        e.store(e.load(e.vector(), e.offset(from, bytes), mask), e.offset(bases[G::output], bytes),
                mask);
      });
      return;
    }
    each_element(e, bases, length, [&](const IrValues &at) {
      IrValue from = e.offset(at[G::input], along_axis(at[G::indices]));
      e.ir.CreateAlignedStore(e.ir.CreateAlignedLoad(element, from, llvm::Align(1)), at[G::output],
                              llvm::Align(1));
    });
  };
  each_task(e, 3, [&](const IrValues &bases, IrValue rows) { each_row(e, bases, rows, row); });
  e.ir.CreateRetVoid();
}

} // namespace lathe::core
