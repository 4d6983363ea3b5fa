// Between the public types of lathe/lathe.h and those of the house.
#pragma once

#include "ir/budget.h"
#include "ir/graph.h"
#include "ir/system/threads.h"

#include <lathe/lathe.h>

namespace lathe {

// In code that returns a public Result: a Result of the house, or its error.
Error public_error(const core::Error &error);

// Evaluates a core::Result; returns its error from the enclosing function, else binds the value.
#define LATHE_PUBLIC_TRY(declaration, expression)                                                  \
  auto LATHE_CONCAT(result_, __LINE__) = (expression);                                             \
  if (!LATHE_CONCAT(result_, __LINE__))                                                            \
    return public_error(LATHE_CONCAT(result_, __LINE__).error());                                  \
  declaration = std::move(*LATHE_CONCAT(result_, __LINE__))
#define LATHE_PUBLIC_CHECK(expression)                                                             \
  if (auto checked = (expression); !checked) return public_error(checked.error())

TensorInfo tensor_info(std::string name, const core::Type &type);
// The caller's memory as a tensor of the house's, not copied. Errors: invalid, for impossible
// shapes or no data.
core::Result<core::Tensor> as_tensor(const std::string &name, const TensorView &view);

// 0: the default.
inline core::Budget budget_of(std::int64_t compile_memory, double seconds,
                              std::int64_t memory_limit = 0) {
  return {compile_memory > 0 ? compile_memory : core::default_compile_memory(memory_limit),
          seconds};
}

struct Model::Impl {
  core::Graph graph;
  std::vector<std::string> warnings = {};
  std::int64_t compile_memory = 0;
  double time_limit = core::default_time_limit;
};

// With the message, if there is memory for it.
Error plain_error(ErrorCode code, const char *message) noexcept;

// What is being thrown (for want of memory, or by a bug), as an error. In a handler.
Error thrown_error() noexcept;

// What a function that may throw gives where it may not.
template <typename F> auto guarded(F &&f) noexcept -> decltype(f()) {
  try {
    return f();
  } catch (...) {
    return thrown_error();
  }
}

// The same for what needs a stack of some size: `enough_stack`, or a thread is made for it.
template <typename F> auto guarded_deep(F &&f) noexcept -> decltype(f()) {
  std::optional<decltype(f())> result;
  auto body = [&]() noexcept { result.emplace(guarded(f)); };
  if (core::on_enough_stack(body)) return std::move(*result);
  return plain_error(ErrorCode::limit,
                     "this thread's stack is too small, and the system gives no other");
}

} // namespace lathe
