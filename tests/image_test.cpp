// Pictures: decoding, damage, and preprocessing beside Pillow's results.
#include "data/contact_sheet.h"
#include "data/idx.h"
#include "data/image.h"
#include "data/preprocess.h"
#include "tests/scratch.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <zlib.h>

using namespace lathe::core;

namespace {

std::string data(const std::string &name) {
  return std::string(LATHE_SOURCE_DIR "/tests/data/") + name;
}
Image picture(const std::string &name) {
  auto image = read_image(data(name));
  REQUIRE_MESSAGE(image, to_string(image.error()));
  REQUIRE(image->rgb.size() == size_t(image->width) * size_t(image->height) * 3);
  return *image;
}
Result<Image> decode(const std::string &bytes) {
  return decode_image(as_bytes(bytes), "a picture");
}

double mean_difference(const Image &a, const Image &b) {
  REQUIRE(a.rgb.size() == b.rgb.size());
  double sum = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(a.rgb[i] - b.rgb[i]);
  return sum / double(a.rgb.size());
}
Image grey(Image image) {
  for (size_t i = 0; i < image.rgb.size(); i += 3) {
    const auto *p = &image.rgb[i];
    const auto luma = static_cast<uint8_t>(std::lround(p[0] * .299 + p[1] * .587 + p[2] * .114));
    image.rgb[i] = image.rgb[i + 1] = image.rgb[i + 2] = luma;
  }
  return image;
}

// FNV-1a, to compare with what Pillow 11.3 made (tobytes() of its result).
uint64_t fingerprint(const Image &image) {
  uint64_t hash = 14695981039346656037u;
  for (uint8_t byte : image.rgb) hash = (hash ^ byte) * 1099511628211u;
  return hash;
}
Image pattern(int width, int height) {
  Image image{width, height, {}};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c)
        image.rgb.push_back(static_cast<uint8_t>(x * x * 7 + y * 13 + c * 50 + x * y));
  return image;
}

} // namespace

TEST_CASE("every kind of file becomes 8-bit RGB") {
  const Image crop = picture("crop.png");
  CHECK(crop.width == 40);
  CHECK(crop.height == 24);
  CHECK(mean_difference(picture("crop_alpha.png"), crop) == 0); // alpha is dropped
  CHECK(mean_difference(picture("crop_palette.png"), crop) < 12);
  CHECK(mean_difference(picture("crop_grey16.png"), grey(crop)) < 1);
  CHECK(mean_difference(picture("crop.jpg"), crop) < 6);
  CHECK(mean_difference(picture("crop_progressive.jpg"), picture("crop.jpg")) == 0);
  CHECK(mean_difference(picture("crop_grey.jpg"), grey(crop)) < 4);
  auto cmyk = read_image(data("crop_cmyk.jpg"));
  REQUIRE(!cmyk);
  CHECK(cmyk.error().code == ErrorCode::unsupported);
  CHECK(cmyk.error().file == data("crop_cmyk.jpg"));
}

TEST_CASE("PPM and PGM, of one or two bytes, with comments") {
  const Image colour = *decode("P6 # made by hand\n2 1\n# and again\n255\nabcdef");
  CHECK(colour.width == 2);
  CHECK(colour.rgb == std::vector<uint8_t>{'a', 'b', 'c', 'd', 'e', 'f'});
  CHECK(decode(std::string("P5 1 2 15 \x0f\x03", 12))->rgb ==
        std::vector<uint8_t>{255, 255, 255, 51, 51, 51});
  CHECK(decode(std::string("P5 1 1 65535 \x80\x00", 15))->rgb == std::vector<uint8_t>(3, 128));
}

TEST_CASE("a picture is written and read back") {
  Scratch scratch;
  const Image image = pattern(37, 23);
  REQUIRE(write_png(scratch.path("p.png"), image));
  CHECK(mean_difference(*read_image(scratch.path("p.png")), image) == 0);
  CHECK(write_png(scratch.path("no/such/folder.png"), image).error().code == ErrorCode::io);
  // As small as a file of so many pixels can be.
  const Image blank{3000, 2000, std::vector<uint8_t>(3000 * 2000 * 3)};
  REQUIRE(write_png(scratch.path("blank.png"), blank));
  CHECK(read_image(scratch.path("blank.png"))->rgb == blank.rgb);
}

