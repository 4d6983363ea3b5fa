#include "frontend/safetensors.h"
#include "ir/system/mapped_file.h"
#include "ir/system/mapping.h"
#include "ir/system/output_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <fmt/format.h>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

namespace lathe::core {
namespace {

constexpr uint64_t most_header_bytes = 100'000'000; // the format's own limit
constexpr size_t most_tensors = 100'000, most_dimensions = 16;

// The format's element types; those without a `stored` are known but not read.
struct ElementType {
  const char *name;
  size_t bytes;
  std::optional<Stored> stored;
};
const ElementType element_types[] = {
    {"BOOL", 1, Stored::boolean}, {"U8", 1, Stored::u8},   {"I8", 1, Stored::i8},
    {"F8_E5M2", 1, {}},           {"F8_E4M3", 1, {}},      {"I16", 2, Stored::i16},
    {"U16", 2, Stored::u16},      {"F16", 2, Stored::f16}, {"BF16", 2, Stored::bf16},
    {"I32", 4, Stored::i32},      {"U32", 4, {}},          {"F32", 4, Stored::f32},
    {"F64", 8, Stored::f64},      {"I64", 8, Stored::i64}, {"U64", 8, {}},
};
const ElementType *find_element_type(std::string_view name) {
  auto found = std::ranges::find_if(element_types, [&](auto &type) { return type.name == name; });
  return found == std::end(element_types) ? nullptr : found;
}

// One tensor as the header states it.
struct Stated {
  std::string name;
  std::optional<std::string> dtype = {};
  std::optional<std::vector<uint64_t>> shape = {}, offsets = {};
};

// Reads the header as a stream of events, so that nothing grows beyond what we keep, doubled keys
// show, and nesting cannot run deep. Accepts
//   {"NAME": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ...,
//    "__metadata__": {"KEY": "TEXT", ...}}
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
public:
  std::vector<Stated> tensors;
  std::string message; // why it stopped
  bool too_much = false;

  bool start_object(std::size_t) override {
    if (list_ || depth_ >= 2) return refuse("an unexpected object");
    return ++depth_, true;
  }
  bool end_object() override { return --depth_, true; }
  bool key(string_t &name) override {
    key_ = name;
    if (depth_ == 1) {
      metadata_ = name == "__metadata__";
      if (!names_.insert(name).second)
        return refuse(fmt::format("'{}' stands twice", printable(name)));
      if (name.empty() || printable(name) != name)
        return refuse("an empty or unprintable tensor name");
      if (names_.size() > most_tensors) {
        too_much = true;
        return refuse(fmt::format("more than {} tensors", most_tensors));
      }
      if (!metadata_) tensors.push_back({.name = name});
      return true;
    }
    if (metadata_) return true;
    Stated &tensor = tensors.back();
    if (name == "dtype" && !tensor.dtype) return true;
    if (name == "shape" && !tensor.shape) return true;
    if (name == "data_offsets" && !tensor.offsets) return true;
    return refuse(fmt::format("key '{}' is unknown or stands twice", printable(name)));
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || metadata_ || list_) return refuse("an unexpected list");
    Stated &tensor = tensors.back();
    if (key_ == "shape")
      list_ = &tensor.shape.emplace();
    else if (key_ == "data_offsets")
      list_ = &tensor.offsets.emplace();
    else
      return refuse("an unexpected list");
    return true;
  }
  bool end_array() override { return list_ = nullptr, true; }
  bool number_unsigned(number_unsigned_t value) override {
    if (!list_) return refuse("an unexpected number");
    if (list_->size() >= most_dimensions) return refuse("a list is too long");
    return list_->push_back(value), true;
  }
  bool string(string_t &value) override {
    if (depth_ == 2 && metadata_) return true;
    if (depth_ != 2 || list_ || key_ != "dtype") return refuse("an unexpected text");
    tensors.back().dtype = value;
    return true;
  }
  bool number_integer(number_integer_t) override { return refuse("a negative number"); }
  bool number_float(number_float_t, const string_t &) override {
    return refuse("a number that is no integer");
  }
  bool null() override { return refuse("an unexpected null"); }
  bool boolean(bool) override { return refuse("an unexpected boolean"); }
  bool binary(binary_t &) override { return refuse("unexpected bytes"); }
  bool parse_error(std::size_t position, const std::string &,
                   const nlohmann::json::exception &) override {
    return refuse(fmt::format("bad JSON at byte {}", position));
  }
  // The tensor that was being read when it stopped.
  std::string where() const { return depth_ == 2 && !metadata_ ? tensors.back().name : ""; }

private:
  static std::string printable(std::string_view text) {
    std::string result(text.substr(0, 200));
    std::ranges::replace_if(result, [](unsigned char c) { return c < 32 || c == 127; }, '?');
    return result.size() < text.size() ? result + "..." : result;
  }
  bool refuse(std::string why) {
    if (message.empty()) message = std::move(why);
    return false;
  }
  int depth_ = 0;
  bool metadata_ = false;
  std::string key_;
  std::set<std::string> names_;
  std::vector<uint64_t> *list_ = nullptr;
};

} // namespace

