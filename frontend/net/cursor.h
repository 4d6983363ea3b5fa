// Reading tokens one by one, and the expressions among them.
#pragma once

#include "frontend/net/syntax.h"

#include <algorithm>

namespace lathe::core::net {

// A place in a row of tokens, the last of which is `end`. Every mismatch is a Failure.
class Cursor {
public:
  explicit Cursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token &peek(size_t ahead = 0) const {
    return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
  }
  const Token &take() {
    const Token &token = peek();
    if (next_ + 1 < tokens_.size()) ++next_;
    return token;
  }
  bool is(TokenKind kind) const { return peek().kind == kind; }
  bool is(std::string_view text, size_t ahead = 0) const;
  bool accept(std::string_view text);
  void expect(std::string_view text, std::string_view where);
  // A word that is not one of the language's own.
  std::string_view identifier(std::string_view what);
  [[noreturn]] void reject_here(std::string message, std::string expected) const;

  void skip_newlines();
  bool at_end_of_statement() const;
  // After an error: to the end of the statement, past whole brace groups that open in it.
  void skip_statement();
  void skip_group(); // behind the brace that closes what stands here
  void skip_to(std::string_view a, std::string_view b);

  size_t position() const { return next_; }
  void go_back(size_t position) { next_ = position; }

private:
  std::vector<Token> tokens_;
  size_t next_ = 0;
};

// Loosest binding first: ?:, or, and, comparison, + -, * / %, unary - and not.
ExpressionRef parse_expression(Cursor &cursor);

} // namespace lathe::core::net
