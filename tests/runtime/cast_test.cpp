// Casts between floats of all widths: every half, every bfloat16, and what lies between them, by
// the bits that Eigen's conversions give, on every target.
#include "tests/runtime/compiled.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

using namespace lathe::core;

namespace {

// All 16-bit patterns as numbers of a type.
Tensor all_patterns(DType dtype) {
  Tensor t(dtype, {1, 65536});
  for (uint32_t i = 0; i < 65536; ++i) t.as_mutable<uint16_t>()[i] = uint16_t(i);
  return t;
}
// Numbers that round: every half and bfloat16, what is half-way to the next, and its neighbours;
// and any bits.
Tensor numbers() {
  std::vector<float> all;
  for (DType dtype : {DType::f16, DType::bf16}) {
    const Tensor wide = to_f32(all_patterns(dtype));
    for (size_t i = 0; i < 65535; ++i) {
      const float a = wide.f32()[i], b = wide.f32()[i + 1], middle = a / 2 + b / 2;
      for (float x : {a, middle, std::nextafter(middle, a), std::nextafter(middle, b)})
        all.push_back(x);
    }
  }
  std::mt19937 random(1);
  for (int i = 0; i < 100'000; ++i) all.push_back(std::bit_cast<float>(uint32_t(random())));
  const auto n = int64_t(all.size());
  return Tensor::of(std::move(all), {1, n});
}

Graph cast(DType from, DType to, int64_t count) {
  Graph graph;
  const ValueId x = graph.add_input("x", {from, {1, count}});
  graph.outputs = {graph.add_node("y", Cast{to}, {x}).value()};
  return graph;
}

// Bits agree; but NaN is any NaN, and numbers below the normal f32 may be flushed to zero.
int differences(const Tensor &found, const Tensor &expected) {
  REQUIRE(found.dtype() == expected.dtype());
  const Tensor a = to_f32(found), b = to_f32(expected);
  int count = 0;
  for (size_t i = 0; i < size_t(a.size()); ++i) {
    const float x = a.f32()[i], y = b.f32()[i];
    const bool same = std::memcmp(&x, &y, sizeof x) == 0 || (std::isnan(x) && std::isnan(y)) ||
                      (std::abs(y) < 0x1p-126f && x == 0);
    count += !same;
  }
  return count;
}

} // namespace

TEST_CASE("casts between floats of all widths give the nearest number") {
  const Tensor x = numbers();
  for (const Target &target : runnable_targets()) {
    CAPTURE(target.name);
    for (DType width : {DType::f16, DType::bf16, DType::f64}) {
      CAPTURE(to_string(width));
      const Tensor narrow = to_floats(x, width);
      for (const Tensor &from : {x, narrow}) {
        const Graph graph =
            cast(from.dtype(), from.dtype() == DType::f32 ? width : DType::f32, from.shape()[1]);
        const auto expected = evaluate(graph, std::vector{from}).value();
        const auto found = run(compile(graph, target), {from}, 1, nullptr);
        CHECK(differences(found[0], expected[0]) == 0);
      }
    }
  }
}

TEST_CASE("Eigen's conversions are the standards'") {
  const Tensor halves = all_patterns(DType::f16), wide = to_f32(halves);
  CHECK(wide.f32()[0x3c00] == 1);
  CHECK(wide.f32()[0x7bff] == 65504);
  CHECK(wide.f32()[0x0001] == 0x1p-24f);
  CHECK(std::isinf(wide.f32()[0xfc00]));
  CHECK(std::isnan(wide.f32()[0x7e00]));
  const Tensor back = to_floats(wide, DType::f16);
  for (uint32_t i = 0; i < 65536; ++i)
    if (!std::isnan(wide.f32()[i])) CHECK(back.as<uint16_t>()[i] == i);
  auto half = [](float x) { return to_floats(Tensor::of({x}, {1}), DType::f16).as<uint16_t>()[0]; };
  CHECK(half(65520) == 0x7c00);        // half-way to the next, which is infinity
  CHECK(half(65519) == 0x7bff);        // nearer to the largest
  CHECK(half(1 + 0x1p-11f) == 0x3c00); // a tie goes to the even one
  CHECK(half(0x1p-25f) == 0);
}
