// The menu for convolutions: register tiles, how rows split into tiles, what goes through scratch,
// and how many rows a task takes.
#include "passes/plan/planner.h"

#include <bit>
#include <fmt/format.h>
#include <utility>

namespace lathe::core {
namespace {

// Rows that may be joined into one, because memory runs on from each to the next.
bool rows_join(const Storage &s) {
  return s.dims[2] == 1 || s.strides[2] == s.dims[3] * s.strides[3];
}

// Several rows as one: a 1x1 convolution with stride 1 sees only pixels.
void join_rows(Storage &s, int64_t rows) {
  s.dims[2] /= rows;
  s.dims[3] *= rows;
  s.strides[2] *= rows;
}

// More bytes than any scratch may have.
constexpr int64_t too_many = int64_t{1} << 40;

// The product, or `too_many` where it is more than that.
int64_t bounded_product(int64_t a, int64_t b) {
  return double(a) * double(b) > double(too_many) ? too_many : a * b;
}

class ConvPlanner {
public:
  ConvPlanner(ConvRequest request, const Target &target, bool batched)
      : r_(std::move(request)), target_(target), batched_(batched) {
    join_short_rows();
    for (size_t i = 0; i < r_.stages.size(); ++i) stages_.push_back(stage(i));
  }

  Result<Kernel> run() {
    // Tiles of Winograd's are bounded by what there is to choose from.
    if (const double least = stages_[0].spec.winograd ? 0 : bytes_of(1); least > double(too_many))
      return fail(Error{.code = ErrorCode::limit,
                        .message = "the windows of a convolution are too large",
                        .expected = "at most 2^40 bytes for one row of the result",
                        .found = fmt::format("{:.0f}", least)});
    choose_block();
    const Part &first = stages_[0];
    const int64_t row_blocks = ceil_div(rows(), block_rows_);
    // Enough tasks for a few threads; neighbours share their input rows, and a chain is not
    // computed again for every group of panels.
    const int64_t wanted = r_.stages.size() > 1 ? 1 : ceil_div(8, row_blocks * first.groups);
    const int64_t per_task = ceil_div(first.panels, std::clamp<int64_t>(wanted, 1, first.panels));
    const int64_t panel_groups = ceil_div(first.panels, per_task);
    const Storage &out = r_.output;
    append_leaves(kernel_.params, ConvSpec::Params{.groups = fixed(first.groups),
                                                   .row_blocks = fixed(row_blocks),
                                                   .panel_groups = fixed(panel_groups),
                                                   .rows = fixed(rows()),
                                                   .block_rows = fixed(block_rows_),
                                                   .panels = fixed(first.panels),
                                                   .panels_per_task = fixed(per_task),
                                                   .out = pitches_of(out),
                                                   .out_group = bytes(first.channels)});

    int64_t scratch = 0, wanted_rows = conv_rows(block_rows_);
    double multiplies = 0;
    for (size_t i = 0; i < stages_.size(); ++i) {
      const int64_t source_rows = this->source_rows(i, wanted_rows);
      scratch = whole_lines(scratch);
      add_stage(i, scratch, source_rows, wanted_rows);
      scratch += scratch_bytes(i, source_rows);
      multiplies +=
          double(wanted_rows * stages_[i].y[3]) *
          double(i ? stages_[i].channels : per_task * stages_[i].panel) *
          double(r_.stages[i].op->kernel.h * r_.stages[i].op->kernel.w * stages_[i].depth);
      wanted_rows = source_rows;
    }
    if (r_.pool) scratch = add_pool(scratch);
    kernel_.scratch_bytes = scratch;

    const int64_t tasks = first.groups * row_blocks * panel_groups * (batched_ ? 1 : out.dims[0]);
    kernel_.tasks = batched_ ? Affine{tasks, 0} : Affine{0, tasks};
    kernel_.grain = std::max<int64_t>(1, int64_t(1e6 / std::max(1.0, multiplies)));
    kernel_.output = ConvSpec::output;
    kernel_.spec = spec_of(0);
    return std::move(kernel_);
  }

private:
  // What is known of a stage whatever the block.
  struct Part {
    ConvSpec spec;
    Shape x, y;                     // of its input and its result, rows joined
    int64_t groups, panels;         // panels of a group
    int64_t vectors;                // of all its panels
    int64_t depth, channels, panel; // steps over K for a tap; channels of a group, a panel
    int64_t in_channels;            // of a pixel of the product's source
    int64_t most_pixels;            // of a tile
    RowTiles tiles;
    int64_t scratch_cols, pixel, row; // the source of the product: elements between pixels, rows
    bool scratch;
    // By Winograd: tiles of the result, those of a block, elements between tiles and points.
    int64_t tile_rows, tile_cols, whole_tile_rows, whole_tile_cols;
    int64_t block_tile_rows, transformed_tile, transformed_point, products_point;
    int64_t filter_channels, filters_point; // transformed at a time; elements between points
  };

