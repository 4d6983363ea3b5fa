// Weights files: what is read, and what is refused.
#include "frontend/safetensors.h"
#include "tests/scratch.h"

#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <limits>
#include <sys/stat.h>
#include <unistd.h>

using namespace lathe::core;

namespace {

std::string file_of(const std::string &header, const std::string &data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char *>(&length), 8) + header + data;
}
Result<WeightsFile> parse(const std::string &bytes) {
  return WeightsFile::parse(as_bytes(bytes), nullptr, "w.safetensors");
}
template <typename T> std::string raw(std::initializer_list<T> values) {
  return {reinterpret_cast<const char *>(values.begin()), values.size() * sizeof(T)};
}
std::string entry(const std::string &name, const std::string &dtype, const std::string &shape,
                  uint64_t begin, uint64_t end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name, dtype,
                     shape, begin, end);
}
void refused(const std::string &bytes, ErrorCode code, const std::string &reason,
             const std::string &tensor = "") {
  auto file = parse(bytes);
  REQUIRE_MESSAGE(!file, reason);
  CHECK(file.error().code == code);
  CHECK(file.error().file == "w.safetensors");
  const std::string text = to_string(file.error());
  CHECK_MESSAGE(text.find(reason) != std::string::npos, text);
  CHECK(text.find(tensor) != std::string::npos);
}

} // namespace

TEST_CASE("what was written is read back, f32 without a copy") {
  Scratch scratch;
  const std::string path = scratch.path("w.safetensors");
  Tensor flags(DType::boolean, {3});
  for (size_t i = 0; i < 3; ++i) flags.as_mutable<uint8_t>()[i] = i % 2;
  REQUIRE(write_safetensors(path, {{"conv.weight", Tensor::of({1.f, -2, 3, 4}, {2, 2})},
                                   {"steps", Tensor::of(std::vector<int64_t>{1, -5}, {2})},
                                   {"a flag", flags},
                                   {"scalar", Tensor::of(std::vector<float>{7}, {})},
                                   {"empty", Tensor(DType::f32, {0, 4})}}));
  auto file = WeightsFile::open(path);
  REQUIRE(file);
  CHECK(file->names() ==
        std::vector<std::string>{"a flag", "conv.weight", "empty", "scalar", "steps"});
  auto weight = file->tensor("conv.weight"), again = file->tensor("conv.weight");
  REQUIRE(weight);
  CHECK(weight->shape() == Shape{2, 2});
  CHECK(weight->f32()[1] == -2);
  CHECK(weight->raw() == again->raw()); // the mapped bytes themselves
  CHECK(file->tensor("steps")->as<int64_t>()[1] == -5);
  CHECK(file->tensor("a flag")->as<uint8_t>()[1] == 1);
  CHECK(file->tensor("scalar")->f32()[0] == 7);
  CHECK(file->tensor("empty")->size() == 0);
  CHECK(file->find_shape("nothing") == nullptr);
  CHECK(file->tensor("nothing").error().node == "nothing");

  // A tensor outlives the file that it came from.
  file = fail(ErrorCode::internal, "closed");
  CHECK(weight->f32()[3] == 4);
}

TEST_CASE("f16, bf16 and f64 become f32") {
  const std::string data = raw<double>({0.1, -1e300}) +
                           raw<uint16_t>({0x3c00, 0xc000, 0x7bff, 0x0001, 0x83ff, 0x7c00, 0xfe00}) +
                           raw<uint16_t>({0x3f80, 0xc049});
  const std::string bytes =
      file_of("{" + entry("d", "F64", "[2]", 0, 16) + "," + entry("h", "F16", "[7]", 16, 30) + "," +
                  entry("b", "BF16", "[1,2]", 30, 34) + R"(,"__metadata__":{"format":"pt"}})",
              data);
  auto file = parse(bytes);
  REQUIRE(file);
  CHECK(file->tensor("d")->f32()[0] == 0.1f);
  CHECK(file->tensor("d")->f32()[1] == -std::numeric_limits<float>::infinity());
  const Tensor h = *file->tensor("h");
  const float expected[] = {1, -2, 65504, 0x1p-24f, -0x1.ff8p-15f};
  for (size_t i = 0; i < 5; ++i) CHECK(h.f32()[i] == expected[i]);
  CHECK(std::isinf(h.f32()[5]));
  CHECK(std::isnan(h.f32()[6]));
  CHECK(file->tensor("b")->f32()[0] == 1);
  CHECK(file->tensor("b")->f32()[1] == -3.140625f);
}

TEST_CASE("data that is not aligned is copied, not misread") {
  for (size_t blanks = 0; blanks < 4; ++blanks) {
    const std::string bytes =
        file_of("{" + entry("x", "F32", "[2]", 0, 8) + "}" + std::string(blanks, ' '),
                raw<float>({1.5, -2.5}));
    auto file = parse(bytes);
    REQUIRE(file);
    auto tensor = file->tensor("x");
    CHECK(reinterpret_cast<uintptr_t>(tensor->raw()) % 4 == 0);
    CHECK(tensor->f32()[1] == -2.5f);
  }
}

