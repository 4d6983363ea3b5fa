// Characters to tokens, and the excerpt that an error shows.
#include "frontend/net/syntax.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>

namespace lathe::net {

Error error_at(const Place &place, std::string message, std::string expected, std::string found) {
  Error error{.code = ErrorCode::invalid,
              .message = std::move(message),
              .expected = std::move(expected),
              .found = std::move(found)};
  if (!place.file) return error;
  const std::string &text = place.file->text;
  size_t at = std::min(place.offset, text.size());
  size_t begin = at == 0 ? 0 : text.rfind('\n', at - 1) + 1; // npos + 1 is 0
  if (at > 0 && text.rfind('\n', at - 1) == std::string::npos) begin = 0;
  size_t end = std::min(text.find('\n', at), text.size());
  error.file = place.file->name;
  error.line = 1 + int(std::count(text.begin(), text.begin() + int64_t(at), '\n'));
  error.column = int(at - begin) + 1;
  std::string line = text.substr(begin, std::min<size_t>(end - begin, 400));
  for (char &c : line)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  error.detail = fmt::format("{:5} | {}\n      | {:>{}}", error.line, line, '^', error.column);
  return error;
}

std::string describe(const Token &token) {
  switch (token.kind) {
  case TokenKind::newline:
    return "the end of the line";
  case TokenKind::end:
    return "the end of the file";
  case TokenKind::number:
    return fmt::format("{}", token.number);
  case TokenKind::sizes:
    return fmt::format("{}", fmt::join(token.sizes, "x"));
  case TokenKind::text:
    return fmt::format("\"{}\"", token.text.substr(0, 60));
  default:
    return fmt::format("'{}'", token.text.substr(0, 60));
  }
}

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool starts_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool in_word(char c) { return starts_word(c) || is_digit(c); }

class Lexer {
public:
  Lexer(const SourceFile &file, std::vector<Error> &errors)
      : file_(file), text_(file.text), errors_(errors) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) {
      if (errors_.size() > 20) break;
      char c = text_[at_];
      if (c == ' ' || c == '\t' || c == '\r') {
        ++at_;
      } else if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (c == '\n' || c == ';') {
        push(TokenKind::newline, 1);
      } else if (is_digit(c)) {
        number();
      } else if (starts_word(c)) {
        word();
      } else if (c == '"') {
        quoted();
      } else {
        symbol();
      }
    }
    push(TokenKind::end, 0);
    return std::move(tokens_);
  }

private:
  Token &push(TokenKind kind, size_t length) {
    tokens_.push_back({.kind = kind, .text = text_.substr(at_, length), .place = {&file_, at_}});
    at_ += length;
    return tokens_.back();
  }

  // 64, 0.5, 1e-5, or sizes: 3x224x224. A dotted name may follow a digit: see word().
  void number() {
    size_t end = at_;
    std::vector<double> sizes;
    auto integer_end = [&](size_t from) {
      while (from < text_.size() && is_digit(text_[from])) ++from;
      return from;
    };
    auto value_of = [&](size_t from, size_t to) {
      double value = 0;
      std::from_chars(text_.data() + from, text_.data() + to, value);
      return value;
    };
    end = integer_end(at_);
    sizes.push_back(value_of(at_, end));
    while (end + 1 < text_.size() && text_[end] == 'x' && is_digit(text_[end + 1])) {
      size_t next = integer_end(end + 1);
      sizes.push_back(value_of(end + 1, next));
      end = next;
    }
    if (sizes.size() > 1) {
      for (double size : sizes)
        if (size > 1e9) return reject(end - at_, "a size is too large", "at most 1000000000");
      push(TokenKind::sizes, end - at_).sizes = std::move(sizes);
      return;
    }
    double value = 0;
    auto [stop, status] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    size_t length = static_cast<size_t>(stop - (text_.data() + at_));
    if (status != std::errc{} || std::abs(value) > 1e15)
      return reject(std::max<size_t>(length, 1), "a number is out of range", "at most 1e15");
    push(TokenKind::number, length).number = value;
  }

  // Dots join parts of a name: layer1.0.conv1. A number in it may stand behind a dot only.
  void word() {
    size_t end = at_;
    while (end < text_.size() && in_word(text_[end])) ++end;
    while (end + 1 < text_.size() && text_[end] == '.' && in_word(text_[end + 1])) {
      ++end;
      while (end < text_.size() && in_word(text_[end])) ++end;
    }
    push(TokenKind::word, end - at_);
  }

  void quoted() {
    size_t end = text_.find_first_of("\"\n", at_ + 1);
    if (end == std::string::npos || text_[end] == '\n')
      return reject(1, "a quoted name has no end", "a closing '\"' on the same line");
    Token &token = push(TokenKind::text, end + 1 - at_);
    token.text = token.text.substr(1, token.text.size() - 2);
  }

  void symbol() {
    for (std::string_view two : {"==", "!=", "<=", ">="})
      if (text_.compare(at_, 2, two) == 0) {
        push(TokenKind::symbol, 2);
        return;
      }
    if (std::string_view("{}(),:=+-*/%<>?").find(text_[at_]) != std::string_view::npos) {
      push(TokenKind::symbol, 1);
      return;
    }
    auto byte = static_cast<unsigned char>(text_[at_]);
    reject(1, "a character that means nothing here", "",
           byte >= 0x20 && byte < 0x7f ? fmt::format("'{}'", text_[at_])
                                       : fmt::format("byte 0x{:02x}", byte));
  }

  void reject(size_t length, std::string message, std::string expected, std::string found = {}) {
    errors_.push_back(
        error_at({&file_, at_}, std::move(message), std::move(expected),
                 found.empty() ? text_.substr(at_, std::min<size_t>(length, 40)) : found));
    at_ += length;
  }

  const SourceFile &file_;
  const std::string &text_;
  std::vector<Error> &errors_;
  size_t at_ = 0;
  std::vector<Token> tokens_;
};

} // namespace

std::vector<Token> tokenise(const SourceFile &file, std::vector<Error> &errors) {
  return Lexer(file, errors).run();
}

} // namespace lathe::net
