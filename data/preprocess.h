// From a picture to a network's input: the recipes that checkpoints were trained with.
#pragma once

#include "data/image.h"
#include "ir/tensor.h"

#include <optional>
#include <string>
#include <string_view>

namespace lathe::core {

// Sizes are those of an input of 224x224 pixels, and grow and shrink with it.
enum class Preset : uint8_t {
  torchvision,    // the shorter side to 256, centre crop, RGB in 0..1, ImageNet's mean and standard
                  // deviation: torchvision's IMAGENET1K_V1 weights
  torchvision_v2, // the same with 232: IMAGENET1K_V2 of ResNets, what "DEFAULT" means for them
  caffe_bgr,      // to 256x256, whatever the shape, centre crop; BGR in 0..255 minus 104, 117, 123
  fashion_mnist,  // grey; a black edge (28 to 32 pixels), our LeNet-5's mean and standard deviation
  raw,            // RGB or grey in 0..255; the picture must have the input's size
};
std::string_view to_string(Preset preset); // "caffe-bgr"
std::optional<Preset> find_preset(std::string_view name);
inline constexpr Preset presets[] = {Preset::torchvision, Preset::torchvision_v2, Preset::caffe_bgr,
                                     Preset::fashion_mnist, Preset::raw};
std::string preset_names(); // all, with commas

// 1,channels,height,width in f32. A picture that has the input's size goes through the same steps
// as any other. Errors: invalid for channels that the preset does not make, or a picture that `raw`
// cannot take.
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
