#include "frontend/onnx/structure.h"

#include "ir/system/mapping.h"

#include <algorithm>
#include <sys/mman.h>

namespace lathe::core::onnx {
namespace {

constexpr size_t large = 4096; // raw data that is left in the file, and a piece of what is not

// Fields on the way to raw data: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data.
constexpr uint64_t path[] = {7, 5, 9};
constexpr uint64_t varint_type = 0, fixed64_type = 1, bytes_type = 2, fixed32_type = 5;

// Walks over the fields in order and copies all but what it leaves out.
class Copier {
public:
  Copier(std::span<const std::byte> from, std::byte *to) : from_(from), to_(to) {}

  Result<void> run() {
    // What is no protocol buffer is for the parser to refuse, who must see all of it.
    if (!walk(from_.size(), 0)) need(from_.size());
    return std::move(copied_);
  }

private:
  // False where the fields do not fit.
  bool walk(size_t end, size_t depth) {
    while (at_ < end) {
      uint64_t tag = 0, length = 0;
      if (!varint(end, tag)) return false;
      switch (tag & 7) {
      case varint_type:
        if (!varint(end, length)) return false;
        continue;
      case fixed64_type:
        length = 8;
        break;
      case fixed32_type:
        length = 4;
        break;
      case bytes_type:
        if (!varint(end, length)) return false;
        break;
      default:
        return false;
      }
      if (length > end - at_) return false;
      const bool on_path = (tag & 7) == bytes_type && tag >> 3 == path[depth] && length > large;
      const bool raw = on_path && depth + 1 == std::size(path);
      if (on_path && !raw) {
        if (!walk(at_ + length, depth + 1)) return false;
        continue;
      }
      if (!raw) need(at_ + length);
      at_ += length;
    }
    return true;
  }
  bool varint(size_t end, uint64_t &value) {
    for (unsigned shift = 0; shift < 64 && at_ < end; shift += 7) {
      need(at_ + 1);
      const auto byte = std::to_integer<uint64_t>(to_[at_++]);
      value |= (byte & 127) << shift;
      if (byte < 128) return true;
    }
    return false;
  }
  // Copies from the present place to `end`, if that is still to do, and some of what follows.
  void need(size_t end) {
    if (end <= have_ || !copied_) return;
    const size_t begin = std::max(have_, at_);
    have_ = std::max(end, std::min(from_.size(), begin + large));
    copied_ = copy_bytes(from_.subspan(begin, have_ - begin), to_ + begin);
  }

  std::span<const std::byte> from_;
  std::byte *to_;
  size_t at_ = 0, have_ = 0; // all that counts before the latter is copied
  Result<void> copied_;
};

} // namespace

std::span<const std::byte> ModelBytes::raw_data(Bytes view) const {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(view.data(), view.size()));
  if (file.empty() || bytes.size() <= large) return bytes;
  return file.subspan(size_t(bytes.data() - parsed.data()), bytes.size());
}

Result<ModelBytes> read_structure(std::shared_ptr<const void> owner,
                                  std::span<const std::byte> file) {
  const bool too_large = file.size() > most_bytes; // which the parser refuses at once
  if (too_large || !is_mapped(file)) return ModelBytes{std::move(owner), file, {}};
  // As long as the file, but only what is written to takes memory.
  const size_t size = file.size();
  void *const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return fail(ErrorCode::limit, "not enough memory to read the model");
  const std::shared_ptr<void> copy(memory, [size, owner](void *p) { munmap(p, size); });
  auto *const bytes = static_cast<std::byte *>(memory);
  LATHE_CHECK(Copier(file, bytes).run());
  return ModelBytes{copy, {bytes, size}, file};
}

} // namespace lathe::core::onnx
