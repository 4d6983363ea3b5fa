// Kernels whose tasks are rows: dense layers (of weights), pools and LRN (of pictures).
#include "passes/plan/planner.h"

#include <algorithm>

namespace lathe::core {
namespace {

void add(Kernel &k, std::initializer_list<int64_t> params) {
  for (int64_t v : params) k.params.push_back({0, v});
}

// What pools and LRN end with: pitches of both operands, and one task for every row.
void finish_rows(Kernel &k, const Storage &in, const Storage &out, int64_t work_per_row,
                 bool batched) {
  for (const Storage *s : {&in, &out})
    for (size_t d : {0, 2, 3}) add(k, {s->strides[d] * 4});
  const int64_t rows = out.dims[2];
  k.tasks = batched ? Affine{rows, 0} : Affine{0, out.dims[0] * rows};
  k.grain = grain_for(work_per_row);
}

} // namespace

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
  k.params = {batched ? Affine{1, 0} : Affine{0, in.dims[0]}};
  add(k, {outputs, depth, rows, in.strides[0] * 4, out.strides[0] * 4});
  for (const Storage &s : post) add(k, {s.strides[0] * 4});
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

Kernel pool_kernel(const Pool &op, bool strict, const Storage &in, const Storage &out,
                   const std::vector<Storage> &post, bool batched) {
  const Shape &x = in.dims, &y = out.dims;
  Kernel k;
  k.spec = pool_spec(op, strict);
  k.output = PoolSpec::output;
  add(k, {y[2], y[3], y[1], x[2], x[3], op.kernel.h, op.kernel.w, op.stride.h, op.stride.w,
          op.dilation.h, op.dilation.w, op.pad.top, op.pad.left, x[2] + op.pad.top + op.pad.bottom,
          x[3] + op.pad.left + op.pad.right});
  finish_rows(k, in, out, y[3] * y[1] * op.kernel.h * op.kernel.w, batched);
  for (const Storage &s : post)
    for (size_t d : {0, 2, 3}) add(k, {s.strides[d] * 4});
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
  add(k, {x[2], x[3], x[1], before, after});
  finish_rows(k, in, out, x[3] * x[1] * 4, batched);
  // Pixels between zeros; whole vectors of the widest target.
  k.scratch_bytes = LrnSpec::together * (before + x[1] + after + 1 + 2 * 16) * 4;
  return k;
}

} // namespace lathe::core
