// Memory for tensors: aligned for vectors, in huge pages where the kernel has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <sys/mman.h>

namespace lathe::core {

// Bytes, rounded up to whole cache lines.
constexpr int64_t whole_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

using Memory = std::unique_ptr<std::byte, void (*)(std::byte *)>;

// Uninitialised. Null where there is not enough.
inline Memory allocate(size_t bytes) {
  const size_t alignment = bytes >= (2u << 20) ? (2u << 20) : 64;
  void *memory = nullptr; // unlike aligned_alloc, posix_memalign leaves the size as it is
  if (posix_memalign(&memory, alignment, bytes > 0 ? bytes : 1) != 0) memory = nullptr;
  if (memory && alignment > 64) madvise(memory, bytes, MADV_HUGEPAGE);
  return {static_cast<std::byte *>(memory), [](std::byte *p) { std::free(p); }};
}

} // namespace lathe::core
