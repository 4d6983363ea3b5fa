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
      tensor = pack_panels(tensor, weight.groups, weight.panel);
    if (weight.packing == Weight::Packing::conv_bias)
      tensor = pack_bias(tensor, weight.groups, weight.panel);
    if (!in_place) packed.copied_bytes_ += int64_t(tensor.bytes());
    packed.addresses_.push_back(tensor.raw());
    packed.tensors_.push_back(std::move(tensor));
  }
  return packed;
}

} // namespace lathe
