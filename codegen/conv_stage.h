// One convolution of a kernel: brings its source, computes panels of its result. Private to code
// generation.
#pragma once

#include "codegen/conv_table.h"
#include "codegen/tile_grid.h"

#include <memory>

namespace lathe::core {

// What a task works on.
struct Place {
  IrValue image, group;
};

// Rows of a convolution's result that a task wants: `count` from number `first` on, which may lie
// outside the picture; where to, and how far apart rows and pixels are there.
struct Rows {
  IrValue first, count, to, row_pitch, pixel_pitch;
  bool may_be_outside;
};

// One convolution of a chain.
class Stage {
  using C = ConvSpec;
  using S = ConvSpec::StageParams;

public:
  // Its entries of the table, operands and parameters begin at these numbers; those of its source
  // follow.
  Stage(const ConvSpec &spec, IrValue table, int first_entry, int first_operand, int first_param)
      : spec_(spec), table_(table, spec, first_entry), arguments_{spec, first_operand, first_param},
        extra_(operands_of(spec.post)) {
    if (spec_.prologue == Prologue::convolve)
      source_ = std::make_unique<Stage>(spec.source[0], table, table_.end_of_entries(),
                                        first_operand + int(spec.stage_operands()),
                                        first_param + int(spec.stage_params()));
  }
  int end_of_operands() const; // of the whole chain, before its input
  int end_of_params() const;

  // The source of the product for result rows from `first_row` on; fills scratch.
  void prepare(Emitter &e, const Place &at, IrValue first_row) const;

  // Scratch rows of the source, from its row `first` on.
  void bring_rows(Emitter &e, const Place &at, IrValue first) const;

  // One panel of the result's rows; `prepare` has been there.
  void panel(Emitter &e, const Place &at, IrValue panel, const Rows &rows) const;

  IrValue panel_lanes(Emitter &e) const { return table_.number(e, StageTable::panel_lanes); }
  IrValue channels(Emitter &e) const { return param(e, &S::channels); } // of a group
  IrValue channels(Emitter &e, const Place &at) const {                 // of this one
    return e.minimum(channels(e), e.sub(param(e, &S::all_channels), e.mul(at.group, channels(e))));
  }

private:
  template <typename... Path> IrValue param(Emitter &e, Path... path) const {
    return arguments_.param(e, path...);
  }
  IrValue operand(Emitter &e, int index) const { return arguments_.operand(e, index); }
  IrValue scratch(Emitter &e) const { return arguments_.scratch(e); }
  TileRow tile_row(Emitter &e, const StageTable::Panel &panel) const;
  template <typename... Path> IrValue post_pitch(Emitter &e, size_t operand, Path... path) const {
    return param(e, C::post_param(operand) + leaf(path...));
  }
  IrValue post_row_pitch(Emitter &e, size_t i) const {
    return post_pitch(e, i, &C::PostPitches::place, &Pitches::row);
  }
  IrValue input(Emitter &e, const Place &at) const; // of the image and group
  // Where the product's taps begin for result row `first_row`.
  IrValue first_source(Emitter &e, const Place &at, IrValue first_row) const;

  // --- Winograd: tiles of the result, in rows of `tile_cols`

  IrValue winograd_param(Emitter &e, Affine C::WinogradParams::*member) const {
    return param(e, spec_.winograd_param() + leaf(member));
  }
  IrValue outputs_h(Emitter &e) const { return table_.number(e, StageTable::outputs_h); }
  IrValue tile_row_of(Emitter &e, IrValue row) const { // rows before the picture: the first
    return e.div(e.maximum(row, e.constant(0)), outputs_h(e));
  }
  // Of a block that begins with row `first_tile` of tiles.
  TileGrid tile_grid(Emitter &e, IrValue first_tile) const;
  // A range of tiles, evenly split. Fewer than `tiles` fetch as much.
  TileRow tile_row(Emitter &e, const StageTable::Panel &panel, const TileArguments &all,
                   const TileGrid::Range &range) const;

  // All input tiles of a block, from rows in scratch.
  void transform_tiles(Emitter &e, IrValue first_tile) const;

  // The products of the points in some rows, over `all.depth` channels, in the order in which
  // weights lie and are fetched. Source and result of `all` are those of point 0 and tile 0,
  // fetched weights those for point 0, weights those of the first row, points so many bytes apart.
  void products_of_points(Emitter &e, const StageTable::Panel &panel, const TileArguments &all,
                          const TileGrid &grid, IrValue first_row, IrValue end_row,
                          IrValue weights_point) const;

  // The same with weights that are taps: of some channels at a time they become points in scratch,
  // row by row, and their products are added to those of the channels before.
  void products_from_taps(Emitter &e, const StageTable::Panel &panel, const TileArguments &all,
                          const TileGrid &grid) const;

  // The panel's products for every point, and back: the wanted rows of the result, `to` being the
  // place of the first of them, `post` that of row 0 of the picture.
  void winograd_panel(Emitter &e, const StageTable::Panel &panel, TileArguments a, const Rows &rows,
                      IrValue to, const IrValues &post) const;

  const ConvSpec &spec_;
  const StageTable table_;
  const StageArguments arguments_;
  const size_t extra_; // post operands
  std::unique_ptr<Stage> source_;
};

} // namespace lathe::core
