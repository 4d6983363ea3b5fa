// A debug run of a plan that trusts no kernel: every operand is a copy of just the bytes that the
// plan gives it, beside a page that faults, and every task is watched alone.
#pragma once

#include "runtime/executable.h"

#include <functional>

namespace lathe::core {

// Where the page that faults lies: right behind an operand's last byte, or before its first.
enum class Guard : uint8_t { behind, before };

struct GuardedOptions {
  Guard guard = Guard::behind;
  const Plan *plan = nullptr; // other views and parameters for the executable's kernels (tests)
  std::function<void(size_t kernel, int64_t task)> before_task;
};

// The outputs of `executable`, one kernel and one task after another on this thread; for small
// networks, since after every task the whole output is looked through. An access outside of an
// operand, or of the scratch that a kernel asks for, is a SIGSEGV. Errors: usage or invalid, for
// images or inputs that do not fit; internal, unless each task of every kernel writes elements of
// the output that no other task writes, all of them are written, and nothing else is.
Result<std::vector<Tensor>> run_guarded(const Executable &executable,
                                        std::span<const Tensor> inputs, int64_t images,
                                        const GuardedOptions &options = {});

} // namespace lathe::core
