// PNG through libspng, PPM and PGM by hand. JPEG has a file of its own, since it must jump.
#include "data/image.h"
#include "data/image_jpeg.h"
#include "ir/system/mapped_file.h"
#include "ir/system/output_file.h"

#include <fmt/format.h>
#include <memory>
#include <optional>
#include <spng.h>

namespace lathe::core {

constexpr int64_t most_pixels = 100'000'000, most_extent = 65'535;

Result<void> check_picture_size(int64_t width, int64_t height) {
  if (width < 1 || height < 1)
    return fail(Error{.code = ErrorCode::invalid,
                      .message = "the picture is empty",
                      .found = fmt::format("{}x{} pixels", width, height)});
  if (width > most_extent || height > most_extent || width * height > most_pixels)
    return fail(Error{.code = ErrorCode::limit,
                      .message = "the picture is too large",
                      .expected = fmt::format("at most {} pixels, {} in a row or column",
                                              most_pixels, most_extent),
                      .found = fmt::format("{}x{}", width, height)});
  return {};
}

Result<Image> blank_image(int64_t width, int64_t height) {
  LATHE_CHECK(check_picture_size(width, height));
  return Image{static_cast<int>(width), static_cast<int>(height),
               std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
}

namespace {

using Spng = std::unique_ptr<spng_ctx, decltype(&spng_ctx_free)>;

Result<Image> decode_png(std::span<const std::byte> bytes) {
  Spng context(spng_ctx_new(0), spng_ctx_free);
  auto refuse = [](int status) {
    return fail(ErrorCode::invalid, fmt::format("bad PNG file: {}", spng_strerror(status)));
  };
  spng_set_png_buffer(context.get(), bytes.data(), bytes.size());
  // Profiles and texts beyond this are somebody's bomb.
  spng_set_chunk_limits(context.get(), size_t{16} << 20, size_t{64} << 20);
  spng_ihdr header;
  if (int status = spng_get_ihdr(context.get(), &header)) return refuse(status);
  LATHE_CHECK(check_picture_size(header.width, header.height));
  // No deflate stream shrinks by more than 1032 to 1: before we allocate for what cannot be there.
  const int channels[] = {1, 0, 3, 1, 2, 0, 4}; // by colour type
  const uint64_t bits = uint64_t(channels[header.color_type]) * header.bit_depth;
  if (uint64_t{header.width} * header.height * bits / 8 > (bytes.size() + 1) * 1032)
    return fail(ErrorCode::invalid, "the PNG file is truncated");
  LATHE_TRY(Image image, blank_image(header.width, header.height));
  if (int status =
          spng_decode_image(context.get(), image.rgb.data(), image.rgb.size(), SPNG_FMT_RGB8, 0))
    return refuse(status);
  return image;
}

// A number of the header, after blanks and comments.
std::optional<int64_t> next_number(std::string_view &text) {
  while (!text.empty() && (std::isspace(static_cast<unsigned char>(text[0])) || text[0] == '#'))
    text.remove_prefix(text[0] == '#' ? std::min(text.find('\n'), text.size()) : 1);
  int64_t number = 0;
  size_t digits = 0;
  while (digits < text.size() && digits < 10 && text[digits] >= '0' && text[digits] <= '9')
    number = number * 10 + (text[digits++] - '0');
  text.remove_prefix(digits);
  if (digits == 0) return {};
  return number;
}

// P6 and P5: binary RGB and grey, of one or two bytes per sample.
Result<Image> decode_ppm(std::span<const std::byte> bytes) {
  std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  const int channels = text[1] == '6' ? 3 : 1;
  text.remove_prefix(2);
  auto width = next_number(text), height = next_number(text), most = next_number(text);
  if (!width || !height || !most || *most < 1 || *most > 65535 || text.empty())
    return fail(ErrorCode::invalid, "bad PPM header");
  text.remove_prefix(1);
  const int64_t sample_bytes = *most > 255 ? 2 : 1;
  LATHE_CHECK(check_picture_size(*width, *height));
  if (*width * *height * channels * sample_bytes > static_cast<int64_t>(text.size()))
    return fail(ErrorCode::invalid, "the PPM file is truncated");
  LATHE_TRY(Image image, blank_image(*width, *height));
  auto sample = [&](size_t i) -> uint8_t {
    auto byte = [&](size_t at) { return int64_t{static_cast<unsigned char>(text[at])}; };
    int64_t value = sample_bytes == 1 ? byte(i) : byte(2 * i) << 8 | byte(2 * i + 1);
    return static_cast<uint8_t>((std::min(value, *most) * 255 + *most / 2) / *most);
  };
  for (size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = sample(channels == 3 ? i : i / 3);
  return image;
}

} // namespace

Result<Image> read_image(const std::string &path) {
  LATHE_TRY(auto file, MappedFile::read(path));
  return decode_image(file->bytes(), path);
}

Result<Image> decode_image(std::span<const std::byte> bytes, const std::string &path) {
  const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  auto decode = [&]() -> Result<Image> {
    if (text.starts_with("\x89PNG")) return decode_png(bytes);
    if (text.starts_with("\xff\xd8")) return decode_jpeg(bytes);
    if (text.starts_with("P5") || text.starts_with("P6")) return decode_ppm(bytes);
    return fail(Error{.code = ErrorCode::unsupported,
                      .message = "no picture that we can read",
                      .expected = "PNG, JPEG, or binary PPM or PGM"});
  };
  Result<Image> image = decode();
  if (!image) image.error().file = path;
  return image;
}

Result<void> write_png(const std::string &path, const Image &image) {
  Spng context(spng_ctx_new(SPNG_CTX_ENCODER), spng_ctx_free);
  spng_set_option(context.get(), SPNG_ENCODE_TO_BUFFER, 1);
  spng_ihdr header{};
  header.width = static_cast<uint32_t>(image.width);
  header.height = static_cast<uint32_t>(image.height);
  header.bit_depth = 8;
  header.color_type = SPNG_COLOR_TYPE_TRUECOLOR;
  spng_set_ihdr(context.get(), &header);
  int status = spng_encode_image(context.get(), image.rgb.data(), image.rgb.size(), SPNG_FMT_PNG,
                                 SPNG_ENCODE_FINALIZE);
  size_t size = 0;
  std::unique_ptr<void, decltype(&std::free)> png(nullptr, std::free);
  if (status == 0) png.reset(spng_get_png_buffer(context.get(), &size, &status));
  if (!png)
    return fail(Error{.code = ErrorCode::internal,
                      .message = fmt::format("cannot encode a PNG: {}", spng_strerror(status)),
                      .file = path});
  return write_file(path, {{static_cast<const std::byte *>(png.get()), size}});
}

} // namespace lathe::core
