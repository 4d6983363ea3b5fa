#include "passes/plan/check_conv.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core {
namespace {

using C = ConvSpec;
using S = ConvSpec::StageParams;
using W = ConvSpec::WinogradParams;

constexpr int64_t beside = -3; // what is no element of the input
constexpr int64_t none = -4;   // what no graph has

// The input's memory, from its first element on; all that it does not own reads `beside`.
class InputMemory {
public:
  explicit InputMemory(const CheckedInput &input) {
    std::vector<int64_t> places;
    std::vector<int64_t> index(input.dims.size(), 0);
    for (size_t n = input.identities.size(); n > 0; --n) {
      int64_t place = 0;
      for (size_t d = 0; d < index.size(); ++d) place += index[d] * input.strides[d];
      places.push_back(place);
      for (size_t d = index.size(); d-- > 0;) {
        if (++index[d] < input.dims[d]) break;
        index[d] = 0;
      }
    }
    if (places.empty()) return;
    const auto [low, high] = std::ranges::minmax(places);
    lowest_ = low;
    cells_.assign(size_t(high - low + 1), beside);
    for (size_t i = 0; i < places.size(); ++i)
      cells_[size_t(places[i] - low)] = input.identities[i];
  }
  int64_t operator[](int64_t element) const {
    const int64_t cell = element - lowest_;
    return cell >= 0 && cell < int64_t(cells_.size()) ? cells_[size_t(cell)] : beside;
  }

private:
  int64_t lowest_ = 0;
  std::vector<int64_t> cells_;
};

class Products {
public:
  Products(const Kernel &kernel, std::span<const CheckedConv> convolutions,
           const CheckedInput &input)
      : kernel_(kernel), convolutions_(convolutions), input_(input), memory_(input) {
    size_t first = leaves<C::Params>();
    for (const C *spec = &std::get<C>(kernel.spec); spec;
         spec = spec->source.empty() ? nullptr : spec->source.data()) {
      stages_.push_back({spec, first, {}});
      first += spec->stage_params();
    }
    pool_params_ = first;
  }

  std::string run() {
    if (stages_.size() != convolutions_.size()) return "a chain of another length";
    const auto &pool = stages_[0].spec->pool;
    auto of_pool = [&](auto... path) { return value(pool_params_ + leaf(path...)); };
    for (image_ = 0; image_ < input_.dims[0]; ++image_)
      for (group_ = 0; group_ < value(leaf(&C::Params::groups)); ++group_)
        for (int64_t block = 0; block < value(leaf(&C::Params::row_blocks)) && fault_.empty();
             ++block) {
          const int64_t first = block * value(leaf(&C::Params::block_rows));
          const int64_t count =
              std::min(value(leaf(&C::Params::block_rows)), value(leaf(&C::Params::rows)) - first);
          if (!pool) {
            compute(0, first, count);
            continue;
          }
          using P = C::PoolParams;
          compute(0,
                  first * of_pool(&P::pool, &PoolSpec::Params::stride_h) -
                      of_pool(&P::pool, &PoolSpec::Params::pad_top),
                  of_pool(&P::conv_rows));
        }
    return fault_;
  }

private:
  struct Stage {
    const C *spec;
    size_t first_param;
    std::vector<int64_t> scratch; // identities of its source's rows
  };
  int64_t value(size_t param) const { return kernel_.params[param].fixed; }
  template <typename... Path> int64_t value(size_t stage, Path... path) const {
    return value(stages_[stage].first_param + leaf(path...));
  }
  template <typename... Path> int64_t elements(size_t stage, Path... path) const { // of bytes
    return value(stage, path...) / 4;
  }
  int64_t winograd(size_t stage, Affine W::*member) const {
    return value(stages_[stage].first_param + stages_[stage].spec->winograd_param() + leaf(member));
  }
  bool innermost(size_t stage) const { return stage + 1 == stages_.size(); }
  int64_t row_elements(size_t s) const {
    return value(s, &S::scratch_cols) * value(s, &S::in_channels);
  }
  void complain(size_t s, const std::string &what) {
    if (fault_.empty()) fault_ = fmt::format("convolution {} of its chain: {}", s, what);
  }

