#include "runtime/weights.h"

#include "ir/evaluate.h"
#include "ir/system/mapping.h"
#include "ir/system/threads.h"
#include "runtime/thread_pool.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <new>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace lathe::core {
namespace {

// [M][C/groups][kh][kw] -> [group][panel][kh][kw][channel][lane], or, with `taps_inside`,
// [group][panel][channel][kh][kw][lane]; lanes behind the last channel 0.
void pack_panels(const Tensor &weight, const Panels &panels, bool taps_inside, float *to) {
  const Shape &s = weight.shape();
  const int64_t rows = s[0] / panels.groups, channels = s[1];
  const int64_t taps = element_count(s) / (s[0] * channels); // one, of a dense layer
  const int64_t of_tap = taps_inside ? 1 : channels, of_channel = taps_inside ? taps : 1;
  const float *from = weight.f32().data();
  for (int64_t g = 0; g < panels.groups; ++g)
    for (int64_t first = 0; first < rows; first += panels.width) {
      const int64_t width = panels.width_at(first, rows), live = std::min(width, rows - first);
      for (int64_t lane = 0; lane < width; ++lane) {
        const float *row = from + (g * rows + first + lane) * channels * taps;
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t t = 0; t < taps; ++t)
            to[(t * of_tap + c * of_channel) * width + lane] = lane < live ? row[c * taps + t] : 0;
      }
      to += width * channels * taps;
    }
}

// A wider copy where the machine has it, but no FMA: the same bits everywhere. (Who chooses the
// copy runs before the thread sanitizer does.)
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define LATHE_WIDE __attribute__((target_clones("avx2", "default")))
#else
#define LATHE_WIDE
#endif

// sum[lane] = sum over k of matrix[i][k] * x[k * step + lane]
LATHE_WIDE void combine(const Matrix &matrix, int64_t i, const double *x, int64_t step,
                        int64_t lanes, double *sum) {
  std::fill_n(sum, lanes, 0.0);
  for (int64_t k = 0; k < matrix.cols; ++k) {
    const double factor = matrix.at(i, k), *from = x + k * step;
    for (int64_t lane = 0; lane < lanes; ++lane) sum[lane] += factor * from[lane];
  }
}

// The same to [group][panel][point][channel][lane]: every filter g becomes G g G^T.
void pack_winograd(const Tensor &weight, const Panels &panels, const Winograd &winograd,
                   float *to) {
  const Shape &s = weight.shape();
  const int64_t rows = s[0] / panels.groups, channels = s[1], kw = s[3], taps = s[2] * s[3];
  const Matrix &h = winograd_matrices(winograd.outputs.h, winograd.kernel.h).filter;
  const Matrix &w = winograd_matrices(winograd.outputs.w, winograd.kernel.w).filter;
  const float *from = weight.f32().data();
  for (int64_t g = 0; g < panels.groups; ++g)
    for (int64_t first = 0; first < rows; first += panels.width) {
      const int64_t panel = panels.width_at(first, rows), live = std::min(panel, rows - first);
      std::vector<double> filters(size_t(taps * panel)), half(size_t(kw * panel)),
          sum(static_cast<size_t>(panel));
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t lane = 0; lane < live; ++lane)
          for (int64_t t = 0; t < taps; ++t)
            filters[size_t(t * panel + lane)] =
                double(from[((g * rows + first + lane) * channels + c) * taps + t]);
        for (int64_t i = 0; i < h.rows; ++i) {
          for (int64_t l = 0; l < kw; ++l)
            combine(h, i, &filters[size_t(l * panel)], kw * panel, panel, &half[size_t(l * panel)]);
          for (int64_t j = 0; j < w.rows; ++j) {
            combine(w, j, half.data(), panel, panel, sum.data());
            std::ranges::transform(sum, to + ((i * w.rows + j) * channels + c) * panel,
                                   [](double x) { return float(x); });
          }
        }
      }
      to += panel * channels * h.rows * w.rows;
    }
}

// [M] -> [group][panel][lane]
void pack_bias(const Tensor &bias, const Panels &panels, float *to) {
  const int64_t rows = bias.shape()[0] / panels.groups, padded = panels.padded(rows);
  std::fill_n(to, panels.groups * padded, 0.f);
  for (int64_t g = 0; g < panels.groups; ++g)
    std::copy_n(bias.f32().data() + g * rows, rows, to + g * padded);
}

Result<void> make_weight(const Weight &weight, std::byte *place, const Budget &budget) {
  LATHE_TRY(const Tensor tensor, materialise(weight.constant, budget));
  // What stands behind the last element has one value, so that equal plans make equal bytes.
  if (const int64_t end = whole_lines(weight.bytes); end > 0) std::memset(place + end - 64, 0, 64);
  float *to = reinterpret_cast<float *>(place);
  if (weight.packing == Weight::Packing::as_is)
    std::memcpy(place, tensor.raw(), tensor.bytes());
  else if (weight.packing == Weight::Packing::conv_bias)
    pack_bias(tensor, weight.panels, to);
  else if (weight.winograd && !weight.winograd->from_taps)
    pack_winograd(tensor, weight.panels, *weight.winograd, to);
  else
    pack_panels(tensor, weight.panels, weight.winograd.has_value(), to);
  return {};
}

} // namespace

bool lies_in_place(const Weight &weight) {
  return weight.packing == Weight::Packing::as_is && weight.constant->data.defined();
}

