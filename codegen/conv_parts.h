// The parts of a convolution's stage: what it is told, its source rows in scratch, its register
// tiles. Private to code generation; emit_conv.cpp puts them together.
#pragma once

#include "codegen/emitter.h"

namespace lathe::core {

// A stage's operands and parameters among those of its kernel.
struct StageArguments {
  const ConvSpec &spec;
  int first_operand, first_param;

  IrValue operand(Emitter &e, int index) const { return e.operand(first_operand + index); }
  IrValue param(Emitter &e, int index) const { return e.param(first_param + index); }
  IrValue scratch(Emitter &e) const { // where its source lies there
    return e.offset(e.scratch, param(e, ConvSpec::scratch_at));
  }
};

// The prologue's rows in scratch: zeros around the picture, input rows with `pre` applied within.
class SourceRows {
public:
  explicit SourceRows(const StageArguments &stage) : stage_(stage), spec_(stage.spec) {}

  // All rows of a block, from number `first` of the picture on; `input` is its first pixel, of this
  // group.
  void copy(Emitter &e, IrValue input, IrValue group, IrValue first) const;
  // Scratch row `r`, which is `row` of the picture: zeros outside and around it, fill(address of
  // its first pixel) inside.
  void border(Emitter &e, IrValue r, IrValue row, const std::function<void(IrValue)> &fill) const;

private:
  void copy_row(Emitter &e, IrValue group, IrValue from, IrValue to) const;
  IrValue interleave(Emitter &e, IrValue from, IrValue to, const IrValues &pre) const;
  IrValue param(Emitter &e, int index) const { return stage_.param(e, index); }

  StageArguments stage_;
  const ConvSpec &spec_;
};

// Register tiles of pixels x a panel of output channels, as functions of a kernel's module: product
// over all of K, then bias, `post` and store.
class RegisterTiles {
public:
  // What a tile is told by the loops around it. Steps and pitches in bytes.
  struct Arguments {
    IrValue source, weights, bias, out;
    IrValues post;         // addresses of the post operands
    IrValue live_channels; // of this panel; only read when the spec is masked
    IrValue pixel_step, tap_rows, tap_row_pitch, tap_cols, tap_col_pitch, depth, out_pixel;
    IrValues post_pixel;
  };
  // Of the stage's spec, the tile's size, bias, post, mask. Functions are named after `name`; those
  // that the module has already are shared. With `fetch`, what the epilogue reads and writes is
  // fetched while the product runs.
  RegisterTiles(llvm::Module &module, const Target &target, const std::string &name,
                const ConvSpec &spec, bool fetch);

  // A row of pixels: `large` tiles of tile_pixels, then, up to `tiles` in all, those of one pixel
  // less; only those that begin before pixel `end`, if that is given. Addresses are the first
  // pixel's.
  void row(Emitter &e, Arguments a, IrValue large, IrValue tiles, IrValue end = nullptr) const;

private:
  llvm::Function *function(const std::string &name, int64_t pixels);
  void body(Emitter &e, const Arguments &a, int64_t pixels) const;
  void fetch_results(Emitter &e, const Arguments &a, int64_t pixels) const;
  IrValues product(Emitter &e, const Arguments &a, int64_t pixels, IrValues sums) const;
  void epilogue(Emitter &e, const Arguments &a, int64_t pixels, const IrValues &sums) const;

  llvm::Module &module_;
  const Target target_; // with vectors as wide as the tiles'
  const ConvSpec spec_;
  const bool fetch_;
  llvm::Function *large_ = nullptr, *small_ = nullptr;
};

} // namespace lathe::core
