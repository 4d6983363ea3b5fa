// Max, average and sum pooling over NHWC, a vector of channels at a time; taps outside are skipped.
#include "codegen/emitter.h"

#include <limits>

namespace lathe::core {

using P = PoolSpec::Params;

namespace {

// Where the Pitches of a post operand begin.
int post_pitches(int operand) { return int(leaves<P>()) + int(leaves<Pitches>()) * operand; }

// In the row's own function, where the parameters are the pool's.
void compute(Emitter &e, const PoolSpec &spec, const PoolRow &at) {
  const auto &[params, bias, in, out, row, channels, pre, post] = at;
  const Target &target = e.target;
  const bool max = spec.kind == PoolKind::max;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  IrValue zero = e.constant(0), one = e.constant(1), four = e.constant(4);
  auto param = [&](auto... path) { return e.param(path...); };

  // The taps [first, last) of a window at `start` that fall on [low, high), `dilation` apart.
  struct Range {
    IrValue first, last;
  };
  auto clip = [&](IrValue start, IrValue taps, IrValue dilation, IrValue low, IrValue high) {
    auto steps = [&](IrValue distance) { // up
      return spec.dilated ? e.div(e.sub(e.add(distance, dilation), one), dilation) : distance;
    };
    IrValue before = e.sub(low, start); // how far the window begins before `low`
    IrValue first = steps(e.maximum(before, zero));
    IrValue last = e.minimum(taps, steps(e.maximum(e.sub(high, start), zero)));
    return Range{first, e.maximum(last, first)};
  };

  // Read before the loops: LLVM does not take loads out of loops that may have no step.
  IrValue dilation_h = spec.dilated ? param(&P::dilation_h) : one;
  IrValue dilation_w = spec.dilated ? param(&P::dilation_w) : one;
  IrValue in_row = param(&P::in, &Pitches::row), in_pixel = param(&P::in, &Pitches::pixel),
          in_cols = param(&P::in_cols);
  IrValue stride_w = param(&P::stride_w), pad_left = param(&P::pad_left);
  IrValue out_cols = param(&P::out_cols), out_pixel = param(&P::out, &Pitches::pixel);
  IrValue tap_row = e.mul(dilation_h, in_row), tap_pixel = e.mul(dilation_w, in_pixel);
  IrValue y = e.sub(e.mul(row, param(&P::stride_h)), param(&P::pad_top));

  // One window for all channels; `fold` goes over its taps.
  struct Window {
    IrValue column;  // of the result
    IrValue in, out; // addresses of the first tap and of the result
    IrValue count;   // what an average divides by
  };
  using Step = std::function<IrValue(IrValue kh, IrValue kw, IrValue sum)>;
  auto pixel = [&](const Window &w, const std::function<IrValue(const Step &, IrValue)> &fold) {
    e.for_lanes(channels, [&](IrValue channel, IrValue mask) {
      IrValue bytes = e.mul(channel, four);
      auto vector = [&](IrValue base) { return e.load(e.vector(), e.offset(base, bytes), mask); };
      IrValues factors;
      for (IrValue operand : pre) factors.push_back(vector(operand));
      auto step = [&](IrValue kh, IrValue kw, IrValue sum) -> IrValue {
        IrValue value = vector(e.offset(w.in, e.add(e.mul(kh, tap_row), e.mul(kw, tap_pixel))));
        value = emit_steps(e, spec.pre, value, [&](int i) { return factors[size_t(i)]; });
        if (!max) return e.ir.CreateFAdd(sum, value);
        return spec.strict ? e.nan_or(sum, e.fmax(value, sum)) : e.fmax(value, sum);
      };
      llvm::Type *type = spec.blocked ? e.wide(e.vector()) : e.vector();
      IrValue result = fold(step, max ? e.splat(type, -infinity) : e.zero(type));
      if (spec.kind == PoolKind::average) {
        IrValue count = e.ir.CreateSIToFP(w.count, type->getScalarType());
        result = e.ir.CreateFDiv(result, e.broadcast(count, target.lanes()));
      }
      if (spec.blocked) result = e.ir.CreateFPTrunc(result, e.vector());
      if (spec.bias) result = e.ir.CreateFAdd(result, vector(bias));
      result = emit_steps(e, spec.post, result, [&](int i) {
        IrValue pitch = e.param(post_pitches(i) + int(leaf(&Pitches::pixel)));
        return vector(e.offset(post[size_t(i)], e.mul(w.column, pitch)));
      });
      e.store(result, e.offset(w.out, bytes), mask);
    });
  };

  // Windows of a known size that lie inside the picture, `inside` of them, from column `first` on.
  const auto [h, w] = spec.window;
  IrValue first = zero, inside = zero;
  if (h > 0) {
    first = e.minimum(e.div(e.add(pad_left, e.sub(stride_w, one)), stride_w), out_cols);
    IrValue rows_inside =
        e.ir.CreateAnd(e.ir.CreateICmpSGE(y, zero),
                       e.ir.CreateICmpSLE(e.add(y, e.constant(h)), param(&P::in_rows)));
    IrValue last_start = e.sub(e.add(in_cols, pad_left), e.constant(w));
    IrValue end = e.minimum(e.add(e.div(e.maximum(last_start, zero), stride_w), one), out_cols);
    IrValue any = e.ir.CreateAnd(rows_inside, e.ir.CreateICmpSGE(last_start, zero));
    inside = e.ir.CreateSelect(any, e.maximum(e.sub(end, first), zero), zero);
    IrValue x = e.sub(e.mul(first, stride_w), pad_left), pitch = e.mul(stride_w, in_pixel);
    IrValues addresses{e.offset(in, e.add(e.mul(y, in_row), e.mul(x, in_pixel))),
                       e.offset(out, e.mul(first, out_pixel))};
    e.loop(zero, inside, one, addresses, [&](IrValue index, const IrValues &at) {
      pixel({e.add(first, index), at[0], at[1], e.constant(h * w)},
            [&](const Step &step, IrValue sum) {
              for (int64_t kh = 0; kh < h; ++kh)
                for (int64_t kw = 0; kw < w; ++kw) sum = step(e.constant(kh), e.constant(kw), sum);
              return sum;
            });
      return IrValues{e.offset(at[0], pitch), e.offset(at[1], out_pixel)};
    });
  }
  // The others.
  Range rows = clip(y, param(&P::kernel_h), dilation_h, zero, param(&P::in_rows));
  e.loop(e.sub(out_cols, inside), [&](IrValue number) {
    IrValue skipped = e.ir.CreateSelect(e.ir.CreateICmpSGE(number, first), inside, zero);
    IrValue column = e.add(number, skipped);
    IrValue x = e.sub(e.mul(column, stride_w), pad_left);
    Range cols = clip(x, param(&P::kernel_w), dilation_w, zero, in_cols);
    Range counted_rows = rows, counted_cols = cols;
    if (spec.count_include_pad) {
      IrValue top = e.sub(zero, param(&P::pad_top)), left = e.sub(zero, pad_left);
      counted_rows =
          clip(y, param(&P::kernel_h), dilation_h, top, e.add(top, param(&P::padded_rows)));
      counted_cols =
          clip(x, param(&P::kernel_w), dilation_w, left, e.add(left, param(&P::padded_cols)));
    }
    IrValue taps = e.mul(e.sub(counted_rows.last, counted_rows.first),
                         e.sub(counted_cols.last, counted_cols.first));
    IrValue start = e.offset(in, e.add(e.mul(y, in_row), e.mul(x, in_pixel)));
    pixel({column, start, e.offset(out, e.mul(column, out_pixel)), e.maximum(taps, one)},
          [&](const Step &step, IrValue from) {
            auto over_rows = [&](IrValue kh, const IrValues &state) {
              if (spec.blocked)
                return IrValues{e.total_of(
                    e.add_blocks({state[0], e.zero(e.vector()), zero}, cols.first, cols.last,
                                 [&](IrValue kw, IrValue sum) { return step(kh, kw, sum); }))};
              return e.loop(
                  cols.first, cols.last, one, state,
                  [&](IrValue kw, const IrValues &sum) { return IrValues{step(kh, kw, sum[0])}; });
            };
            return e.loop(rows.first, rows.last, one, {from}, over_rows)[0];
          });
  });
}

// The fields in the order of the function's arguments; their lists must be as long as they will be.
std::vector<IrValue *> fields_of(PoolRow &a) {
  std::vector<IrValue *> all{&a.params, &a.bias, &a.in, &a.out};
  for (IrValue &each : a.pre) all.push_back(&each);
  for (IrValue &each : a.post) all.push_back(&each);
  all.insert(all.end(), {&a.row, &a.channels});
  return all;
}

} // namespace

void PoolRow::emit(Emitter &kernel, const PoolSpec &spec) const {
  PoolRow copy = *this;
  if (!copy.bias) copy.bias = kernel.zero(kernel.ptr);
  IrValues all;
  for (IrValue *field : fields_of(copy)) all.push_back(*field);
  auto *type = shared_type(kernel.module, 4 + pre.size() + post.size(), 2);
  llvm::Function *function =
      shared_function(kernel.module, kernel.target, kernel_symbol(spec, kernel.target) + ".row",
                      type, [&](Emitter &e) {
                        PoolRow own = *this;
                        unsigned next = 0;
                        for (IrValue *field : fields_of(own)) *field = e.function->getArg(next++);
                        e.set_arguments(0, own.params, nullptr, nullptr, nullptr);
                        compute(e, spec, own);
                      });
  kernel.ir.CreateCall(function, all);
}

void emit(const PoolSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  const int pre = int(operands_of(spec.pre)), post = int(operands_of(spec.post));
  Emitter e(module, target, name, size_t(PoolSpec::first_vector + spec.bias + pre + post));
  int next = PoolSpec::first_vector;
  PoolRow pool{.params = e.address_of_param(0), .channels = e.param(&P::channels)};
  if (spec.bias) pool.bias = e.operand(next++);
  for (int i = 0; i < pre; ++i) pool.pre.push_back(e.operand(next++));
  e.loop(e.begin, e.end, e.constant(1), [&](IrValue task) {
    IrValue row = e.rem(task, e.param(&P::out_rows)), image = e.div(task, e.param(&P::out_rows));
    auto place = [&](int operand, int pitches) { // of the image and the row
      auto pitch = [&](auto member) { return e.param(pitches + int(leaf(member))); };
      return e.offset(e.operand(operand), e.add(e.mul(image, pitch(&Pitches::image)),
                                                e.mul(row, pitch(&Pitches::row))));
    };
    pool.post.clear();
    for (int i = 0; i < post; ++i) pool.post.push_back(place(next + i, post_pitches(i)));
    pool.row = row;
    pool.in = e.offset(e.operand(PoolSpec::input), e.mul(image, e.param(&P::in, &Pitches::image)));
    pool.out = place(PoolSpec::output, int(leaf(&P::out)));
    pool.emit(e, spec);
  });
  e.ir.CreateRetVoid();
}

} // namespace lathe::core
