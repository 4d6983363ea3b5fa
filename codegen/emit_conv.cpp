// Convolution, alone or with its neighbours. A task brings its input rows into zero-padded scratch
// (prologue), where a convolution before this one may compute them; runs register tiles of pixels x
// output channels over all taps (product); then bias, post steps and store, or a pool behind them
// (epilogue). By Winograd, prologue and epilogue also transform, and a product is of tiles x output
// channels, over input channels, once per point.
#include "codegen/conv_parts.h"

#include <memory>

namespace lathe::core {
namespace {

using C = ConvSpec;

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

// What kernels of the same loops differ in. A kernel gives its loops a table, of every stage what
// this lists: addresses of functions, and numbers.
class StageTable {
public:
  enum Entry {
    large_pixels, // by Winograd, the most
    small_pixels,
    panel_lanes,
    entries,
    // By Winograd, further:
    outputs_h = entries,
    outputs_w,
    points_h,
    points_w,
    edge_points_h,     // of tiles in the last row, if it is an edge
    edge_points_w,     // in the last column
    transform_filters, // where they are made from taps
    transform,         // of the input, four: see Edges
    winograd_entries = transform + 4
  };
  // Behind them, of all panels but a group's last one, then of that one: the address of a list of
  // register tiles' functions, by their pixels; and, by Winograd, four functions.
  enum PanelEntry { lanes, tiles, transform_back, panel_entries = transform_back + 4 };

  StageTable(IrValue table, const ConvSpec &spec, int first_entry)
      : table_(table), first_(first_entry),
        first_panel_(first_entry + (spec.winograd ? int(winograd_entries) : int(entries))) {}
  int end_of_entries() const { return first_panel_ + 2 * panel_entries; }
  IrValue number(Emitter &e, Entry entry) const { return load_at(e, e.i64, own(e), entry); }
  IrValue address(Emitter &e, Entry entry, IrValue edges = nullptr) const {
    return load_at(e, e.ptr, own(e), entry, edges);
  }

  // What it says of one panel.
  class Panel {
  public:
    Panel(IrValue place) : place_(place) {}
    IrValue number(Emitter &e, PanelEntry entry) const { return load_at(e, e.i64, place_, entry); }
    IrValue address(Emitter &e, PanelEntry entry, IrValue edges) const {
      return load_at(e, e.ptr, place_, entry, edges);
    }
    IrValue tile(Emitter &e, IrValue pixels) const {
      return load_at(e, e.ptr, load_at(e, e.ptr, place_, tiles), 0, pixels);
    }

  private:
    IrValue place_;
  };
  Panel panel(Emitter &e, IrValue is_last) const {
    IrValue number = e.ir.CreateSelect(is_last, e.constant(first_panel_ + panel_entries),
                                       e.constant(first_panel_));
    return {e.offset(table_, e.mul(number, e.constant(8)))};
  }