  bool innermost(size_t i) const { return i + 1 == r_.stages.size(); }
  int64_t rows() const { return r_.output.dims[2]; }

  void join_short_rows() {
    ConvStage &s = r_.stages[0];
    const Conv &op = *s.op;
    const bool joins = r_.stages.size() == 1 && !r_.pool && is_pointwise(op) &&
                       rows_join(r_.input) && rows_join(r_.output) &&
                       std::ranges::all_of(s.post, rows_join);
    if (!joins) return;
    const ConvShape shape = conv_shape(op, s.x, s.y, target_);
    const int64_t most = conv_tile(target_, shape).pixels;
    int64_t joined = 1;
    double best = split_row(s.y[3], most).efficiency;
    const bool by_rows = shares_rows(shape);
    // Beyond a hundred tiles there is nothing left to gain.
    const int64_t longest = std::min(s.y[2], 1 + 100 * most / std::max<int64_t>(1, s.y[3]));
    for (int64_t k = 2; k <= longest; ++k) {
      const double efficiency = split_row(s.y[3] * k, most).efficiency;
      const double worth = by_rows && k == s.y[2] ? 0.05 : 0.01; // threads cannot share one row
      if (s.y[2] % k || efficiency <= best + worth) continue;
      best = efficiency;
      joined = k;
    }
    join_rows(r_.input, joined);
    join_rows(r_.output, joined);
    for (Storage &post : s.post) join_rows(post, joined);
    s.x = r_.input.dims;
    s.y = r_.output.dims;
  }

