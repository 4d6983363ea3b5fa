// Weights in the form that kernels read: packed, or where they lie.
#pragma once

#include "codegen/codegen.h"
#include "ir/system/memory.h"
#include "passes/plan.h"

#include <span>

namespace lathe::core {

// Keeps packed data, and the tensors (mapped files) that are used in place.
class PackedWeights {
public:
  // Computes every recipe of the plan, once, on so many threads at most; 0: as many as this process
  // may use. Errors: invalid, for a named weight without data; limit, where there is not enough
  // memory, or the budget says so.
  static Result<PackedWeights> pack(const Plan &plan, int threads = 0, const Budget &budget = {});
  // The same from the bytes that `pack` made for an equal plan, and what lies in files.
  static PackedWeights restore(const Plan &plan, Memory made);
  // Puts what lies in files into memory of its own as well. Errors: limit; io, where a file was
  // cut.
  Result<void> copy_files(int threads);
  const std::byte *address(int weight) const { return addresses_[size_t(weight)]; }
  // Everything but what lies in files, in one piece.
  std::span<const std::byte> made() const { return {block_.get(), made_bytes_}; }

private:
  PackedWeights(const Plan &plan, Memory made);

  Memory block_{nullptr, nullptr}, copies_{nullptr, nullptr};
  Grant grant_; // of the block
  size_t made_bytes_ = 0;
  struct InPlace {
    size_t weight; // of the plan
    Tensor data;
  };
  std::vector<InPlace> in_place_;
  std::vector<const std::byte *> addresses_;
};

// Whether a weight is used where it lies; all others are made.
bool lies_in_place(const Weight &weight);
// The size of what is made for a plan.
size_t made_bytes(const Plan &plan);

// What the variants of a library read, in one piece: a WeightsHeader, then the weights, of which
// equal ones are there once.
struct LibraryWeights {
  WeightsHeader header;
  std::vector<std::byte> bytes;
  std::vector<std::vector<int64_t>> places; // of each plan's weights, in `bytes`
};
// Errors: as PackedWeights::pack.
Result<LibraryWeights> pack_for_library(std::span<const Plan> plans, const Budget &budget = {});

} // namespace lathe::core
