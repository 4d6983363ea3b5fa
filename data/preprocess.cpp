#include "data/preprocess.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace lathe::core {
namespace {

// Which input pixels make an output pixel, and their weights in fixed point.
struct Taps {
  int64_t first = 0;
  std::vector<int32_t> weights;
};
constexpr int fraction_bits = 22; // Pillow's precision for 8-bit samples: its rounding is matched

std::vector<Taps> triangle_taps(int64_t input, int64_t full, int64_t begin, int64_t count) {
  const double scale = static_cast<double>(input) / static_cast<double>(full);
  const double support = std::max(scale, 1.0); // half the triangle's width, in input pixels
  std::vector<Taps> result;
  for (int64_t i = begin; i < begin + count; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
    const auto last = std::min(input, static_cast<int64_t>(centre + support + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (int64_t p = first; p < last; ++p) {
      double distance = std::abs((static_cast<double>(p) - centre + 0.5) * (1 / support));
      weights.push_back(std::max(0.0, 1 - distance));
      sum += weights.back();
    }
    Taps taps{first, {}};
    for (double w : weights)
      taps.weights.push_back(
          static_cast<int32_t>(std::floor(w * (1 / sum) * (1 << fraction_bits) + 0.5)));
    result.push_back(std::move(taps));
  }
  return result;
}

constexpr int32_t half = 1 << (fraction_bits - 1);
uint8_t to_sample(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> fraction_bits, 0, 255));
}

} // namespace

Image resize(const Image &image, int64_t full_width, int64_t full_height, const Window &part) {
  const auto columns = triangle_taps(image.width, full_width, part.x, part.width);
  const auto rows = triangle_taps(image.height, full_height, part.y, part.height);
  Image result{static_cast<int>(part.width), static_cast<int>(part.height), {}};
  result.rgb.reserve(static_cast<size_t>(part.width * part.height * 3));
  // An input row is resized and rounded before it counts in a column, and again for the next
  // output row that reads it: memory stays small for the oddest pictures.
  std::vector<int32_t> sums;
  for (const Taps &row : rows) {
    sums.assign(static_cast<size_t>(part.width * 3), half);
    for (size_t t = 0; t < row.weights.size(); ++t) {
      const uint8_t *from =
          image.rgb.data() + (row.first + static_cast<int64_t>(t)) * image.width * 3;
      int32_t *to = sums.data();
      for (const Taps &column : columns) {
        const uint8_t *pixel = from + column.first * 3;
        int32_t red = half, green = half, blue = half;
        for (int32_t weight : column.weights) {
          red += weight * pixel[0];
          green += weight * pixel[1];
          blue += weight * pixel[2];
          pixel += 3;
        }
        *to++ += row.weights[t] * to_sample(red);
        *to++ += row.weights[t] * to_sample(green);
        *to++ += row.weights[t] * to_sample(blue);
      }
    }
    for (int32_t sum : sums) result.rgb.push_back(to_sample(sum));
  }
  return result;
}