  Part stage(size_t i) const {
    const ConvStage &s = r_.stages[i];
    const Conv &op = *s.op;
    Part p{};
    p.x = s.x;
    p.y = s.y;
    const ConvShape shape = conv_shape(op, s.x, s.y, target_);
    const ConvTile tile = conv_tile(target_, shape);
    set_panels(p, shape, tile);
    p.spec.bias = op.bias;
    p.spec.winograd = s.winograd;
    p.spec.pre = op.pre;
    p.spec.post = op.post;
    const bool several_groups = shape.group_channels > 0;
    const bool whole_vectors = shape.channels % tile.lanes == 0;
    p.spec.apart = innermost(i) && !several_groups && p.depth > 4 && reads_apart(s);
    p.spec.prologue = !innermost(i)                                       ? Prologue::convolve
                      : p.spec.apart                                      ? Prologue::none
                      : !channels_contiguous(r_.input)                    ? Prologue::gather
                      : op.pad != Pads{} || !op.pre.empty() || s.winograd ? Prologue::copy
                      : several_groups && !whole_vectors // whose tiles read whole vectors
                          ? Prologue::copy
                          : Prologue::none;
    if (p.spec.prologue == Prologue::gather && p.depth <= 4 && !several_groups)
      p.spec.gathered = p.depth;
    // The source of the product: scratch rows without gaps, or the input itself.
    p.scratch = p.spec.prologue != Prologue::none;
    p.scratch_cols = (s.y[3] - 1) * op.stride.w + reach(op.kernel.w, op.dilation.w);
    if (p.spec.prologue == Prologue::convolve) // whole rows, also where strides leave some out
      p.scratch_cols = std::max(p.scratch_cols, op.pad.left + s.x[3]);
    p.pixel = p.scratch ? p.in_channels : r_.input.strides[3];
    p.row = p.scratch ? bounded_product(p.scratch_cols, p.in_channels) : r_.input.strides[2];
    p.most_pixels = tile.pixels;
    if (!s.winograd && s.x[1] == 1 && op.stride.w == 1 && p.pixel == 1)
      share_vectors(p, op, target_.lanes() / tile.lanes);
    set_row_tiles(p, s.y[3]);
    return p;
  }
  // How output channels make panels; where these hold several groups, each counts as a group.
  static void set_panels(Part &p, const ConvShape &shape, const ConvTile &tile) {
    p.spec.tile_vectors = tile.vectors;
    p.spec.lanes = tile.lanes;
    p.depth = p.in_channels = shape.depth;
    p.panel = tile.panel();
    p.groups = shape.groups;
    p.channels = shape.channels;
    p.panels = ceil_div(p.channels, p.panel);
    p.vectors = ceil_div(p.channels, tile.lanes);
    const int64_t last = p.vectors - (p.panels - 1) * tile.vectors;
    const bool masked = p.channels % tile.lanes != 0;
    if (p.panels > 1 && (last < tile.vectors || masked))
      p.spec.last = {last, masked};
    else
      p.spec.masked = masked;
    if (shape.group_channels == 0) return;
    p.spec.group_channels = p.spec.step = shape.group_channels;
    p.groups = std::exchange(p.panels, 1);
    p.channels = p.in_channels = p.panel;
  }
  // Elements of an input that lies channel by channel: few are better interleaved.
  bool reads_apart(const ConvStage &s) const {
    const Conv &op = *s.op;
    return op.kernel == Size2{} && op.pad == Pads{} && op.pre.empty() && !s.winograd &&
           !channels_contiguous(r_.input) && r_.input.strides[3] == 1;
  }
  // Neighbours share vectors that have room for so many; rows have no rest. A step takes a row of
  // the window, if registers hold its weights, of which most elements serve several taps.
  void share_vectors(Part &p, const Conv &op, int64_t most) const {
    while (p.y[3] % most) most /= 2;
    p.spec.vector_pixels = most;
    const int64_t free = target_.vector_registers - 4 - op.kernel.w;
    if (most > 1 && op.dilation.w == 1 && free >= p.most_pixels / 2) {
      p.spec.step = op.kernel.w;
      p.most_pixels = std::min(p.most_pixels, free);
    }
    p.most_pixels *= most;
  }
  void set_row_tiles(Part &p, int64_t width) const {
    const int64_t together = p.spec.vector_pixels;
    p.tiles = split_row(width / together, p.most_pixels / together);
    p.spec.tile_pixels = p.tiles.pixels * together;
    p.spec.smaller_tile = p.tiles.large < p.tiles.count;
  }

  // Tiles of a stage that goes by Winograd, for blocks that need so many rows of its result.
  void set_tiles(Part &p, int64_t wanted_rows, bool aligned) const {
    const auto &[outputs, kernel, from_taps] = *p.spec.winograd;
    p.tile_rows = ceil_div(p.y[2], outputs.h);
    p.tile_cols = ceil_div(p.y[3], outputs.w);
    p.whole_tile_rows = p.y[2] / outputs.h;
    p.whole_tile_cols = p.y[3] / outputs.w;
    p.spec.edge_outputs = edge_outputs(*p.spec.winograd, {p.y[2], p.y[3]});
    p.block_tile_rows = std::min(p.tile_rows, aligned ? ceil_div(wanted_rows, outputs.h)
                                                      : (wanted_rows - 2) / outputs.h + 2);
    const int64_t tiles = p.block_tile_rows * p.tile_cols;
    set_row_tiles(p, tiles);
    p.spec.tile_pixels = p.most_pixels; // other numbers of tiles are split alike
    p.spec.smaller_tile = false;
    const int64_t line = 64 / 4; // pitches are whole cache lines, an odd number of them
    p.transformed_tile = ceil_div(p.depth, line) * line | line;
    p.transformed_point = tiles * p.transformed_tile | line;
    p.products_point = tiles * p.panel + line;
    if (from_taps) {
      const int64_t parts =
          ceil_div(p.depth, filter_channels_at_once(*p.spec.winograd, p.panel, target_));
      p.filter_channels = ceil_div(p.depth, parts);
      p.filters_point = ceil_div(p.filter_channels * p.panel, line) * line | line;
    }
    p.scratch_cols = p.tile_cols * outputs.w + kernel.w - 1;
    p.row = p.scratch_cols * p.depth;
  }
  ConvSpec spec_of(size_t i) const {
    ConvSpec spec = stages_[i].spec;
    if (i == 0 && r_.pool) spec.pool = pool_spec(*r_.pool, r_.strict);
    if (!innermost(i)) spec.source = {spec_of(i + 1)};
    return spec;
  }

