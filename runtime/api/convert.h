// Between the public types of lathe/lathe.h and those of the house.
#pragma once

#include "ir/graph.h"

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

struct Model::Impl {
  core::Graph graph;
};

// What a function that may throw (for want of memory, or by a bug) gives where it may not.
template <typename F> auto guarded(F &&f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::bad_alloc &) {
    return Error{.code = ErrorCode::limit, .message = "not enough memory"};
  } catch (const std::exception &e) {
    return Error{.code = ErrorCode::internal, .message = e.what()};
  }
}

} // namespace lathe
