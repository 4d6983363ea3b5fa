// Max, average and sum pooling over NHWC, a vector of channels at a time; taps outside are skipped.
#include "codegen/emitter.h"

namespace lathe {

void emit(const PoolSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  using P = PoolSpec;
  Emitter e(module, target, name, 2);
  const bool max = spec.kind == PoolKind::max;
  IrValue zero = e.constant(0), one = e.constant(1), four = e.constant(4);

  // The taps [first, last) of a window at `start` that fall on [low, high), `dilation` apart.
  struct Range {
    IrValue first, last;
  };
  auto clip = [&](IrValue start, IrValue taps, IrValue dilation, IrValue low, IrValue high) {
    IrValue before = e.sub(low, start); // how far the window begins before `low`
    IrValue first = e.div(e.sub(e.add(e.maximum(before, zero), dilation), one), dilation);
    IrValue reach = e.maximum(e.sub(high, start), zero);
    IrValue last = e.minimum(taps, e.div(e.sub(e.add(reach, dilation), one), dilation));
    return Range{first, e.maximum(last, first)};
  };

  e.loop(e.begin, e.end, one, [&](IrValue task) {
    IrValue row = e.rem(task, e.param(P::out_rows)), image = e.div(task, e.param(P::out_rows));
    IrValue in = e.offset(e.operand(P::input), e.mul(image, e.param(P::in_image)));
    IrValue out = e.offset(e.offset(e.operand(P::output), e.mul(image, e.param(P::out_image))),
                           e.mul(row, e.param(P::out_row)));
    IrValue dilation_h = e.param(P::dilation_h), dilation_w = e.param(P::dilation_w);
    IrValue y = e.sub(e.mul(row, e.param(P::stride_h)), e.param(P::pad_top));
    Range rows = clip(y, e.param(P::kernel_h), dilation_h, zero, e.param(P::in_rows));
    e.loop(e.param(P::out_cols), [&](IrValue column) {
      IrValue x = e.sub(e.mul(column, e.param(P::stride_w)), e.param(P::pad_left));
      Range cols = clip(x, e.param(P::kernel_w), dilation_w, zero, e.param(P::in_cols));
      Range counted_rows = rows, counted_cols = cols;
      if (spec.count_include_pad) {
        IrValue top = e.sub(zero, e.param(P::pad_top)), left = e.sub(zero, e.param(P::pad_left));
        counted_rows =
            clip(y, e.param(P::kernel_h), dilation_h, top, e.add(top, e.param(P::padded_rows)));
        counted_cols =
            clip(x, e.param(P::kernel_w), dilation_w, left, e.add(left, e.param(P::padded_cols)));
      }
      IrValue taps = e.mul(e.sub(counted_rows.last, counted_rows.first),
                           e.sub(counted_cols.last, counted_cols.first));
      IrValue divisor =
          spec.kind != PoolKind::average
              ? nullptr
              : e.broadcast(e.ir.CreateSIToFP(e.maximum(taps, one), e.f32), target.lanes());
      IrValue pixel_out = e.offset(out, e.mul(column, e.param(P::out_pixel)));
      e.for_lanes(e.param(P::channels), [&](IrValue channel, IrValue mask) {
        IrValue bytes = e.mul(channel, four);
        IrValue start =
            max ? e.splat(e.vector(), -std::numeric_limits<float>::infinity()) : e.zero(e.vector());
        auto over_rows = [&](IrValue kh, const IrValues &row_state) {
          IrValue line = e.offset(
              in, e.add(bytes, e.mul(e.add(y, e.mul(kh, dilation_h)), e.param(P::in_row))));
          return e.loop(
              cols.first, cols.last, one, row_state, [&](IrValue kw, const IrValues &state) {
                IrValue at =
                    e.offset(line, e.mul(e.add(x, e.mul(kw, dilation_w)), e.param(P::in_pixel)));
                IrValue value = e.load(e.vector(), at, mask);
                return IrValues{max ? e.fmax(value, state[0]) : e.ir.CreateFAdd(state[0], value)};
              });
        };
        IrValue result = e.loop(rows.first, rows.last, one, {start}, over_rows)[0];
        if (divisor) result = e.ir.CreateFDiv(result, divisor);
        e.store(result, e.offset(pixel_out, bytes), mask);
      });
    });
  });
  e.ir.CreateRetVoid();
}

} // namespace lathe
