#include "frontend/elements.h"

#include "ir/system/mapping.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace lathe::core {

static_assert(std::endian::native == std::endian::little, "files are read in place");

size_t size_of(Stored stored) {
  switch (stored) {
  case Stored::boolean:
  case Stored::u8:
  case Stored::i8:
    return 1;
  case Stored::u16:
  case Stored::i16:
  case Stored::f16:
  case Stored::bf16:
    return 2;
  case Stored::i32:
  case Stored::f32:
    return 4;
  case Stored::i64:
  case Stored::f64:
    return 8;
  }
  return 1;
}

// Elements from `data` on, a piece at a time: they may be a file's, and not aligned.
template <typename From, typename To, typename Convert>
static Result<Tensor> convert(DType dtype, Shape shape, const std::byte *data, Convert one) {
  constexpr size_t most = 1 << 14;
  Tensor result(dtype, std::move(shape));
  const std::span<To> to = result.as_mutable<To>();
  std::vector<From> piece(std::min(most, to.size()));
  for (size_t at = 0; at < to.size(); at += piece.size()) {
    piece.resize(std::min(piece.size(), to.size() - at));
    const std::span<std::byte> bytes = std::as_writable_bytes(std::span(piece));
    LATHE_CHECK(copy_bytes({data + at * sizeof(From), bytes.size()}, bytes.data()));
    std::ranges::transform(piece, to.begin() + int64_t(at),
                           [&](From x) { return static_cast<To>(one(x)); });
  }
  return result;
}

Result<Tensor> load_elements(Stored stored, Shape shape, std::shared_ptr<const void> owner,
                             const std::byte *data) {
  auto same = [](auto x) { return x; };
  auto in_place = [&](DType dtype) -> Result<Tensor> {
    if (reinterpret_cast<uintptr_t>(data) % size_of(dtype) == 0 && element_count(shape) > 0)
      return Tensor(dtype, std::move(shape), std::move(owner), data);
    Tensor copy(dtype, std::move(shape));
    LATHE_CHECK(copy_bytes({data, copy.bytes()}, copy.raw_mutable()));
    return copy;
  };
  switch (stored) {
  case Stored::boolean:
    return convert<uint8_t, uint8_t>(DType::boolean, std::move(shape), data,
                                     [](uint8_t x) { return x != 0; });
  case Stored::u8:
    return convert<uint8_t, int32_t>(DType::i32, std::move(shape), data, same);
  case Stored::i8:
    return convert<int8_t, int32_t>(DType::i32, std::move(shape), data, same);
  case Stored::u16:
    return convert<uint16_t, int32_t>(DType::i32, std::move(shape), data, same);
  case Stored::i16:
    return convert<int16_t, int32_t>(DType::i32, std::move(shape), data, same);
  case Stored::i32:
    return in_place(DType::i32);
  case Stored::i64:
    return in_place(DType::i64);
  case Stored::f16:
    return convert<uint16_t, float>(DType::f32, std::move(shape), data, from_f16);
  case Stored::bf16:
    return convert<uint16_t, float>(DType::f32, std::move(shape), data, from_bf16);
  case Stored::f32:
    return in_place(DType::f32);
  case Stored::f64:
    return convert<double, float>(DType::f32, std::move(shape), data, same);
  }
  return {};
}

} // namespace lathe::core