TEST_CASE("truncated pictures are errors, never half a picture") {
  for (const char *name : {"crop.png", "crop_palette.png", "crop.jpg", "crop_progressive.jpg"}) {
    const std::string whole = contents(data(name));
    // The last bytes of a JPEG's end marker and of a PNG's last checksum may be missing.
    for (size_t length = 0; length + 16 < whole.size(); length += 1 + length / 16) {
      auto image = decode(whole.substr(0, length));
      REQUIRE_MESSAGE(!image, fmt::format("{} cut to {} bytes", name, length));
      CHECK((image.error().code == ErrorCode::invalid ||
             image.error().code == ErrorCode::unsupported));
      CHECK(image.error().file == "a picture");
    }
  }
  CHECK(decode("P6 2 1 255\nabcde").error().code == ErrorCode::invalid);
}

TEST_CASE("hostile sizes and foreign files are refused before memory is asked for") {
  auto code = [](const std::string &bytes) {
    auto image = decode(bytes);
    REQUIRE(!image);
    return image.error().code;
  };
  std::string jpeg = contents(data("crop.jpg")); // says that it has 9000 x 9000 pixels
  const size_t frame = jpeg.find("\xff\xc0");
  REQUIRE(frame != std::string::npos);
  jpeg.replace(frame + 5, 4, "\x23\x28\x23\x28");
  CHECK(decode(jpeg).error().message == "the JPEG file is truncated");
  CHECK(code("P6 65535 65535 255\n") == ErrorCode::limit);
  CHECK(code("P6 9999999999 9999999999 255\n") == ErrorCode::limit);
  CHECK(code("P6 0 5 255\n") == ErrorCode::invalid);
  CHECK(code("P6 -1 5 255\n") == ErrorCode::invalid);
  CHECK(code("P6 1 1 0\nabc") == ErrorCode::invalid);
  CHECK(code("P6 1 1 65536\nabcabc") == ErrorCode::invalid);
  CHECK(code("P6") == ErrorCode::invalid);
  CHECK(code("P5 1") == ErrorCode::invalid);
  CHECK(code("P3 1 1 255\n1 2 3") == ErrorCode::unsupported);
  CHECK(code("GIF89a") == ErrorCode::unsupported);
  CHECK(code("") == ErrorCode::unsupported);

  std::string png = contents(data("crop.png")); // with a width and height of 65,535
  png.replace(16, 8, std::string("\0\0\xff\xff\0\0\xff\xff", 8));
  const auto check = crc32(0, reinterpret_cast<const Bytef *>(png.data() + 12), 17);
  for (size_t i = 0; i < 4; ++i) png[29 + i] = static_cast<char>(check >> (24 - 8 * i));
  CHECK(code(png) == ErrorCode::limit);

  jpeg.replace(frame + 5, 4, "\xfd\xe8\xfd\xe8"); // of 65,000 x 65,000 pixels
  CHECK(code(jpeg) == ErrorCode::limit);

  CHECK(read_image("/no/such/picture.png").error().code == ErrorCode::io);
  CHECK(read_image("/dev/zero").error().code == ErrorCode::io);
}

TEST_CASE("no damage to a picture does harm") {
  for (const char *name : {"crop.png", "crop_palette.png", "crop_grey16.png", "crop.jpg",
                           "crop_progressive.jpg", "crop_cmyk.jpg"})
    for_each_damage(contents(data(name)), 1000,
                    [](const std::string &damaged) { (void)decode(damaged); });
  for_each_damage("P6 3 2 255\nabcdefghijklmnopqr", 10'000,
                  [](const std::string &damaged) { (void)decode(damaged); });
}