size_t made_bytes(const Plan &plan) {
  int64_t bytes = 0;
  for (const Weight &weight : plan.weights)
    if (!lies_in_place(weight)) bytes += whole_lines(weight.bytes);
  return size_t(bytes);
}

PackedWeights::PackedWeights(const Plan &plan, Memory made)
    : block_(std::move(made)), made_bytes_(core::made_bytes(plan)) {
  const std::byte *place = block_.get();
  for (const Weight &weight : plan.weights) {
    if (lies_in_place(weight)) {
      in_place_.push_back({addresses_.size(), weight.constant->data});
      addresses_.push_back(weight.constant->data.raw());
    } else {
      addresses_.push_back(std::exchange(place, place + whole_lines(weight.bytes)));
    }
  }
}

PackedWeights PackedWeights::restore(const Plan &plan, Memory made) {
  return PackedWeights(plan, std::move(made));
}

Result<void> PackedWeights::copy_files(int threads) {
  struct Copy {
    std::span<const std::byte> from;
    std::byte *to;
  };
  constexpr size_t piece = 4 << 20; // so that threads share a large weight
  auto of_file = [](const InPlace &w) { return is_mapped({w.data.raw(), w.data.bytes()}); };
  int64_t bytes = 0;
  for (const InPlace &w : in_place_)
    if (of_file(w)) bytes += whole_lines(int64_t(w.data.bytes()));
  copies_ = allocate(size_t(bytes));
  if (!copies_)
    return fail(ErrorCode::limit, fmt::format("no memory for {} bytes of weights", bytes));
  std::vector<Copy> copies;
  std::byte *place = copies_.get();
  for (const InPlace &w : in_place_) {
    if (!of_file(w)) continue;
    const std::span<const std::byte> all(w.data.raw(), w.data.bytes());
    for (size_t at = 0; at < all.size(); at += piece)
      copies.push_back({all.subspan(at, std::min(piece, all.size() - at)), place + at});
    addresses_[w.weight] = std::exchange(place, place + whole_lines(int64_t(all.size())));
  }
  std::vector<Result<void>> done(copies.size());
  parallel_each(copies.size(), threads,
                [&](size_t i, int) { done[i] = copy_bytes(copies[i].from, copies[i].to); });
  for (const Result<void> &each : done) LATHE_CHECK(each);
  std::erase_if(in_place_, of_file);
  return {};
}

// All of it in one block, so that small weights share huge pages too.
Result<PackedWeights> PackedWeights::pack(const Plan &plan, int threads, const Budget &budget) {
  const size_t bytes = core::made_bytes(plan);
  LATHE_TRY(Grant grant, budget.take(int64_t(bytes), "packing weights"));
  PackedWeights packed(plan, allocate(bytes));
  if (!packed.block_)
    return fail(ErrorCode::limit, fmt::format("no memory for {} bytes of weights", bytes));
  packed.grant_ = std::move(grant);
  // Threads of our own: those of a pool treat subnormal numbers as zero.
  std::vector<Result<void>> made(plan.weights.size());
  parallel_each(made.size(), threads > 0 ? threads : usable_cpus(), [&](size_t i, int) {
    if (lies_in_place(plan.weights[i])) return;
    try {
      made[i] = make_weight(plan.weights[i], const_cast<std::byte *>(packed.addresses_[i]), budget);
      if (!made[i] && made[i].error().node.empty()) made[i].error().node = plan.weights[i].name;
    } catch (const std::bad_alloc &) {
      made[i] = fail(ErrorCode::limit, "no memory to pack the weights");
    }
  });
  for (const Result<void> &each : made) LATHE_CHECK(each);
  return packed;
}

Result<LibraryWeights> pack_for_library(std::span<const Plan> plans, const Budget &budget) {
  LibraryWeights all;
  std::string printed;
  // Keyed by their bytes, which stay where they are until all is copied.
  std::vector<PackedWeights> kept;
  std::unordered_map<std::string_view, int64_t> known;
  std::vector<std::string_view> order;
  auto end = int64_t(sizeof(WeightsHeader));
  for (const Plan &plan : plans) {
    printed += print(plan);
    LATHE_TRY(PackedWeights packed, PackedWeights::pack(plan, 0, budget));
    LATHE_CHECK(packed.copy_files(usable_cpus()));
    std::vector<int64_t> &places = all.places.emplace_back();
    for (size_t i = 0; i < plan.weights.size(); ++i) {
      const std::string_view bytes(reinterpret_cast<const char *>(packed.address(int(i))),
                                   size_t(plan.weights[i].bytes));
      const auto [place, added] = known.try_emplace(bytes, end);
      places.push_back(place->second);
      if (!added) continue;
      order.push_back(bytes);
      end = whole_lines(end + int64_t(bytes.size()));
    }
    kept.push_back(std::move(packed));
  }
  LATHE_TRY(const Grant grant, budget.take(end, "packing weights"));
  all.bytes.resize(size_t(end));
  for (std::string_view bytes : order)
    std::memcpy(all.bytes.data() + known.at(bytes), bytes.data(), bytes.size());
  printed.resize(size_t(whole_lines(int64_t(printed.size()))));
  all.header.bytes = uint64_t(end);
  all.header.plans = weights_identifier(0, std::as_bytes(std::span(printed)));
  all.header.identifier =
      weights_identifier(all.header.plans, std::span(all.bytes).subspan(sizeof(WeightsHeader)));
  std::memcpy(all.bytes.data(), &all.header, sizeof all.header);
  return all;
}

} // namespace lathe::core
