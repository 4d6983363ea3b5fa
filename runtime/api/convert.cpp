#include "runtime/api/convert.h"

#include <fmt/format.h>
#include <new>
#include <system_error>

namespace lathe {

static_assert(int(ErrorCode::internal) == int(core::ErrorCode::internal));
static_assert(int(DType::boolean) == int(core::DType::boolean) &&
              int(DType::f64) == int(core::DType::f64));

namespace {
core::Error house_error(const Error &e) {
  return {core::ErrorCode(e.code),
          e.message,
          e.file,
          e.line,
          e.column,
          e.node,
          e.op,
          e.expected,
          e.found,
          e.detail};
}
} // namespace

Error public_error(const core::Error &e) {
  return {ErrorCode(e.code), e.message, e.file,  e.line, e.column, e.node, e.op,
          e.expected,        e.found,   e.detail};
}

std::string to_string(const Error &error) { return core::to_string(house_error(error)); }

Error plain_error(ErrorCode code, const char *message) noexcept {
  Error error{.code = code};
  try {
    error.message = message;
  } catch (...) {
    // The code says enough.
  }
  return error;
}

Error thrown_error() noexcept {
  try {
    throw;
  } catch (const std::bad_alloc &) {
    return plain_error(ErrorCode::limit, "out of memory");
  } catch (const std::system_error &e) {
    return plain_error(ErrorCode::io, e.what());
  } catch (const std::exception &e) {
    return plain_error(ErrorCode::internal, e.what());
  } catch (...) {
    return plain_error(ErrorCode::internal, "something unknown was thrown");
  }
}

TensorInfo tensor_info(std::string name, const core::Type &type) {
  return {std::move(name), DType(type.dtype), type.shape,
          size_t(core::element_count(type.shape)) * core::size_of(type.dtype)};
}

core::Result<core::Tensor> as_tensor(const std::string &name, const TensorView &view) {
  static const std::byte nothing{};
  auto count = core::checked_element_count(view.shape);
  if (!count || int(view.dtype) > int(DType::f64) || (!view.data && *count > 0))
    return core::fail(core::Error{.code = core::ErrorCode::invalid,
                                  .message = "this is no tensor",
                                  .node = name,
                                  .expected = "an element type, a shape, and data",
                                  .found = core::to_string(view.shape)});
  return core::Tensor(core::DType(view.dtype), view.shape, nullptr,
                      view.data ? static_cast<const std::byte *>(view.data) : &nothing);
}

} // namespace lathe
