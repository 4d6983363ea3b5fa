// JPEG through libjpeg, which reports errors by a longjmp out of its callback. The jumps cross only
// C frames and lambdas without destructors: `guarded` is the one place that they land.
#include "data/image_jpeg.h"

#include <csetjmp>
#include <cstdio> // jpeglib.h needs FILE
#include <jpeglib.h>

#include <jerror.h>

namespace lathe::core {
namespace {

constexpr int most_scans = 100; // a progressive file of many scans costs time without end

struct Decoder {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf landing;
  char message[JMSG_LENGTH_MAX] = {};

  Decoder() {
    jpeg.err = jpeg_std_error(&errors);
    jpeg.client_data = this;
    errors.error_exit = [](j_common_ptr common) { of(common).give_up(); };
    errors.emit_message = [](j_common_ptr common, int level) {
      const int code = common->err->msg_code;
      // Missing data would be made up: that is no picture. Other warnings are.
      if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER)) of(common).give_up();
    };
    progress.progress_monitor = [](j_common_ptr common) {
      Decoder &decoder = of(common);
      if (decoder.jpeg.input_scan_number <= most_scans) return;
      std::snprintf(decoder.message, sizeof decoder.message, "more than %d scans", most_scans);
      std::longjmp(decoder.landing, 1);
    };
  }
  Decoder(const Decoder &) = delete;
  ~Decoder() { jpeg_destroy_decompress(&jpeg); }

  // False if libjpeg gave up in it; the reason is in `message`.
  template <typename Body> bool guarded(const Body &body) {
    if (setjmp(landing)) return false;
    body();
    return true;
  }

private:
  static Decoder &of(j_common_ptr common) { return *static_cast<Decoder *>(common->client_data); }
  [[noreturn]] void give_up() {
    errors.format_message(reinterpret_cast<j_common_ptr>(&jpeg), message);
    std::longjmp(landing, 1);
  }
};

} // namespace

Result<Image> decode_jpeg(std::span<const std::byte> bytes) {
  Decoder decoder;
  jpeg_decompress_struct &jpeg = decoder.jpeg;
  auto refuse = [&] {
    return fail(ErrorCode::invalid, std::string("bad JPEG file: ") + decoder.message);
  };
  if (!decoder.guarded([&] {
        jpeg_create_decompress(&jpeg);
        jpeg.client_data = &decoder;
        jpeg.progress = &decoder.progress;
        jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char *>(bytes.data()), bytes.size());
        jpeg_read_header(&jpeg, TRUE);
      }))
    return refuse();
  if (jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK)
    return fail(ErrorCode::unsupported, "a JPEG file in CMYK; convert it to RGB");
  LATHE_CHECK(check_picture_size(jpeg.image_width, jpeg.image_height));
  // Huffman codes have a bit at least for 8x8 pixels: before we allocate for what cannot be there.
  if (!jpeg.arith_code &&
      uint64_t{jpeg.image_width} * jpeg.image_height > (bytes.size() + 8192) * 512)
    return fail(ErrorCode::invalid, "the JPEG file is truncated");
  LATHE_TRY(Image image, blank_image(jpeg.image_width, jpeg.image_height));
  uint8_t *pixels = image.rgb.data();
  if (!decoder.guarded([&] {
        jpeg.out_color_space = JCS_RGB;
        jpeg_start_decompress(&jpeg);
        while (jpeg.output_scanline < jpeg.output_height) {
          JSAMPROW row = pixels + size_t{jpeg.output_scanline} * jpeg.output_width * 3;
          jpeg_read_scanlines(&jpeg, &row, 1);
        }
        jpeg_finish_decompress(&jpeg);
      }))
    return refuse();
  return image;
}

} // namespace lathe::core
