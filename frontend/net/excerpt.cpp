// Errors that point into a file: the line, and a caret below what is meant.
#include "frontend/net/syntax.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core::net {

// Columns count bytes; what is no printable ASCII shows as one '?' each, so the caret stands right.
Error error_at(const Place &place, std::string message, std::string expected, std::string found) {
  Error error{.code = ErrorCode::invalid,
              .message = std::move(message),
              .expected = std::move(expected),
              .found = std::move(found)};
  if (!place.file) return error;
  constexpr size_t width = 160, before = 100;
  std::string_view text = place.file->text;
  size_t at = std::min(place.offset, text.size());
  size_t begin = text.substr(0, at).rfind('\n') + 1; // npos + 1 is 0
  size_t end = std::min(text.find('\n', at), text.size());
  error.file = place.file->name;
  error.line = place.line;
  error.column = static_cast<int>(at - begin) + 1;
  size_t shown = at - begin > before ? at - before : begin; // of a very long line, what is near
  std::string line(text.substr(shown, std::min(end - shown, width)));
  for (char &c : line)
    if (c < 0x20 || c > 0x7e) c = c == '\t' || c == '\r' ? ' ' : '?';
  line.erase(line.find_last_not_of(' ') + 1);
  error.detail = fmt::format("{:5} | {}\n      | {:>{}}", error.line, line, '^', at - shown + 1);
  return error;
}

void reject(const Place &place, std::string message, std::string expected, std::string found) {
  throw Failure{error_at(place, std::move(message), std::move(expected), std::move(found))};
}

std::string describe(const Token &token) {
  switch (token.kind) {
  case TokenKind::newline:
    return "the end of the statement";
  case TokenKind::end:
    return "the end of the file";
  case TokenKind::quoted:
    return fmt::format("\"{}\"", token.text.substr(0, 60));
  default:
    return fmt::format("'{}'", token.text.substr(0, 60));
  }
}

} // namespace lathe::core::net