  // --- Rows of a block, from the output back to the input

  int64_t conv_rows(int64_t block) const { // that the output's rows need of the first stage
    if (!r_.pool) return block;
    return (block - 1) * r_.pool->stride.h + reach(r_.pool->kernel.h, r_.pool->dilation.h);
  }
  int64_t source_rows(size_t i, int64_t wanted) const {
    const Conv &op = *r_.stages[i].op;
    if (const auto &w = stages_[i].spec.winograd)
      return stages_[i].block_tile_rows * w->outputs.h + op.kernel.h - 1;
    return (wanted - 1) * op.stride.h + reach(op.kernel.h, op.dilation.h);
  }
  int64_t scratch_bytes(size_t i, int64_t source_rows) const {
    const Part &p = stages_[i];
    const int64_t rows = p.scratch ? source_rows * p.row * 4 : 0;
    return p.spec.winograd
               ? filters_at(i, source_rows) + p.spec.winograd->points().w * p.filters_point * 4
               : rows;
  }
  // Where they lie behind the rows.
  int64_t transformed_at(size_t i, int64_t source_rows) const {
    return whole_lines(source_rows * stages_[i].row * 4);
  }
  int64_t products_at(size_t i, int64_t source_rows) const {
    const Part &p = stages_[i];
    return transformed_at(i, source_rows) + points(p) * p.transformed_point * 4;
  }
  int64_t filters_at(size_t i, int64_t source_rows) const {
    const Part &p = stages_[i];
    return products_at(i, source_rows) + points(p) * p.products_point * 4;
  }
  static int64_t points(const Part &p) {
    return p.spec.winograd->points().h * p.spec.winograd->points().w;
  }
  double pool_bytes(int64_t block) const {
    return r_.pool ? 4.0 * double(conv_rows(block)) * double(stages_[0].y[3] * stages_[0].panel)
                   : 0;
  }

  // What a block of so many rows has in scratch, or reads in place.
  double bytes_of(int64_t block) const {
    int64_t wanted = conv_rows(block);
    double total = pool_bytes(block);
    for (size_t i = 0; i < stages_.size(); ++i) {
      wanted = source_rows(i, wanted);
      total += 4.0 * double(wanted) * double(std::max<int64_t>(1, stages_[i].row));
    }
    return total;
  }

  // What blocks of so many rows take, but for what any do, in vector FMAs: rows that are computed
  // again for a pool, weights that stream again for every block, a source that leaves the L2 cache
  // between panels. Half of the traffic hides behind the product.
  double block_cost(int64_t block) const {
    const Part &p = stages_[0];
    const Conv &op = *r_.stages[0].op;
    const double taps = double(op.kernel.h * op.kernel.w), depth = double(p.depth) * taps;
    const double blocks = double(ceil_div(rows(), block)), panels = double(p.panels);
    const double row = double(p.y[3] * p.vectors) * depth;
    const double weights = 4 * depth * double(p.channels);
    const double again =
        weights < 0.5 * double(target_.l2_bytes) ? 0 : weights / rate_beyond_l2(weights, target_);
    // A 1x1 window leaves out what its stride steps over.
    const bool steps_over = op.kernel == Size2{} && !p.scratch;
    const double read = steps_over ? 4 * double(block * p.y[3] * p.depth) : bytes_of(block);
    const bool leaves = read + 4 * depth * double(p.panel) > 0.7 * double(target_.l2_bytes);
    return blocks * double(conv_rows(block)) * row +
           0.5 * ((blocks - 1) * again +
                  blocks * (leaves ? panels + 1 : 1) * read / rate_beyond_l2(read, target_));
  }

