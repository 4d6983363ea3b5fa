// Local response normalisation, softmax, extremes and reductions: kernels that look along an axis.
#include "codegen/emitter.h"

#include <limits>

namespace lathe::core {

void emit(const LrnSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  using L = LrnSpec;
  using P = LrnSpec::Params;
  Emitter e(module, target, name, 2);
  IrValue one = e.constant(1), four = e.constant(4), zero = e.constant(0);
  IrValue channels = e.param(&P::channels), before = e.param(&P::before),
          after = e.param(&P::after);

  // A pixel's channels lie in scratch with zeros before and behind them: whole vectors, since what
  // lies behind the last channel is zero as well.
  auto at = [&](IrValue base, IrValue channel) { return e.offset(base, e.mul(channel, four)); };
  IrValue length = e.add(e.add(channels, e.constant(2 * target.lanes())), e.add(before, after));
  auto line_of = [&](IrValue pixel) { return at(e.scratch, e.add(e.mul(pixel, length), before)); };
  auto clear = [&] {
    e.for_lanes(e.mul(length, e.constant(L::together)), [&](IrValue first, IrValue mask) {
      e.store(e.zero(e.vector()), at(e.scratch, first), mask);
    });
  };
  // y[c] for the vector of channels that begins at `first`; squares are summed from channel
  // c-before to c+after, ascending.
  auto normalise = [&](IrValue line, IrValue out, IrValue first, IrValue mask) {
    IrValue sum = e.loop(e.sub(zero, before), e.add(after, one), one, {e.zero(e.vector())},
                         [&](IrValue shift, const IrValues &state) {
                           IrValue x = e.load(e.vector(), at(line, e.add(first, shift)));
                           return IrValues{e.fma(x, x, state[0])};
                         })[0];
    IrValue base = e.fma(sum, e.splat(e.vector(), spec.scale), e.splat(e.vector(), spec.k));
    e.store(e.ir.CreateFMul(e.load(e.vector(), at(line, first)), e.power(base, -double(spec.beta))),
            at(out, first), mask);
  };

  clear();
  e.loop(e.begin, e.end, one, [&](IrValue task) {
    IrValue row = e.rem(task, e.param(&P::rows)), image = e.div(task, e.param(&P::rows));
    IrValue in = e.offset(e.operand(L::input), e.add(e.mul(image, e.param(&P::in, &Pitches::image)),
                                                     e.mul(row, e.param(&P::in, &Pitches::row))));
    IrValue out =
        e.offset(e.operand(L::output), e.add(e.mul(image, e.param(&P::out, &Pitches::image)),
                                             e.mul(row, e.param(&P::out, &Pitches::row))));
    IrValue cols = e.param(&P::cols), together = e.constant(L::together);
    e.loop(zero, cols, together, [&](IrValue column) {
      IrValue pixels = e.minimum(together, e.sub(cols, column));
      e.loop(pixels, [&](IrValue p) {
        IrValue line = line_of(p);
        IrValue from = e.offset(in, e.mul(e.add(column, p), e.param(&P::in, &Pitches::pixel)));
        e.for_lanes(channels, [&](IrValue first, IrValue mask) {
          e.store(e.load(e.vector(), at(from, first), mask), at(line, first));
        });
      });
      e.loop(pixels, [&](IrValue p) {
        IrValue line = line_of(p);
        IrValue to = e.offset(out, e.mul(e.add(column, p), e.param(&P::out, &Pitches::pixel)));
        e.for_lanes(channels,
                    [&](IrValue first, IrValue mask) { normalise(line, to, first, mask); });
      });
    });
  });
  e.ir.CreateRetVoid();
}

namespace {

// Where a task's line begins in the input and output of a softmax or arg kernel.
std::pair<IrValue, IrValue> line(Emitter &e, IrValue task) {
  using S = SoftmaxSpec;
  using P = SoftmaxSpec::Params;
  IrValue in = e.operand(S::input), out = e.operand(S::output), rest = task;
  for (size_t d = loop_count; d-- > 0;) {
    IrValue extent = e.param(&P::extents, d), index = e.rem(rest, extent);
    rest = e.div(rest, extent);
    in = e.offset(in, e.mul(index, e.param(&P::in_strides, d)));
    out = e.offset(out, e.mul(index, e.param(&P::out_strides, d)));
  }
  return {in, out};
}

} // namespace

// softmax: exp(x - max) / sum; log softmax: x - max - log(sum).
void emit(const SoftmaxSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  using P = SoftmaxSpec::Params;
  Emitter e(module, target, name, 2);
  IrValue one = e.constant(1), four = e.constant(4), length = e.param(&P::length);
  llvm::Type *type = spec.contiguous ? e.vector() : e.f32;
  const double lowest = -std::numeric_limits<double>::infinity();
  IrValue in_step = spec.contiguous ? four : e.param(&P::in_step);
  IrValue out_step = spec.contiguous ? four : e.param(&P::out_step);

  // For every element, or vector of them.
  using Body = std::function<void(IrValue first, IrValue mask)>;
  auto each_of = [&](IrValue count, const Body &body) {
    if (spec.contiguous)
      e.for_lanes(count, body);
    else
      e.loop(count, [&](IrValue i) { body(i, nullptr); });
  };
  auto each = [&](const Body &body) { each_of(length, body); };
  // A running value lives in a stack slot, which LLVM's mem2reg would keep in a register; the
  // loops here are short enough for memory.
  auto slot = [&](IrValue initial) {
    IrValue memory = e.local(initial->getType());
    e.ir.CreateStore(initial, memory);
    return memory;
  };

  e.loop(e.begin, e.end, one, [&](IrValue task) {
    auto [in, out] = line(e, task);
    auto load = [&](IrValue i, IrValue mask, double dead) {
      IrValue x = e.load(type, e.offset(in, e.mul(i, in_step)), mask);
      return mask ? e.ir.CreateSelect(mask, x, e.splat(type, dead)) : x;
    };
    IrValue maximum = slot(e.splat(type, lowest));
    each([&](IrValue i, IrValue mask) {
      e.ir.CreateStore(e.fmax(load(i, mask, lowest), e.ir.CreateLoad(type, maximum)), maximum);
    });
    IrValue top = e.ir.CreateLoad(type, maximum);
    if (spec.contiguous) top = e.broadcast(e.horizontal_max(top), target.lanes());

    IrValue sum = slot(e.zero(type));
    auto add = [&](IrValue i, IrValue mask) {
      IrValue power = e.exp(e.ir.CreateFSub(load(i, mask, 0), top));
      if (!spec.log) e.store(power, e.offset(out, e.mul(i, out_step)), mask);
      if (mask) power = e.ir.CreateSelect(mask, power, e.zero(type));
      e.ir.CreateStore(e.ir.CreateFAdd(e.ir.CreateLoad(type, sum), power), sum);
    };
    IrValue total = nullptr;
    if (spec.blocked) {
      IrValue block = e.constant(block_terms * (spec.contiguous ? target.lanes() : 1));
      total = e.loop(e.constant(0), length, block, {e.zero(e.wide(type))},
                     [&](IrValue first, const IrValues &state) {
                       e.ir.CreateStore(e.zero(type), sum);
                       each_of(e.minimum(block, e.sub(length, first)),
                               [&](IrValue i, IrValue mask) { add(e.add(first, i), mask); });
                       IrValue part = e.ir.CreateLoad(type, sum);
                       part = e.ir.CreateFPExt(part, e.wide(type));
                       return IrValues{e.ir.CreateFAdd(state[0], part)};
                     })[0];
    } else {
      each(add);
      total = e.ir.CreateLoad(type, sum);
    }
    if (spec.contiguous) total = e.horizontal_sum(total);
    if (spec.blocked) total = e.ir.CreateFPTrunc(total, e.f32);
    if (spec.contiguous) total = e.broadcast(total, target.lanes());
    IrValue scale = spec.log ? e.log(total) : e.ir.CreateFDiv(e.splat(type, 1), total);
    each([&](IrValue i, IrValue mask) {
      IrValue to = e.offset(out, e.mul(i, out_step));
      IrValue value = spec.log ? e.ir.CreateFSub(e.ir.CreateFSub(load(i, mask, 0), top), scale)
                               : e.ir.CreateFMul(e.load(type, to, mask), scale);
      e.store(value, to, mask);
    });
  });
  e.ir.CreateRetVoid();
}

void emit(const ArgSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  using P = ArgSpec::Params;
  Emitter e(module, target, name, 2);
  IrValue zero = e.constant(0), one = e.constant(1);
  IrValue length = e.param(&P::length), in_step = e.param(&P::in_step);
  e.loop(e.begin, e.end, one, [&](IrValue task) {
    auto [in, out] = line(e, task);
    auto at = [&](IrValue i) { return e.load(e.f32, e.offset(in, e.mul(i, in_step))); };
    IrValues found =
        e.loop(one, length, one, {at(zero), zero}, [&](IrValue i, const IrValues &held) {
          IrValue x = at(i);
          bool max = spec.kind == ArgKind::max;
          IrValue better =
              spec.last ? max ? e.ir.CreateFCmpOGE(x, held[0]) : e.ir.CreateFCmpOLE(x, held[0])
              : max ? e.ir.CreateFCmpUGT(x, held[0])
                        : e.ir.CreateFCmpULT(x, held[0]);
          better = spec.last ? e.ir.CreateOr(better, e.is_nan(x))
                             : e.ir.CreateAnd(better, e.ir.CreateNot(e.is_nan(held[0])));
          return IrValues{e.ir.CreateSelect(better, x, held[0]),
                          e.ir.CreateSelect(better, i, held[1])};
        });
    if (!spec.one_hot) {
      e.ir.CreateAlignedStore(found[1], out, llvm::Align(8));
      return;
    }
    IrValue out_step = e.param(&P::out_step);
    e.loop(length, [&](IrValue i) {
      IrValue value = e.ir.CreateUIToFP(e.ir.CreateICmpEQ(i, found[1]), e.f32);
      e.store(value, e.offset(out, e.mul(i, out_step)));
    });
  });
  e.ir.CreateRetVoid();
}

void emit(const ReduceSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  using R = ReduceSpec;
  using P = ReduceSpec::Params;
  Emitter e(module, target, name, 2);
  IrValue one = e.constant(1), four = e.constant(4);
  constexpr size_t last = loop_count - 1;

  llvm::Type *type = spec.vector ? e.vector() : e.f32;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const bool sums = spec.kind == ReduceKind::sum || spec.kind == ReduceKind::mean;
  // What the loops carry: a sum of blocks, a product, or an extreme number and the last NaN.
  auto start = [&]() -> IrValues {
    if (sums) return e.no_blocks(type);
    if (spec.kind == ReduceKind::prod) return {e.splat(type, 1)};
    return {e.splat(type, spec.kind == ReduceKind::max ? -infinity : infinity), e.zero(type)};
  };
  auto combine = [&](const IrValues &held, IrValue x) -> IrValues {
    if (spec.kind == ReduceKind::prod) return {e.ir.CreateFMul(held[0], x)};
    return {spec.kind == ReduceKind::max ? e.fmax(x, held[0]) : e.fmin(x, held[0]),
            e.nan_or(x, held[1])};
  };
  IrValue count = one;
  for (size_t d = 0; d < loop_count; ++d) count = e.mul(count, e.param(&P::reduced, d));
  auto finish = [&](const IrValues &held) {
    if (spec.kind == ReduceKind::prod) return held[0];
    if (!sums) return e.nan_or(held[1], held[0]);
    IrValue divisor = e.ir.CreateSIToFP(count, e.wide(e.f32));
    if (spec.vector) divisor = e.broadcast(divisor, target.lanes());
    IrValue total = e.total_of(held);
    const bool mean = spec.kind == ReduceKind::mean;
    return e.ir.CreateFPTrunc(mean ? e.ir.CreateFDiv(total, divisor) : total, type);
  };
  // Reduces one element (or vector) over all reduced loops, outermost first.
  std::function<IrValues(size_t, IrValue, IrValues, IrValue)> reduce_over =
      [&](size_t dimension, IrValue at, IrValues held, IrValue mask) -> IrValues {
    IrValue extent = e.param(&P::reduced, dimension);
    IrValue stride = e.param(&P::reduced_strides, dimension);
    auto place = [&](IrValue i) { return e.offset(at, e.mul(i, stride)); };
    auto load = [&](IrValue i) { return e.load(type, place(i), mask); };
    if (dimension == last && sums)
      return e.add_blocks(held, e.constant(0), extent,
                          [&](IrValue i, IrValue sum) { return e.ir.CreateFAdd(sum, load(i)); });
    return e.loop(e.constant(0), extent, one, std::move(held),
                  [&](IrValue i, const IrValues &state) {
                    return dimension == last ? combine(state, load(i))
                                             : reduce_over(dimension + 1, place(i), state, mask);
                  });
  };

  e.loop(e.begin, e.end, one, [&](IrValue task) {
    IrValue in = e.operand(R::input), out = e.operand(R::output), rest = task;
    for (size_t d = last; d-- > 0;) {
      IrValue extent = e.param(&P::extents, d), index = e.rem(rest, extent);
      rest = e.div(rest, extent);
      in = e.offset(in, e.mul(index, e.param(&P::in_strides, d)));
      out = e.offset(out, e.mul(index, e.param(&P::out_strides, d)));
    }
    IrValue length = e.param(&P::extents, last);
    auto reduce = [&](IrValue from, IrValue to, IrValue mask) {
      e.store(finish(reduce_over(0, from, start(), mask)), to, mask);
    };
    if (spec.vector) {
      e.for_lanes(length, [&](IrValue i, IrValue mask) {
        reduce(e.offset(in, e.mul(i, four)), e.offset(out, e.mul(i, four)), mask);
      });
    } else {
      e.loop(length, [&](IrValue i) {
        reduce(e.offset(in, e.mul(i, e.param(&P::in_strides, last))),
               e.offset(out, e.mul(i, e.param(&P::out_strides, last))), nullptr);
      });
    }
  });
  e.ir.CreateRetVoid();
}

} // namespace lathe::core