  // What the graph has at a place of a convolution's input.
  int64_t expected(size_t s, int64_t channel, int64_t row, int64_t col) const {
    const Shape &x = convolutions_[s].x;
    if (channel >= x[1]) return none;
    if (row < 0 || row >= x[2] || col < 0 || col >= x[3]) return filler;
    const int64_t number = (channel * x[2] + row) * x[3] + col;
    return innermost(s) ? input_.identities[size_t(image_ * x[1] * x[2] * x[3] + number)] : number;
  }

  // --- Rows in scratch

  void bring_rows(size_t s, int64_t first) {
    std::vector<int64_t> &to = stages_[s].scratch;
    to.assign(size_t(value(s, &S::scratch_rows) * row_elements(s)), nothing);
    if (!innermost(s)) compute(s + 1, first, value(s, &S::scratch_rows));
    const int64_t pixel = value(s, &S::in_channels), left = value(s, &S::pad_left) * pixel;
    const int64_t end = left + value(s, &S::in_cols) * pixel;
    if (left < 0 || end > row_elements(s)) return complain(s, "its rows are wider than scratch");
    for (int64_t r = 0; r < value(s, &S::scratch_rows); ++r) {
      const auto row = to.begin() + r * row_elements(s);
      const bool inside = first + r >= 0 && first + r < value(s, &S::in_rows);
      std::fill(row, row + (inside ? left : row_elements(s)), filler);
      if (!inside) continue;
      std::fill(row + end, row + row_elements(s), filler);
      innermost(s) ? copy_row(s, first + r, &row[left]) : take_row(s, first + r, &row[left]);
    }
  }
  void copy_row(size_t s, int64_t number, int64_t *to) {
    const C &spec = *stages_[s].spec;
    const int64_t most = value(s, &S::in_channels), cols = value(s, &S::in_cols);
    const int64_t channels = std::min(most, value(s, &S::all_in_channels) - group_ * most);
    const int64_t from = image_ * elements(s, &S::in, &Pitches::image) +
                         group_ * elements(s, &S::in_group) +
                         number * elements(s, &S::in, &Pitches::row);
    const bool copies = spec.prologue == Prologue::copy;
    auto move = [&](int64_t element, int64_t place) {
      to[place] = memory_[from + element];
      if (to[place] == beside) complain(s, fmt::format("row {} reads beside its input", number));
    };
    if (copies && spec.pre.empty() && value(s, &S::rows_run_on) != 0) {
      for (int64_t i = 0; i < cols * channels; ++i) move(i, i);
      return;
    }
    const int64_t apart = copies ? 1 : elements(s, &S::in_channel);
    for (int64_t x = 0; x < cols; ++x)
      for (int64_t c = 0; c < channels; ++c)
        move(x * elements(s, &S::in, &Pitches::pixel) + c * apart, x * most + c);
  }
  // What the convolution before this one computes into scratch.
  void take_row(size_t s, int64_t number, int64_t *to) const {
    const Shape &x = convolutions_[s].x;
    for (int64_t col = 0; col < value(s, &S::in_cols); ++col)
      for (int64_t c = 0; c < value(s, &S::in_channels); ++c)
        to[col * value(s, &S::in_channels) + c] = (c * x[2] + number) * x[3] + col;
  }

  // --- Products for rows of the result, some of which may lie outside of the picture

