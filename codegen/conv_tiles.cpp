// Register tiles of a convolution.
#include "codegen/conv_parts.h"

#include <array>
#include <fmt/format.h>

namespace lathe::core {
namespace {

// Weights come from memory, in the order of use. Measured on Zen 4, 8 to 64 KB do alike.
constexpr int64_t prefetch_ahead = 16 << 10;

using A = RegisterTiles::Arguments;

// A tile function's addresses and numbers, in order; those of the post operands follow each list.
constexpr std::array addresses{&A::source, &A::weights, &A::bias, &A::out};
constexpr std::array numbers{&A::live_channels, &A::pixel_step,    &A::tap_rows, &A::tap_row_pitch,
                             &A::tap_cols,      &A::tap_col_pitch, &A::depth,    &A::out_pixel};

} // namespace

RegisterTiles::RegisterTiles(llvm::Module &module, const Target &target, const std::string &name,
                             const ConvSpec &spec, bool fetch)
    : module_(module), target_(with_lanes(target, spec.lanes)), spec_(spec), fetch_(fetch) {
  large_ = function(name, spec_.tile_pixels);
  if (spec_.smaller_tile) small_ = function(name, spec_.tile_pixels - 1);
}

void RegisterTiles::row(Emitter &e, Arguments a, IrValue large, IrValue tiles, IrValue end) const {
  const IrValue source = a.source, out = a.out;
  const IrValues post = a.post;
  auto run = [&](llvm::Function *function, IrValue first_pixel) {
    a.source = e.offset(source, e.mul(first_pixel, a.pixel_step));
    a.out = e.offset(out, e.mul(first_pixel, a.out_pixel));
    for (size_t i = 0; i < post.size(); ++i)
      a.post[i] = e.offset(post[i], e.mul(first_pixel, a.post_pixel[i]));
    IrValues all;
    for (auto field : addresses) all.push_back(a.*field);
    all.insert(all.end(), a.post.begin(), a.post.end());
    for (auto field : numbers) all.push_back(a.*field);
    all.insert(all.end(), a.post_pixel.begin(), a.post_pixel.end());
    e.ir.CreateCall(function, all);
  };
  auto call = [&](llvm::Function *function, IrValue first) {
    if (!end) return run(function, first);
    e.when(e.ir.CreateICmpULT(first, end), [&] { run(function, first); });
  };
  e.loop(large, [&](IrValue t) { call(large_, e.mul(t, e.constant(spec_.tile_pixels))); });
  if (!small_) return;
  e.loop(large, tiles, e.constant(1), [&](IrValue t) {
    call(small_, e.add(e.mul(t, e.constant(spec_.tile_pixels - 1)), large));
  });
}

llvm::Function *RegisterTiles::function(const std::string &kernel, int64_t pixels) {
  const std::string name = fmt::format("{}.tile_{}x{}", kernel, pixels, spec_.panel());
  if (llvm::Function *known = module_.getFunction(name)) return known;
  const size_t extra = operands_of(spec_.post);
  llvm::Function *function =
      internal_function(module_, name, addresses.size() + extra, numbers.size() + extra);
  Emitter e(module_, target_, function);
  unsigned next = 0;
  auto take = [&] { return static_cast<IrValue>(function->getArg(next++)); };
  Arguments a{};
  for (auto field : addresses) a.*field = take();
  for (size_t i = 0; i < extra; ++i) a.post.push_back(take());
  for (auto field : numbers) a.*field = take();
  for (size_t i = 0; i < extra; ++i) a.post_pixel.push_back(take());
  body(e, a, pixels);
  e.ir.CreateRetVoid();
  return function;
}

void RegisterTiles::body(Emitter &e, const Arguments &a, int64_t pixels) const {
  if (fetch_) fetch_results(e, a, pixels);
  IrValues sums;
  for (int64_t i = 0; i < pixels; ++i)
    for (int64_t v = 0; v < spec_.tile_vectors; ++v)
      sums.push_back(spec_.bias ? e.load(e.vector(), e.offset(a.bias, v * target_.vector_bytes))
                                : e.zero(e.vector()));
  epilogue(e, a, pixels, product(e, a, pixels, std::move(sums)));
}

// What the epilogue reads and writes is on its way while the product runs.
void RegisterTiles::fetch_results(Emitter &e, const Arguments &a, int64_t pixels) const {
  auto fetch = [&](IrValue base, IrValue pitch, bool write) {
    for (int64_t i = 0; i < pixels; ++i)
      for (int64_t line = 0; line < spec_.panel() * 4; line += 64)
        e.prefetch(e.offset(e.offset(base, e.mul(pitch, e.constant(i))), line),
                   write ? Emitter::Fetch::to_write : Emitter::Fetch::to_read);
  };
  fetch(a.out, a.out_pixel, true);
  for (size_t i = 0; i < a.post.size(); ++i) fetch(a.post[i], a.post_pixel[i], false);
}

// sums[pixel][vector] += source[pixel][k] * weights[k][vector], rows, then columns, then depth.
// Addresses: one running pointer for every five pixels, the others at 1, 2, 3, 4 steps from it,
// so that x86 needs three address registers and no vector reload.
IrValues RegisterTiles::product(Emitter &e, const Arguments &a, int64_t pixels,
                                IrValues sums) const {
  constexpr int64_t group = 5;
  const int64_t vectors = spec_.tile_vectors;
  auto rows = [&](IrValue row, const IrValues &row_state) {
    IrValue row_source = e.offset(a.source, e.mul(row, a.tap_row_pitch));
    auto columns = [&](IrValue column, const IrValues &column_state) {
      IrValue source = e.offset(row_source, e.mul(column, a.tap_col_pitch));
      IrValues state = column_state;
      const size_t heads = size_t((pixels + group - 1) / group);
      for (size_t h = 0; h < heads; ++h)
        // Frozen, or LLVM makes one chain of additions of them, longer than the product.
        state.push_back(e.ir.CreateFreeze(
            e.offset(source, e.mul(a.pixel_step, e.constant(int64_t(h) * group)))));
      auto step = [&](IrValue, const IrValues &carried) {
        IrValues next = carried;
        IrValue weights = carried[0];
        for (int64_t line = 0; line < vectors * target_.vector_bytes; line += 64)
          e.prefetch(e.offset(weights, prefetch_ahead + line), Emitter::Fetch::into_l2);
        IrValues w;
        for (int64_t v = 0; v < vectors; ++v)
          w.push_back(e.load(e.vector(), e.offset(weights, v * target_.vector_bytes)));
        for (int64_t i = 0; i < pixels; ++i) {
          IrValue head = carried[1 + sums.size() + size_t(i / group)];
          IrValue address = e.offset(head, e.mul(a.pixel_step, e.constant(i % group)));
          IrValue x = e.broadcast(e.load(e.f32, address), target_.lanes());
          for (int64_t v = 0; v < vectors; ++v) {
            IrValue &sum = next[size_t(1 + i * vectors + v)];
            sum = e.fma(x, w[size_t(v)], sum);
          }
        }
        next[0] = e.offset(weights, vectors * target_.vector_bytes);
        for (size_t h = 0; h < heads; ++h)
          next[1 + sums.size() + h] = e.offset(carried[1 + sums.size() + h], 4);
        return next;
      };
      IrValues done = e.loop_nonempty(a.depth, state, step);
      done.resize(1 + sums.size());
      return done;
    };
    return e.loop_nonempty(a.tap_cols, row_state, columns);
  };
  IrValues state{a.weights};
  state.insert(state.end(), sums.begin(), sums.end());
  state = e.loop_nonempty(a.tap_rows, state, rows);
  return IrValues(state.begin() + 1, state.end());
}

void RegisterTiles::epilogue(Emitter &e, const Arguments &a, int64_t pixels,
                             const IrValues &sums) const {
  const int64_t vectors = spec_.tile_vectors, lanes = target_.lanes();
  IrValues masks(size_t(vectors), nullptr);
  if (spec_.masked)
    for (int64_t v = 0; v < vectors; ++v)
      masks[size_t(v)] = e.lane_mask(e.sub(a.live_channels, e.constant(v * lanes)), lanes);
  for (int64_t i = 0; i < pixels; ++i)
    for (int64_t v = 0; v < vectors; ++v) {
      auto address = [&](IrValue base, IrValue pitch) {
        return e.offset(e.offset(base, e.mul(pitch, e.constant(i))), v * target_.vector_bytes);
      };
      IrValue mask = masks[size_t(v)];
      IrValue value = emit_steps(e, spec_.post, sums[size_t(i * vectors + v)], [&](int operand) {
        return e.load(e.vector(), address(a.post[size_t(operand)], a.post_pixel[size_t(operand)]),
                      mask);
      });
      e.store(value, address(a.out, a.out_pixel), mask);
    }
}

} // namespace lathe::core
