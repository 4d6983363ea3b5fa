#include "runtime/weights.h"

#include "ir/evaluate.h"

#include <algorithm>

namespace lathe {
namespace {

// [M][C/groups][kh][kw] -> [group][panel][kh][kw][channel][lane], lanes behind the last channel 0.
Tensor pack_panels(const Tensor &weight, int64_t groups, int64_t panel) {
  const Shape &s = weight.shape();
  const int64_t rows = s[0] / groups, channels = s[1], taps = s[2] * s[3];
  const int64_t panels = (rows + panel - 1) / panel;
  Tensor packed(DType::f32, {groups * panels * panel * channels * taps});
  const float *from = weight.f32().data();
  float *to = packed.f32_mutable().data();
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t live = std::min(panel, rows - p * panel);
      for (int64_t lane = 0; lane < panel; ++lane) {
        const float *row = from + (g * rows + p * panel + lane) * channels * taps;
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t t = 0; t < taps; ++t)
            to[(t * channels + c) * panel + lane] = lane < live ? row[c * taps + t] : 0;
      }
      to += panel * channels * taps;
    }
  return packed;
}

// sum[lane] = sum over k of matrix[i][k] * x[k * step + lane]
void combine(const Matrix &matrix, int64_t i, const double *x, int64_t step, int64_t lanes,
             double *sum) {
  std::fill_n(sum, lanes, 0.0);
  for (int64_t k = 0; k < matrix.cols; ++k) {
    const double factor = matrix.at(i, k), *from = x + k * step;
    for (int64_t lane = 0; lane < lanes; ++lane) sum[lane] += factor * from[lane];
  }
}

// The same to [group][panel][point][channel][lane]: every filter g becomes G g G^T.
Tensor pack_winograd(const Tensor &weight, int64_t groups, int64_t panel,
                     const Winograd &winograd) {
  const Shape &s = weight.shape();
  const int64_t rows = s[0] / groups, channels = s[1], kw = s[3], taps = s[2] * s[3];
  const int64_t panels = (rows + panel - 1) / panel;
  const Matrix &h = winograd_matrices(winograd.outputs.h, winograd.kernel.h).filter;
  const Matrix &w = winograd_matrices(winograd.outputs.w, winograd.kernel.w).filter;
  Tensor packed(DType::f32, {groups * panels * panel * channels * h.rows * w.rows});
  const float *from = weight.f32().data();
  float *to = packed.f32_mutable().data();
  std::vector<double> filters(size_t(taps * panel)), half(size_t(kw * panel)),
      sum(size_t(1 * panel));
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t live = std::min(panel, rows - p * panel);
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t lane = 0; lane < live; ++lane)
          for (int64_t t = 0; t < taps; ++t)
            filters[size_t(t * panel + lane)] =
                double(from[((g * rows + p * panel + lane) * channels + c) * taps + t]);
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
      std::ranges::fill(filters, 0.0);
      to += panel * channels * h.rows * w.rows;
    }
  return packed;
}

// [M] -> [group][panel][lane]
Tensor pack_bias(const Tensor &bias, int64_t groups, int64_t panel) {
  const int64_t rows = bias.shape()[0] / groups, padded = (rows + panel - 1) / panel * panel;
  Tensor packed = Tensor::splat(0, {groups * padded});
  for (int64_t g = 0; g < groups; ++g)
    std::copy_n(bias.f32().data() + g * rows, rows, packed.f32_mutable().data() + g * padded);
  return packed;
}

} // namespace

Result<PackedWeights> PackedWeights::pack(const Plan &plan) {
  PackedWeights packed;
  for (const Weight &weight : plan.weights) {
    LATHE_TRY(Tensor tensor, materialise(weight.constant));
    bool in_place = weight.packing == Weight::Packing::as_is && !weight.constant->op;
    if (weight.packing == Weight::Packing::conv_panels)
      tensor = weight.winograd
                   ? pack_winograd(tensor, weight.groups, weight.panel, *weight.winograd)
                   : pack_panels(tensor, weight.groups, weight.panel);
    if (weight.packing == Weight::Packing::conv_bias)
      tensor = pack_bias(tensor, weight.groups, weight.panel);
    if (!in_place) packed.copied_bytes_ += int64_t(tensor.bytes());
    packed.addresses_.push_back(tensor.raw());
    packed.tensors_.push_back(std::move(tensor));
  }
  return packed;
}

} // namespace lathe
