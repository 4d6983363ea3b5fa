// A convolution's source, and its direct product.
#include "codegen/conv_stage.h"

namespace lathe::core {

using C = ConvSpec;
using S = ConvSpec::StageParams;
using P = ConvSpec::PostPitches;

int Stage::end_of_operands() const {
  return source_ ? source_->end_of_operands()
                 : arguments_.first_operand + int(spec_.stage_operands());
}

int Stage::end_of_params() const {
  return source_ ? source_->end_of_params() : arguments_.first_param + int(spec_.stage_params());
}

void Stage::prepare(Emitter &e, const Place &at, IrValue first_row) const {
  if (spec_.prologue == Prologue::none) return;
  if (spec_.winograd) {
    IrValue first_tile = tile_row_of(e, first_row);
    bring_rows(e, at, e.sub(e.mul(first_tile, outputs_h(e)), param(e, &S::pad_top)));
    return transform_tiles(e, first_tile);
  }
  bring_rows(e, at, e.sub(e.mul(first_row, param(e, &S::row_stride)), param(e, &S::pad_top)));
}

void Stage::bring_rows(Emitter &e, const Place &at, IrValue first) const {
  if (!source_) {
    IrValue pre = e.address_of_operand(arguments_.first_operand + C::first_vector + spec_.bias);
    return SourceRows::copy(e, spec_, e.address_of_param(arguments_.first_param), pre, input(e, at),
                            at.group, first);
  }
  source_->prepare(e, at, first);
  IrValue pixel = e.mul(param(e, &S::in_channels), e.constant(4));
  IrValue row = e.mul(param(e, &S::scratch_cols), pixel);
  const SourceRows borders(arguments_);
  e.loop(param(e, &S::scratch_rows),
         [&](IrValue r) { borders.border(e, r, e.add(first, r), [](IrValue) {}); });
  Rows rows{first,
            param(e, &S::scratch_rows),
            e.offset(scratch(e), e.mul(param(e, &S::pad_left), pixel)),
            row,
            pixel,
            true};
  IrValue panels = source_->param(e, &S::stage_panels);
  e.loop(panels, [&](IrValue panel) { source_->panel(e, at, panel, rows); });
}

void Stage::panel(Emitter &e, const Place &at, IrValue panel, const Rows &rows) const {
  IrValue lanes = panel_lanes(e), channel_bytes = e.mul(panel, e.mul(lanes, e.constant(4)));
  auto of_panel = [&](IrValue base, Affine S::*group, IrValue bytes) {
    return e.offset(base, e.add(e.mul(at.group, param(e, group)), bytes));
  };
  TileArguments a{};
  a.weights =
      of_panel(operand(e, C::weights), &S::weight_group, e.mul(panel, param(e, &S::weight_panel)));
  a.bias = spec_.bias ? of_panel(operand(e, C::first_vector), &S::bias_group, channel_bytes)
                      : static_cast<IrValue>(
                            llvm::ConstantPointerNull::get(llvm::cast<llvm::PointerType>(e.ptr)));
  a.live_channels = e.sub(channels(e, at), e.mul(panel, lanes));
  const StageTable::Panel own = table_.panel(e, e.ir.CreateICmpSLT(a.live_channels, lanes));
  a.pixel_step = param(e, &S::src_pixel_step);
  a.tap_rows = param(e, &S::tap_rows);
  a.tap_row_pitch = param(e, &S::tap_row_pitch);
  a.tap_cols = param(e, &S::tap_cols);
  a.tap_col_pitch = param(e, &S::tap_col_pitch);
  a.depth = param(e, &S::depth);
  a.out_pixel = rows.pixel_pitch;
  a.fetch = e.offset(a.weights, param(e, &S::fetch_ahead));
  a.fetch_step = param(e, &S::fetch_step);
  IrValues post;
  const int first_post = int(spec_.stage_operands() - extra_);
  for (int i = 0; i < int(extra_); ++i) {
    auto pitch = [&](auto... path) { return post_pitch(e, size_t(i), path...); };
    a.post_pixel.push_back(pitch(&P::place, &Pitches::pixel));
    post.push_back(e.offset(operand(e, first_post + i),
                            e.add(e.add(e.mul(at.image, pitch(&P::place, &Pitches::image)),
                                        e.mul(at.group, pitch(&P::group))),
                                  channel_bytes)));
  }
  if (spec_.winograd)
    return winograd_panel(e, own, a, rows, e.offset(rows.to, channel_bytes), post);
  IrValue source = first_source(e, at, rows.first);
  const TileRow tiles = tile_row(e, own);
  e.loop(rows.count, [&](IrValue r) {
    IrValue row = e.add(rows.first, r);
    auto compute = [&] {
      TileArguments row_arguments = a;
      row_arguments.source = e.offset(source, e.mul(r, param(e, &S::src_row_step)));
      row_arguments.fetch = e.offset(a.fetch, e.mul(r, param(e, &S::fetch_row)));
      row_arguments.out = e.offset(e.offset(rows.to, channel_bytes), e.mul(r, rows.row_pitch));
      for (size_t i = 0; i < extra_; ++i)
        row_arguments.post.push_back(e.offset(post[i], e.mul(row, post_row_pitch(e, i))));
      tiles.emit(e, row_arguments);
    };
    if (!rows.may_be_outside) return compute();
    e.when(e.ir.CreateICmpULT(row, param(e, &S::stage_rows)), compute); // negative ones are huge
  });
}

TileRow Stage::tile_row(Emitter &e, const StageTable::Panel &panel) const {
  IrValue large = table_.number(e, StageTable::large_pixels);
  IrValue small = table_.number(e, StageTable::small_pixels);
  return {e.constant(0),
          panel.tile(e, large),
          panel.tile(e, small),
          large,
          small,
          param(e, &S::large_tiles),
          param(e, &S::tiles),
          param(e, &S::fetch_call),
          param(e, &S::fetch_step)};
}

IrValue Stage::input(Emitter &e, const Place &at) const {
  return e.offset(e.operand(end_of_operands()),
                  e.add(e.mul(at.image, param(e, &S::in, &Pitches::image)),
                        e.mul(at.group, param(e, &S::in_group))));
}

IrValue Stage::first_source(Emitter &e, const Place &at, IrValue first_row) const {
  if (spec_.prologue != Prologue::none) return scratch(e);
  return e.offset(input(e, at), e.mul(first_row, param(e, &S::src_row_step)));
}

} // namespace lathe::core
