// NumPy files: what is read, and what is refused.
#include "frontend/npy.h"
#include "tests/scratch.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace lathe::core;

namespace {

// A file as NumPy writes it.
std::string npy(const std::string &descr, const std::string &shape, const std::string &data,
                const std::string &fortran = "False", int version = 1) {
  std::string header =
      fmt::format("{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}", descr, fortran, shape);
  const size_t length_bytes = version == 1 ? 2 : 4;
  header.resize((8 + length_bytes + header.size() + 64) / 64 * 64 - 8 - length_bytes - 1, ' ');
  header += '\n';
  std::string file = "\x93NUMPY" + std::string{static_cast<char>(version), '\0'};
  for (size_t i = 0; i < length_bytes; ++i)
    file += static_cast<char>(header.size() >> (8 * i) & 255);
  return file + header + data;
}
template <typename T> std::string raw(std::initializer_list<T> values) {
  return {reinterpret_cast<const char *>(values.begin()), values.size() * sizeof(T)};
}
Result<Tensor> parse(const std::string &bytes) {
  return parse_npy(as_bytes(bytes), nullptr, "x.npy");
}

} // namespace

TEST_CASE("what was written is read back") {
  Scratch scratch;
  const std::string path = scratch.path("x.npy");
  for (const Shape &shape : {Shape{}, {6}, {2, 3}, {1, 2, 3, 1}, {0, 3}}) {
    Tensor tensor(DType::f32, shape);
    for (size_t i = 0; i < tensor.f32().size(); ++i) tensor.f32_mutable()[i] = float(i) - 0.5f;
    REQUIRE(write_npy(path, tensor));
    CHECK((contents(path).size() - tensor.bytes()) % 64 == 0);
    auto back = read_npy(path);
    REQUIRE(back);
    CHECK(back->shape() == shape);
    CHECK(std::ranges::equal(back->f32(), tensor.f32()));
  }
  REQUIRE(write_npy(path, Tensor::of(std::vector<int64_t>{-1, 1}, {2})));
  CHECK(read_npy(path)->as<int64_t>()[0] == -1);
}

TEST_CASE("element types and versions") {
  CHECK(parse(npy("'<f4'", "(2,)", raw<float>({1, -2}), "False", 2))->f32()[1] == -2);
  CHECK(parse(npy("'<f4'", "(2L,)", raw<float>({1, -2}), "False", 3))->f32()[1] == -2);
  CHECK(parse(npy("'<f8'", "(1,)", raw<double>({0.1})))->f32()[0] == 0.1f);
  CHECK(parse(npy("'<f2'", "(1,)", raw<uint16_t>({0x3e00})))->f32()[0] == 1.5f);
  CHECK(parse(npy("'<i8'", "(1,)", raw<int64_t>({-9})))->as<int64_t>()[0] == -9);
  CHECK(parse(npy("'<i4'", "(1,)", raw<int32_t>({-9})))->as<int32_t>()[0] == -9);
  const Tensor pixels = *parse(npy("'|u1'", "(2, 1)", raw<uint8_t>({0, 255})));
  CHECK(pixels.dtype() == DType::i32);
  CHECK(to_f32(pixels).f32()[1] == 255);
  CHECK(to_f32(*parse(npy("'|b1'", "(2,)", raw<uint8_t>({1, 0})))).f32()[0] == 1);
}

TEST_CASE("Fortran order is transposed away") {
  // [[1, 2, 3], [4, 5, 6]]
  const Tensor x = *parse(npy("'<f4'", "(2, 3)", raw<float>({1, 4, 2, 5, 3, 6}), "True"));
  CHECK(x.shape() == Shape{2, 3});
  CHECK(std::vector<float>(x.f32().begin(), x.f32().end()) == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(parse(npy("'<f4'", "(0, 3)", "", "True"))->size() == 0);
}

TEST_CASE("malformed and foreign files are refused") {
  auto code = [](const std::string &bytes) {
    auto tensor = parse(bytes);
    REQUIRE(!tensor);
    CHECK(tensor.error().file == "x.npy");
    return tensor.error().code;
  };
  const std::string good = npy("'<f4'", "(2,)", raw<float>({1, 2}));
  CHECK(code("") == ErrorCode::invalid);
  CHECK(code("PK\3\4 an npz file") == ErrorCode::invalid);
  for (size_t length = 0; length < good.size(); ++length)
    CHECK(code(good.substr(0, length)) == ErrorCode::invalid);
  CHECK(code(good + "x") == ErrorCode::invalid);
  CHECK(code(npy("'>f4'", "(1,)", "1234")) == ErrorCode::unsupported);
  CHECK(code(npy("'|O'", "(1,)", "12345678")) == ErrorCode::unsupported);
  CHECK(code(npy("[('a', '<f4'), ('b', '<i4')]", "(1,)", "12345678")) == ErrorCode::unsupported);
  CHECK(code(npy("'<c8'", "(1,)", "12345678")) == ErrorCode::unsupported);
  CHECK(code(npy("'<f4'", "(1,)", "1234", "False", 4)) == ErrorCode::unsupported);
  CHECK(code(npy("'<f4'", "(-1,)", "1234")) == ErrorCode::invalid);
  CHECK(code(npy("'<f4'", "(1.0,)", "1234")) == ErrorCode::invalid);
  CHECK(code(npy("'<f4'", "1", "1234")) == ErrorCode::invalid);
  CHECK(code(npy("'<f4'", "(1,)", "1234", "Maybe")) == ErrorCode::invalid);
  CHECK(code(npy("'<f4'", "(99999999999999999999,)", "1234")) == ErrorCode::invalid);
  CHECK(code(npy("'<f4'", "(4611686018427387904, 4)", "")) == ErrorCode::invalid);
  CHECK(code(npy("'<f4'", "(1000000, 1000000)", "1234")) == ErrorCode::invalid);
  CHECK(read_npy("/no/such/file").error().code == ErrorCode::io);
}

TEST_CASE("no damage does harm") {
  for (const char *order : {"True", "False"})
    for_each_damage(npy("'<f4'", "(2, 3)", raw<float>({1, 2, 3, 4, 5, 6}), order), 20'000,
                    [](const std::string &damaged) { (void)parse(damaged); });
}