TEST_CASE("resizing gives Pillow's bytes") {
  const std::tuple<int, int, uint64_t> expected[] = {
      {11, 7, 0x343096ab87e1a6e8}, {61, 40, 0x969b528ef864e4aa}, {37, 7, 0xa6b585720e9c9cd9},
      {8, 23, 0xb0bda53122bc581b}, {1, 1, 0x2d34f81adf5977a0},   {300, 2, 0xf9707b7d17fd1d82},
  };
  const Image image = pattern(37, 23);
  for (const auto &[width, height, hash] : expected) {
    CAPTURE(width);
    CHECK(fingerprint(resize(image, width, height, {0, 0, width, height})) == hash);
  }
  // A window is a cut from the whole.
  const Image whole = resize(image, 61, 40, {0, 0, 61, 40}),
              part = resize(image, 61, 40, {20, 11, 5, 3});
  for (size_t y = 0; y < 3; ++y)
    for (size_t i = 0; i < 15; ++i)
      CHECK(part.rgb[y * 15 + i] == whole.rgb[((y + 11) * 61 + 20) * 3 + i]);
}

TEST_CASE("preset torchvision: resize, centre crop, normalise") {
  struct Expected {
    int64_t size;
    float first, middle, last, mean;
  };
  const Image image = picture("chelsea.png");
  for (const Expected &e : {Expected{224, 0.79330426f, -0.37254897f, 0.77507645f, -0.10483608f},
                            Expected{299, 0.72480524f, -0.565126f, 0.7925056f, -0.10452683f},
                            Expected{64, 0.86180323f, -0.687675f, 0.70535964f, -0.10670507f}}) {
    const Tensor x = *preprocess(image, Preset::torchvision, 3, e.size, e.size);
    CHECK(x.shape() == Shape{1, 3, e.size, e.size});
    auto at = [&](int64_t c, int64_t row, int64_t column) {
      return x.f32()[size_t((c * e.size + row) * e.size + column)];
    };
    CHECK(at(0, 0, 0) == doctest::Approx(e.first).epsilon(1e-6));
    CHECK(at(1, e.size / 2, e.size / 3) == doctest::Approx(e.middle).epsilon(1e-6));
    CHECK(at(2, e.size - 1, e.size - 1) == doctest::Approx(e.last).epsilon(1e-6));
    double sum = 0;
    for (float v : x.f32()) sum += double(v);
    CHECK(sum / double(x.size()) == doctest::Approx(e.mean).epsilon(1e-5));
  }
}

TEST_CASE("preset torchvision-v2, and pictures that have the input's size, as torchvision does") {
  struct Expected {
    Preset preset;
    Image image;
    float first, middle, last, mean;
  };
  // torchvision 0.14 with Pillow 9.4: Resize, CenterCrop, ToTensor, Normalize.
  const Preset v1 = Preset::torchvision, v2 = Preset::torchvision_v2;
  for (const Expected &e :
       {Expected{v2, picture("chelsea.png"), 0.39943492f, -0.39005598f, 0.79250562f, -0.05967860f},
        Expected{v1, pattern(224, 224), 1.30704677f, -1.12535f, -1.35128546f, 0.22607972f},
        Expected{v2, pattern(224, 224), 0.77617949f, -0.35504198f, -0.67154676f, 0.22594490f},
        Expected{v1, pattern(301, 233), -0.47392759f, -0.21498597f, 0.82736403f, 0.22641069f},
        // 233 and 235 pixels wide: 4.5 and 5.5 are left of the crop, which rounds to even.
        Expected{v2, pattern(226, 225), 0.81042898f, -0.26750696f, -0.39267966f, 0.22583178f},
        Expected{v2, pattern(227, 224), -0.26843056f, 0.64285725f, -0.8981263f, 0.22571846f}}) {
    const Tensor x = *preprocess(e.image, e.preset, 3, 224, 224);
    auto at = [&](int64_t c, int64_t row, int64_t column) {
      return x.f32()[size_t((c * 224 + row) * 224 + column)];
    };
    CAPTURE(e.image.width);
    CHECK(at(0, 0, 0) == doctest::Approx(e.first).epsilon(1e-5));
    CHECK(at(1, 112, 74) == doctest::Approx(e.middle).epsilon(1e-5));
    CHECK(at(2, 223, 223) == doctest::Approx(e.last).epsilon(1e-5));
    double sum = 0;
    for (float v : x.f32()) sum += double(v);
    CHECK(sum / double(x.size()) == doctest::Approx(e.mean).epsilon(1e-4));
  }
}