Result<WeightsFile> WeightsFile::open(const std::string &path) {
  LATHE_TRY(auto file, MappedFile::open(path));
  auto bytes = file->bytes();
  return parse(bytes, std::move(file), path);
}

Result<WeightsFile> WeightsFile::parse(std::span<const std::byte> bytes,
                                       std::shared_ptr<const void> owner, std::string path) {
  Error error{.code = ErrorCode::invalid, .message = "not a safetensors file", .file = path};
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes) {
    error.found = fmt::format("{} bytes", bytes.size());
    return fail(error);
  }
  LATHE_CHECK(
      copy_bytes(bytes.first(sizeof header_bytes), reinterpret_cast<std::byte *>(&header_bytes)));
  bytes = bytes.subspan(sizeof header_bytes);
  if (header_bytes > most_header_bytes) {
    error.code = ErrorCode::limit;
    error.message = "the safetensors header is too large, or this is no safetensors file";
    error.expected = fmt::format("at most {} bytes", most_header_bytes);
    error.found = fmt::format("{}", header_bytes);
    return fail(error);
  }
  if (header_bytes > bytes.size()) {
    error.message = "the safetensors file is truncated in its header";
    error.expected = fmt::format("{} bytes of header", header_bytes);
    error.found = fmt::format("{}", bytes.size());
    return fail(error);
  }
  const auto data = bytes.subspan(header_bytes);
  std::string text(header_bytes, ' ');
  LATHE_CHECK(copy_bytes(bytes.first(header_bytes), reinterpret_cast<std::byte *>(text.data())));
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(text, &reader)) {
    error.code = reader.too_much ? ErrorCode::limit : ErrorCode::invalid;
    error.message = "bad safetensors header";
    error.node = reader.where();
    error.found = reader.message;
    return fail(error);
  }

  WeightsFile result;
  result.path_ = std::move(path);
  result.owner_ = std::move(owner);
  std::vector<std::pair<std::span<const std::byte>, const Stated *>> pieces;
  for (const Stated &stated : reader.tensors) {
    error.node = stated.name;
    auto refuse = [&](std::string message, std::string expected = "", std::string found = "") {
      error.message = std::move(message);
      error.expected = std::move(expected);
      error.found = std::move(found);
      return fail(error);
    };
    if (!stated.dtype || !stated.shape || !stated.offsets || stated.offsets->size() != 2)
      return refuse("incomplete entry in the safetensors header", "dtype, shape, two data_offsets");
    const ElementType *type = find_element_type(*stated.dtype);
    if (!type) return refuse("unknown element type in the safetensors header");
    Shape shape;
    for (uint64_t d : *stated.shape)
      shape.push_back(
          static_cast<int64_t>(std::min<uint64_t>(d, std::numeric_limits<int64_t>::max())));
    auto count = checked_element_count(shape);
    if (!count) return refuse("the tensor is too large", "", to_string(shape));
    const uint64_t begin = (*stated.offsets)[0], end = (*stated.offsets)[1];
    if (begin > end || end > data.size())
      return refuse("the tensor lies outside the file; the file may be truncated",
                    fmt::format("bytes within 0..{}", data.size()),
                    fmt::format("{}..{}", begin, end));
    if (static_cast<uint64_t>(*count) * type->bytes != end - begin)
      return refuse("the tensor's bytes do not fit its shape",
                    fmt::format("{} bytes for {} of {}",
                                static_cast<uint64_t>(*count) * type->bytes, to_string(shape),
                                type->name),
                    fmt::format("{}", end - begin));
    auto piece = data.subspan(begin, end - begin);
    pieces.emplace_back(piece, &stated);
    result.names_.push_back(stated.name);
    result.entries_[stated.name] = {*stated.dtype, std::move(shape), piece};
  }
  std::ranges::sort(result.names_);

  // They must tile the data: this rules out aliasing and hidden content, as the format demands.
  std::ranges::sort(pieces, {}, [](const auto &piece) {
    return std::pair(piece.first.data(), piece.first.size());
  });
  const std::byte *next = data.data();
  for (const auto &[piece, stated] : pieces) {
    if (piece.data() != next) {
      error.node = stated->name;
      error.message = piece.data() < next ? "tensors overlap in the safetensors file"
                                          : "unused bytes in the safetensors file";
      return fail(error);
    }
    next = piece.data() + piece.size();
  }
  if (next != data.data() + data.size()) {
    error.node.clear();
    error.message = "unused bytes at the end of the safetensors file";
    error.found = fmt::format("{}", data.data() + data.size() - next);
    return fail(error);
  }
  return result;
}

