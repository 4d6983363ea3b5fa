// Source rows of a convolution in scratch: copied, gathered, padded with zeros.
#include "codegen/conv_parts.h"

namespace lathe::core {

using S = ConvSpec::StageParams;

void SourceRows::copy(Emitter &kernel, const ConvSpec &spec, IrValue params, IrValue pre,
                      IrValue input, IrValue group, IrValue first) {
  const ConvSpec own{.prologue = spec.prologue, .gathered = spec.gathered, .pre = spec.pre};
  llvm::Function *function = shared_function(
      kernel.module, kernel.target, kernel_symbol(own, kernel.target) + ".rows",
      shared_type(kernel.module, 4, 2), [&](Emitter &e) {
        auto argument = [&](unsigned i) { return static_cast<IrValue>(e.function->getArg(i)); };
        e.set_arguments(0, argument(0), nullptr, nullptr, argument(2));
        SourceRows({own, 0, 0}, argument(1)).copy_rows(e, argument(3), argument(4), argument(5));
      });
  kernel.ir.CreateCall(function, {params, pre, kernel.scratch, input, group, first});
}

void SourceRows::copy_rows(Emitter &e, IrValue input, IrValue group, IrValue first) const {
  e.loop(param(e, &S::scratch_rows), [&](IrValue r) {
    IrValue row = e.add(first, r);
    border(e, r, row, [&](IrValue to) {
      copy_row(e, group, e.offset(input, e.mul(row, param(e, &S::in, &Pitches::row))), to);
    });
  });
}

void SourceRows::border(Emitter &e, IrValue r, IrValue row,
                        const std::function<void(IrValue)> &fill) const {
  IrValue pixel = e.mul(param(e, &S::in_channels), e.constant(4));
  IrValue row_bytes = e.mul(param(e, &S::scratch_cols), pixel);
  IrValue left = e.mul(param(e, &S::pad_left), pixel), inner = e.mul(param(e, &S::in_cols), pixel);
  IrValue to = e.offset(stage_.scratch(e), e.mul(r, row_bytes));
  auto zeros = [&](IrValue from, IrValue bytes) {
    e.for_lanes(e.div(bytes, e.constant(4)), [&](IrValue first, IrValue mask) {
      e.store(e.zero(e.vector()), e.offset(from, e.mul(first, e.constant(4))), mask);
    });
  };
  e.when(
      e.ir.CreateICmpULT(row, param(e, &S::in_rows)), // a negative one is huge
      [&] {
        zeros(to, left);
        IrValue middle = e.offset(to, left);
        fill(middle);
        zeros(e.offset(middle, inner), e.sub(e.sub(row_bytes, left), inner));
      },
      [&] { zeros(to, row_bytes); });
}

void SourceRows::copy_row(Emitter &e, IrValue group, IrValue from, IrValue to) const {
  IrValue most = param(e, &S::in_channels), columns = param(e, &S::in_cols);
  IrValue channels = e.minimum(most, e.sub(param(e, &S::all_in_channels), e.mul(group, most)));
  IrValue pixel = param(e, &S::in, &Pitches::pixel), four = e.constant(4);
  IrValue pixel_bytes = e.mul(most, four);
  IrValues vectors; // of this group
  for (size_t i = 0; i < operands_of(spec_.pre); ++i)
    vectors.push_back(e.offset(e.load_invariant(e.ptr, e.offset(pre_, int64_t(i) * 8)),
                               e.mul(group, pixel_bytes)));
  // `count` channels of some pixels from `x` on; without `pre`, perhaps those of a whole row.
  auto copy = [&](IrValue x, int64_t pixels, IrValue count) {
    e.for_lanes(count, [&](IrValue first, IrValue mask) {
      IrValue bytes = e.mul(first, four);
      auto load = [&](IrValue base) { return e.load(e.vector(), e.offset(base, bytes), mask); };
      IrValues operands;
      for (IrValue vector : vectors) operands.push_back(load(vector));
      for (int64_t i = 0; i < pixels; ++i) {
        IrValue number = e.add(x, e.constant(i));
        IrValue value = load(e.offset(from, e.mul(number, pixel)));
        value = emit_steps(e, spec_.pre, value, [&](int o) { return operands[size_t(o)]; });
        e.store(value, e.offset(e.offset(to, e.mul(number, pixel_bytes)), bytes), mask);
      }
    });
  };
  if (spec_.prologue == Prologue::copy) {
    auto pixel_by_pixel = [&] {
      constexpr int64_t at_once = 4;
      IrValue most = e.mul(e.div(columns, e.constant(at_once)), e.constant(at_once));
      e.loop(e.constant(0), most, e.constant(at_once),
             [&](IrValue x) { copy(x, at_once, channels); });
      e.loop(most, columns, e.constant(1), [&](IrValue x) { copy(x, 1, channels); });
    };
    if (!spec_.pre.empty()) return pixel_by_pixel();
    return e.when(
        e.ir.CreateICmpNE(param(e, &S::rows_run_on), e.constant(0)),
        [&] { copy(e.constant(0), 1, e.mul(columns, channels)); }, pixel_by_pixel);
  }
  auto one_by_one = [&](IrValue first) {
    e.loop(channels, [&](IrValue c) {
      IrValue bytes = e.mul(c, four), target = e.offset(to, bytes);
      IrValue source = e.offset(from, e.mul(c, param(e, &S::in_channel)));
      IrValues factors;
      for (IrValue vector : vectors) factors.push_back(e.load(e.f32, e.offset(vector, bytes)));
      e.loop(first, columns, e.constant(1), [&](IrValue x) {
        IrValue value = e.load(e.f32, e.offset(source, e.mul(x, pixel)));
        value = emit_steps(e, spec_.pre, value, [&](int i) { return factors[size_t(i)]; });
        e.store(value, e.offset(target, e.mul(x, pixel_bytes)));
      });
    });
  };
  if (spec_.gathered > 0) return one_by_one(interleave(e, from, to, vectors));
  e.when(
      e.ir.CreateICmpEQ(pixel, four), [&] { transpose(e, channels, from, to, vectors); },
      [&] { one_by_one(e.constant(0)); });
}

// Gathers many channels of a picture whose columns are contiguous.
void SourceRows::transpose(Emitter &e, IrValue channels, IrValue from, IrValue to,
                           const IrValues &pre) const {
  e.transpose({.from = from,
               .to = to,
               .rows = param(e, &S::in_cols),
               .columns = channels,
               .from_column = param(e, &S::in_channel),
               .to_row = e.mul(param(e, &S::in_channels), e.constant(4))},
              [&](IrValue value, IrValue channel, IrValue mask) {
                return emit_steps(e, spec_.pre, value, [&](int i) {
                  IrValue place = e.offset(pre[size_t(i)], e.mul(channel, e.constant(4)));
                  return e.load(e.vector(), place, mask);
                });
              });
}

// Gathers a few channels of a picture whose columns are contiguous, a vector of columns at a
// time. Returns how many columns it did: none where they are not contiguous.
IrValue SourceRows::interleave(Emitter &e, IrValue from, IrValue to, const IrValues &pre) const {
  const int64_t lanes = e.target.lanes(), count = spec_.gathered;
  IrValue contiguous = e.ir.CreateICmpEQ(param(e, &S::in, &Pitches::pixel), e.constant(4));
  IrValue columns = e.mul(e.div(param(e, &S::in_cols), e.constant(lanes)), e.constant(lanes));
  IrValue done = e.ir.CreateSelect(contiguous, columns, e.constant(0));
  e.loop(e.constant(0), done, e.constant(lanes), [&](IrValue x) {
    IrValues values;
    for (int64_t c = 0; c < count; ++c) {
      IrValue at = e.add(e.mul(e.constant(c), param(e, &S::in_channel)), e.mul(x, e.constant(4)));
      IrValue value = emit_steps(e, spec_.pre, e.load(e.vector(), e.offset(from, at)), [&](int i) {
        return e.broadcast(e.load(e.f32, e.offset(pre[size_t(i)], c * 4)), lanes);
      });
      values.push_back(value);
    }
    IrValue row = e.offset(to, e.mul(x, e.constant(count * 4)));
    IrValues mixed = e.interleave(values);
    for (int64_t c = 0; c < count; ++c) e.store(mixed[size_t(c)], e.offset(row, c * lanes * 4));
  });
  return done;
}

} // namespace lathe::core
