// What the way from a model's file to its code may take: bytes of memory, and seconds.
#pragma once

#include "ir/error.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

namespace lathe::core {

// Memory that a budget has granted; it is free again when the last copy of this is gone.
using Grant = std::shared_ptr<const void>;

// Copies share what they count, and any thread may use them. What is counted is what grows with
// numbers in a file and not with the file: tensors that are computed, packed weights, nodes,
// kernels. Who is about to hold so much takes it first.
class Budget {
public:
  Budget() = default; // without limits
  // From now on; 0: no limit of that kind.
  Budget(int64_t bytes, double seconds);
  // For tests: the time is over as soon as `over` says so, which any thread may ask.
  static Budget until(std::function<bool()> over);
  // A smaller one, for a part of the work: what it grants counts here, too.
  Budget part(int64_t bytes) const;

  // `doing`, in errors: "computing a constant". Errors: limit.
  Result<Grant> take(int64_t bytes, std::string_view doing) const;
  // Errors: limit, once the time is over.
  Result<void> check(std::string_view doing) const;
  bool over() const;
  int64_t taken() const; // bytes, at the moment

private:
  struct State;
  std::shared_ptr<State> state_; // null: without limits
};

// The limits that hold where nobody gives any: no real network meets them. Memory: less where the
// compiled network must keep a limit, and most of what this machine has at most.
int64_t default_compile_memory(int64_t memory_limit);
inline constexpr double default_time_limit = 3600;
// The machine's memory, with what it can swap.
int64_t machine_memory();

// What a node of a graph, or a kernel of a plan, takes on its way through the compiler, about.
inline constexpr int64_t node_bytes = 2048, kernel_bytes = 8192;

} // namespace lathe::core