  // Of the spec and its sources, on the stack of `e`.
  static IrValue make(Emitter &e, const ConvSpec &spec) {
    IrValues values;
    for (const ConvSpec *s = &spec; s; s = s->source.empty() ? nullptr : s->source.data()) {
      add_stage(e, *s, values);
      add_panel(e, *s, values);
      add_panel(e, s->of_last_panel(), values);
    }
    IrValue table = e.local(llvm::ArrayType::get(e.i64, values.size()));
    for (size_t i = 0; i < values.size(); ++i)
      e.ir.CreateStore(values[i], e.offset(table, int64_t(i) * 8));
    return table;
  }

private:
  static void add_stage(Emitter &e, const ConvSpec &s, IrValues &values) {
    auto add = [&](std::initializer_list<int64_t> numbers) {
      for (int64_t number : numbers) values.push_back(e.constant(number));
    };
    add({s.tile_pixels, s.tile_pixels - s.vector_pixels, s.panel()});
    if (!s.winograd) return;
    const auto &[outputs, kernel, from_taps] = *s.winograd;
    const Size2 points = s.winograd->points();
    const Size2 edge{s.edge_outputs.h + kernel.h - 1, s.edge_outputs.w + kernel.w - 1};
    add({outputs.h, outputs.w, points.h, points.w, edge.h, edge.w});
    const Target vectors = with_lanes(e.target, s.lanes);
    values.push_back(from_taps ? WinogradFilters::function(e.module, vectors, *s.winograd)
                               : static_cast<IrValue>(e.constant(0)));
    for (int64_t h : {points.h, edge.h})
      for (int64_t w : {points.w, edge.w})
        values.push_back(WinogradInput::function(e.module, e.target, points, {h, w}));
  }
  static void add_panel(Emitter &e, const ConvSpec &s, IrValues &values) {
    const TileUse use = !s.winograd             ? TileUse::result
                        : s.winograd->from_taps ? TileUse::part
                                                : TileUse::product;
    IrValue list = e.local(llvm::ArrayType::get(e.i64, uint64_t(s.tile_pixels + 1)));
    const int64_t small = s.tile_pixels - (s.smaller_tile ? s.vector_pixels : 0);
    for (int64_t pixels = s.winograd ? 1 : small; pixels <= s.tile_pixels;
         pixels += s.vector_pixels)
      e.ir.CreateStore(tile_function(e.module, e.target, s, pixels, use),
                       e.offset(list, pixels * 8));
    values.insert(values.end(), {e.constant(s.panel()), list});
    for (int64_t h : {s.winograd ? s.winograd->outputs.h : 0, s.edge_outputs.h})
      for (int64_t w : {s.winograd ? s.winograd->outputs.w : 0, s.edge_outputs.w})
        values.push_back(s.winograd ? WinogradOutput::function(e.module, e.target, s, {h, w})
                                    : static_cast<IrValue>(e.constant(0)));
  }
  static IrValue load_at(Emitter &e, llvm::Type *type, IrValue table, int entry,
                         IrValue index = nullptr) {
    IrValue place = e.offset(table, int64_t(entry) * 8);
    return e.load_invariant(type, index ? e.offset(place, e.mul(index, e.constant(8))) : place);
  }
  IrValue own(Emitter &e) const { return e.offset(table_, int64_t(first_) * 8); }

  IrValue table_;
  int first_, first_panel_;
};

// The tiles of Winograd's in a block, `cols` in a row. Of those in the picture's last row or column
// fewer outputs may be wanted, so that they have only the first points. Products of a point are
// those of all tiles that have it: so whole ones lie between those at either edge.
struct TileGrid {
  IrValue rows, cols, whole_rows, whole_cols;

  // 0 inside, 1 in a last column that is an edge, 2 in such a row, 3 in both.
  IrValue edges(Emitter &e, IrValue row, IrValue col) const {
    return e.add(e.mul(beyond(e, row, whole_rows), e.constant(2)), beyond(e, col, whole_cols));
  }
  // The column at the edge, of whole rows; whole columns, row by row; the corner.
  IrValue index(Emitter &e, IrValue row, IrValue col) const {
    IrValue whole = e.add(e.add(column(e), e.mul(row, whole_cols)), col);
    IrValue corner = e.sub(count(e), e.constant(1));
    IrValue at_edge = e.ir.CreateSelect(e.ir.CreateICmpSLT(row, whole_rows), row, corner);
    return e.ir.CreateSelect(e.ir.CreateICmpSLT(col, whole_cols), whole, at_edge);
  }
  IrValue count(Emitter &e) const { return e.mul(rows, cols); }
  struct Range {
    IrValue first, count;
  };
  // The tiles with a point that those in the edge's row may lack, or those in its column.
  Range range(Emitter &e, IrValue lacks_h, bool lacks_w) const {
    IrValue in_rows = e.ir.CreateSelect(lacks_h, whole_rows, rows);
    return {lacks_w ? column(e) : static_cast<IrValue>(e.constant(0)),
            e.mul(in_rows, lacks_w ? whole_cols : cols)};
  }

private:
  static IrValue beyond(Emitter &e, IrValue number, IrValue end) {
    return e.ir.CreateZExt(e.ir.CreateICmpSGE(number, end), e.i64);
  }
  IrValue column(Emitter &e) const { return e.mul(whole_rows, e.sub(cols, whole_cols)); }
};

// The spec without what the table says, and what only tiles know: equal for kernels that share
// their loops.
ConvSpec loops_of(const ConvSpec &spec) {
  ConvSpec loops = spec;
  loops.tile_pixels = loops.tile_vectors = loops.lanes = 1;
  loops.vector_pixels = loops.step = 1;
  loops.smaller_tile = loops.masked = false;
  loops.group_channels = 0;
  loops.apart = false;
  loops.last = {};
  loops.edge_outputs = {};
  if (loops.winograd) loops.winograd = Winograd{.from_taps = spec.winograd->from_taps};
  loops.post.assign(operands_of(spec.post), FusedOp{Binary{}});
  for (ConvSpec &source : loops.source) source = loops_of(source);
  return loops;
}

// One convolution of a chain.
class Stage {
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
  int end_of_operands() const { // of the whole chain, before its input
    return source_ ? source_->end_of_operands()
                   : arguments_.first_operand + int(spec_.stage_operands());
  }
  int end_of_params() const {
    return source_ ? source_->end_of_params() : arguments_.first_param + int(spec_.stage_params());
  }

