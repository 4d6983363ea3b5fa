// Writes small files of the formats that we can encode to FOLDER/TARGET/, for the fuzzer to begin
// with. Every program of this preset has the fuzzer's main function, which calls this first.
#include "frontend/onnx/data.h"
#include "frontend/safetensors.h"
#include "runtime/cache_content.h"
#include "tests/fuzz/fuzz.h"

#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <zlib.h>

using namespace lathe::core;

namespace {

std::filesystem::path folder;

void seed(const std::string &target, const std::string &name, const std::string &bytes) {
  std::filesystem::create_directories(folder / target);
  std::ofstream(folder / target / name, std::ios::binary) << bytes;
}

std::vector<Tensor> tensors() {
  Tensor truths(DType::boolean, {2, 2}), small(DType::i32, {3});
  for (size_t i = 0; i < 4; ++i) truths.raw_mutable()[i] = std::byte(i % 2);
  for (size_t i = 0; i < 3; ++i) small.as_mutable<int32_t>()[i] = int32_t(i) - 1;
  return {Tensor::of({1.5f, -2, 0, 1e30f, 3, 4}, {1, 2, 3}),
          Tensor::of({0.5f}, {}),
          Tensor::of(std::vector<int64_t>{-1, 64}, {2}),
          small,
          truths,
          Tensor::splat(1, {0, 3})};
}

void safetensors() {
  std::map<std::string, Tensor> all;
  for (const Tensor &tensor : tensors()) all[fmt::format("layer.{}", all.size())] = tensor;
  seed("safetensors", "all", encode_safetensors(all));
  for (const auto &[type, bytes] :
       {std::pair{"F16", 2}, {"BF16", 2}, {"F64", 8}, {"U8", 1}, {"I8", 1}, {"F8_E4M3", 1}}) {
    std::string header =
        fmt::format(R"({{"__metadata__":{{"format":"pt"}},"w":{{"dtype":"{}","shape":[2,3],)"
                    R"("data_offsets":[0,{}]}}}})",
                    type, 6 * bytes);
    header.resize((header.size() + 7) / 8 * 8, ' ');
    seed("safetensors", type,
         std::string{char(header.size())} + std::string(7, '\0') + header +
             std::string(size_t(6 * bytes), '\x3e'));
  }
}

void npy() {
  for (const auto &[descr, bytes] : {std::pair{"<f4", 4},
                                     {"<f2", 2},
                                     {"<f8", 8},
                                     {"|u1", 1},
                                     {"|i1", 1},
                                     {"<u2", 2},
                                     {"<i2", 2},
                                     {"<i4", 4},
                                     {"<i8", 8},
                                     {"|b1", 1},
                                     {">f4", 4},
                                     {"|O", 8}})
    for (const char *fortran : {"False", "True"}) {
      std::string header =
          fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': (2, 3), }}", descr, fortran);
      header.resize(117, ' ');
      seed("npy", fmt::format("{}-{}", descr, fortran),
           std::string("\x93NUMPY\1\0\x76\0", 10) + header + "\n" +
               std::string(size_t(6 * bytes), '\1'));
    }
}

void tensor() {
  int number = 0;
  for (const Tensor &t : tensors())
    seed("tensor", fmt::format("{}", number++), onnx::encode("x", t));
  seed("tensor", "floats", std::string("\x08\x02\x10\x01\x22\x08\0\0\x80\x3f\0\0\0\x40", 14));
  seed("tensor", "ints", std::string("\x08\x02\x10\x06\x2a\x02\x01\x7f", 8));
  seed("tensor", "longs", std::string("\x08\x02\x10\x07\x3a\x02\x01\x7f", 8));
}

void idx() {
  const std::string plain = std::string("\0\0\x08\x02\0\0\0\x02\0\0\0\x03", 12) + "abcdef";
  seed("idx", "plain", plain);
  std::string zipped(200, '\0');
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef *>(const_cast<char *>(plain.data()));
  stream.avail_in = uInt(plain.size());
  stream.next_out = reinterpret_cast<Bytef *>(zipped.data());
  stream.avail_out = uInt(zipped.size());
  deflate(&stream, Z_FINISH);
  zipped.resize(stream.total_out);
  deflateEnd(&stream);
  seed("idx", "zipped", zipped);
}

void image() {
  seed("image", "p6", "P6 2 2 255\n123456789abc");
  seed("image", "p5", "P5\n# grey\n2 1 1000\n1234");
}

void cache() {
  CodeImage code;
  code.symbols = {{"conv", 0, 4}, {"pool", 4, 4}};
  code.bytes.resize(8);
  seed("cache", "image", std::string(1, '\0') + encode(code));
  const MeasuredCosts costs{{"conv1", {{"direct", 1e-5}, {"winograd 4 3x3", 2.5e-6}}}};
  seed("cache", "costs", "\1" + encode(costs));
  seed("cache", "entry", "\2lathec01");
  seed("cache", "damage", std::string("\3\0\x10\x01", 4));
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int *count, char ***arguments) {
  if (*count != 2) std::exit(2);
  folder = (*arguments)[1];
  safetensors();
  npy();
  tensor();
  idx();
  image();
  cache();
  std::exit(0);
}
int LLVMFuzzerTestOneInput(const uint8_t *, size_t) { return 0; }
