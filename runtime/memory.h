// Memory for tensors: aligned for vectors, in huge pages where the kernel has them.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <sys/mman.h>

namespace lathe {

using Memory = std::unique_ptr<std::byte, void (*)(std::byte *)>;

// Uninitialised. Null where there is not enough.
inline Memory allocate(size_t bytes) {
  bytes = bytes > 0 ? bytes : 1;
  const size_t alignment = bytes >= (2u << 20) ? (2u << 20) : 64;
  void *memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory && alignment > 64) madvise(memory, bytes, MADV_HUGEPAGE);
  return {static_cast<std::byte *>(memory), [](std::byte *p) { std::free(p); }};
}

} // namespace lathe