  // The source of the product for result rows from `first_row` on; fills scratch.
  void prepare(Emitter &e, const Place &at, IrValue first_row) const {
    if (spec_.prologue == Prologue::none) return;
    if (spec_.winograd) {
      IrValue first_tile = tile_row_of(e, first_row);
      bring_rows(e, at, e.sub(e.mul(first_tile, outputs_h(e)), param(e, C::pad_top)));
      return transform_tiles(e, first_tile);
    }
    bring_rows(e, at, e.sub(e.mul(first_row, param(e, C::row_stride)), param(e, C::pad_top)));
  }

  // Scratch rows of the source, from its row `first` on.
  void bring_rows(Emitter &e, const Place &at, IrValue first) const {
    if (!source_) {
      IrValue pre = e.address_of_operand(arguments_.first_operand + C::first_vector + spec_.bias);
      return SourceRows::copy(e, spec_, e.address_of_param(arguments_.first_param), pre,
                              input(e, at), at.group, first);
    }
    source_->prepare(e, at, first);
    IrValue pixel = e.mul(param(e, C::in_channels), e.constant(4));
    IrValue row = e.mul(param(e, C::scratch_cols), pixel);
    const SourceRows borders(arguments_);
    e.loop(param(e, C::scratch_rows),
           [&](IrValue r) { borders.border(e, r, e.add(first, r), [](IrValue) {}); });
    Rows rows{first,
              param(e, C::scratch_rows),
              e.offset(scratch(e), e.mul(param(e, C::pad_left), pixel)),
              row,
              pixel,
              true};
    IrValue panels = source_->param(e, C::stage_panels);
    e.loop(panels, [&](IrValue panel) { source_->panel(e, at, panel, rows); });
  }