TEST_CASE("preset caffe-bgr: to 256x256, the middle, BGR minus the mean") {
  struct Expected {
    Image image;
    int64_t size;
    int first[3], inner[3]; // BGR at (0, 0) and (50, 100) of Pillow's picture
  };
  for (const Expected &e : {Expected{picture("chelsea.png"), 227, {119, 132, 154}, {45, 83, 133}},
                            Expected{picture("chelsea.png"), 224, {121, 132, 154}, {40, 74, 123}},
                            Expected{pattern(227, 227), 227, {112, 62, 104}, {176, 131, 157}}}) {
    CAPTURE(e.size);
    const Tensor x = *preprocess(e.image, Preset::caffe_bgr, 3, e.size, e.size);
    const float mean[] = {104, 117, 123};
    for (size_t c = 0; c < 3; ++c) {
      const size_t plane = c * size_t(e.size * e.size);
      CHECK(x.f32()[plane] == float(e.first[c]) - mean[c]);
      CHECK(x.f32()[plane + 100 * size_t(e.size) + 50] == float(e.inner[c]) - mean[c]);
    }
  }
  CHECK(preprocess(pattern(100, 50), Preset::caffe_bgr, 3, 32, 300)->shape() ==
        Shape{1, 3, 32, 300});
}

TEST_CASE("preset fashion-mnist: grey, a black edge") {
  Image image{28, 28, std::vector<uint8_t>(28 * 28 * 3, 255)};
  const Tensor x = *preprocess(image, Preset::fashion_mnist, 1, 32, 32);
  CHECK(x.shape() == Shape{1, 1, 32, 32});
  const float black = -0.2860f / 0.3530f, white = (1 - 0.2860f) / 0.3530f;
  CHECK(x.f32()[0] == doctest::Approx(black));
  CHECK(x.f32()[1 * 32 + 16] == doctest::Approx(black));
  CHECK(x.f32()[2 * 32 + 1] == doctest::Approx(black));
  CHECK(x.f32()[2 * 32 + 2] == doctest::Approx(white));
  CHECK(x.f32()[29 * 32 + 29] == doctest::Approx(white));
  CHECK(x.f32()[30 * 32 + 29] == doctest::Approx(black));
  // A picture of the input's size gets its edge, too.
  const Image large{32, 32, std::vector<uint8_t>(32 * 32 * 3, 255)};
  const Tensor y = *preprocess(large, Preset::fashion_mnist, 1, 32, 32);
  CHECK(std::ranges::equal(x.f32(), y.f32()));
}

TEST_CASE("preset raw takes pictures of the input's size as they are") {
  const Image image = pattern(9, 5);
  const Tensor raw = *preprocess(image, Preset::raw, 3, 5, 9);
  CHECK(raw.f32()[3] == image.rgb[3 * 3]);
  CHECK(raw.f32()[45 + 3] == image.rgb[3 * 3 + 1]);
  CHECK((*preprocess({1, 1, {125, 64, 35}}, Preset::raw, 1, 1, 1)).f32()[0] == 79);
}

