#include "frontend/npy.h"
#include "ir/system/mapped_file.h"
#include "ir/system/output_file.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fmt/format.h>

namespace lathe::core {
namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr size_t most_header_bytes = 65'536, most_dimensions = 32; // as many as NumPy allows

struct Kind {
  const char *name; // without byte order
  Stored stored;
};
constexpr Kind kinds[] = {
    {"b1", Stored::boolean}, {"u1", Stored::u8},  {"i1", Stored::i8},  {"u2", Stored::u16},
    {"i2", Stored::i16},     {"i4", Stored::i32}, {"i8", Stored::i64}, {"f2", Stored::f16},
    {"f4", Stored::f32},     {"f8", Stored::f64},
};

struct Header {
  std::string descr;
  std::optional<bool> fortran;
  std::optional<Shape> shape;
};

// The header is the text of a Python dictionary with just these three keys:
//   {'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 224, 224), }
class HeaderParser {
public:
  explicit HeaderParser(std::string_view text) : rest_(text) {}
  std::optional<Header> parse() {
    Header header;
    if (!take("{")) return {};
    while (!take("}")) {
      std::string key;
      if (!text(key) || !take(":") || !value(key, header)) return {};
      if (!take(",")) {
        if (!take("}")) return {};
        break;
      }
    }
    skip();
    if (!rest_.empty() || header.descr.empty() || !header.fortran || !header.shape) return {};
    return header;
  }

private:
  bool value(const std::string &key, Header &header) {
    if (key == "descr" && header.descr.empty()) {
      if (text(header.descr)) return !header.descr.empty();
      if (!take("[")) return false;
      header.descr = "a record";
      return skip_past("]");
    }
    if (key == "fortran_order" && !header.fortran) {
      header.fortran = take("True");
      return *header.fortran || take("False");
    }
    if (key == "shape" && !header.shape) return tuple(header.shape.emplace());
    return false;
  }
  bool tuple(Shape &shape) {
    if (!take("(")) return false;
    while (!take(")")) {
      skip();
      int64_t d = 0;
      auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), d);
      if (error != std::errc{} || d < 0 || shape.size() == most_dimensions) return false;
      rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
      take("L"); // Python 2 wrote long integers so
      shape.push_back(d);
      if (!take(",")) return take(")");
    }
    return true;
  }
  bool text(std::string &result) {
    skip();
    if (rest_.empty() || (rest_[0] != '\'' && rest_[0] != '"')) return false;
    size_t end = rest_.find(rest_[0], 1);
    if (end == std::string_view::npos) return false;
    result = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return true;
  }
  void skip() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size())); }
  bool take(std::string_view token) {
    skip();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  // Good enough for what is refused anyway: the key order of NumPy's writer puts records first.
  bool skip_past(std::string_view token) {
    size_t at = rest_.rfind(token);
    if (at == std::string_view::npos) return false;
    rest_.remove_prefix(at + 1);
    return true;
  }
  std::string_view rest_;
};

// Fortran order of a shape is C order of the reversed one, transposed.
Tensor from_fortran_order(const Tensor &tensor) {
  const Shape &shape = tensor.shape();
  Tensor result(tensor.dtype(), shape);
  const size_t bytes = size_of(tensor.dtype());
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t i = 1; i < shape.size(); ++i) strides[i] = strides[i - 1] * shape[i - 1];
  std::vector<int64_t> index(shape.size(), 0);
  int64_t from = 0;
  for (int64_t to = 0; to < tensor.size(); ++to) {
    std::memcpy(result.raw_mutable() + static_cast<size_t>(to) * bytes,
                tensor.raw() + static_cast<size_t>(from) * bytes, bytes);
    for (size_t d = shape.size(); d-- > 0;) {
      from += strides[d];
      if (++index[d] < shape[d]) break;
      from -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
  return result;
}

} // namespace

Result<Tensor> read_npy(const std::string &path) {
  LATHE_TRY(auto file, MappedFile::read(path));
  auto bytes = file->bytes();
  return parse_npy(bytes, std::move(file), path);
}

