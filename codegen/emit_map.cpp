// Elementwise chains, copies, casts and gathers over up to six strided dimensions.
#include "codegen/emitter.h"

#include <utility>

namespace lathe::core {

namespace {

// What MapSpec and GatherSpec share: bases of all operands for every row that a task covers.
void each_row(Emitter &e, int operands, const std::function<void(const IrValues &bases)> &body) {
  using M = MapSpec;
  IrValue tasks_per_outer = e.param(M::tasks_per_outer), per_task = e.param(M::rows_per_task);
  auto stride = [&](int operand, int64_t dimension) {
    return e.param(M::first_stride + int(M::rank) * operand + int(dimension));
  };
  e.loop(e.begin, e.end, e.constant(1), [&](IrValue task) {
    IrValue chunk = e.rem(task, tasks_per_outer), rest = e.div(task, tasks_per_outer);
    IrValues outer(4);
    for (int64_t d = 3; d >= 0; --d) {
      outer[size_t(d)] = e.rem(rest, e.param(M::extent0 + int(d)));
      rest = e.div(rest, e.param(M::extent0 + int(d)));
    }
    IrValue first = e.mul(chunk, per_task);
    IrValue last = e.minimum(e.add(first, per_task), e.param(M::extent0 + 4));
    e.loop(first, last, e.constant(1), [&](IrValue row) {
      IrValues bases;
      for (int i = 0; i < operands; ++i) {
        IrValue bytes = e.mul(row, stride(i, 4));
        for (int64_t d = 0; d < 4; ++d) bytes = e.add(bytes, e.mul(outer[size_t(d)], stride(i, d)));
        bases.push_back(e.offset(e.operand(i), bytes));
      }
      body(bases);
    });
  });
}

// Then, one by one, the addresses of a row's elements.
void each_element(Emitter &e, const IrValues &bases, IrValue length,
                  const std::function<void(const IrValues &addresses)> &body) {
  IrValues strides;
  for (size_t i = 0; i < bases.size(); ++i)
    strides.push_back(
        e.param(MapSpec::first_stride + int(MapSpec::rank) * int(i) + int(MapSpec::rank) - 1));
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
  using M = MapSpec;
  const int count = static_cast<int>(spec.operands.size());
  Emitter e(module, target, name, size_t(count));
  // The steps, on f32, or on whole numbers; then perhaps a cast.
  const bool whole = spec.from != DType::f32 || spec.to != DType::f32;
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

  each_row(e, count, [&](const IrValues &bases) {
    IrValue length = e.param(M::extent0 + 5);
    if (!whole && std::ranges::count(spec.operands, Inner::strided) == 0)
      return e.for_lanes(length, [&](IrValue first, IrValue mask) { vector(bases, first, mask); });
    each_element(e, bases, length, element);
  });
  e.ir.CreateRetVoid();
}

void emit(const GatherSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  using G = GatherSpec;
  Emitter e(module, target, name, 3);
  IrValue zero = e.constant(0), extent = e.param(G::axis_extent), pitch = e.param(G::axis_stride);
  // The byte offset along the axis that the index at `at` stands for.
  auto along_axis = [&](IrValue at) {
    llvm::Type *type = e.type_of(spec.indices_type);
    IrValue index = e.ir.CreateSExt(e.ir.CreateAlignedLoad(type, at, llvm::Align(4)), e.i64);
    IrValue wrapped =
        e.ir.CreateSelect(e.ir.CreateICmpSLT(index, zero), e.add(index, extent), index);
    return e.mul(e.minimum(e.maximum(wrapped, zero), e.sub(extent, e.constant(1))), pitch);
  };
  llvm::Type *element = e.ir.getIntNTy(unsigned(8 * spec.element_bytes));
  each_row(e, 3, [&](const IrValues &bases) {
    IrValue length = e.param(G::extent0 + 5);
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
  });
  e.ir.CreateRetVoid();
}

} // namespace lathe::core
