// Dense layers as dot products over row-major weights, four rows of weights at a time.
#include "codegen/emitter.h"

namespace lathe {
namespace {

using D = DenseSpec;

// Dot products of `x` with the `rows` given rows, as scalars. Each keeps D::accumulators vectors,
// filled round robin; they are added pairwise, then the halves of what is left.
IrValues dots(Emitter &e, IrValue x, const IrValues &rows, IrValue depth) {
  const int64_t lanes = e.target.lanes(), step = lanes * D::accumulators;
  const size_t count = rows.size();
  auto index = [&](size_t row, int64_t accumulator) {
    return row * size_t(D::accumulators) + size_t(accumulator);
  };
  IrValues sums(count * size_t(D::accumulators), e.zero(e.vector()));
  auto multiply = [&](IrValues &into, IrValue element, int64_t accumulator, IrValue mask) {
    IrValue bytes = e.mul(element, e.constant(4));
    IrValue right = e.load(e.vector(), e.offset(x, bytes), mask);
    for (size_t r = 0; r < count; ++r) {
      IrValue &sum = into[index(r, accumulator)];
      sum = e.fma(e.load(e.vector(), e.offset(rows[r], bytes), mask), right, sum);
    }
  };
  IrValue unrolled = e.mul(e.div(depth, e.constant(step)), e.constant(step));
  sums = e.loop(e.constant(0), unrolled, e.constant(step), sums,
                [&](IrValue k, const IrValues &carried) {
                  IrValues next = carried;
                  for (int64_t a = 0; a < D::accumulators; ++a)
                    multiply(next, e.add(k, e.constant(a * lanes)), a, nullptr);
                  return next;
                });
  // What is left, at most D::accumulators vectors, goes to the first accumulator under a mask.
  sums = e.loop(unrolled, depth, e.constant(lanes), sums, [&](IrValue k, const IrValues &carried) {
    IrValues next = carried;
    multiply(next, k, 0, e.lane_mask(e.sub(depth, k), lanes));
    return next;
  });
  IrValues results;
  for (size_t r = 0; r < count; ++r) {
    IrValues level(sums.begin() + int64_t(index(r, 0)), sums.begin() + int64_t(index(r + 1, 0)));
    while (level.size() > 1) {
      IrValues next;
      for (size_t i = 0; i < level.size(); i += 2)
        next.push_back(e.ir.CreateFAdd(level[i], level[i + 1]));
      level = next;
    }
    results.push_back(e.horizontal_sum(level[0]));
  }
  return results;
}

} // namespace

void emit(const DenseSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  const int extra = int(operands_of(spec.post));
  const int first_post = D::bias_operand + spec.bias;
  Emitter e(module, target, name, size_t(first_post + extra));
  IrValue outputs = e.param(D::outputs), depth = e.param(D::depth);
  IrValue row_bytes = e.mul(depth, e.constant(4));
  auto *quad = e.vector(D::rows);

  auto four_rows = [&](IrValue row, IrValue image) {
    IrValue x = e.offset(e.operand(D::input), e.mul(image, e.param(D::in_image)));
    IrValues rows;
    for (int64_t r = 0; r < D::rows; ++r) { // behind the last row: the last one again, not stored
      IrValue clamped = e.minimum(e.add(row, e.constant(r)), e.sub(outputs, e.constant(1)));
      rows.push_back(e.offset(e.operand(D::weights), e.mul(clamped, row_bytes)));
    }
    IrValues sums = dots(e, x, rows, depth);
    IrValue value = e.zero(quad);
    for (size_t r = 0; r < sums.size(); ++r) value = e.ir.CreateInsertElement(value, sums[r], r);
    IrValue mask = e.lane_mask(e.sub(outputs, row), D::rows);
    IrValue bytes = e.mul(row, e.constant(4));
    if (spec.bias)
      value =
          e.ir.CreateFAdd(value, e.load(quad, e.offset(e.operand(D::bias_operand), bytes), mask));
    value = emit_steps(e, spec.post, value, [&](int i) {
      IrValue base =
          e.offset(e.operand(first_post + i), e.mul(image, e.param(D::first_post_pitch + i)));
      return e.load(quad, e.offset(base, bytes), mask);
    });
    IrValue out = e.offset(e.operand(D::output), e.mul(image, e.param(D::out_image)));
    e.store(value, e.offset(out, bytes), mask);
  };

  IrValue block_rows = e.param(D::block_rows);
  e.loop(e.begin, e.end, e.constant(1), [&](IrValue task) {
    IrValue first = e.mul(task, block_rows);
    IrValue last = e.minimum(e.add(first, block_rows), outputs);
    e.loop(first, last, e.constant(D::rows), [&](IrValue row) {
      e.loop(e.param(D::images), [&](IrValue image) { four_rows(row, image); });
    });
  });
  e.ir.CreateRetVoid();
}

} // namespace lathe
