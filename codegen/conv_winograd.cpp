// A convolution by Winograd: its tiles are transformed, multiplied point by point, and transformed
// back.
#include "codegen/conv_stage.h"

namespace lathe::core {

using S = ConvSpec::StageParams;
using W = ConvSpec::WinogradParams;

TileGrid Stage::tile_grid(Emitter &e, IrValue first_tile) const {
  IrValue rows = e.minimum(winograd_param(e, &W::block_tile_rows),
                           e.sub(winograd_param(e, &W::tile_rows), first_tile));
  IrValue whole = e.minimum(rows, e.sub(winograd_param(e, &W::whole_tile_rows), first_tile));
  return {rows, winograd_param(e, &W::tile_cols), whole, winograd_param(e, &W::whole_tile_cols)};
}

TileRow Stage::tile_row(Emitter &e, const StageTable::Panel &panel, const TileArguments &all,
                        const TileGrid::Range &range) const {
  auto up = [&](IrValue a, IrValue b) { return e.div(e.sub(e.add(a, b), e.constant(1)), b); };
  IrValue count = e.maximum(range.count, e.constant(1));
  TileRow row{};
  row.first = range.first;
  IrValue tiles = up(count, table_.number(e, StageTable::large_pixels));
  row.large_pixels = up(count, tiles);
  row.small_pixels = e.sub(row.large_pixels, e.constant(1));
  row.large = e.sub(range.count, e.mul(tiles, row.small_pixels));
  row.large_tile = panel.tile(e, row.large_pixels);
  row.small_tile = panel.tile(e, row.small_pixels);
  IrValue none = e.ir.CreateICmpEQ(range.count, e.constant(0));
  row.tiles = e.ir.CreateSelect(none, e.constant(0), tiles);
  IrValue share = param(e, &S::fetch_call);
  row.fetch_call = e.div(e.mul(share, param(e, &S::tiles)), tiles);
  row.fetch_step = e.div(e.mul(all.fetch_step, param(e, &S::tiles)), tiles);
  row.fetch_step =
      e.ir.CreateSelect(e.ir.CreateICmpEQ(share, e.constant(0)), all.fetch_step, row.fetch_step);
  return row;
}

void Stage::transform_tiles(Emitter &e, IrValue first_tile) const {
  const TileGrid grid = tile_grid(e, first_tile);
  IrValue to = e.offset(e.scratch, winograd_param(e, &W::transformed_at));
  e.loop(grid.rows, [&](IrValue r) {
    IrValue row = e.offset(scratch(e), e.mul(r, param(e, &S::src_row_step)));
    e.loop(grid.cols, [&](IrValue c) {
      IrValue tile = e.mul(grid.index(e, r, c), winograd_param(e, &W::transformed_tile));
      const WinogradInput each{e.offset(row, e.mul(c, param(e, &S::src_pixel_step))),
                               e.offset(to, tile),
                               param(e, &S::tap_row_pitch),
                               param(e, &S::tap_col_pitch),
                               winograd_param(e, &W::transformed_point),
                               param(e, &S::in_channels)};
      each.call(e, table_.address(e, StageTable::transform, grid.edges(e, r, c)));
    });
  });
}

void Stage::products_of_points(Emitter &e, const StageTable::Panel &panel, const TileArguments &all,
                               const TileGrid &grid, IrValue first_row, IrValue end_row,
                               IrValue weights_point) const {
  IrValue points_w = table_.number(e, StageTable::points_w);
  IrValue edge_h = table_.number(e, StageTable::edge_points_h);
  IrValue edge_w = table_.number(e, StageTable::edge_points_w);
  e.loop(first_row, end_row, e.constant(1), [&](IrValue i) {
    IrValue lacks_h = e.ir.CreateICmpSGE(i, edge_h);
    const TileRow anywhere = tile_row(e, panel, all, grid.range(e, lacks_h, false));
    const TileRow inside = tile_row(e, panel, all, grid.range(e, lacks_h, true));
    e.loop(points_w, [&](IrValue j) {
      IrValue point = e.add(e.mul(i, points_w), j);
      IrValue number = e.sub(point, e.mul(first_row, points_w));
      const TileRow row = TileRow::select(e, e.ir.CreateICmpSGE(j, edge_w), inside, anywhere);
      TileArguments p = all;
      p.fetch = e.offset(all.fetch, e.mul(point, param(e, &S::fetch_row)));
      p.source = e.offset(all.source, e.mul(point, winograd_param(e, &W::transformed_point)));
      p.weights = e.offset(all.weights, e.mul(number, weights_point));
      p.out = e.offset(all.out, e.mul(point, winograd_param(e, &W::products_point)));
      row.emit(e, p);
    });
  });
}

void Stage::products_from_taps(Emitter &e, const StageTable::Panel &panel, const TileArguments &all,
                               const TileGrid &grid) const {
  IrValue panel_bytes = all.out_pixel;
  IrValue points_h = table_.number(e, StageTable::points_h);
  e.loop(e.mul(points_h, table_.number(e, StageTable::points_w)), [&](IrValue point) {
    IrValue to = e.offset(all.out, e.mul(point, winograd_param(e, &W::products_point)));
    IrValue count = e.mul(grid.count(e), panel.number(e, StageTable::lanes));
    e.for_lanes(count, [&](IrValue first, IrValue mask) {
      e.store(e.zero(e.vector()), e.offset(to, e.mul(first, e.constant(4))), mask);
    });
  });
  IrValue filters = e.offset(e.scratch, winograd_param(e, &W::filters_at));
  IrValue filters_point = winograd_param(e, &W::filters_point);
  // The group's bytes for a channel are those of its lanes' taps.
  IrValue taps = e.div(param(e, &S::weight_group), e.mul(all.depth, param(e, &S::bias_group)));
  IrValue channel_bytes = e.mul(taps, panel_bytes);
  IrValue at_once = winograd_param(e, &W::filter_channels);
  e.loop(e.constant(0), all.depth, at_once, [&](IrValue first) {
    TileArguments some = all;
    some.depth = e.minimum(at_once, e.sub(all.depth, first));
    some.source = e.offset(all.source, e.mul(first, e.constant(4)));
    some.weights = filters;
    IrValue filter = e.offset(all.weights, e.mul(first, channel_bytes));
    some.fetch = e.offset(filter, param(e, &S::fetch_ahead));
    e.loop(points_h, [&](IrValue row) {
      const WinogradFilters transform{filter, filters, row, filters_point, panel_bytes, some.depth};
      transform.call(e, table_.address(e, StageTable::transform_filters));
      products_of_points(e, panel, some, grid, row, e.add(row, e.constant(1)), filters_point);
    });
  });
}

void Stage::winograd_panel(Emitter &e, const StageTable::Panel &panel, TileArguments a,
                           const Rows &rows, IrValue to, const IrValues &post) const {
  IrValue first_tile = tile_row_of(e, rows.first);
  const TileGrid grid = tile_grid(e, first_tile);
  IrValue products = e.offset(e.scratch, winograd_param(e, &W::products_at));
  IrValue products_point = winograd_param(e, &W::products_point);
  TileArguments p = a;
  p.source = e.offset(e.scratch, winograd_param(e, &W::transformed_at));
  p.out = products;
  p.pixel_step = winograd_param(e, &W::transformed_tile);
  p.out_pixel = e.mul(panel.number(e, StageTable::lanes), e.constant(4));
  p.post_pixel.clear();
  if (spec_.winograd->from_taps)
    products_from_taps(e, panel, p, grid);
  else
    products_of_points(e, panel, p, grid, e.constant(0), table_.number(e, StageTable::points_h),
                       e.mul(p.depth, p.out_pixel));
  e.loop(grid.rows, [&](IrValue r) {
    IrValue row = e.mul(e.add(first_tile, r), outputs_h(e)); // of the picture
    IrValue wanted = e.sub(rows.first, row);                 // from here to the wanted ones
    e.loop(grid.cols, [&](IrValue c) {
      IrValue tile = grid.index(e, r, c);
      IrValue col = e.mul(c, table_.number(e, StageTable::outputs_w));
      WinogradOutput w{};
      w.from = e.offset(products, e.mul(tile, p.out_pixel));
      w.point = products_point;
      w.row = rows.row_pitch;
      w.pixel = rows.pixel_pitch;
      w.to = e.offset(to, e.sub(e.mul(col, w.pixel), e.mul(wanted, w.row)));
      w.first_row = wanted;
      w.end_row = e.add(wanted, rows.count);
      w.bias = a.bias;
      w.live_channels = a.live_channels;
      for (size_t i = 0; i < extra_; ++i) {
        IrValue row_pitch = post_row_pitch(e, i), pixel_pitch = a.post_pixel[i];
        w.post.push_back(e.offset(post[i], e.add(e.mul(row, row_pitch), e.mul(col, pixel_pitch))));
        w.post_row.push_back(row_pitch);
        w.post_pixel.push_back(pixel_pitch);
      }
      w.call(e, panel.address(e, StageTable::transform_back, grid.edges(e, r, c)));
    });
  });
}

} // namespace lathe::core
