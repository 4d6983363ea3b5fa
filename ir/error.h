// Errors are values: what went wrong, where, what was expected and what stood there.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace lathe::core {

// The numbers are the exit codes of the command line.
enum class ErrorCode : int {
  mismatch = 1,    // results differ from their reference
  usage = 2,       // a wrong option or argument
  invalid = 3,     // a malformed model, weights file, picture or tensor
  unsupported = 4, // well formed, but nothing we can compile
  io = 5,          // the operating system refused
  limit = 6,       // a configured limit would be exceeded
  internal = 70,   // a bug of ours
};

struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message = {}; // one sentence, without the place
  std::string file = {};    // path, or empty
  int line = 0;             // 1-based, 0 when unknown
  int column = 0;           // 1-based, 0 when unknown
  std::string node = {};    // the layer or value concerned, or empty
  std::string op = {};      // its operation, or empty
  std::string expected = {};
  std::string found = {};
  std::string detail = {}; // further lines: source excerpt with caret, more errors
};

template <typename T> using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(ErrorCode code, std::string message) {
  return std::unexpected(Error{.code = code, .message = std::move(message)});
}
inline std::unexpected<Error> fail(Error error) { return std::unexpected(std::move(error)); }

// "file:line:column: error: message (at 'x', op conv): expected A, found B" and the detail.
std::string to_string(const Error &error);

// Evaluates `expression` (a Result); returns its error from the enclosing function, else binds
// the value to `declaration`.
#define LATHE_CONCAT_(a, b) a##b
#define LATHE_CONCAT(a, b) LATHE_CONCAT_(a, b)
#define LATHE_TRY_(temporary, declaration, expression)                                             \
  auto temporary = (expression);                                                                   \
  if (!temporary) return std::unexpected(std::move(temporary).error());                            \
  declaration = std::move(*temporary)
#define LATHE_TRY(declaration, expression)                                                         \
  LATHE_TRY_(LATHE_CONCAT(result_, __LINE__), declaration, expression)
// The same for a Result<void>.
#define LATHE_CHECK(expression)                                                                    \
  if (auto checked = (expression); !checked) return std::unexpected(std::move(checked).error())

} // namespace lathe::core