  // One panel of the result's rows; `prepare` has been there.
  void panel(Emitter &e, const Place &at, IrValue panel, const Rows &rows) const {
    IrValue lanes = panel_lanes(e), channel_bytes = e.mul(panel, e.mul(lanes, e.constant(4)));
    auto of_panel = [&](IrValue base, C::StageParam group, IrValue bytes) {
      return e.offset(base, e.add(e.mul(at.group, param(e, group)), bytes));
    };
    TileArguments a{};
    a.weights =
        of_panel(operand(e, C::weights), C::weight_group, e.mul(panel, param(e, C::weight_panel)));
    a.bias = spec_.bias ? of_panel(operand(e, C::first_vector), C::bias_group, channel_bytes)
                        : static_cast<IrValue>(
                              llvm::ConstantPointerNull::get(llvm::cast<llvm::PointerType>(e.ptr)));
    a.live_channels = e.sub(channels(e, at), e.mul(panel, lanes));
    const StageTable::Panel own = table_.panel(e, e.ir.CreateICmpSLT(a.live_channels, lanes));
    a.pixel_step = param(e, C::src_pixel_step);
    a.tap_rows = param(e, C::tap_rows);
    a.tap_row_pitch = param(e, C::tap_row_pitch);
    a.tap_cols = param(e, C::tap_cols);
    a.tap_col_pitch = param(e, C::tap_col_pitch);
    a.depth = param(e, C::depth);
    a.out_pixel = rows.pixel_pitch;
    a.fetch = e.offset(a.weights, param(e, C::fetch_ahead));
    a.fetch_step = param(e, C::fetch_step);
    IrValues post;
    const int first_post = int(spec_.stage_operands() - extra_);
    for (int i = 0; i < int(extra_); ++i) {
      const int pitches = C::first_post_pitch + 4 * i;
      a.post_pixel.push_back(param(e, pitches + 2));
      post.push_back(e.offset(
          operand(e, first_post + i),
          e.add(e.add(e.mul(at.image, param(e, pitches)), e.mul(at.group, param(e, pitches + 3))),
                channel_bytes)));
    }
    if (spec_.winograd)
      return winograd_panel(e, own, a, rows, e.offset(rows.to, channel_bytes), post);
    IrValue source = first_source(e, at, rows.first);
    e.loop(rows.count, [&](IrValue r) {
      IrValue row = e.add(rows.first, r);
      auto compute = [&] {
        TileArguments row_arguments = a;
        row_arguments.source = e.offset(source, e.mul(r, param(e, C::src_row_step)));
        row_arguments.fetch = e.offset(a.fetch, e.mul(r, param(e, C::fetch_row)));
        row_arguments.out = e.offset(e.offset(rows.to, channel_bytes), e.mul(r, rows.row_pitch));
        for (size_t i = 0; i < extra_; ++i)
          row_arguments.post.push_back(e.offset(post[i], e.mul(row, post_row_pitch(e, i))));
        tile_row(e, own).emit(e, row_arguments);
      };
      if (!rows.may_be_outside) return compute();
      e.when(e.ir.CreateICmpULT(row, param(e, C::stage_rows)), compute); // negative ones are huge
    });
  }

  IrValue panel_lanes(Emitter &e) const { return table_.number(e, StageTable::panel_lanes); }
  IrValue channels(Emitter &e) const { return param(e, C::channels); } // of a group
  IrValue channels(Emitter &e, const Place &at) const {                // of this one
    return e.minimum(channels(e), e.sub(param(e, C::all_channels), e.mul(at.group, channels(e))));
  }

private:
  IrValue param(Emitter &e, int index) const { return arguments_.param(e, index); }
  IrValue operand(Emitter &e, int index) const { return arguments_.operand(e, index); }
  IrValue scratch(Emitter &e) const { return arguments_.scratch(e); }
  TileRow tile_row(Emitter &e, const StageTable::Panel &panel) const {
    IrValue large = table_.number(e, StageTable::large_pixels);
    IrValue small = table_.number(e, StageTable::small_pixels);
    return {e.constant(0),
            panel.tile(e, large),
            panel.tile(e, small),
            large,
            small,
            param(e, C::large_tiles),
            param(e, C::tiles),
            param(e, C::fetch_call),
            param(e, C::fetch_step)};
  }
  IrValue post_row_pitch(Emitter &e, size_t i) const {
    return param(e, C::first_post_pitch + 4 * int(i) + 1);
  }
  IrValue input(Emitter &e, const Place &at) const { // of the image and group
    return e.offset(e.operand(end_of_operands()), e.add(e.mul(at.image, param(e, C::in_image)),
                                                        e.mul(at.group, param(e, C::in_group))));
  }
  // Where the product's taps begin for result row `first_row`.
  IrValue first_source(Emitter &e, const Place &at, IrValue first_row) const {
    if (spec_.prologue != Prologue::none) return scratch(e);
    return e.offset(input(e, at), e.mul(first_row, param(e, C::src_row_step)));
  }

  // --- Winograd: tiles of the result, in rows of `tile_cols`