TEST_CASE("malformed files are refused with the tensor's name") {
  const std::string eight(8, '\1');
  auto one = [&](const std::string &e) { return file_of("{" + e + "}", eight); };
  const auto invalid = ErrorCode::invalid;
  refused("", invalid, "not a safetensors file");
  refused(raw<uint64_t>({100}) + "{}", invalid, "truncated");
  refused(raw<uint64_t>({~uint64_t{0}}) + "{}", ErrorCode::limit, "too large");
  refused(file_of("", ""), invalid, "bad JSON");
  refused(file_of("[1]", ""), invalid, "list");
  refused(file_of("{\"a\":", ""), invalid, "bad JSON");
  refused(file_of("{} x", ""), invalid, "bad JSON");
  refused(file_of("{\"\xff\":1}", ""), invalid, "bad JSON");
  refused(file_of(std::string(100'000, '['), ""), invalid, "list");
  refused(file_of(R"({"a":{"dtype":{"x":{}}}})", ""), invalid, "object", "'a'");
  refused(file_of(R"({"a\u0007":{}})", ""), invalid, "unprintable");
  refused(file_of("{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("a", "F32", "[1]", 4, 8) + "}",
                  eight),
          invalid, "twice");
  refused(one(R"("a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"), invalid,
          "twice", "'a'");
  refused(one(R"("a":{"dtype":"F32","shape":[2]})"), invalid, "incomplete", "'a'");
  refused(one(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]})"), invalid, "incomplete",
          "'a'");
  refused(one(R"("a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), invalid, "no integer",
          "'a'");
  refused(one(R"("a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), invalid, "negative",
          "'a'");
  refused(one(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})"), invalid, "'x'",
          "'a'");
  refused(one(entry("a", "F31", "[2]", 0, 8)), invalid, "unknown element type", "'a'");
  refused(one(entry("a", "F32", "[2]", 8, 0)), invalid, "outside", "'a'");
  refused(one(entry("a", "F32", "[4]", 0, 16)), invalid, "truncated", "'a'");
  refused(one(entry("a", "F32", "[2]", ~uint64_t{0} - 7, ~uint64_t{0})), invalid, "outside", "'a'");
  refused(one(entry("a", "F32", "[3]", 0, 8)), invalid, "do not fit", "'a'");
  refused(one(entry("a", "F32", "[4611686018427387906,2]", 0, 8)), invalid, "too large", "'a'");
  refused(one(entry("a", "F32", "[18446744073709551615]", 0, 8)), invalid, "too large", "'a'");
  refused(one(entry("a", "F32", "[1]", 0, 4)), invalid, "unused bytes");
  refused(one(entry("a", "F32", "[1]", 4, 8)), invalid, "unused bytes", "'a'");
  refused(one(entry("a", "F32", "[2]", 0, 8) + "," + entry("b", "F32", "[1]", 4, 8)), invalid,
          "overlap");
  CHECK(parse(one(entry("a", "F8_E4M3", "[8]", 0, 8)))->tensor("a").error().code ==
        ErrorCode::unsupported);
}

TEST_CASE("a hundred thousand tensors are fine, more are a limit") {
  auto header = [](int count) {
    std::string text;
    for (int i = 0; i < count; ++i)
      text += (i ? "," : "{") + entry(fmt::format("t{}", i), "F32", "[0]", 0, 0);
    return file_of(text + "}", "");
  };
  CHECK(parse(header(100'000))->names().size() == 100'000);
  refused(header(100'001), ErrorCode::limit, "100000");
}

TEST_CASE("what is no regular file is refused at once") {
  Scratch scratch;
  CHECK(WeightsFile::open(scratch.path("none")).error().code == ErrorCode::io);
  CHECK(WeightsFile::open(scratch.path("")).error().code == ErrorCode::io);
  CHECK(WeightsFile::open("/dev/zero").error().code == ErrorCode::io);
  REQUIRE(mkfifo(scratch.path("fifo").c_str(), 0600) == 0);
  CHECK(WeightsFile::open(scratch.path("fifo")).error().code == ErrorCode::io);
  CHECK(WeightsFile::open(scratch.write("empty", "")).error().code == ErrorCode::invalid);
  CHECK(write_safetensors(scratch.path("no/such/folder"), {}).error().code == ErrorCode::io);
}

TEST_CASE("no damage does harm") {
  const std::string bytes = file_of(
      "{" + entry("conv.weight", "F32", "[2,1]", 0, 8) + "," + entry("h", "F16", "[2]", 8, 12) +
          "," + entry("m", "BOOL", "[4]", 12, 16) + R"(,"__metadata__":{"format":"pt"}})",
      raw<float>({1, 2}) + raw<uint16_t>({1, 2}) + raw<uint8_t>({0, 1, 1, 2}));
  for_each_damage(bytes, 20'000, [](const std::string &damaged) {
    auto file = parse(damaged);
    if (!file) return;
    for (const std::string &name : file->names()) (void)file->tensor(name);
  });
}