  void compute(size_t s, int64_t first, int64_t count) {
    const C &spec = *stages_[s].spec;
    if (spec.winograd) return compute_tiles(s, first, count);
    if (spec.prologue != Prologue::none)
      bring_rows(s, first * value(s, &S::row_stride) - value(s, &S::pad_top));
    const int64_t width = value(s, &S::tiles) * (spec.tile_pixels - spec.vector_pixels) +
                          value(s, &S::large_tiles) * spec.vector_pixels;
    const Shape &y = convolutions_[s].y;
    if (width <= 0 || width % y[3] || width * value(s, &S::stage_rows) != y[2] * y[3])
      return complain(s, "its tiles do not cover the result");
    for (int64_t r = 0; r < count && fault_.empty(); ++r)
      if (first + r >= 0 && first + r < value(s, &S::stage_rows)) compute_row(s, first, r, width);
  }
  void compute_row(size_t s, int64_t first, int64_t r, int64_t width) {
    const C &spec = *stages_[s].spec;
    const int64_t large = value(s, &S::large_tiles), most = spec.tile_pixels;
    const int64_t from = in_place(s) ? image_ * elements(s, &S::in, &Pitches::image) +
                                           group_ * elements(s, &S::in_group) +
                                           first * elements(s, &S::src_row_step)
                                     : 0;
    for (int64_t x = 0; x < width && fault_.empty(); ++x) {
      const int64_t small = std::max<int64_t>(1, most - spec.vector_pixels),
                    rest = x - large * most;
      const int64_t of_tile = rest < 0 ? x % most : rest % small;
      // Pixels that share a vector follow each other.
      const int64_t place = spec.vector_pixels > 1
                                ? (x - of_tile) * elements(s, &S::src_pixel_step) + of_tile
                                : x * elements(s, &S::src_pixel_step);
      check_pixel(s, (first + r) * width + x, from + r * elements(s, &S::src_row_step) + place);
    }
  }
  bool in_place(size_t s) const { return stages_[s].spec->prologue == Prologue::none; }
  int64_t source(size_t s, int64_t element) const {
    if (in_place(s)) return memory_[element];
    const std::vector<int64_t> &scratch = stages_[s].scratch;
    return element >= 0 && element < int64_t(scratch.size()) ? scratch[size_t(element)] : beside;
  }

  // All that is summed up for one pixel of the result, in the order of the weights.
  void check_pixel(size_t s, int64_t number, int64_t from) {
    const C &spec = *stages_[s].spec;
    const auto &[op, x, y] = convolutions_[s];
    const bool several = spec.group_channels > 0;
    const int64_t depth = x[1] / op.groups, row = number / y[3], col = number % y[3];
    const int64_t step = several || spec.apart ? elements(s, &S::tap_col_pitch) : 1;
    const int64_t sums = value(s, &S::tap_rows) * value(s, &S::tap_cols) * value(s, &S::depth);
    if (sums * spec.step != op.kernel.h * op.kernel.w * depth || (several && spec.step != depth))
      return complain(s, "its products are too few or too many");
    const int64_t row_pitch = elements(s, &S::tap_row_pitch), rows = value(s, &S::tap_rows);
    const int64_t col_pitch = elements(s, &S::tap_col_pitch), cols = value(s, &S::tap_cols);
    const int64_t steps = value(s, &S::depth);
    int64_t channel = 0;
    Size2 tap{0, 0};
    auto next = [&] { // of the weights
      if (++channel < depth) return;
      channel = 0;
      if (++tap.w == op.kernel.w) tap = {tap.h + 1, 0};
    };
    for (int64_t h = 0; h < rows; ++h)
      for (int64_t w = 0; w < cols; ++w)
        for (int64_t d = 0; d < steps; ++d) {
          const int64_t at = from + h * row_pitch + w * col_pitch + d * step;
          for (int64_t k = 0; k < spec.step; ++k, next()) {
            const int64_t from_row = row * op.stride.h + tap.h * op.dilation.h - op.pad.top;
            const int64_t from_col = col * op.stride.w + tap.w * op.dilation.w - op.pad.left;
            if (!several)
              check_element(s, at + k, group_ * depth + channel, from_row, from_col);
            else if (k == 0)
              check_vectors(s, at, from_row, from_col);
          }
        }
  }
  // All lanes of a panel that holds several groups; behind the last channel they may hold anything,
  // but in place there is nothing behind it that a kernel might read.
  void check_vectors(size_t s, int64_t at, int64_t row, int64_t col) {
    const C &spec = *stages_[s].spec;
    const int64_t most = value(s, &S::channels);
    const int64_t live = std::min(most, value(s, &S::all_channels) - group_ * most);
    const int64_t lanes = live < spec.panel() ? spec.of_last_panel().panel() : spec.panel();
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (lane < live)
        check_element(s, at + lane, group_ * most + lane, row, col);
      else if (source(s, at + lane) == beside)
        complain(s, "a vector reaches beside its source");
    }
  }
  void check_element(size_t s, int64_t at, int64_t channel, int64_t row, int64_t col) {
    const int64_t found = source(s, at);
    if (found == expected(s, channel, row, col)) return;
    complain(s, fmt::format("where it multiplies row {}, column {}, channel {} of its input, {}",
                            row, col, channel,
                            found == beside    ? "it reads beside it"
                            : found == nothing ? "nobody wrote what it reads"
                                               : "something else lies there"));
  }