TEST_CASE("presets say what they cannot do, and take odd pictures") {
  const Image image = pattern(9, 5);
  for (Preset preset : presets) CHECK(find_preset(to_string(preset)) == preset);
  CHECK(preset_names() == "torchvision, torchvision-v2, caffe-bgr, fashion-mnist, raw");
  CHECK(!find_preset("torch"));
  CHECK(preprocess(image, Preset::raw, 3, 9, 5).error().code == ErrorCode::invalid);
  CHECK(preprocess(image, Preset::raw, 2, 5, 9).error().code == ErrorCode::invalid);
  CHECK(preprocess(image, Preset::torchvision, 1, 5, 9).error().code == ErrorCode::invalid);
  CHECK(preprocess(image, Preset::fashion_mnist, 3, 32, 32).error().code == ErrorCode::invalid);
  CHECK(preprocess(image, Preset::torchvision, 3, 0, 9).error().code == ErrorCode::invalid);
  CHECK(preprocess(image, Preset::caffe_bgr, 3, 1 << 20, 9).error().code == ErrorCode::invalid);
  // Far from square: only what is cropped out is computed.
  for (const Image &line : {pattern(65'535, 1), pattern(1, 65'535)})
    for (Preset preset : {Preset::torchvision, Preset::torchvision_v2, Preset::caffe_bgr})
      CHECK(preprocess(line, preset, 3, 224, 224)->size() == 3 * 224 * 224);
}

TEST_CASE("idx files, plain and gzipped") {
  Scratch scratch;
  auto zipped = [&](const std::string &bytes) {
    const std::string path = scratch.path("x.gz");
    gzFile file = gzopen(path.c_str(), "wb");
    gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(file);
    return contents(path);
  };
  auto read = [&](const std::string &bytes) { return read_idx(scratch.write("x", bytes)); };
  const std::string labels("\0\0\x08\x01\0\0\0\x03\7\x08\x09", 11);
  for (const std::string &bytes : {labels, zipped(labels)}) {
    auto array = read(bytes);
    REQUIRE_MESSAGE(array, to_string(array.error()));
    CHECK(array->shape == Shape{3});
    CHECK(array->values == std::vector<uint8_t>{7, 8, 9});
    for (size_t length = 0; length + 8 < bytes.size(); ++length)
      CHECK(read(bytes.substr(0, length)).error().code == ErrorCode::invalid);
    for_each_damage(bytes, 300, [&](const std::string &damaged) { (void)read(damaged); });
  }
  CHECK(read(labels + "x").error().code == ErrorCode::invalid);
  CHECK(read(zipped(labels + "x")).error().code == ErrorCode::invalid);
  CHECK(read(std::string("\0\0\x08\x03\0\0\xff\xff\0\0\x0f\xff\0\0\0\4", 16)).error().code ==
        ErrorCode::invalid); // 1 GB are announced
  CHECK(read(std::string("\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16))
            .error()
            .code == ErrorCode::limit);
  CHECK(read_idx(scratch.path("none")).error().code == ErrorCode::io);
}

TEST_CASE("a contact sheet frames its pictures and writes below them") {
  const std::vector<SheetPicture> pictures(5, {pattern(28, 28), "ankle boot 99%", true});
  Image sheet = contact_sheet(pictures, 3);
  const auto count = [&](uint8_t red, uint8_t green, uint8_t blue) {
    int64_t found = 0;
    for (size_t i = 0; i < sheet.rgb.size(); i += 3)
      found += sheet.rgb[i] == red && sheet.rgb[i + 1] == green && sheet.rgb[i + 2] == blue;
    return found;
  };
  CHECK(sheet.rgb.size() == size_t(sheet.width) * size_t(sheet.height) * 3);
  CHECK(sheet.width > 3 * 84);
  CHECK(sheet.height > 2 * 84);
  CHECK(count(38, 166, 91) >= 5 * 4 * 3 * 84); // frames three dots wide
  CHECK(count(214, 48, 49) == 0);
  CHECK(count(32, 32, 32) > 5 * 12 * 8); // some dots for each letter
  sheet = contact_sheet({}, 0);
  CHECK(sheet.width > 0);
  sheet = contact_sheet(
      {{SheetPicture{pattern(300, 200), "\xff\x01 a label much too long", false}}}, 7);
  CHECK(count(214, 48, 49) > 0);
}