  // Unless the least scratch is wanted. A chain keeps its sources in a part of the L2 cache, while
  // weights stream over them.
  void choose_block() {
    if (stages_[0].spec.winograd) return choose_tiles();
    if (r_.smallest_block) return;
    const int64_t fewest_rows = stages_[0].scratch || r_.pool ? 4 : 1; // that blocks have in common
    const bool chained = r_.stages.size() > 1;
    const ConvShape shape = conv_shape(*r_.stages[0].op, stages_[0].x, stages_[0].y, target_);
    const double most = (chained ? 0.25 : 4) * double(target_.l2_bytes);
    // Half as many do where neighbours compute rows twice.
    const bool overlap = r_.pool && conv_rows(1) > r_.pool->stride.h;
    const int64_t fewest = fewest_blocks(shape, rows(), fewest_rows, target_);
    double least = block_cost(block_rows_);
    for (int64_t block : block_sizes(rows(), overlap ? ceil_div(fewest, 2) : fewest)) {
      if (bytes_of(block) > most && (stages_[0].scratch || r_.pool)) continue;
      if (!chained && block_cost(block) >= least) continue;
      least = block_cost(block);
      block_rows_ = block;
      if (chained) break; // the most that fits
    }
  }

  // Whole tiles of rows; where a pool reads them, as many of its rows as they are for, at least.
  void choose_tiles() {
    Part &p = stages_[0];
    const Winograd &w = *p.spec.winograd;
    const ConvShape shape = conv_shape(*r_.stages[0].op, p.x, p.y, target_);
    const int64_t tiles = r_.smallest_block ? 1 : winograd_block(shape, w, target_);
    const int64_t stride = r_.pool ? r_.pool->stride.h : 1;
    block_rows_ =
        std::clamp<int64_t>(tiles * w.outputs.h / stride, 1, std::max<int64_t>(1, rows()));
    const bool aligned = block_rows_ >= rows() || (block_rows_ * stride % w.outputs.h == 0 &&
                                                   (!r_.pool || r_.pool->pad.top == 0));
    set_tiles(p, conv_rows(block_rows_), aligned);
  }

  // --- Parameters

  static Affine bytes(int64_t elements) { return fixed(elements * 4); }

