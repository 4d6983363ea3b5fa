// From a picture to a network's input: the recipes that checkpoints were trained with.
#pragma once

#include "frontend/image.h"
#include "ir/tensor.h"

#include <optional>
#include <string_view>

namespace lathe::core {

enum class Preset : uint8_t {
  torchvision,   // resize and centre crop (256 and 224, in this proportion for other sizes), RGB in
                 // 0..1, ImageNet's mean and standard deviation
  caffe_bgr,     // resize to the input's size, BGR in 0..255 minus 104, 117, 123
  fashion_mnist, // grey; a black edge (28 to 32 pixels), our LeNet-5's mean and standard deviation
  raw,           // RGB or grey in 0..255; the picture must have the input's size
};
std::string_view to_string(Preset preset); // "caffe-bgr"
std::optional<Preset> find_preset(std::string_view name);
inline constexpr Preset presets[] = {Preset::torchvision, Preset::caffe_bgr, Preset::fashion_mnist,
                                     Preset::raw};

// 1,channels,height,width in f32. A picture of just this size is neither resized nor cropped.
// Errors: invalid for channels that the preset does not make, or a picture that `raw` cannot take.
Result<Tensor> preprocess(const Image &image, Preset preset, int64_t channels, int64_t height,
                          int64_t width);

// The part at (x, y) of the picture resized to `full`. Bilinear, wider where it shrinks so that
// every pixel counts; across first, then down. The same bytes as Image.resize(full,
// BILINEAR).crop() of Pillow 11 (13 sometimes goes down first, and rounds differently then).
struct Window {
  int64_t x = 0, y = 0, width = 0, height = 0;
};
Image resize(const Image &image, int64_t full_width, int64_t full_height, const Window &part);

} // namespace lathe::core
