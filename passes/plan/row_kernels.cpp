// Kernels whose tasks are rows: dense layers (of weights), pools and LRN (of pictures).
#include "passes/plan/planner.h"

#include <algorithm>

namespace lathe::core {
namespace {

// One task for every row, as pools and LRN have them.
void share_rows(Kernel &k, const Storage &out, int64_t work_per_row, bool batched) {
  const int64_t rows = out.dims[2];
  k.tasks = batched ? Affine{rows, 0} : Affine{0, out.dims[0] * rows};
  k.grain = grain_for(work_per_row);
}

} // namespace

Pitches pitches_of(const Storage &s) {
  return {fixed(s.strides[0] * 4), fixed(s.strides[2] * 4), fixed(s.strides[3] * 4)};
}

int64_t grain_for(int64_t work_per_task) {
  constexpr int64_t least_work = 32768; // elements touched: some microseconds
  return std::max<int64_t>(1, least_work / std::max<int64_t>(1, work_per_task));
}

Kernel dense_kernel(const Dense &op, const Storage &in, const Storage &out,
                    const std::vector<Storage> &post, bool batched) {
  constexpr int64_t weights_per_task = 16384, most_rows = 64;
  const int64_t outputs = out.dims[1], depth = in.dims[1];
  const int64_t rows = std::clamp<int64_t>(
      weights_per_task / depth / DenseSpec::rows * DenseSpec::rows, DenseSpec::rows, most_rows);
  Kernel k;
  k.spec = DenseSpec{op.bias, op.post};
  k.output = DenseSpec::output;
  append_leaves(k.params, DenseSpec::Params{.images = batched ? Affine{1, 0} : fixed(in.dims[0]),
                                            .outputs = fixed(outputs),
                                            .depth = fixed(depth),
                                            .block_rows = fixed(rows),
                                            .in_image = fixed(in.strides[0] * 4),
                                            .out_image = fixed(out.strides[0] * 4)});
  for (const Storage &s : post) k.params.push_back(fixed(s.strides[0] * 4));
  k.tasks = {0, (outputs + rows - 1) / rows};
  k.grain = std::max<int64_t>(1, 65536 / (rows * depth));
  return k;
}

PoolSpec pool_spec(const Pool &op, bool strict) {
  const bool max = op.kind == PoolKind::max;
  PoolSpec spec{.kind = op.kind, .bias = op.bias, .pre = op.pre, .post = op.post};
  spec.strict = max && strict;
  spec.blocked = !max && op.kernel.h * op.kernel.w > PoolSpec::most_plain_taps;
  spec.count_include_pad = op.kind == PoolKind::average && op.count_include_pad;
  spec.dilated = op.dilation != Size2{};
  if (!spec.dilated && op.kernel.h * op.kernel.w <= 9) spec.window = op.kernel;
  return spec;
}

PoolSpec::Params pool_params(const Pool &op, const Storage &in, const Storage &out) {
  const Shape &x = in.dims, &y = out.dims;
  return {.out_rows = fixed(y[2]),
          .out_cols = fixed(y[3]),
          .channels = fixed(y[1]),
          .in_rows = fixed(x[2]),
          .in_cols = fixed(x[3]),
          .kernel_h = fixed(op.kernel.h),
          .kernel_w = fixed(op.kernel.w),
          .stride_h = fixed(op.stride.h),
          .stride_w = fixed(op.stride.w),
          .dilation_h = fixed(op.dilation.h),
          .dilation_w = fixed(op.dilation.w),
          .pad_top = fixed(op.pad.top),
          .pad_left = fixed(op.pad.left),
          .padded_rows = fixed(x[2] + op.pad.top + op.pad.bottom),
          .padded_cols = fixed(x[3] + op.pad.left + op.pad.right),
          .in = pitches_of(in),
          .out = pitches_of(out)};
}

Kernel pool_kernel(const Pool &op, bool strict, const Storage &in, const Storage &out,
                   const std::vector<Storage> &post, bool batched) {
  const Shape &y = out.dims;
  Kernel k;
  k.spec = pool_spec(op, strict);
  k.output = PoolSpec::output;
  append_leaves(k.params, pool_params(op, in, out));
  for (const Storage &s : post) append_leaves(k.params, pitches_of(s));
  share_rows(k, out, y[3] * y[1] * op.kernel.h * op.kernel.w, batched);
  return k;
}

Kernel lrn_kernel(const Lrn &op, const Storage &in, const Storage &out, bool batched) {
  const Shape &x = in.dims;
  Kernel k;
  k.spec = LrnSpec{op.alpha / float(op.size), op.beta, op.k};
  k.output = LrnSpec::output;
  // Beyond all channels a window has nothing but zeros.
  const int64_t before = std::min((op.size - 1) / 2, x[1] - 1);
  const int64_t after = std::min(op.size / 2, x[1] - 1);
  append_leaves(k.params, LrnSpec::Params{.rows = fixed(x[2]),
                                          .cols = fixed(x[3]),
                                          .channels = fixed(x[1]),
                                          .before = fixed(before),
                                          .after = fixed(after),
                                          .in = pitches_of(in),
                                          .out = pitches_of(out)});
  share_rows(k, out, x[3] * x[1] * 4, batched);
  // Pixels between zeros; whole vectors of the widest target.
  k.scratch_bytes = LrnSpec::together * (before + x[1] + after + 1 + 2 * 16) * 4;
  return k;
}

} // namespace lathe::core
