#include "frontend/onnx/data.h"

#include "frontend/elements.h"
#include "ir/system/mapping.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fmt/format.h>

namespace lathe::core::onnx {
namespace {

std::unexpected<Error> bad(const TensorProto &t, std::string message, std::string expected = {},
                           std::string found = {}) {
  return fail(Error{.code = ErrorCode::invalid,
                    .message = std::move(message),
                    .node = clean(t.name),
                    .expected = std::move(expected),
                    .found = std::move(found)});
}

std::optional<Stored> stored_as(int32_t data_type) {
  switch (data_type) {
  case FLOAT:
    return Stored::f32;
  case UINT8:
    return Stored::u8;
  case INT8:
    return Stored::i8;
  case UINT16:
    return Stored::u16;
  case INT16:
    return Stored::i16;
  case INT32:
    return Stored::i32;
  case INT64:
    return Stored::i64;
  case BOOL:
    return Stored::boolean;
  case FLOAT16:
    return Stored::f16;
  case DOUBLE:
    return Stored::f64;
  case BFLOAT16:
    return Stored::bf16;
  default:
    return std::nullopt;
  }
}

// Elements of a typed field as the bytes that raw data would hold.
template <typename Element, typename Field>
Result<Tensor> from_field(Stored stored, const Shape &shape, const std::vector<Field> &field) {
  auto elements = std::make_shared<std::vector<Element>>();
  for (Field value : field) elements->push_back(static_cast<Element>(value));
  const auto *bytes = reinterpret_cast<const std::byte *>(elements->data());
  return load_elements(stored, shape, std::move(elements), bytes);
}

} // namespace

Result<Tensor> TensorReader::read(const TensorProto &t) {
  LATHE_TRY(Tensor tensor, read_constant(t));
  return settled(tensor);
}

Result<Tensor> TensorReader::read_constant(const TensorProto &t) {
  auto stored = stored_as(t.data_type);
  if (!stored)
    return fail(Error{.code = ErrorCode::unsupported,
                      .message = "a tensor of a type that Lathe does not compute with",
                      .node = clean(t.name),
                      .found = type_name(t.data_type)});
  auto count = checked_element_count(t.dims);
  if (!count)
    return bad(t, "impossible shape of a tensor", "sizes that can be counted", to_string(t.dims));
  if (t.external) return read_external(t);
  if (t.raw_data) return from_bytes(t, bytes_.owner, bytes_.raw_data(*t.raw_data));
  const size_t found = *stored == Stored::f32   ? t.float_data.size()
                       : *stored == Stored::f64 ? t.double_data.size()
                                                : t.int64_data.size();
  if (static_cast<int64_t>(found) != *count)
    return bad(t, "shape and data of a tensor disagree",
               fmt::format("{} elements for {}", *count, to_string(t.dims)),
               fmt::format("{}", found));
  switch (*stored) {
  case Stored::f32:
    return from_field<float>(*stored, t.dims, t.float_data);
  case Stored::f64:
    note_overflow(t, std::as_bytes(std::span(t.double_data)));
    return from_field<double>(*stored, t.dims, t.double_data);
  case Stored::i64:
    return from_field<int64_t>(*stored, t.dims, t.int64_data);
  case Stored::i32:
    return from_field<int32_t>(*stored, t.dims, t.int64_data);
  case Stored::u16:
  case Stored::i16:
  case Stored::f16:
  case Stored::bf16:
    return from_field<uint16_t>(*stored, t.dims, t.int64_data);
  case Stored::boolean:
  case Stored::u8:
  case Stored::i8:
    break;
  }
  return from_field<uint8_t>(*stored, t.dims, t.int64_data);
}

void TensorReader::note_overflow(const TensorProto &t, std::span<const std::byte> doubles) {
  int64_t count = 0;
  double first = 0;
  for (size_t at = 0; at + sizeof(double) <= doubles.size(); at += sizeof(double)) {
    double value = 0;
    std::memcpy(&value, doubles.data() + at, sizeof value); // the file may leave it unaligned
    if (!std::isfinite(value) || std::isfinite(static_cast<float>(value))) continue;
    if (count++ == 0) first = value;
  }
  if (count == 0) return;
  notes_.push_back(
      fmt::format("{}: {} double(s) beyond the largest float, {:g} for one, are taken as "
                  "infinite",
                  t.name.empty() ? "a constant" : clean(t.name), count, first));
}

Result<Tensor> TensorReader::from_bytes(const TensorProto &t, std::shared_ptr<const void> owner,
                                        std::span<const std::byte> bytes) {
  const Stored stored = *stored_as(t.data_type);
  const int64_t expected = element_count(t.dims) * int64_t(size_of(stored));
  if (static_cast<int64_t>(bytes.size()) != expected)
    return bad(
        t, "shape and data of a tensor disagree",
        fmt::format("{} bytes for {} of {}", expected, to_string(t.dims), type_name(t.data_type)),
        fmt::format("{}", bytes.size()));
  if (stored == Stored::f64) note_overflow(t, bytes);
  if (stored == Stored::f32 && expected > 0)
    return Tensor(DType::f32, t.dims, std::move(owner), bytes.data());
  return load_elements(stored, t.dims, std::move(owner), bytes.data());
}

Result<Tensor> TensorReader::read_external(const TensorProto &t) {
  std::map<Bytes, Bytes> entries;
  for (const auto &[key, value] : t.external_data) {
    static constexpr Bytes known[] = {"location", "offset", "length", "checksum"};
    if (!std::ranges::count(known, key))
      return bad(t, "unknown entry of external data", "location, offset, length or checksum",
                 clean(key));
    if (!entries.emplace(key, value).second)
      return bad(t, "an entry of external data stands twice", "", clean(key));
  }
  auto number = [&](Bytes key) -> Result<std::optional<uint64_t>> {
    auto entry = entries.find(key);
    if (entry == entries.end()) return std::nullopt;
    const Bytes text = entry->second;
    uint64_t value = 0;
    auto [stop, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (status != std::errc{} || stop != text.data() + text.size())
      return bad(t, fmt::format("bad {} of external data", key), "a number of bytes", clean(text));
    return value;
  };
  LATHE_TRY(auto offset, number("offset"));
  LATHE_TRY(auto length, number("length"));
  if (element_count(t.dims) == 0) return from_bytes(t, nullptr, {});
  const std::string location(entries["location"]);
  auto &file = files_[location];
  if (!file) {
    auto opened = MappedFile::open_beneath(folder_, location);
    if (!opened) {
      opened.error().node = clean(t.name);
      opened.error().message = "external data: " + opened.error().message;
      return std::unexpected(std::move(opened).error());
    }
    file = std::move(*opened);
  }
  const uint64_t size = file->bytes().size(), begin = offset.value_or(0);
  if (begin > size || length.value_or(0) > size - begin)
    return bad(t, "external data lies beyond the end of its file",
               fmt::format("at most {} bytes", size),
               fmt::format("offset {}, length {}", begin, length.value_or(0)));
  // Without a length: as many bytes as the tensor needs, if they are there.
  const auto needed = uint64_t(element_count(t.dims)) * size_of(*stored_as(t.data_type));
  const uint64_t taken = length ? *length : std::min(size - begin, needed);
  return from_bytes(t, file, file->bytes().subspan(begin, taken));
}

} // namespace lathe::core::onnx
