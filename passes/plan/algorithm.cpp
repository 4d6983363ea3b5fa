// What the algorithms for a convolution take: a model of counted work and traffic.
#include "passes/plan/planner.h"

#include <cmath>

namespace lathe::core {
namespace {

// All register tiles over so many pixels in a row, for all panels of so many channels and K steps;
// entering and leaving a tile takes about two steps.
double product_cost(int64_t pixels, const ConvTile &tile, int64_t channels, double depth) {
  const RowTiles row = split_row(pixels, tile.pixels);
  auto panel = [&](int64_t vectors) {
    const double rest = double(row.count - row.large);
    return (depth + 2) * (double(row.large) * step_cost(row.pixels, vectors) +
                          rest * step_cost(row.pixels - 1, vectors)) +
           20 * double(row.count);
  };
  const int64_t vectors = ceil_div(channels, tile.lanes), last = vectors % tile.vectors;
  return double(vectors / tile.vectors) * panel(tile.vectors) + (last ? panel(last) : 0);
}

// Vector operations of one transform in one dimension, about, for `points` points.
double transform_cost(int64_t points) {
  switch (points) {
  case 1:
    return 0;
  case 4:
    return 4;
  case 6:
    return 12;
  default:
    return 24;
  }
}

} // namespace

double direct_cost(const ConvShape &s, const Target &target) {
  const ConvTile tile = conv_tile(target, s);
  const double taps = double(s.kernel.h * s.kernel.w), depth = double(s.depth) * taps;
  const int64_t pixels = s.pixels_join ? s.y.h * s.y.w : s.y.w;
  const double rows = s.pixels_join ? 1 : double(s.y.h);
  const double compute = rows * product_cost(pixels, tile, s.channels, depth);
  const double weights = 4 * depth * double(s.channels);
  return double(s.groups) * std::max(compute, weights / memory_rate(target));
}

double winograd_cost(const ConvShape &s, const Winograd &w, int64_t block_tile_rows,
                     const Target &target) {
  const ConvTile tile = conv_tile(target, s);
  const auto [points_h, points_w] = w.points();
  const double points = double(points_h * points_w);
  const double outputs = double(w.outputs.h * w.outputs.w);
  const int64_t tile_rows = ceil_div(s.y.h, w.outputs.h), tile_cols = ceil_div(s.y.w, w.outputs.w);
  const double panels = double(ceil_div(s.channels, tile.panel()));
  const double in_vectors = std::ceil(double(s.depth) / double(target.lanes()));
  const double out_vectors = double(ceil_div(s.channels, tile.lanes));
  const double tiles = double(tile_rows * tile_cols);

  const int64_t rest = tile_rows % block_tile_rows;
  const int64_t at_once = w.from_taps ? filter_channels_at_once(w, tile.panel(), target) : s.depth;
  const double parts = double(ceil_div(s.depth, at_once));
  // Tiles at the edges have fewer points.
  const auto [edge_h, edge_w] = Winograd{edge_outputs(w, s.y), w.kernel}.points();
  const int64_t whole_cols = s.y.w / w.outputs.w;
  auto block = [&](int64_t rows, int64_t whole_rows) {
    auto products = [&](int64_t of_points, int64_t of_tiles) {
      if (of_points == 0 || of_tiles == 0) return 0.0;
      return double(of_points) * parts *
             product_cost(of_tiles, tile, s.channels, double(s.depth) / parts);
    };
    return products(edge_h * edge_w, rows * tile_cols) +
           products((points_h - edge_h) * edge_w, whole_rows * tile_cols) +
           products(edge_h * (points_w - edge_w), rows * whole_cols) +
           products((points_h - edge_h) * (points_w - edge_w), whole_rows * whole_cols);
  };
  const double blocks = double(ceil_div(tile_rows, block_tile_rows));
  const int64_t last = rest ? rest : block_tile_rows;
  const int64_t edge_rows = tile_rows - s.y.h / w.outputs.h;
  const double compute =
      (blocks - 1) * block(block_tile_rows, block_tile_rows) + block(last, last - edge_rows);
  const double of_filter = w.from_taps ? double(w.kernel.h * w.kernel.w) : points;
  const double weights = 4 * of_filter * double(s.depth * s.channels);
  const double streaming =
      weights / memory_rate(target) + (blocks - 1) * weights / rate_beyond_l2(weights, target);
  // Transformed input that the L2 cache does not hold comes from behind it for every panel.
  const double transformed = 4 * points * double(block_tile_rows * tile_cols * s.depth);
  const double far = transformed > 0.6 * double(target.l2_bytes)
                         ? blocks * panels * transformed / rate_beyond_l2(transformed, target)
                         : 0;

  const double in = transform_cost(points_h) * double(points_w) +
                    transform_cost(points_w) * double(points_h) + 2 * points + 2 * outputs;
  const double out = transform_cost(points_h) * double(points_w) +
                     transform_cost(points_w) * double(w.outputs.h) + 2 * points + 2 * outputs;
  const double filters = transform_cost(points_h) * double(w.kernel.w) +
                         transform_cost(points_w) * double(points_h) + 2 * points;
  const double transforms = tiles * (in * in_vectors + out * out_vectors) +
                            (w.from_taps ? blocks * filters * double(s.depth) * out_vectors : 0);
  return double(s.groups) * (std::max(compute + 0.5 * far, streaming) + transforms);
}

int64_t fewest_blocks(const ConvShape &s, int64_t rows, int64_t fewest_rows, const Target &target) {
  constexpr int64_t fewest_tasks = 4, fewest_by_rows = 8;
  const int64_t panels = ceil_div(s.channels, conv_tile(target, s).panel());
  const int64_t wanted =
      shares_rows(s) ? fewest_by_rows : ceil_div(fewest_tasks, s.groups * panels);
  return std::min(wanted, std::max<int64_t>(1, rows / fewest_rows));
}

std::vector<int64_t> block_sizes(int64_t rows, int64_t fewest) {
  constexpr int64_t every_count = 64; // of blocks; beyond, sizes are halved
  std::vector<int64_t> sizes{ceil_div(rows, fewest)};
  for (int64_t blocks = fewest + 1; sizes.back() > 1; ++blocks) {
    const int64_t next = blocks <= every_count ? ceil_div(rows, blocks) : ceil_div(sizes.back(), 2);
    if (next < sizes.back()) sizes.push_back(next);
  }
  return sizes;
}

double winograd_scratch(const ConvShape &s, const Winograd &w, int64_t block_tile_rows,
                        const Target &target) {
  const auto [points_h, points_w] = w.points();
  const double tiles = double(block_tile_rows) * double(ceil_div(s.y.w, w.outputs.w));
  const double line = 32; // what pitches add at most, elements
  const double of_tile = double(s.depth) + line + double(conv_tile(target, s).panel());
  const double rows = tiles * double((w.outputs.h + s.kernel.h) * w.outputs.w) * double(s.depth);
  return 4 * (double(points_h * points_w) * tiles * of_tile + rows);
}

int64_t winograd_block(const ConvShape &s, const Winograd &w, const Target &target) {
  const int64_t tile_rows = ceil_div(s.y.h, w.outputs.h);
  struct Size {
    int64_t rows;
    double cost;
  };
  std::vector<Size> sizes; // a single row among them
  for (int64_t rows : block_sizes(tile_rows, 1))
    if (rows == 1 || winograd_scratch(s, w, rows, target) <= most_winograd_scratch(target))
      sizes.push_back({rows, winograd_cost(s, w, rows, target)});
  auto cheapest = [&](int64_t blocks) { // in so many blocks at least
    Size best = sizes.back();
    for (const Size &size : sizes)
      if (ceil_div(tile_rows, size.rows) >= blocks && size.cost < best.cost) best = size;
    return best;
  };
  const Size best = cheapest(1), shared = cheapest(fewest_blocks(s, tile_rows, 1, target));
  if (shared.cost <= 1.1 * best.cost) return shared.rows;
  // Two threads that share an odd number of panels do not end at once, and transform the same
  // tiles: rather two blocks, if that costs one thread little.
  const int64_t panels = s.groups * ceil_div(s.channels, conv_tile(target, s).panel());
  const Size halves = cheapest(std::min<int64_t>(2, tile_rows));
  return panels % 2 && halves.cost <= 1.05 * best.cost ? halves.rows : best.rows;
}

} // namespace lathe::core
