// Characters to tokens.
#include "frontend/net/syntax.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>

namespace lathe::core::net {
namespace {

constexpr size_t most_tokens = 2'000'000; // bounds the memory that a file can cost
constexpr double largest = 1e15;          // numbers below are exact enough to count with
constexpr size_t most_sizes = 16;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool starts_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool in_word(char c) { return starts_word(c) || is_digit(c); }

class Lexer {
public:
  Lexer(const Place &begin, size_t length, std::vector<Error> &errors)
      : place_(begin), text_(std::string_view(begin.file->text).substr(0, begin.offset + length)),
        errors_(errors) {}

  std::vector<Token> run() {
    while (at() < text_.size() && errors_.size() < most_errors) {
      char c = text_[at()];
      if (c == ' ' || c == '\t' || c == '\r')
        ++place_.offset;
      else if (c == '#')
        place_.offset = std::min(text_.find('\n', at()), text_.size());
      else if (c == '\n' || c == ';')
        push(TokenKind::newline, 1);
      else if (is_digit(c))
        number();
      else if (starts_word(c))
        word();
      else if (c == '"')
        quoted();
      else
        symbol();
      if (c == '\n') ++place_.line;
      if (tokens_.size() > most_tokens) {
        reject_here(1, "the description is too long", fmt::format("at most {} words", most_tokens));
        errors_.back().code = ErrorCode::limit;
        tokens_.clear(); // half a description would only give more errors
        break;
      }
    }
    push(TokenKind::end, 0);
    return std::move(tokens_);
  }

private:
  size_t at() const { return place_.offset; }

  Token &push(TokenKind kind, size_t length) {
    tokens_.push_back({kind, text_.substr(std::min(at(), text_.size()), length), place_});
    place_.offset += length;
    return tokens_.back();
  }

  void reject_here(size_t length, std::string message, std::string expected,
                   std::string found = {}) {
    if (found.empty()) found = text_.substr(at(), std::min<size_t>(length, 40));
    errors_.push_back(error_at(place_, std::move(message), std::move(expected), std::move(found)));
    place_.offset += length;
  }

  size_t digits_end(size_t from) const {
    while (from < text_.size() && is_digit(text_[from])) ++from;
    return from;
  }

  // 64, 0.5, 1e-5, or sizes: 3x224x224.
  void number() {
    size_t end = digits_end(at());
    size_t sizes = 1;
    while (end + 1 < text_.size() && text_[end] == 'x' && is_digit(text_[end + 1])) {
      end = digits_end(end + 1);
      ++sizes;
    }
    if (sizes > most_sizes)
      return reject_here(end - at(), "too many sizes", fmt::format("at most {}", most_sizes));
    double value = 0;
    if (sizes == 1) {
      auto [stop, status] =
          std::from_chars(text_.data() + at(), text_.data() + text_.size(), value);
      end = static_cast<size_t>(stop - text_.data());
      if (status != std::errc{}) value = INFINITY;
    } else {
      Token token{TokenKind::sizes, text_.substr(at(), end - at()), place_};
      value = std::ranges::max(values_of(token));
    }
    if (value > largest)
      return reject_here(end - at(), "a number is out of range",
                         fmt::format("at most {}", largest));
    push(sizes > 1 ? TokenKind::sizes : TokenKind::number, end - at());
  }

  // Dots join the parts of a name: layer1.0.conv1
  void word() {
    size_t end = at();
    do {
      ++end;
      while (end < text_.size() && in_word(text_[end])) ++end;
    } while (end + 1 < text_.size() && text_[end] == '.' && in_word(text_[end + 1]));
    push(TokenKind::word, end - at());
  }

  void quoted() {
    size_t end = std::min(text_.find_first_of("\"\n", at() + 1), text_.size());
    if (end == text_.size() || text_[end] == '\n')
      return reject_here(1, "a quoted name has no end", "a closing '\"' on the same line");
    std::string_view inside = text_.substr(at() + 1, end - at() - 1);
    auto forbidden = [](char c) { return c < 0x20 || c > 0x7e; };
    if (std::ranges::any_of(inside, forbidden))
      return reject_here(end + 1 - at(), "a name holds a strange character", "printable ASCII",
                         "a control character, or a byte beyond ASCII");
    push(TokenKind::quoted, end + 1 - at()).text = inside;
  }

  void symbol() {
    for (std::string_view two : {"==", "!=", "<=", ">="})
      if (text_.substr(at(), 2) == two) {
        push(TokenKind::symbol, 2);
        return;
      }
    char c = text_[at()];
    if (std::string_view("{}(),:=+-*/%<>?").find(c) != std::string_view::npos) {
      push(TokenKind::symbol, 1);
      return;
    }
    reject_here(1, "a character that means nothing here", "",
                c >= 0x20 && c < 0x7f
                    ? fmt::format("'{}'", c)
                    : fmt::format("byte 0x{:02x}", static_cast<unsigned char>(c)));
  }

  Place place_;
  std::string_view text_;
  std::vector<Error> &errors_;
  std::vector<Token> tokens_;
};

} // namespace

std::vector<Token> tokenise(const Place &begin, size_t length, std::vector<Error> &errors) {
  return Lexer(begin, length, errors).run();
}

std::vector<double> values_of(const Token &token) {
  std::vector<double> values;
  const char *at = token.text.data(), *end = at + token.text.size();
  while (at < end) {
    double value = 0;
    auto [stop, status] = std::from_chars(at, end, value);
    values.push_back(status == std::errc{} ? value : INFINITY);
    at = stop + 1; // behind the 'x'
  }
  return values;
}

} // namespace lathe::core::net
