// Dense layers as dot products over row-major weights, four rows of weights at a time; several
// images share what is read of them.
#include "codegen/emitter.h"

#include <fmt/format.h>

namespace lathe::core {
namespace {

using D = DenseSpec;
using P = DenseSpec::Params;

// Dot products of every one of `xs` with the `rows` given rows, of each of `xs` a vector. Each dot
// product keeps D::accumulators vectors, filled round robin; they are added pairwise, then the
// halves of what is left.
IrValues dots(Emitter &e, const IrValues &xs, const IrValues &rows, IrValue depth) {
  const int64_t lanes = e.target.lanes(), step = lanes * D::accumulators;
  const size_t count = xs.size() * rows.size();
  auto index = [&](size_t dot, int64_t accumulator) {
    return dot * size_t(D::accumulators) + size_t(accumulator);
  };
  IrValues sums(count * size_t(D::accumulators), e.zero(e.vector()));
  auto multiply = [&](IrValues &into, IrValue element, int64_t accumulator, IrValue mask) {
    IrValue bytes = e.mul(element, e.constant(4));
    IrValues right, left;
    for (IrValue x : xs) right.push_back(e.load(e.vector(), e.offset(x, bytes), mask));
    for (IrValue row : rows) left.push_back(e.load(e.vector(), e.offset(row, bytes), mask));
    for (size_t dot = 0; dot < count; ++dot) {
      IrValue &sum = into[index(dot, accumulator)];
      sum = e.fma(left[dot % rows.size()], right[dot / rows.size()], sum);
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
  std::vector<IrValues> results(xs.size());
  for (size_t dot = 0; dot < count; ++dot) {
    IrValues level(sums.begin() + int64_t(index(dot, 0)),
                   sums.begin() + int64_t(index(dot + 1, 0)));
    while (level.size() > 1) {
      IrValues next;
      for (size_t i = 0; i < level.size(); i += 2)
        next.push_back(e.ir.CreateFAdd(level[i], level[i + 1]));
      level = next;
    }
    results[dot / rows.size()].push_back(level[0]);
  }
  IrValues vectors;
  for (const IrValues &result : results) vectors.push_back(e.horizontal_sums(result));
  return vectors;
}

// The same as a function that kernels share: of the addresses of xs and rows, of where the results
// go, a whole vector for each of xs, and of the depth.
llvm::Function *dots_function(Emitter &kernel, size_t xs, size_t rows) {
  const std::string name = fmt::format("{}_{}x{}__{}.dots", D::name, xs, rows, kernel.target.name);
  auto *type = shared_type(kernel.module, xs + rows + 1, 1);
  return shared_function(kernel.module, kernel.target, name, type, [&](Emitter &e) {
    IrValues all;
    for (llvm::Argument &argument : e.function->args()) all.push_back(&argument);
    const auto first_row = all.begin() + int64_t(xs), to = first_row + int64_t(rows);
    const IrValues sums = dots(e, {all.begin(), first_row}, {first_row, to}, to[1]);
    for (size_t i = 0; i < xs; ++i)
      e.store(sums[i], e.offset(*to, int64_t(i) * e.target.vector_bytes));
  });
}

} // namespace

void emit(const DenseSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  const int extra = int(operands_of(spec.post));
  const int first_post = D::bias_operand + spec.bias;
  Emitter e(module, target, name, size_t(first_post + extra));
  IrValue outputs = e.param(&P::outputs), depth = e.param(&P::depth);
  IrValue row_bytes = e.mul(depth, e.constant(4));
  constexpr int64_t together = 2; // images that share what is read of the weights
  IrValue sums = e.local(llvm::ArrayType::get(e.vector(), together));

  auto place = [&](IrValue pitch, IrValue base, IrValue image) {
    return e.offset(base, e.mul(image, pitch));
  };
  // What becomes of the sums of `count` rows for one image.
  auto finish = [&](IrValue row, IrValue count, IrValue image, IrValue value) {
    IrValue mask = e.lane_mask(count, e.target.lanes());
    IrValue bytes = e.mul(row, e.constant(4));
    if (spec.bias)
      value = e.ir.CreateFAdd(
          value, e.load(e.vector(), e.offset(e.operand(D::bias_operand), bytes), mask));
    value = emit_steps(e, spec.post, value, [&](int i) {
      IrValue pitch = e.param(int(leaves<P>()) + i);
      return e.load(e.vector(), e.offset(place(pitch, e.operand(first_post + i), image), bytes),
                    mask);
    });
    e.store(value, e.offset(place(e.param(&P::out_image), e.operand(D::output), image), bytes),
            mask);
  };
  // The sums of four rows for `images` images from number `image` on, so many rows at once that
  // their accumulators and what they read fill the registers.
  auto four_rows = [&](IrValue row, IrValue image, int64_t images, IrValue to) {
    const int64_t at_once = (target.vector_registers >= 32 ? D::rows : D::rows / 2) / images;
    llvm::Function *dots = dots_function(e, size_t(images), size_t(at_once));
    for (int64_t r = 0; r < D::rows; r += at_once) {
      IrValues all;
      for (int64_t i = 0; i < images; ++i)
        all.push_back(
            place(e.param(&P::in_image), e.operand(D::input), e.add(image, e.constant(i))));
      for (int64_t k = r; k < r + at_once; ++k) { // behind the last row: that again, not stored
        IrValue clamped = e.minimum(e.add(row, e.constant(k)), e.sub(outputs, e.constant(1)));
        all.push_back(e.offset(e.operand(D::weights), e.mul(clamped, row_bytes)));
      }
      all.push_back(e.offset(to, r * 4));
      all.push_back(depth);
      e.ir.CreateCall(dots, all);
    }
  };
  // A vector of rows, or, since more images come back to them, no more than stay in a cache.
  IrValue images = e.param(&P::images);
  IrValue at_once = e.ir.CreateSelect(e.ir.CreateICmpSLE(images, e.constant(together)),
                                      e.constant(e.target.lanes()), e.constant(D::rows));
  auto some_rows = [&](IrValue row, IrValue count, IrValue image, int64_t images_together) {
    e.loop(e.constant(0), count, e.constant(D::rows), [&](IrValue r) {
      four_rows(e.add(row, r), image, images_together, e.offset(sums, e.mul(r, e.constant(4))));
    });
    for (int64_t i = 0; i < images_together; ++i)
      finish(row, count, e.add(image, e.constant(i)),
             e.load(e.vector(), e.offset(sums, i * e.target.vector_bytes)));
  };

  IrValue block_rows = e.param(&P::block_rows);
  e.loop(e.begin, e.end, e.constant(1), [&](IrValue task) {
    IrValue first = e.mul(task, block_rows);
    IrValue last = e.minimum(e.add(first, block_rows), outputs);
    e.loop(first, last, at_once, [&](IrValue row) {
      IrValue count = e.minimum(at_once, e.sub(last, row)), two = e.constant(together);
      IrValue rest = e.mul(e.div(images, two), two);
      e.loop(e.constant(0), rest, two,
             [&](IrValue image) { some_rows(row, count, image, together); });
      e.loop(rest, images, e.constant(1), [&](IrValue image) { some_rows(row, count, image, 1); });
    });
  });
  e.ir.CreateRetVoid();
}

} // namespace lathe::core
