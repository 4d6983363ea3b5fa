// The menu for convolutions: register tiles, how rows split into tiles, what goes through scratch.
#include "passes/plan/planner.h"

#include <cmath>

namespace lathe {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// An output row as register tiles, nearly equal in size: of `pixels`, and the rest of one less.
struct RowTiles {
  int64_t pixels, count, large;
  double efficiency; // of the widest tile's throughput
};
RowTiles split_row(int64_t width, int64_t most_pixels) {
  int64_t count = ceil_div(width, most_pixels), pixels = ceil_div(width, count);
  return {pixels, count, width - count * (pixels - 1), double(width) / double(count * most_pixels)};
}

// Rows that may be joined into one, because memory runs on from each to the next.
bool rows_join(const Storage &s) {
  return s.dims[2] == 1 || s.strides[2] == s.dims[3] * s.strides[3];
}

} // namespace

// Accumulators, one vector of weights per column of the tile and a broadcast fill the registers.
// Measured on Zen 5: 14x2, 8x3, 6x4 all reach the FMA peak without a spill.
ConvTile conv_tile(const Target &target, int64_t channels) {
  const int64_t vectors = ceil_div(channels, target.lanes());
  struct Candidate {
    int64_t vectors, pixels;
  };
  std::vector<Candidate> menu;
  if (target.vector_registers >= 32 && target.lanes() >= 8)
    menu = {{2, 14}, {3, 8}, {4, 6}, {5, 5}, {1, 14}};
  else if (target.vector_registers >= 32)
    menu = {{4, 6}, {3, 8}, {2, 12}, {5, 5}, {1, 14}};
  else if (target.fma)
    menu = {{2, 6}, {3, 4}, {1, 12}};
  else
    menu = {{2, 5}, {3, 3}, {1, 10}};
  auto padded = [&](const Candidate &c) { return ceil_div(vectors, c.vectors) * c.vectors; };
  Candidate best = menu[0];
  for (const Candidate &c : menu) // another width only if it saves 5 % of the work
    if (double(padded(c)) < 0.95 * double(padded(best))) best = c;
  return {best.pixels, best.vectors};
}

Kernel conv_kernel(const ConvRequest &r, const Target &target, bool batched) {
  const Conv &op = r.op;
  const Shape &x = r.input.dims, &y = r.output.dims;
  const int64_t in_group = r.in_channels / op.groups, out_group = r.out_channels / op.groups;
  const ConvTile tile = conv_tile(target, out_group);

  ConvSpec spec;
  spec.tile_vectors = tile.vectors;
  spec.bias = op.bias;
  spec.post = op.post;
  const int64_t panel = tile.vectors * target.lanes(), panels = ceil_div(out_group, panel);
  spec.masked = out_group % panel != 0;
  const bool padded = op.pad != Pads{};
  spec.prologue = !channels_contiguous(r.input) ? Prologue::gather
                  : padded                      ? Prologue::copy
                                                : Prologue::none;

  // A 1x1 convolution with stride 1 sees only pixels: short rows may be joined into longer ones.
  int64_t joined = 1;
  const bool joins = spec.prologue == Prologue::none && op.kernel == Size2{} &&
                     op.stride == Size2{} && rows_join(r.input) && rows_join(r.output) &&
                     std::ranges::all_of(r.post, rows_join);
  RowTiles tiles = split_row(y[3], tile.pixels);
  for (int64_t k = 2; joins && k <= y[2]; ++k) {
    RowTiles longer = split_row(y[3] * k, tile.pixels);
    if (y[2] % k || longer.efficiency <= tiles.efficiency + 0.01) continue;
    tiles = longer;
    joined = k;
  }
  const int64_t rows = y[2] / joined, columns = y[3] * joined;
  spec.tile_pixels = tiles.pixels;
  spec.smaller_tile = tiles.large < tiles.count;

  // The source of the product: scratch rows without gaps, or the input itself.
  const bool scratch = spec.prologue != Prologue::none;
  const int64_t reach_h = (op.kernel.h - 1) * op.dilation.h + 1,
                reach_w = (op.kernel.w - 1) * op.dilation.w + 1;
  const int64_t scratch_cols = (y[3] - 1) * op.stride.w + reach_w;
  const int64_t pixel = scratch ? in_group : r.input.strides[3];
  const int64_t row = scratch ? scratch_cols * in_group : r.input.strides[2];
  const bool columns_run_on = op.dilation.w == 1 && pixel == in_group; // taps of a row are one run

  // Rows per task: their source stays in half of the L2 cache, weights stream over it.
  const int64_t row_bytes = std::max<int64_t>(1, row * joined * op.stride.h * 4);
  int64_t block_rows = std::clamp<int64_t>((target.l2_bytes / 4) / row_bytes, 1, rows);
  block_rows = ceil_div(rows, ceil_div(rows, block_rows));
  const int64_t row_blocks = ceil_div(rows, block_rows);
  // Enough tasks for a few threads; neighbours share their input rows.
  const int64_t wanted = std::clamp<int64_t>(ceil_div(8, row_blocks * op.groups), 1, panels);
  const int64_t panels_per_task = ceil_div(panels, wanted),
                panel_groups = ceil_div(panels, panels_per_task);
  const int64_t scratch_rows = (block_rows - 1) * op.stride.h + reach_h;
  const int64_t pad_left = std::min(op.pad.left, scratch_cols);

  Kernel k;
  auto add = [&](int64_t value) { k.params.push_back({0, value}); };
  auto bytes = [&](int64_t elements) { add(elements * 4); };
  for (int64_t v : {op.groups, row_blocks, panel_groups, rows, block_rows, tiles.count, tiles.large,
                    panels, panels_per_task, out_group})
    add(v);
  bytes(r.input.strides[0]);
  bytes(r.input.strides[2]);
  bytes(r.input.strides[3]);
  bytes(r.input.strides[1]);
  bytes(r.input.strides[1] * in_group);
  bytes(row * op.stride.h * joined);
  bytes(pixel * op.stride.w);
  add(op.kernel.h);
  bytes(row * op.dilation.h);
  add(columns_run_on ? 1 : op.kernel.w);
  bytes(pixel * op.dilation.w);
  add(columns_run_on ? op.kernel.w * in_group : in_group);
  add(x[2]);
  add(std::clamp<int64_t>(scratch_cols - pad_left, 0, x[3]));
  add(in_group);
  add(op.pad.top);
  add(pad_left);
  add(scratch_cols);
  add(scratch_rows);
  add(block_rows * op.stride.h);
  bytes(panel * in_group * op.kernel.h * op.kernel.w);
  auto place = [&](const Storage &s) {
    bytes(s.strides[0]);
    bytes(s.strides[2] * joined);
    bytes(s.strides[3]);
    bytes(out_group);
  };
  place(r.output);
  for (const Storage &s : r.post) place(s);

  const int64_t tasks = op.groups * row_blocks * panel_groups * (batched ? 1 : y[0]);
  k.tasks = batched ? Affine{tasks, 0} : Affine{0, tasks};
  const double multiplies_per_task = double(block_rows * columns) *
                                     double(panels_per_task * panel) *
                                     double(in_group * op.kernel.h * op.kernel.w);
  k.grain = std::max<int64_t>(1, int64_t(1e5 / std::max(1.0, multiplies_per_task)));
  k.scratch_bytes = scratch ? scratch_rows * scratch_cols * in_group * 4 : 0;
  k.output = ConvSpec::output;
  k.spec = std::move(spec);
  return k;
}

} // namespace lathe