Result<Tensor> parse_npy(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                         const std::string &path) {
  auto refuse = [&](std::string message, std::string expected = "", std::string found = "",
                    ErrorCode code = ErrorCode::invalid) {
    return fail(Error{.code = code,
                      .message = std::move(message),
                      .file = path,
                      .expected = std::move(expected),
                      .found = std::move(found)});
  };
  const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  if (!text.starts_with(magic)) return refuse("not an .npy file");
  if (text.size() < 12) return refuse("the .npy file is truncated");
  const int version = text[6];
  if (version < 1 || version > 3)
    return refuse("unknown .npy version", "1 to 3", fmt::format("{}", version),
                  ErrorCode::unsupported);
  const size_t length_bytes = version == 1 ? 2 : 4;
  uint32_t header_bytes = 0;
  std::memcpy(&header_bytes, text.data() + 8, length_bytes);
  const size_t data_begin = 8 + length_bytes + header_bytes;
  if (header_bytes > most_header_bytes)
    return refuse("the .npy header is too large",
                  fmt::format("at most {} bytes", most_header_bytes),
                  fmt::format("{}", header_bytes));
  if (data_begin > text.size()) return refuse("the .npy file is truncated in its header");

  auto header = HeaderParser(text.substr(8 + length_bytes, header_bytes)).parse();
  if (!header) return refuse("bad .npy header", "descr, fortran_order and shape of an array");
  std::string_view descr = header->descr;
  if (descr[0] == '<' || descr[0] == '=' || descr[0] == '|') descr.remove_prefix(1);
  auto kind = std::ranges::find_if(kinds, [&](const Kind &k) { return k.name == descr; });
  if (kind == std::end(kinds))
    return refuse("unsupported element type in the .npy file",
                  "little-endian f2, f4, f8, i1, u1, i2, u2, i4, i8 or b1",
                  std::string(descr.substr(0, 40)), ErrorCode::unsupported);
  auto count = checked_element_count(*header->shape);
  if (!count) return refuse("the array is too large", "", to_string(*header->shape));
  const uint64_t wanted = static_cast<uint64_t>(*count) * size_of(kind->stored);
  if (wanted != bytes.size() - data_begin)
    return refuse(wanted > bytes.size() - data_begin ? "the .npy file is truncated"
                                                     : "the .npy file is longer than its array",
                  fmt::format("{} bytes for {}", wanted, to_string(*header->shape)),
                  fmt::format("{}", bytes.size() - data_begin));
  LATHE_TRY(Tensor tensor, load_elements(kind->stored, std::move(*header->shape), std::move(owner),
                                         bytes.data() + data_begin));
  return *header->fortran && tensor.shape().size() > 1 ? from_fortran_order(tensor) : tensor;
}

Result<void> write_npy(const std::string &path, const Tensor &given) {
  // NumPy has no bfloat16 of its own.
  const Tensor tensor = given.dtype() == DType::bf16 ? to_f32(given) : given;
  auto descr_of = [](DType dtype) {
    switch (dtype) {
    case DType::f32:
      return "<f4";
    case DType::i64:
      return "<i8";
    case DType::i32:
      return "<i4";
    case DType::boolean:
      return "|b1";
    case DType::f16:
      return "<f2";
    case DType::f64:
      return "<f8";
    case DType::bf16:
      break;
    }
    return "?";
  };
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}",
                                   descr_of(tensor.dtype()), fmt::join(tensor.shape(), ", "),
                                   tensor.shape().size() == 1 ? "," : "");
  std::string start = std::string(magic) + std::string("\1\0", 2);
  // The data begins at a multiple of 64, after a newline.
  header.resize((start.size() + 2 + header.size() + 1 + 63) / 64 * 64 - start.size() - 2 - 1, ' ');
  header += '\n';
  start += static_cast<char>(header.size() & 255);
  start += static_cast<char>(header.size() >> 8);
  return write_file(path, {std::as_bytes(std::span(start)),
                           std::as_bytes(std::span(header)),
                           {tensor.raw(), tensor.bytes()}});
}

} // namespace lathe::core