  IrValue winograd_param(Emitter &e, C::WinogradParam index) const {
    return param(e, int(spec_.first_winograd_param()) + index);
  }
  IrValue outputs_h(Emitter &e) const { return table_.number(e, StageTable::outputs_h); }
  IrValue tile_row_of(Emitter &e, IrValue row) const { // rows before the picture: the first
    return e.div(e.maximum(row, e.constant(0)), outputs_h(e));
  }
  // Of a block that begins with row `first_tile` of tiles.
  TileGrid tile_grid(Emitter &e, IrValue first_tile) const {
    IrValue rows = e.minimum(winograd_param(e, C::block_tile_rows),
                             e.sub(winograd_param(e, C::tile_rows), first_tile));
    IrValue whole = e.minimum(rows, e.sub(winograd_param(e, C::whole_tile_rows), first_tile));
    return {rows, winograd_param(e, C::tile_cols), whole, winograd_param(e, C::whole_tile_cols)};
  }
  // A range of tiles, evenly split. Fewer than `tiles` fetch as much.
  TileRow tile_row(Emitter &e, const StageTable::Panel &panel, const TileArguments &all,
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
    IrValue share = param(e, C::fetch_call);
    row.fetch_call = e.div(e.mul(share, param(e, C::tiles)), tiles);
    row.fetch_step = e.div(e.mul(all.fetch_step, param(e, C::tiles)), tiles);
    row.fetch_step =
        e.ir.CreateSelect(e.ir.CreateICmpEQ(share, e.constant(0)), all.fetch_step, row.fetch_step);
    return row;
  }

  // All input tiles of a block, from rows in scratch.
  void transform_tiles(Emitter &e, IrValue first_tile) const {
    const TileGrid grid = tile_grid(e, first_tile);
    IrValue to = e.offset(e.scratch, winograd_param(e, C::transformed_at));
    e.loop(grid.rows, [&](IrValue r) {
      IrValue row = e.offset(scratch(e), e.mul(r, param(e, C::src_row_step)));
      e.loop(grid.cols, [&](IrValue c) {
        IrValue tile = e.mul(grid.index(e, r, c), winograd_param(e, C::transformed_tile));
        const WinogradInput each{e.offset(row, e.mul(c, param(e, C::src_pixel_step))),
                                 e.offset(to, tile),
                                 param(e, C::tap_row_pitch),
                                 param(e, C::tap_col_pitch),
                                 winograd_param(e, C::transformed_point),
                                 param(e, C::in_channels)};
        each.call(e, table_.address(e, StageTable::transform, grid.edges(e, r, c)));
      });
    });
  }

