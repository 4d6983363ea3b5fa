// Offsets in the arena for buffers with known lifetimes.
#include "passes/plan/planner.h"

#include <map>

namespace lathe {

ArenaSize assign_offsets(std::vector<Buffer> &buffers, bool batched) {
  auto bytes = [&](const Buffer &b) { return batched ? b.bytes.per_image : b.bytes.fixed; };
  std::vector<Buffer *> order;
  for (Buffer &buffer : buffers)
    if (buffer.space == Space::arena && buffer.last >= 0) order.push_back(&buffer);
  std::ranges::stable_sort(order, std::greater{}, [&](const Buffer *b) { return bytes(*b); });

  ArenaSize size;
  std::vector<Buffer *> placed; // sorted by offset
  for (Buffer *buffer : order) {
    int64_t offset = 0;
    for (const Buffer *other : placed) { // the first gap among those alive with it
      if (other->last < buffer->first || buffer->last < other->first) continue;
      if (other->offset - offset >= bytes(*buffer)) break;
      offset = std::max(offset, other->offset + bytes(*other));
    }
    buffer->offset = offset;
    size.bytes = std::max(size.bytes, offset + bytes(*buffer));
    placed.insert(
        std::ranges::upper_bound(placed, offset, {}, [](const Buffer *b) { return b->offset; }),
        buffer);
  }

  std::map<int, int64_t> change; // of the bytes alive, at each kernel
  for (const Buffer *buffer : order) {
    change[buffer->first] += bytes(*buffer);
    change[buffer->last + 1] -= bytes(*buffer);
  }
  int64_t alive = 0;
  for (auto [kernel, bytes_changed] : change)
    size.lower_bound = std::max(size.lower_bound, alive += bytes_changed);
  return size;
}

} // namespace lathe
