// Offsets in the arena for buffers with known lifetimes.
#include "passes/plan/planner.h"

#include <map>

namespace lathe::core {
namespace {

struct Block {
  Buffer *buffer;
  int64_t bytes;
};

constexpr std::string_view laying_out = "laying out the arena";

bool overlap(const Buffer &a, const Buffer &b) { return a.first <= b.last && b.first <= a.last; }

// Places the blocks in this order, each into the first gap among those alive with it; returns the
// bytes that they take together. Errors: limit.
Result<int64_t> place(const std::vector<Block> &order, const Budget &budget) {
  int64_t size = 0;
  std::vector<const Block *> placed; // sorted by offset
  for (const Block &block : order) {
    if (placed.size() % 1024 == 1023) LATHE_CHECK(budget.check(laying_out));
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
Result<std::vector<Block>> improve(std::vector<Block> order, int64_t size, int64_t bound,
                                   const Budget &budget) {
  const auto n = int64_t(order.size());
  std::vector<Block> best = order;
  int64_t tries = std::clamp<int64_t>(4'000'000 / std::max<int64_t>(1, n * n), 0, 2000);
  uint64_t random = 1;
  for (; tries > 0 && size > bound; --tries) {
    LATHE_CHECK(budget.check(laying_out));
    LATHE_CHECK(place(best, budget));
    order = best;
    auto top = std::ranges::find_if(
        order, [&](const Block &b) { return b.buffer->offset + b.bytes == size; });
    random = random * 6364136223846793005u + 1442695040888963407u;
    const auto at = int64_t((random >> 33) % uint64_t(std::max<int64_t>(1, top - order.begin())));
    std::rotate(order.begin() + at, top, top + 1);
    LATHE_TRY(const int64_t now, place(order, budget));
    if (now > size) continue;
    size = now;
    best = order;
  }
  return best;
}

} // namespace

Result<ArenaSize> assign_offsets(std::vector<Buffer> &buffers, bool batched, const Budget &budget) {
  std::vector<Block> order;
  int64_t sum = 0;
  for (Buffer &buffer : buffers) {
    if (buffer.space != Space::arena || buffer.last < 0) continue;
    order.push_back({&buffer, batched ? buffer.bytes.per_image : buffer.bytes.fixed});
    if (__builtin_add_overflow(sum, order.back().bytes, &sum))
      return fail(ErrorCode::limit, "the network's values take more memory than can be addressed");
  }
  std::ranges::stable_sort(order, std::greater{}, &Block::bytes);
  ArenaSize size;
  size.lower_bound = most_alive(order);
  LATHE_TRY(size.bytes, place(order, budget));
  LATHE_TRY(order, improve(order, size.bytes, size.lower_bound, budget));
  LATHE_TRY(size.bytes, place(order, budget));
  return size;
}

} // namespace lathe::core
