#include "data/idx.h"
#include "ir/system/mapped_file.h"

#include <algorithm>
#include <fmt/format.h>
#include <limits>
#include <zlib.h>

namespace lathe::core {
namespace {

constexpr size_t most_bytes = size_t{1} << 30;

// The next bytes of a gzip stream, or of plain bytes.
class Source {
public:
  explicit Source(std::span<const std::byte> bytes) : rest_(bytes) {
    zipped_ = bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
    if (zipped_) inflateInit2(&stream_, 16 + MAX_WBITS);
  }
  Source(const Source &) = delete;
  ~Source() {
    if (zipped_) inflateEnd(&stream_);
  }
  // False if there are fewer, or the stream is damaged.
  bool read(std::span<uint8_t> to) {
    if (!zipped_) {
      if (rest_.size() < to.size()) return false;
      std::ranges::transform(rest_.first(to.size()), to.begin(),
                             [](std::byte b) { return static_cast<uint8_t>(b); });
      rest_ = rest_.subspan(to.size());
      return true;
    }
    // zlib counts in 32 bits: `most_bytes` fits for the output, the input is fed in parts.
    stream_.next_out = to.data();
    stream_.avail_out = static_cast<uInt>(to.size());
    while (stream_.avail_out > 0) {
      const auto part = std::min<size_t>(rest_.size(), std::numeric_limits<uInt>::max());
      stream_.next_in = reinterpret_cast<Bytef *>(const_cast<std::byte *>(rest_.data()));
      stream_.avail_in = static_cast<uInt>(part);
      status_ = inflate(&stream_, Z_NO_FLUSH);
      rest_ = rest_.subspan(part - stream_.avail_in);
      if (status_ != Z_OK && stream_.avail_out > 0) return false; // the end, or damage
    }
    return true;
  }
  // At most so much can follow: no deflate stream shrinks by more than 1032 to 1.
  size_t most_left() const { return rest_.size() * (zipped_ ? 1032 : 1) + 1032; }
  // Nothing follows, and a gzip stream has come to its checksum and passed it.
  bool at_end() {
    uint8_t one;
    return !read({&one, 1}) && (!zipped_ || status_ == Z_STREAM_END);
  }

private:
  std::span<const std::byte> rest_;
  bool zipped_ = false;
  int status_ = Z_OK;
  z_stream stream_{};
};

} // namespace

Result<IdxArray> read_idx(const std::string &path) {
  LATHE_TRY(auto file, MappedFile::read(path));
  return parse_idx(file->bytes(), path);
}

Result<IdxArray> parse_idx(std::span<const std::byte> bytes, const std::string &path) {
  auto refuse = [&](std::string message, ErrorCode code = ErrorCode::invalid) {
    return fail(Error{.code = code, .message = std::move(message), .file = path});
  };
  Source source(bytes);
  uint8_t start[4]; // two zeros, the element type (8: unsigned bytes), the number of dimensions
  if (!source.read(start)) return refuse("the idx file is truncated or damaged");
  if (start[0] || start[1] || start[2] != 8 || start[3] < 1 || start[3] > 4)
    return refuse("not an idx file of unsigned bytes");
  IdxArray result;
  for (int i = 0; i < start[3]; ++i) {
    uint8_t d[4];
    if (!source.read(d)) return refuse("the idx file is truncated or damaged");
    result.shape.push_back(int64_t{d[0]} << 24 | d[1] << 16 | d[2] << 8 | d[3]);
  }
  auto count = checked_element_count(result.shape);
  if (!count || static_cast<size_t>(*count) > most_bytes)
    return refuse(fmt::format("the idx file's array {} is too large", to_string(result.shape)),
                  ErrorCode::limit);
  if (static_cast<size_t>(*count) > source.most_left())
    return refuse("the idx file is truncated or damaged"); // before we allocate for it
  result.values.resize(static_cast<size_t>(*count));
  if (!source.read(result.values)) return refuse("the idx file is truncated or damaged");
  if (!source.at_end()) return refuse("the idx file does not end with its array");
  return result;
}

} // namespace lathe::core
