#include "frontend/net/cursor.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace lathe::core::net {

bool Cursor::is(std::string_view text, size_t ahead) const {
  const Token &token = peek(ahead);
  return (token.kind == TokenKind::symbol || token.kind == TokenKind::word) && token.text == text;
}
bool Cursor::accept(std::string_view text) {
  if (!is(text)) return false;
  take();
  return true;
}
void Cursor::reject_here(std::string message, std::string expected) const {
  reject(peek().place, std::move(message), std::move(expected), describe(peek()));
}
void Cursor::expect(std::string_view text, std::string_view where) {
  if (!accept(text)) reject_here(fmt::format("syntax error {}", where), fmt::format("'{}'", text));
}
std::string_view Cursor::identifier(std::string_view what) {
  static constexpr std::string_view reserved[] = {
      "block", "network", "include", "repeat", "as",  "if",  "else", "let",
      "input", "output",  "from",    "true",   "and", "not", "or",   "false"};
  if (!is(TokenKind::word)) reject_here("syntax error", std::string(what));
  if (std::ranges::count(reserved, peek().text))
    reject_here("a word of the language cannot be a name", std::string(what));
  return take().text;
}

void Cursor::skip_newlines() {
  while (is(TokenKind::newline)) take();
}
bool Cursor::at_end_of_statement() const {
  return is(TokenKind::newline) || is(TokenKind::end) || is("}");
}
void Cursor::skip_statement() {
  for (int depth = 0; !is(TokenKind::end); take()) {
    if (depth == 0 && at_end_of_statement()) return;
    depth += is("{") ? 1 : is("}") ? -1 : 0;
  }
}
void Cursor::skip_group() {
  for (int depth = 1; depth > 0 && !is(TokenKind::end); take())
    depth += is("{") ? 1 : is("}") ? -1 : 0;
}
void Cursor::skip_to(std::string_view a, std::string_view b) {
  while (!is(TokenKind::end) && !is(a) && !is(b)) take();
}

namespace {

constexpr int deepest = 100;   // of parentheses and signs, which the parser follows by recursion
constexpr int highest = 500;   // of a tree: also long sums are deep
constexpr size_t longest = 16; // tuples and arguments

class ExpressionParser {
public:
  explicit ExpressionParser(Cursor &cursor) : cursor_(cursor) {}

  ExpressionRef conditional() {
    Deeper deeper(*this);
    ExpressionRef condition = binary(0);
    if (!cursor_.is("?")) return condition;
    ExpressionRef e = make(Expression::Kind::conditional);
    add(*e, std::move(condition));
    add(*e, conditional());
    cursor_.expect(":", "in a '?' expression");
    add(*e, conditional());
    return e;
  }

private:
  struct Deeper {
    ExpressionParser &parser;
    explicit Deeper(ExpressionParser &p) : parser(p) {
      if (++parser.depth_ > deepest)
        reject(parser.cursor_.peek().place, "an expression is nested too deeply",
               fmt::format("at most {} levels", deepest));
    }
    ~Deeper() { --parser.depth_; }
  };

  ExpressionRef binary(size_t level) {
    using Level = std::array<std::string_view, 6>; // operators, and empty ones
    static constexpr Level levels[] = {
        {"or"}, {"and"}, {"==", "!=", "<", "<=", ">", ">="}, {"+", "-"}, {"*", "/", "%"}};
    if (level == std::size(levels)) return unary();
    ExpressionRef left = binary(level + 1);
    while (std::ranges::any_of(levels[level],
                               [&](auto op) { return !op.empty() && cursor_.is(op); })) {
      ExpressionRef e = make(Expression::Kind::binary);
      add(*e, std::move(left));
      add(*e, binary(level + 1));
      left = std::move(e);
    }
    return left;
  }

  ExpressionRef unary() {
    if (!cursor_.is("-") && !cursor_.is("not")) return primary();
    Deeper deeper(*this);
    ExpressionRef e = make(Expression::Kind::unary);
    add(*e, unary());
    return e;
  }

  ExpressionRef primary() {
    const Token &token = cursor_.peek();
    if (token.kind == TokenKind::number || token.kind == TokenKind::sizes) {
      ExpressionRef e = make(Expression::Kind::literal);
      e->literal = values_of(token);
      return e;
    }
    if (cursor_.is("true") || cursor_.is("false")) {
      ExpressionRef e = make(Expression::Kind::literal);
      e->literal = {e->text == "true" ? 1.0 : 0.0};
      return e;
    }
    if (token.kind == TokenKind::word) {
      // Only a parenthesis that touches its name is a call: `conv width (1, 7)` has two arguments.
      size_t end = token.place.offset + token.text.size();
      if (cursor_.is("(", 1) && cursor_.peek(1).place.offset == end) {
        ExpressionRef e = make(Expression::Kind::call);
        cursor_.take();
        list(*e);
        return e;
      }
      ExpressionRef e = make(Expression::Kind::name);
      cursor_.go_back(cursor_.position() - 1);
      e->text = cursor_.identifier("a value");
      return e;
    }
    if (!cursor_.is("(")) cursor_.reject_here("syntax error", "a value");
    ExpressionRef e = make(Expression::Kind::tuple);
    list(*e);
    if (e->parts.size() == 1) return std::move(e->parts[0]);
    return e;
  }

  // Values between commas, up to the parenthesis that closes.
  void list(Expression &into) {
    do {
      if (into.parts.size() == longest)
        reject(cursor_.peek().place, "a list is too long", fmt::format("at most {}", longest));
      cursor_.skip_newlines();
      add(into, conditional());
      cursor_.skip_newlines();
    } while (cursor_.accept(","));
    cursor_.expect(")", "in a list");
  }

  ExpressionRef make(Expression::Kind kind) {
    const Token &token = cursor_.take();
    return std::make_unique<Expression>(
        Expression{.kind = kind, .place = token.place, .text = token.text});
  }
  static void add(Expression &e, ExpressionRef part) {
    e.height = std::max(e.height, part->height + 1);
    if (e.height > highest)
      reject(e.place, "an expression is too long", fmt::format("at most {} terms", highest));
    e.parts.push_back(std::move(part));
  }

  Cursor &cursor_;
  int depth_ = 0;
};

} // namespace

ExpressionRef parse_expression(Cursor &cursor) { return ExpressionParser(cursor).conditional(); }

} // namespace lathe::core::net
