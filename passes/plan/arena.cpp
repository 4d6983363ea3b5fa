// Offsets in the arena for buffers with known lifetimes.
#include "passes/plan/planner.h"

#include <map>

namespace lathe::core {
namespace {

struct Block {
  Buffer *buffer;
  int64_t bytes;
};

bool overlap(const Buffer &a, const Buffer &b) { return a.first <= b.last && b.first <= a.last; }

// Places the blocks in this order, each into the first gap among those alive with it; returns the
// bytes that they take together.
int64_t place(const std::vector<Block> &order) {
  int64_t size = 0;
  std::vector<const Block *> placed; // sorted by offset
  for (const Block &block : order) {
    int64_t offset = 0;
    for (const Block *other : placed) {
      if (!overlap(*other->buffer, *block.buffer)) continue;
      if (other->buffer->offset - offset >= block.bytes) break;
      offset = std::max(offset, other->buffer->offset + other->bytes);
    }
    block.buffer->offset = offset;
    size = std::max(size, offset + block.bytes);
    placed.insert(std::ranges::upper_bound(placed, offset, {},
                                           [](const Block *b) { return b->buffer->offset; }),
                  &block);
  }
  return size;
}

int64_t most_alive(const std::vector<Block> &blocks) {
  std::map<int, int64_t> change; // of the bytes alive, at each kernel
  for (const Block &block : blocks) {
    change[block.buffer->first] += block.bytes;
    change[block.buffer->last + 1] -= block.bytes;
  }
  int64_t alive = 0, most = 0;
  for (auto [kernel, bytes] : change) most = std::max(most, alive += bytes);
  return most;
}

// Improves an order: a block that ends where the arena ends is placed earlier, as long as that does
// no harm. Deterministic, and bounded in time.
std::vector<Block> improve(std::vector<Block> order, int64_t size, int64_t bound) {
  const auto n = int64_t(order.size());
  std::vector<Block> best = order;
  int64_t tries = std::clamp<int64_t>(4'000'000 / std::max<int64_t>(1, n * n), 0, 2000);
  uint64_t random = 1;
  for (; tries > 0 && size > bound; --tries) {
    place(best);
    order = best;
    auto top = std::ranges::find_if(
        order, [&](const Block &b) { return b.buffer->offset + b.bytes == size; });
    random = random * 6364136223846793005u + 1442695040888963407u;
    const auto at = int64_t((random >> 33) % uint64_t(std::max<int64_t>(1, top - order.begin())));
    std::rotate(order.begin() + at, top, top + 1);
    const int64_t now = place(order);
    if (now > size) continue;
    size = now;
    best = order;
  }
  return best;
}

} // namespace

ArenaSize assign_offsets(std::vector<Buffer> &buffers, bool batched) {
  std::vector<Block> order;
  for (Buffer &buffer : buffers)
    if (buffer.space == Space::arena && buffer.last >= 0)
      order.push_back({&buffer, batched ? buffer.bytes.per_image : buffer.bytes.fixed});
  std::ranges::stable_sort(order, std::greater{}, &Block::bytes);
  ArenaSize size;
  size.lower_bound = most_alive(order);
  order = improve(order, place(order), size.lower_bound);
  size.bytes = place(order);
  return size;
}

} // namespace lathe::core