  // --- By Winograd: the elements that become the points of every tile

  void compute_tiles(size_t s, int64_t first, int64_t count) {
    const Size2 outputs = stages_[s].spec->winograd->outputs;
    const Shape &y = convolutions_[s].y;
    const int64_t first_tile = std::max<int64_t>(first, 0) / outputs.h;
    bring_rows(s, first_tile * outputs.h - value(s, &S::pad_top));
    const int64_t rows =
        std::min(winograd(s, &W::block_tile_rows), winograd(s, &W::tile_rows) - first_tile);
    if (std::min(first + count, y[2]) > (first_tile + rows) * outputs.h ||
        winograd(s, &W::tile_cols) * outputs.w < y[3])
      return complain(s, "its tiles do not cover the result");
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < winograd(s, &W::tile_cols) && fault_.empty(); ++c)
        check_tile(s, first_tile, r, c);
  }
  void check_tile(size_t s, int64_t first_tile, int64_t r, int64_t c) {
    const C &spec = *stages_[s].spec;
    const auto &[op, x, y] = convolutions_[s];
    const Size2 outputs = spec.winograd->outputs;
    const int64_t row = (first_tile + r) * outputs.h, col = c * outputs.w;
    const int64_t depth = x[1] / op.groups;
    // Points of outputs beyond the result may be left out.
    const int64_t points_h = std::min(outputs.h, y[2] - row) + op.kernel.h - 1;
    const int64_t points_w = std::min(outputs.w, y[3] - col) + op.kernel.w - 1;
    const int64_t from = r * elements(s, &S::src_row_step) + c * elements(s, &S::src_pixel_step);
    for (int64_t i = 0; i < points_h; ++i)
      for (int64_t j = 0; j < points_w; ++j)
        for (int64_t channel = 0; channel < depth; ++channel)
          check_element(s,
                        from + i * elements(s, &S::tap_row_pitch) +
                            j * elements(s, &S::tap_col_pitch) + channel,
                        group_ * depth + channel, row + i - op.pad.top, col + j - op.pad.left);
  }

  const Kernel &kernel_;
  const std::span<const CheckedConv> convolutions_;
  const CheckedInput &input_;
  const InputMemory memory_;
  std::vector<Stage> stages_;
  size_t pool_params_ = 0;
  int64_t image_ = 0, group_ = 0;
  std::string fault_;
};

} // namespace

std::string fault_of_products(const Kernel &kernel, std::span<const CheckedConv> convolutions,
                              const CheckedInput &input) {
  return Products(kernel, convolutions, input).run();
}

} // namespace lathe::core