  // The products of the points in some rows, over `all.depth` channels, in the order in which
  // weights lie and are fetched. Source and result of `all` are those of point 0 and tile 0,
  // fetched weights those for point 0, weights those of the first row, points so many bytes apart.
  void products_of_points(Emitter &e, const StageTable::Panel &panel, const TileArguments &all,
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
        p.fetch = e.offset(all.fetch, e.mul(point, param(e, C::fetch_row)));
        p.source = e.offset(all.source, e.mul(point, winograd_param(e, C::transformed_point)));
        p.weights = e.offset(all.weights, e.mul(number, weights_point));
        p.out = e.offset(all.out, e.mul(point, winograd_param(e, C::products_point)));
        row.emit(e, p);
      });
    });
  }

  // The same with weights that are taps: of some channels at a time they become points in scratch,
  // row by row, and their products are added to those of the channels before.
  void products_from_taps(Emitter &e, const StageTable::Panel &panel, const TileArguments &all,
                          const TileGrid &grid) const {
    IrValue panel_bytes = all.out_pixel;
    IrValue points_h = table_.number(e, StageTable::points_h);
    e.loop(e.mul(points_h, table_.number(e, StageTable::points_w)), [&](IrValue point) {
      IrValue to = e.offset(all.out, e.mul(point, winograd_param(e, C::products_point)));
      IrValue count = e.mul(grid.count(e), panel.number(e, StageTable::lanes));
      e.for_lanes(count, [&](IrValue first, IrValue mask) {
        e.store(e.zero(e.vector()), e.offset(to, e.mul(first, e.constant(4))), mask);
      });
    });
    IrValue filters = e.offset(e.scratch, winograd_param(e, C::filters_at));
    IrValue filters_point = winograd_param(e, C::filters_point);
    // The group's bytes for a channel are those of its lanes' taps.
    IrValue taps = e.div(param(e, C::weight_group), e.mul(all.depth, param(e, C::bias_group)));
    IrValue channel_bytes = e.mul(taps, panel_bytes);
    IrValue at_once = winograd_param(e, C::filter_channels);
    e.loop(e.constant(0), all.depth, at_once, [&](IrValue first) {
      TileArguments some = all;
      some.depth = e.minimum(at_once, e.sub(all.depth, first));
      some.source = e.offset(all.source, e.mul(first, e.constant(4)));
      some.weights = filters;
      IrValue filter = e.offset(all.weights, e.mul(first, channel_bytes));
      some.fetch = e.offset(filter, param(e, C::fetch_ahead));
      e.loop(points_h, [&](IrValue row) {
        const WinogradFilters transform{filter,        filters,     row,
                                        filters_point, panel_bytes, some.depth};
        transform.call(e, table_.address(e, StageTable::transform_filters));
        products_of_points(e, panel, some, grid, row, e.add(row, e.constant(1)), filters_point);
      });
    });
  }

  // The panel's products for every point, and back: the wanted rows of the result, `to` being the
  // place of the first of them, `post` that of row 0 of the picture.
  void winograd_panel(Emitter &e, const StageTable::Panel &panel, TileArguments a, const Rows &rows,
                      IrValue to, const IrValues &post) const {
    IrValue first_tile = tile_row_of(e, rows.first);
    const TileGrid grid = tile_grid(e, first_tile);
    IrValue products = e.offset(e.scratch, winograd_param(e, C::products_at));
    IrValue products_point = winograd_param(e, C::products_point);
    TileArguments p = a;
    p.source = e.offset(e.scratch, winograd_param(e, C::transformed_at));
    p.out = products;
    p.pixel_step = winograd_param(e, C::transformed_tile);
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
          w.post.push_back(
              e.offset(post[i], e.add(e.mul(row, row_pitch), e.mul(col, pixel_pitch))));
          w.post_row.push_back(row_pitch);
          w.post_pixel.push_back(pixel_pitch);
        }
        w.call(e, panel.address(e, StageTable::transform_back, grid.edges(e, r, c)));
      });
    });
  }

  const ConvSpec &spec_;
  const StageTable table_;
  const StageArguments arguments_;
  const size_t extra_; // post operands
  std::unique_ptr<Stage> source_;
};

// The loop over tasks, which kernels share.
class TaskLoop {
public:
  // In a function of the arguments of a kernel, and a table.
  enum Argument { args, scratch, table, begin, end };
  static llvm::FunctionType *type(llvm::Module &module) { return shared_type(module, 3, 2); }

  TaskLoop(const ConvSpec &spec, Emitter &e)
      : spec_(spec), e_(e), stage_(spec, e.function->getArg(table), 0,
                                   int(spec.first_stage_operand()), C::first_stage_param) {
    auto argument = [&](Argument i) { return static_cast<IrValue>(e.function->getArg(i)); };
    e.set_arguments(size_t(stage_.end_of_operands() + 1), argument(args), argument(begin),
                    argument(end), argument(scratch));
  }