  void add_stage(size_t i, int64_t scratch_at, int64_t source_rows, int64_t wanted_rows) {
    const Part &p = stages_[i];
    const Conv &op = *r_.stages[i].op;
    const Storage &in = r_.input;
    // Taps of a row: one run.
    const bool several_groups = p.spec.group_channels > 0;
    const bool columns_run_on =
        several_groups || (op.dilation.w == 1 && p.pixel == p.depth && !p.spec.winograd);
    const Size2 taps = p.spec.winograd ? Size2{} : op.kernel;
    const int64_t pad_left = std::min(op.pad.left, p.scratch_cols);
    const Size2 step = p.spec.winograd ? p.spec.winograd->outputs : op.stride;
    const bool as_points = p.spec.winograd && !p.spec.winograd->from_taps;
    const int64_t of_channel = p.depth * (as_points ? points(p) : op.kernel.h * op.kernel.w);
    const int64_t lanes = several_groups ? p.panel : p.vectors * p.spec.lanes; // of a group
    const Fetches fetches = fetches_of(p, op, wanted_rows);
    // Pixels have no channels but these, neither there nor in scratch.
    const bool rows_run_on =
        innermost(i) && in.strides[3] == p.in_channels && p.x[1] == p.in_channels;
    ConvSpec::StageParams params{
        .stage_rows = fixed(p.y[2]),
        .tiles = fixed(p.tiles.count),
        .large_tiles = fixed(p.tiles.large),
        .stage_panels = fixed(p.panels),
        .channels = fixed(p.channels),
        .all_channels = fixed(p.y[1]),
        .src_row_step = bytes(p.row * step.h),
        .src_pixel_step = bytes(p.pixel * step.w),
        .tap_rows = fixed(taps.h),
        .tap_row_pitch = bytes(p.row * op.dilation.h),
        .tap_cols = fixed(columns_run_on ? 1 : taps.w),
        .tap_col_pitch = bytes(p.spec.apart ? in.strides[1] : p.pixel * op.dilation.w),
        .depth = fixed(columns_run_on ? taps.w * p.depth / p.spec.step : p.depth),
        .row_stride = fixed(op.stride.h),
        .pad_top = fixed(op.pad.top),
        .pad_left = fixed(pad_left),
        .in_rows = fixed(p.x[2]),
        .in_cols = fixed(std::clamp<int64_t>(p.scratch_cols - pad_left, 0, p.x[3])),
        .in_channels = fixed(p.in_channels),
        .all_in_channels = fixed(p.x[1]),
        .scratch_at = fixed(scratch_at),
        .scratch_rows = fixed(source_rows),
        .scratch_cols = fixed(p.scratch_cols),
        .in = {},
        .in_channel = {},
        .in_group = {},
        .rows_run_on = fixed(rows_run_on),
        .weight_panel = bytes(p.panel * of_channel),
        .weight_group = bytes(lanes * of_channel),
        .bias_group = bytes(lanes),
        .fetch_ahead = fixed(fetches.ahead),
        .fetch_row = fixed(fetches.row),
        .fetch_call = fixed(fetches.call),
        .fetch_step = fixed(fetches.step),
    };
    if (innermost(i)) {
      params.in = pitches_of(in);
      params.in_channel = bytes(in.strides[1]);
      params.in_group = bytes(in.strides[1] * p.in_channels);
    }
    append_leaves(kernel_.params, params);
    for (const Storage &s : r_.stages[i].post)
      append_leaves(kernel_.params, ConvSpec::PostPitches{pitches_of(s), bytes(p.channels)});
    if (!p.spec.winograd) return;
    append_leaves(kernel_.params,
                  ConvSpec::WinogradParams{
                      .tile_rows = fixed(p.tile_rows),
                      .tile_cols = fixed(p.tile_cols),
                      .whole_tile_rows = fixed(p.whole_tile_rows),
                      .whole_tile_cols = fixed(p.whole_tile_cols),
                      .block_tile_rows = fixed(p.block_tile_rows),
                      .transformed_at = fixed(scratch_at + transformed_at(i, source_rows)),
                      .transformed_tile = bytes(p.transformed_tile),
                      .transformed_point = bytes(p.transformed_point),
                      .products_at = fixed(scratch_at + products_at(i, source_rows)),
                      .products_point = bytes(p.products_point),
                      .filter_channels = fixed(p.filter_channels),
                      .filters_at = fixed(scratch_at + filters_at(i, source_rows)),
                      .filters_point = bytes(p.filters_point)});
  }

  // Register tiles read a part of the weights again and again: a panel's, a point's, or taps that
  // become points. Meanwhile the next part comes from memory, a share with every tile, so that it
  // never comes in a burst; where both do not fit the L2 cache, what is wanted a moment later.
  struct Fetches {
    int64_t ahead, row, call, step; // bytes
  };
  Fetches fetches_of(const Part &p, const Conv &op, int64_t rows) const {
    constexpr int64_t least_ahead = 16 << 10; // measured on Zen 4: 8 to 64 KB do alike
    const int64_t taps = op.kernel.h * op.kernel.w;
    const bool from_taps = p.spec.winograd && p.spec.winograd->from_taps;
    int64_t steps = p.depth, steps_of_part = p.depth, tiles = p.tiles.count;
    if (!p.spec.winograd) {
      steps_of_part = p.depth * taps;
      steps = steps_of_part / p.spec.step;
      tiles *= rows;
    } else if (from_taps) {
      steps = p.filter_channels;
      steps_of_part = p.filter_channels * taps;
      tiles *= points(p);
    }
    const int64_t part = steps_of_part * p.panel * 4;
    const bool by_points = p.spec.winograd && !from_taps, both_fit = part <= target_.l2_bytes / 3;
    const int64_t call = both_fit ? ceil_div(part, tiles) : 0;
    return {.ahead = both_fit ? std::max(part, least_ahead) : least_ahead,
            .row = by_points ? part : p.tiles.count * call,
            .call = call,
            .step = both_fit ? ceil_div(call, steps) : steps_of_part / steps * p.panel * 4};
  }

