// Weights in the form that kernels read: packed, or where they lie.
#pragma once

#include "codegen/codegen.h"
#include "ir/memory.h"
#include "passes/plan.h"

namespace lathe::core {

// Keeps packed data, and the tensors (mapped files) that are used in place.
class PackedWeights {
public:
  // Computes every recipe of the plan, once. Errors: invalid, for a named weight without data;
  // limit, where there is not enough memory.
  static Result<PackedWeights> pack(const Plan &plan);
  const std::byte *address(int weight) const { return addresses_[size_t(weight)]; }
  int64_t copied_bytes() const { return copied_bytes_; } // beside what lies in its file

private:
  Memory block_{nullptr, nullptr};
  std::vector<Tensor> tensors_; // in place
  std::vector<const std::byte *> addresses_;
  int64_t copied_bytes_ = 0;
};

// What the variants of a library read, in one piece: a WeightsHeader, then the weights, of which
// equal ones are there once.
struct LibraryWeights {
  WeightsHeader header;
  std::vector<std::byte> bytes;
  std::vector<std::vector<int64_t>> places; // of each plan's weights, in `bytes`
};
// Errors: as PackedWeights::pack.
Result<LibraryWeights> pack_for_library(std::span<const Plan> plans);

} // namespace lathe::core
