// Elementwise chains, copies, casts and gathers over up to six strided dimensions.
#include "codegen/emitter.h"

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

} // namespace

void emit(const MapSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  using M = MapSpec;
  const int count = static_cast<int>(spec.operands.size()), output = count - 1;
  Emitter e(module, target, name, size_t(count));
  auto stride = [&](int operand, int64_t dimension) {
    return e.param(M::first_stride + int(M::rank) * operand + int(dimension));
  };
  const bool scalar =
      spec.from != DType::f32 || spec.to != DType::f32 ||
      std::ranges::any_of(spec.operands, [](Inner inner) { return inner == Inner::strided; });

  // One step of the innermost loop: elements first, first + 1, ... of a vector, or just one.
  auto compute = [&](const IrValues &bases, IrValue first, IrValue mask, bool vector) {
    auto address = [&](int i) {
      return e.offset(bases[size_t(i)], e.mul(first, stride(i, M::rank - 1)));
    };
    auto load_whole = [&](int i) {
      return e.ir.CreateAlignedLoad(e.type_of(spec.from), address(i), llvm::Align(1));
    };
    if (spec.from != DType::f32 || spec.to != DType::f32) { // whole numbers, or a cast
      IrValue value = load_whole(0);
      int next = 1;
      for (const MapStep &step : spec.steps) {
        if (auto *unary = std::get_if<Unary>(&step.op)) {
          value = e.integer_unary(unary->kind, value);
        } else {
          IrValue other = load_whole(next++);
          BinaryKind kind = std::get<Binary>(step.op).kind;
          value = step.swapped ? e.integer_binary(kind, other, value)
                               : e.integer_binary(kind, value, other);
        }
      }
      e.ir.CreateAlignedStore(e.convert(spec.from, spec.to, value), address(output),
                              llvm::Align(1));
      return;
    }
    auto load = [&](int i) -> IrValue {
      if (!vector) return e.load(e.f32, address(i));
      if (spec.operands[size_t(i)] == Inner::broadcast)
        return e.broadcast(e.load(e.f32, bases[size_t(i)]), target.lanes());
      return e.load(e.vector(), address(i), mask);
    };
    IrValue value = load(0);
    int next = 1;
    for (const MapStep &step : spec.steps) {
      if (auto *unary = std::get_if<Unary>(&step.op)) {
        value = e.unary(*unary, value);
      } else {
        IrValue other = load(next++);
        BinaryKind kind = std::get<Binary>(step.op).kind;
        value = step.swapped ? e.binary(kind, other, value) : e.binary(kind, value, other);
      }
    }
    e.store(value, address(output), vector ? mask : nullptr);
  };

  each_row(e, count, [&](const IrValues &bases) {
    IrValue length = e.param(M::extent0 + 5);
    if (scalar)
      e.loop(length, [&](IrValue i) { compute(bases, i, nullptr, false); });
    else
      e.for_lanes(length, [&](IrValue i, IrValue mask) { compute(bases, i, mask, true); });
  });
  e.ir.CreateRetVoid();
}

void emit(const GatherSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  using G = GatherSpec;
  Emitter e(module, target, name, 3);
  auto step = [&](int operand) {
    return e.param(G::first_stride + int(G::rank) * operand + int(G::rank) - 1);
  };
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
    e.loop(length, [&](IrValue i) {
      auto at = [&](int operand) {
        return e.offset(bases[size_t(operand)], e.mul(i, step(operand)));
      };
      IrValue from = e.offset(at(G::input), along_axis(at(G::indices)));
      e.ir.CreateAlignedStore(e.ir.CreateAlignedLoad(element, from, llvm::Align(1)), at(G::output),
                              llvm::Align(1));
    });
  });
  e.ir.CreateRetVoid();
}

} // namespace lathe::core