namespace {

Image resize_whole(const Image &image, int64_t width, int64_t height) {
  if (image.width == width && image.height == height) return image;
  return resize(image, width, height, {0, 0, width, height});
}

int64_t scaled(int64_t extent, int64_t of_224) {
  return static_cast<int64_t>(std::lround(static_cast<double>(extent * of_224) / 224));
}

// Resizes until the picture just covers `side`/224 of the wanted size, and takes the middle.
Image cover_and_crop(const Image &image, int64_t side, int64_t width, int64_t height) {
  int64_t full_width = scaled(width, side), full_height = scaled(height, side);
  if (image.width * full_height >= image.height * full_width)
    full_width = full_height * image.width / image.height;
  else
    full_height = full_width * image.height / image.width;
  auto middle = [](int64_t full, int64_t wanted) { // rounds halves to even, as Python does
    return static_cast<int64_t>(std::nearbyint(static_cast<double>(full - wanted) / 2));
  };
  return resize(image, full_width, full_height,
                {middle(full_width, width), middle(full_height, height), width, height});
}

// Caffe's convert_imageset makes all pictures 256x256, and its data layer takes the middle: 224x224
// or 227x227 pixels, as the network has it. Other inputs in the proportion of 256 to 224.
Image warp_and_crop(const Image &image, int64_t width, int64_t height) {
  auto full = [](int64_t extent) {
    return extent >= 224 && extent <= 256 ? 256 : scaled(extent, 256);
  };
  const int64_t full_width = full(width), full_height = full(height);
  return resize(image, full_width, full_height,
                {(full_width - width) / 2, (full_height - height) / 2, width, height});
}

// A black edge around 28 of every 32 pixels.
Image with_edge(const Image &image, int64_t width, int64_t height) {
  const int64_t inner_width = std::max<int64_t>(1, width * 28 / 32),
                inner_height = std::max<int64_t>(1, height * 28 / 32),
                left = (width - inner_width) / 2, top = (height - inner_height) / 2;
  const Image inner = resize_whole(image, inner_width, inner_height);
  Image result{static_cast<int>(width), static_cast<int>(height),
               std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  for (int64_t y = 0; y < inner_height; ++y)
    std::copy_n(inner.rgb.begin() + y * inner_width * 3, inner_width * 3,
                result.rgb.begin() + ((y + top) * width + left) * 3);
  return result;
}

Image fit(const Image &image, Preset preset, int64_t width, int64_t height) {
  switch (preset) {
  case Preset::torchvision:
    return cover_and_crop(image, 256, width, height);
  case Preset::torchvision_v2:
    return cover_and_crop(image, 232, width, height);
  case Preset::caffe_bgr:
    return warp_and_crop(image, width, height);
  case Preset::fashion_mnist:
    return with_edge(image, width, height);
  case Preset::raw:
    break;
  }
  return image;
}

// y = (x * factor - mean) / deviation for each channel of the input, x in 0..255.
struct Scaling {
  float factor = 1, mean[3] = {0, 0, 0}, deviation[3] = {1, 1, 1};
  bool bgr = false;
};
Scaling scaling_of(Preset preset) {
  switch (preset) {
  case Preset::torchvision:
  case Preset::torchvision_v2: // https://pytorch.org/vision/stable/models.html
    return {1 / 255.f, {0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};
  case Preset::caffe_bgr:
    return {1, {104, 117, 123}, {1, 1, 1}, true};
  case Preset::fashion_mnist: // models/train_lenet5.py
    return {1 / 255.f, {0.2860f}, {0.3530f, 1, 1}};
  case Preset::raw:
    return {};
  }
  return {};
}

// ITU-R 601 luma in the fixed point that Pillow's convert("L") uses.
uint8_t grey(const uint8_t *rgb) {
  return static_cast<uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

} // namespace

std::string_view to_string(Preset preset) {
  switch (preset) {
  case Preset::torchvision:
    return "torchvision";
  case Preset::torchvision_v2:
    return "torchvision-v2";
  case Preset::caffe_bgr:
    return "caffe-bgr";
  case Preset::fashion_mnist:
    return "fashion-mnist";
  case Preset::raw:
    return "raw";
  }
  return "?";
}

std::optional<Preset> find_preset(std::string_view name) {
  for (Preset preset : presets)
    if (to_string(preset) == name) return preset;
  return {};
}

std::string preset_names() {
  std::string names;
  for (Preset preset : presets)
    names += fmt::format("{}{}", names.empty() ? "" : ", ", to_string(preset));
  return names;
}

Result<Tensor> preprocess(const Image &image, Preset preset, int64_t channels, int64_t height,
                          int64_t width) {
  const bool colour = preset == Preset::raw ? channels == 3 : preset != Preset::fashion_mnist;
  if (channels != (colour ? 3 : 1))
    return fail(
        Error{.code = ErrorCode::invalid,
              .message = fmt::format("preset '{}' does not make such an input", to_string(preset)),
              .expected = colour ? "an input of 3 channels" : "an input of 1 channel",
              .found = fmt::format("{}", channels)});
  constexpr int64_t most_extent = 16'384; // of an input that pictures are resized to
  if (height < 1 || width < 1 || height > most_extent || width > most_extent)
    return fail(Error{.code = ErrorCode::invalid,
                      .message = "the network's input has no size for pictures",
                      .found = fmt::format("{}x{}", height, width)});
  if (preset == Preset::raw && (image.width != width || image.height != height))
    return fail(Error{.code = ErrorCode::invalid,
                      .message = "preset 'raw' does not resize pictures",
                      .expected = fmt::format("{}x{} pixels", width, height),
                      .found = fmt::format("{}x{}", image.width, image.height)});

  const Image fitted = fit(image, preset, width, height);
  const Scaling scaling = scaling_of(preset);
  Tensor result(DType::f32, {1, channels, height, width});
  float *to = result.f32_mutable().data();
  const int64_t pixels = height * width;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t p = 0; p < pixels; ++p) {
      const uint8_t *rgb = fitted.rgb.data() + p * 3;
      const uint8_t value = colour ? rgb[scaling.bgr ? 2 - c : c] : grey(rgb);
      *to++ = (static_cast<float>(value) * scaling.factor - scaling.mean[c]) / scaling.deviation[c];
    }
  return result;
}

} // namespace lathe::core
