// The parts of a convolution's stage: what it is told, its source rows in scratch, its register
// tiles. Private to code generation; conv_stage.h puts them together.
#pragma once

#include "codegen/emitter.h"

namespace lathe::core {

// A stage's operands and parameters among those of its kernel.
struct StageArguments {
  const ConvSpec &spec;
  int first_operand, first_param;

  IrValue operand(Emitter &e, int index) const { return e.operand(first_operand + index); }
  // A member of StageParams, or a parameter by its number behind the first.
  template <typename... Path> IrValue param(Emitter &e, Path... path) const {
    return e.param(first_param + int(leaf(path...)));
  }
  IrValue param(Emitter &e, size_t number) const { return e.param(first_param + int(number)); }
  IrValue scratch(Emitter &e) const { // where its source lies there
    return e.offset(e.scratch, param(e, &ConvSpec::StageParams::scratch_at));
  }
};

// The prologue's rows in scratch: zeros around the picture, input rows with `pre` applied within.
class SourceRows {
public:
  // All rows of a block, from number `first` of the picture on; `input` is its first pixel, of this
  // group. A function that kernels share, given where the stage's parameters and operands of `pre`
  // are listed.
  static void copy(Emitter &e, const ConvSpec &spec, IrValue params, IrValue pre, IrValue input,
                   IrValue group, IrValue first);

  explicit SourceRows(const StageArguments &stage) : SourceRows(stage, nullptr) {}
  // Scratch row `r`, which is `row` of the picture: zeros outside and around it, fill(address of
  // its first pixel) inside.
  void border(Emitter &e, IrValue r, IrValue row, const std::function<void(IrValue)> &fill) const;

private:
  SourceRows(const StageArguments &stage, IrValue pre)
      : stage_(stage), spec_(stage.spec), pre_(pre) {}
  void copy_rows(Emitter &e, IrValue input, IrValue group, IrValue first) const;
  void copy_row(Emitter &e, IrValue group, IrValue from, IrValue to) const;
  IrValue interleave(Emitter &e, IrValue from, IrValue to, const IrValues &pre) const;
  void transpose(Emitter &e, IrValue channels, IrValue from, IrValue to, const IrValues &pre) const;
  template <typename... Path> IrValue param(Emitter &e, Path... path) const {
    return stage_.param(e, path...);
  }

  StageArguments stage_;
  const ConvSpec &spec_;
  IrValue pre_;
};

// What a register tile is told by the loops around it. Steps and pitches in bytes.
struct TileArguments {
  IrValue source, weights, bias, out;
  IrValue fetch, fetch_step; // weights that will be wanted: each step over K fetches some
  IrValues post;             // addresses of the post operands
  IrValue live_channels;     // of this panel; only read when the spec is masked
  IrValue pixel_step, tap_rows, tap_row_pitch, tap_cols, tap_col_pitch, depth, out_pixel;
  IrValues post_pixel;
};

// What becomes of a tile's sums: results, by bias, `post` and mask; the product as it is, in
// scratch; or a part of it, which is added to the sums that stand there.
enum class TileUse : uint8_t { result, product, part };
// A register tile of pixels x the spec's panel of output channels, as a function that kernels
// share: the product over all of K, and what becomes of it. What a result reads and writes is
// fetched while the product runs.
llvm::Function *tile_function(llvm::Module &module, const Target &target, const ConvSpec &spec,
                              int64_t pixels, TileUse use);

// A row of pixels: `large` tiles of `large_pixels`, then, up to `tiles` in all, small ones.
struct TileRow {
  IrValue first;                  // pixel
  IrValue large_tile, small_tile; // addresses of tile functions; without small tiles, of any
  IrValue large_pixels, small_pixels, large, tiles;
  IrValue fetch_call, fetch_step; // bytes that each of them fetches, in so large steps
  static TileRow select(Emitter &e, IrValue condition, const TileRow &yes, const TileRow &no);
  void emit(Emitter &e, TileArguments of_pixel_0) const;
};

} // namespace lathe::core