const Shape *WeightsFile::find_shape(const std::string &name) const {
  auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second.shape;
}

Result<Tensor> WeightsFile::tensor(const std::string &name) const {
  auto found = entries_.find(name);
  if (found == entries_.end())
    return fail(Error{.code = ErrorCode::invalid,
                      .message = "no such tensor in the weights file",
                      .file = path_,
                      .node = name});
  const Entry &entry = found->second;
  const ElementType *type = find_element_type(entry.dtype);
  if (!type->stored)
    return fail(Error{.code = ErrorCode::unsupported,
                      .message = "no tensor can hold this element type",
                      .file = path_,
                      .node = name,
                      .found = entry.dtype});
  return load_elements(*type->stored, entry.shape, owner_, entry.bytes.data());
}

std::string encode_safetensors(const std::map<std::string, Tensor> &tensors) {
  auto name_of = [](DType dtype) {
    switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::i64:
      return "I64";
    case DType::i32:
      return "I32";
    case DType::boolean:
      return "BOOL";
    case DType::f16:
      return "F16";
    case DType::bf16:
      return "BF16";
    case DType::f64:
      return "F64";
    }
    return "?";
  };
  // Wider elements first, so that all are aligned.
  std::vector<std::pair<std::string, const Tensor *>> order;
  for (const auto &[name, tensor] : tensors) order.emplace_back(name, &tensor);
  std::ranges::stable_sort(order, std::greater{},
                           [](const auto &item) { return size_of(item.second->dtype()); });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::string data;
  for (const auto &[name, tensor] : order) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char *>(tensor->raw()), tensor->bytes());
    header[name] = {{"dtype", name_of(tensor->dtype())},
                    {"shape", tensor->shape()},
                    {"data_offsets", {begin, data.size()}}};
  }
  // Names may come from files: bytes that are no UTF-8 are replaced.
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const auto length = std::bit_cast<std::array<char, 8>>(uint64_t(text.size()));
  return std::string(length.begin(), length.end()) + text + data;
}

Result<void> write_safetensors(const std::string &path,
                               const std::map<std::string, Tensor> &tensors) {
  const std::string bytes = encode_safetensors(tensors);
  return write_file(path, {std::as_bytes(std::span(bytes))});
}

} // namespace lathe::core
