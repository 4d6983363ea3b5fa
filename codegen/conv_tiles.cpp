// Register tiles of a convolution.
#include "codegen/conv_parts.h"

#include <array>
#include <fmt/format.h>

namespace lathe::core {
namespace {

using A = TileArguments;

// A tile function's addresses and numbers, in order; those of the post operands follow each list.
constexpr std::array addresses{&A::source, &A::weights, &A::bias, &A::out, &A::fetch};
constexpr std::array numbers{&A::live_channels, &A::pixel_step, &A::tap_rows,
                             &A::tap_row_pitch, &A::tap_cols,   &A::tap_col_pitch,
                             &A::depth,         &A::out_pixel,  &A::fetch_step};

llvm::FunctionType *tile_type(llvm::Module &module, size_t extra) {
  return shared_type(module, addresses.size() + extra, numbers.size() + extra);
}

// What the epilogue reads and writes is on its way while the product runs.
void fetch_results(Emitter &e, const ConvSpec &spec, const TileArguments &a) {
  auto fetch = [&](IrValue base, IrValue pitch, bool write) {
    for (int64_t i = 0; i < spec.tile_pixels; i += spec.vector_pixels)
      for (int64_t line = 0; line < spec.panel() * 4; line += 64)
        e.prefetch(e.offset(e.offset(base, e.mul(pitch, e.constant(i))), line),
                   write ? Emitter::Fetch::to_write : Emitter::Fetch::to_read);
  };
  fetch(a.out, a.out_pixel, true);
  for (size_t i = 0; i < a.post.size(); ++i) fetch(a.post[i], a.post_pixel[i], false);
}

// A vector of a panel's weights or biases; where neighbours share one, of each for all of them.
IrValue of_panel(Emitter &e, const ConvSpec &spec, IrValue base, int64_t vector) {
  IrValue values = e.load(e.vector(spec.lanes), e.offset(base, vector * spec.lanes * 4));
  return e.shuffle(values, e.target.lanes(), [&](int64_t l) { return l / spec.vector_pixels; });
}

// What a step over K multiplies with its weights, for the pixels of a vector, [product][vector]:
// elements of the source, each for all lanes, or one for every neighbour; or, where vectors hold
// several groups, each channel of them in its group.
IrValues of_source(Emitter &e, const ConvSpec &spec, IrValue address) {
  const size_t vectors = size_t(spec.tile_vectors);
  const int64_t lanes = e.target.lanes();
  IrValues result;
  if (spec.group_channels == 0) {
    for (int64_t k = 0; k < spec.step; ++k) {
      IrValue at = e.offset(address, k * 4);
      const int64_t together = spec.vector_pixels;
      IrValue x = together == 1 ? e.broadcast(e.load(e.f32, at), lanes)
                                : e.shuffle(e.load(e.vector(together), at), lanes,
                                            [&](int64_t l) { return l % together; });
      result.resize(result.size() + vectors, x);
    }
    return result;
  }
  for (int64_t c = 0; c < spec.group_channels; ++c)
    for (size_t v = 0; v < vectors; ++v) {
      IrValue all = e.load(e.vector(), e.offset(address, int64_t(v) * e.target.vector_bytes));
      const int64_t group = spec.group_channels;
      result.push_back(e.shuffle(all, lanes, [&](int64_t l) { return l / group * group + c; }));
    }
  return result;
}

// sums[pixel][vector] += source[pixel][k] * weights[k][vector], rows, then columns, then depth.
// Where neighbours share vectors, "pixel" here means all those of one.
// Addresses: one running pointer for every five pixels, the others at 1, 2, 3, 4 steps from it,
// so that x86 needs three address registers and no vector reload; of neighbours, constant steps.
// Every step fetches `fetched` lines of weights that will be wanted.
IrValues product(Emitter &e, const ConvSpec &spec, const TileArguments &a, const IrValues &sums,
                 int64_t fetched) {
  constexpr int first_sum = 2; // of what the loops carry
  const int64_t pixels = spec.tile_pixels / spec.vector_pixels, vectors = spec.tile_vectors;
  const int64_t group = spec.vector_pixels > 1 ? pixels : 5;
  IrValue pixel_step = spec.vector_pixels > 1 ? e.constant(spec.vector_pixels * 4) : a.pixel_step;
  IrValue source_step = spec.group_channels > 0 || spec.apart ? a.tap_col_pitch : e.constant(4);
  auto rows = [&](IrValue row, const IrValues &row_state) {
    IrValue row_source = e.offset(a.source, e.mul(row, a.tap_row_pitch));
    auto columns = [&](IrValue column, const IrValues &column_state) {
      IrValue source = e.offset(row_source, e.mul(column, a.tap_col_pitch));
      IrValues state = column_state;
      const size_t heads = size_t((pixels + group - 1) / group);
      for (size_t h = 0; h < heads; ++h)
        // Frozen, or LLVM makes one chain of additions of them, longer than the product.
        state.push_back(
            e.ir.CreateFreeze(e.offset(source, e.mul(pixel_step, e.constant(int64_t(h) * group)))));
      auto step = [&](IrValue, const IrValues &carried) {
        IrValues next = carried;
        IrValue weights = carried[0], fetch = carried[1];
        for (int64_t line = 0; line < fetched; ++line)
          e.prefetch(e.offset(fetch, line * 64), Emitter::Fetch::into_l2);
        IrValues w;
        for (int64_t v = 0; v < spec.step * vectors; ++v)
          w.push_back(of_panel(e, spec, weights, v));
        for (int64_t i = 0; i < pixels; ++i) {
          IrValue head = carried[first_sum + sums.size() + size_t(i / group)];
          IrValue address = e.offset(head, e.mul(pixel_step, e.constant(i % group)));
          const IrValues x = of_source(e, spec, address);
          for (int64_t k = 0; k < spec.step; ++k)
            for (int64_t v = 0; v < vectors; ++v) {
              IrValue &sum = next[first_sum + size_t(i * vectors + v)];
              const int64_t number = k * vectors + v;
              sum = e.fma(x[size_t(number)], w[size_t(number)], sum);
            }
        }
        next[0] = e.offset(weights, spec.step * spec.panel() * 4);
        next[1] = e.offset(fetch, a.fetch_step);
        for (size_t h = first_sum + sums.size(); h < next.size(); ++h)
          next[h] = e.offset(carried[h], source_step);
        return next;
      };
      IrValues done = e.loop_nonempty(a.depth, state, step);
      done.resize(first_sum + sums.size());
      return done;
    };
    return e.loop_nonempty(a.tap_cols, row_state, columns);
  };
  IrValues state{a.weights, a.fetch};
  state.insert(state.end(), sums.begin(), sums.end());
  state = e.loop_nonempty(a.tap_rows, state, rows);
  return IrValues(state.begin() + first_sum, state.end());
}

// The place of a tile's pixel and vector.
IrValue place(Emitter &e, const ConvSpec &spec, IrValue base, IrValue pitch, int64_t pixel,
              int64_t vector) {
  return e.offset(e.offset(base, e.mul(pitch, e.constant(pixel))), vector * spec.lanes * 4);
}

void epilogue(Emitter &e, const ConvSpec &spec, const TileArguments &a, const IrValues &sums) {
  const int64_t vectors = spec.tile_vectors, lanes = spec.lanes, together = spec.vector_pixels;
  IrValues masks(size_t(vectors), nullptr);
  // On whole vectors, where pixels that share one have no operands of their own.
  const bool early = together > 1 && operands_of(spec.post) == 0;
  const std::vector<FusedOp> post = early ? std::vector<FusedOp>{} : spec.post;
  if (spec.masked)
    for (int64_t v = 0; v < vectors; ++v)
      masks[size_t(v)] = e.lane_mask(e.sub(a.live_channels, e.constant(v * lanes)), lanes);
  const auto finish = [&](IrValue value, int64_t pixel, int64_t v) {
    IrValue mask = masks[size_t(v)];
    auto address = [&](IrValue base, IrValue pitch) {
      return place(e, spec, base, pitch, pixel, v);
    };
    value = emit_steps(e, post, value, [&](int operand) {
      IrValue from = address(a.post[size_t(operand)], a.post_pixel[size_t(operand)]);
      return e.load(e.vector(lanes), from, mask);
    });
    e.store(value, address(a.out, a.out_pixel), mask);
  };
  for (int64_t i = 0; i < spec.tile_pixels; i += together)
    for (int64_t v = 0; v < vectors; ++v) {
      IrValue value = sums[size_t(i / together * vectors + v)];
      if (early) value = emit_steps(e, spec.post, value, nullptr);
      for (int64_t p = 0; p < together; ++p)
        finish(e.shuffle(value, lanes, [&](int64_t l) { return l * together + p; }), i + p, v);
    }
}

void tile(Emitter &e, const ConvSpec &spec, const TileArguments &a, TileUse use) {
  if (use == TileUse::result) fetch_results(e, spec, a);
  auto start = [&](int64_t i, int64_t v) {
    if (use == TileUse::part) return e.load(e.vector(), place(e, spec, a.out, a.out_pixel, i, v));
    if (spec.bias) return of_panel(e, spec, a.bias, v);
    return e.zero(e.vector());
  };
  IrValues sums;
  for (int64_t i = 0; i < spec.tile_pixels; i += spec.vector_pixels)
    for (int64_t v = 0; v < spec.tile_vectors; ++v) sums.push_back(start(i, v));
  // A part's steps fetch little, each of them.
  const int64_t lines = (spec.step * spec.panel() * 4 + 63) / 64;
  epilogue(e, spec, a, product(e, spec, a, sums, use == TileUse::part ? 1 : lines));
}

} // namespace

llvm::Function *tile_function(llvm::Module &module, const Target &whole, const ConvSpec &spec,
                              int64_t pixels, TileUse use) {
  const size_t extra = use == TileUse::result ? operands_of(spec.post) : 0;
  const Target target = with_lanes(whole, spec.lanes * spec.vector_pixels);
  ConvSpec own{.tile_pixels = pixels,
               .tile_vectors = spec.tile_vectors,
               .lanes = spec.lanes,
               .group_channels = spec.group_channels,
               .vector_pixels = spec.vector_pixels,
               .apart = spec.apart,
               .step = spec.step};
  if (use == TileUse::result) {
    own.masked = spec.masked;
    own.bias = spec.bias;
    own.post = spec.post;
  }
  static constexpr std::string_view uses[] = {".tile", ".product", ".part"};
  const std::string name = kernel_symbol(own, target) + std::string(uses[size_t(use)]);
  return shared_function(module, target, name, tile_type(module, extra), [&](Emitter &e) {
    unsigned next = 0;
    auto take = [&] { return static_cast<IrValue>(e.function->getArg(next++)); };
    TileArguments a{};
    for (auto field : addresses) a.*field = take();
    for (size_t i = 0; i < extra; ++i) a.post.push_back(take());
    for (auto field : numbers) a.*field = take();
    for (size_t i = 0; i < extra; ++i) a.post_pixel.push_back(take());
    tile(e, own, a, use);
  });
}

TileRow TileRow::select(Emitter &e, IrValue condition, const TileRow &yes, const TileRow &no) {
  TileRow row = yes;
  for (auto field : {&TileRow::first, &TileRow::large_tile, &TileRow::small_tile,
                     &TileRow::large_pixels, &TileRow::small_pixels, &TileRow::large,
                     &TileRow::tiles, &TileRow::fetch_call, &TileRow::fetch_step})
    row.*field = e.ir.CreateSelect(condition, yes.*field, no.*field);
  return row;
}

void TileRow::emit(Emitter &e, TileArguments a) const {
  a.fetch_step = fetch_step;
  const IrValue source = a.source, out = a.out, fetch = a.fetch;
  const IrValues post = a.post;
  auto run = [&](IrValue function, IrValue first_pixel, IrValue number) {
    a.fetch = e.offset(fetch, e.mul(number, fetch_call));
    a.source = e.offset(source, e.mul(first_pixel, a.pixel_step));
    a.out = e.offset(out, e.mul(first_pixel, a.out_pixel));
    for (size_t i = 0; i < post.size(); ++i)
      a.post[i] = e.offset(post[i], e.mul(first_pixel, a.post_pixel[i]));
    IrValues all;
    for (auto field : addresses) all.push_back(a.*field);
    all.insert(all.end(), a.post.begin(), a.post.end());
    for (auto field : numbers) all.push_back(a.*field);
    all.insert(all.end(), a.post_pixel.begin(), a.post_pixel.end());
    e.ir.CreateCall(tile_type(e.module, post.size()), function, all);
  };
  e.loop(large, [&](IrValue t) { run(large_tile, e.add(first, e.mul(t, large_pixels)), t); });
  IrValue in_large = e.add(first, e.mul(large, large_pixels));
  e.loop(large, tiles, e.constant(1), [&](IrValue t) {
    run(small_tile, e.add(in_large, e.mul(e.sub(t, large), small_pixels)), t);
  });
}

} // namespace lathe::core