  void emit() {
    Emitter &e = e_;
    // Consecutive tasks of one thread often share their source.
    e.loop(
        e.begin, e.end, e.constant(1), {e.constant(-1)}, [&](IrValue task, const IrValues &state) {
          IrValue panel_group = e.rem(task, e.param(C::panel_groups));
          IrValue source = e.div(task, e.param(C::panel_groups)); // image, group, block
          IrValue block = e.rem(source, e.param(C::row_blocks));
          IrValue image_group = e.div(source, e.param(C::row_blocks));
          Place at{e.div(image_group, e.param(C::groups)), e.rem(image_group, e.param(C::groups))};
          IrValue first = e.mul(block, e.param(C::block_rows));
          IrValue rows = e.minimum(e.param(C::block_rows), e.sub(e.param(C::rows), first));
          e.when(e.ir.CreateICmpNE(source, state[0]),
                 [&] { stage_.prepare(e, at, spec_.pool ? first_conv_row(first) : first); });
          IrValue first_panel = e.mul(panel_group, e.param(C::panels_per_task));
          IrValue last_panel =
              e.minimum(e.add(first_panel, e.param(C::panels_per_task)), e.param(C::panels));
          e.loop(first_panel, last_panel, e.constant(1), [&](IrValue panel) {
            spec_.pool ? pool(at, panel, first, rows) : store(at, panel, first, rows);
          });
          return IrValues{source};
        });
  }

private:
  IrValue scratch_param(C::PoolParam index) { return e_.param(stage_.end_of_params() + index); }
  int first_pool_param() const { return stage_.end_of_params() + C::first_pool_param; }
  IrValue pool_param(PoolSpec::Param index) { return e_.param(first_pool_param() + index); }
  IrValue first_conv_row(IrValue first_pool_row) {
    return e_.sub(e_.mul(first_pool_row, pool_param(PoolSpec::stride_h)),
                  pool_param(PoolSpec::pad_top));
  }
  IrValue output(const Place &at, IrValue row) {
    Emitter &e = e_;
    return e.offset(e.operand(C::output), e.add(e.add(e.mul(at.image, e.param(C::out_image)),
                                                      e.mul(at.group, e.param(C::out_group))),
                                                e.mul(row, e.param(C::out_row))));
  }

  void store(const Place &at, IrValue panel, IrValue first, IrValue rows) {
    stage_.panel(
        e_, at, panel,
        {first, rows, output(at, first), e_.param(C::out_row), e_.param(C::out_pixel), false});
  }

  // The panel's rows go into scratch, and from there as pooled rows into the output.
  void pool(const Place &at, IrValue panel, IrValue first, IrValue rows) {
    Emitter &e = e_;
    IrValue first_conv = first_conv_row(first);
    IrValue lanes = stage_.panel_lanes(e);
    IrValue channel_bytes = e.mul(panel, e.mul(lanes, e.constant(4)));
    IrValue row_pitch = pool_param(PoolSpec::in_row);
    IrValue to = e.offset(e.scratch, scratch_param(C::pool_at));
    // The stage adds the panel's place among the channels, scratch holds one panel.
    stage_.panel(e, at, panel,
                 {first_conv, scratch_param(C::conv_rows),
                  e.offset(to, e.sub(e.constant(0), channel_bytes)), row_pitch,
                  pool_param(PoolSpec::in_pixel), true});
    IrValue live = e.minimum(e.sub(stage_.channels(e, at), e.mul(panel, lanes)), lanes);
    PoolRow pooled{.params = e.address_of_param(first_pool_param()), .channels = live};
    if (spec_.pool->bias) {
      IrValue channel = e.mul(e.mul(at.group, stage_.channels(e)), e.constant(4));
      pooled.bias = e.offset(e.operand(C::pool_bias), e.add(channel, channel_bytes));
    }
    pooled.in = e.offset(to, e.sub(e.constant(0), e.mul(first_conv, row_pitch)));
    e.loop(rows, [&](IrValue r) {
      pooled.row = e.add(first, r);
      pooled.out = e.offset(output(at, pooled.row), channel_bytes);
      pooled.emit(e, *spec_.pool);
    });
  }

  const ConvSpec &spec_;
  Emitter &e_;
  const Stage stage_;
};

} // namespace

void emit(const ConvSpec &spec, const Target &target, const std::string &name,
          llvm::Module &module) {
  const ConvSpec loops = loops_of(spec);
  llvm::Function *tasks =
      shared_function(module, target, kernel_name(loops, target) + ".loops", TaskLoop::type(module),
                      [&](Emitter &e) { TaskLoop(loops, e).emit(); });
  Emitter e(module, target, name, 0);
  IrValue table = StageTable::make(e, spec);
  e.ir.CreateCall(tasks, {e.args, e.scratch, table, e.begin, e.end});
  e.ir.CreateRetVoid();
}

} // namespace lathe::core