  // Returns the scratch bytes with the pool's.
  int64_t add_pool(int64_t scratch) {
    scratch = whole_lines(scratch);
    const Part &p = stages_[0];
    Storage rows; // of one panel
    rows.dims = {1, p.panel, p.y[2], p.y[3]};
    rows.strides = {0, 1, p.y[3] * p.panel, p.panel};
    append_leaves(kernel_.params,
                  ConvSpec::PoolParams{.pool_at = fixed(scratch),
                                       .conv_rows = fixed(conv_rows(block_rows_)),
                                       .pool = pool_params(*r_.pool, rows, r_.output)});
    return scratch + int64_t(pool_bytes(block_rows_));
  }

  ConvRequest r_;
  const Target &target_;
  bool batched_;
  std::vector<Part> stages_;
  int64_t block_rows_ = 1;
  Kernel kernel_;
};

} // namespace

// Accumulators, one vector of weights per column of the tile and a broadcast fill the registers.
// Measured on Zen 4 and 5: 14x2, 8x3 and 6x4 reach the FMA peak, and none spills (`gates` in the
// tests).
ConvTile conv_tile(const Target &target, const ConvShape &shape) {
  const int64_t channels = shape.channels, group_channels = shape.group_channels;
  // Half a vector does what a whole one does where that has few live lanes, and never slower.
  int64_t lanes = target.lanes();
  while (lanes > 4 && channels <= lanes / 2) lanes /= 2;
  const int64_t vectors = std::max<int64_t>(1, ceil_div(channels, lanes));
  struct Candidate {
    int64_t vectors, pixels;
  };
  std::vector<Candidate> menu; // ordered by what is best for many vectors
  if (target.vector_registers >= 32 && target.lanes() >= 8)
    menu = {{2, 14}, {3, 8}, {4, 6}, {1, 14}};
  else if (target.vector_registers >= 32)
    menu = {{4, 6}, {3, 8}, {2, 12}, {1, 14}};
  else if (target.fma)
    menu = {{2, 6}, {3, 4}, {1, 12}};
  else
    menu = {{2, 5}, {3, 3}, {1, 10}};
  // Of one pixel there is nothing but weights to read: in long runs, of panels alike.
  if (shape.y == Size2{}) menu = {{ceil_div(vectors, ceil_div(vectors, 8)), 1}};
  // A step's weights, a vector of the source and its elements spread stand in registers as well.
  if (group_channels > 1)
    menu = {{1, std::min<int64_t>(10, target.vector_registers - group_channels - 3)}};
  auto cost = [&](const Candidate &c) { // of a pixel
    const double last = vectors % c.vectors ? step_cost(c.pixels, vectors % c.vectors) : 0;
    const double full = double(vectors / c.vectors) * step_cost(c.pixels, c.vectors);
    return (full + last) / double(c.pixels);
  };
  // No wider than the layer; one further back in the menu only if it saves half a percent.
  std::erase_if(menu, [&](const Candidate &c) { return c.vectors > vectors; });
  Candidate best = menu[0];
  for (const Candidate &c : menu)
    if (cost(c) < 0.995 * cost(best)) best = c;
  return {best.pixels, best.vectors, lanes};
}

RowTiles split_row(int64_t width, int64_t most_pixels) {
  int64_t count = ceil_div(width, most_pixels), pixels = ceil_div(width, count);
  return {pixels, count, width - count * (pixels - 1), double(width) / double(count * most_pixels)};
}

ConvShape conv_shape(const Conv &op, const Shape &x, const Shape &y, const Target &target) {
  ConvShape shape{op.groups,    x[1] / op.groups, y[1] / op.groups, 0,
                  {y[2], y[3]}, op.kernel,        is_pointwise(op)};
  const int64_t channels = shape.depth;
  if (op.groups > 1 && channels == shape.channels && channels < target.lanes() &&
      std::has_single_bit(uint64_t(channels))) {
    shape.groups = 1;
    shape.channels = y[1];
    shape.group_channels = channels;
  }
  return shape;
}

Result<Kernel> conv_kernel(ConvRequest request, const Target &target, bool batched) {
  return ConvPlanner(std::move(request), target, batched).run();
}

} // namespace lathe::core
