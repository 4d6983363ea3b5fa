// Tokens to a syntax tree, by recursive descent of bounded depth. After an error it goes on at the
// next statement, so that one run reports many.
#include "frontend/net/syntax.h"

#include "frontend/suggest.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::net {
namespace {

constexpr int deepest = 100; // nesting of expressions and of braces
constexpr size_t most_errors = 20;
struct Failure {}; // unwinds to the end of a statement; the error is already recorded

class Parser {
public:
  Parser(const SourceFile &file, Program &program, std::vector<Include> &includes,
         std::vector<Error> &errors)
      : tokens_(tokenise(file, errors)), program_(program), includes_(includes), errors_(errors) {}

  void run() {
    while (true) {
      skip_newlines();
      if (peek().kind == TokenKind::end || errors_.size() > most_errors) return;
      try {
        top_level();
      } catch (const Failure &) {
        skip_to_definition();
      }
    }
  }

private:
  // --- Tokens
  const Token &peek(size_t ahead = 0) const {
    return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
  }
  Token take() {
    Token token = peek();
    if (next_ + 1 < tokens_.size()) ++next_;
    return token;
  }
  bool is(std::string_view text, size_t ahead = 0) const {
    const Token &token = peek(ahead);
    return (token.kind == TokenKind::symbol || token.kind == TokenKind::word) && token.text == text;
  }
  bool accept(std::string_view text) {
    if (!is(text)) return false;
    take();
    return true;
  }
  void skip_newlines() {
    while (peek().kind == TokenKind::newline) take();
  }
  [[noreturn]] void reject(const Place &place, std::string message, std::string expected = {},
                           std::string found = {}) {
    errors_.push_back(error_at(place, std::move(message), std::move(expected), std::move(found)));
    throw Failure{};
  }
  void expect(std::string_view text, std::string_view where) {
    if (!accept(text))
      reject(peek().place, fmt::format("syntax error {}", where), fmt::format("'{}'", text),
             describe(peek()));
  }
  std::string identifier(std::string_view what) {
    if (peek().kind != TokenKind::word)
      reject(peek().place, "syntax error", std::string(what), describe(peek()));
    return take().text;
  }

  // --- Recovery
  void skip_to_definition() {
    while (peek().kind != TokenKind::end && !is("block") && !is("network")) take();
  }
  // To the end of the line, past whole brace groups that open on it.
  void skip_statement() {
    int depth = 0;
    while (peek().kind != TokenKind::end) {
      if (depth == 0 && (peek().kind == TokenKind::newline || is("}"))) return;
      if (is("{")) ++depth;
      if (is("}")) --depth;
      take();
    }
  }

  // --- Definitions
  void top_level() {
    if (accept("include")) {
      if (peek().kind != TokenKind::text)
        reject(peek().place, "syntax error", "a file name in quotes", describe(peek()));
      Token name = take();
      includes_.push_back({name.text, name.place});
      return;
    }
    Definition definition;
    definition.place = peek().place;
    definition.network = is("network");
    if (!is("network") && !is("block"))
      reject(peek().place, "syntax error", "'network', 'block' or 'include'", describe(peek()));
    take();
    definition.place = peek().place;
    definition.name = identifier("a name");
    if (accept("(")) {
      skip_newlines();
      while (!accept(")")) {
        Parameter parameter{.name = "", .standard = nullptr, .place = peek().place};
        parameter.name = identifier("the name of a parameter, or ')'");
        if (accept("=")) parameter.standard = expression();
        definition.parameters.push_back(std::move(parameter));
        skip_newlines();
        if (!accept(",") && !is(")"))
          reject(peek().place, "syntax error in a list of parameters", "',' or ')'",
                 describe(peek()));
        skip_newlines();
      }
    }
    skip_newlines();
    definition.body = block("a definition");
    program_.definitions.push_back(std::move(definition));
  }

  Block block(std::string_view of) {
    Place open = peek().place;
    expect("{", fmt::format("before the body of {}", of));
    if (++depth_ > deepest)
      reject(open, "braces are nested too deeply", fmt::format("at most {}", deepest));
    Block statements;
    while (true) {
      skip_newlines();
      if (accept("}")) break;
      if (peek().kind == TokenKind::end)
        reject(open, "this brace is never closed", "'}'", "the end of the file");
      if (errors_.size() > most_errors) throw Failure{};
      size_t before = next_;
      int depth = depth_;
      try {
        statements.push_back(statement());
        if (peek().kind != TokenKind::newline && peek().kind != TokenKind::end && !is("}"))
          reject(peek().place, "syntax error", "the end of the statement", describe(peek()));
      } catch (const Failure &) {
        depth_ = depth;
        skip_statement();
        if (next_ == before) take();
      }
    }
    --depth_;
    return statements;
  }

  // --- Statements
  Statement statement() {
    Statement s;
    s.place = peek().place;
    bool labelled = (peek().kind == TokenKind::word || peek().kind == TokenKind::text ||
                     peek().kind == TokenKind::number) &&
                    is(":", 1);
    if (labelled) {
      s.name = name();
      take(); // ':'
      s.place = peek().place;
    }
    if (is("{")) {
      s.kind = Statement::Kind::group;
      s.bodies.push_back(block("a group"));
      return s;
    }
    if (peek().kind != TokenKind::word)
      reject(peek().place, "syntax error", "a layer, a block, or a statement", describe(peek()));
    std::string word = take().text;
    s.callee = word;
    if (word == "input" || word == "output" || word == "from") return named(std::move(s), word);
    if (word == "let") return let(std::move(s));
    if (word == "repeat") return repeat(std::move(s));
    if (word == "if") return condition(std::move(s));
    if ((word == "add" || word == "mul" || word == "concat" || word == "max" || word == "min" ||
         word == "sub" || word == "div") &&
        is("{"))
      return join(std::move(s));
    if (is("(") && !find_layer(word)) return call(std::move(s));
    return layer(std::move(s), word);
  }

  Name name() {
    Token token = take();
    Name name{.text = token.text, .place = token.place, .pieces = {}};
    if (token.kind == TokenKind::text && token.text.find('{') != std::string::npos)
      interpolate(name);
    return name;
  }

  // "denselayer{i + 1}.conv": parsed by a parser over the same text.
  void interpolate(Name &name) {
    std::string_view rest = name.text;
    size_t consumed = 0;
    while (!rest.empty()) {
      size_t open = rest.find('{');
      std::string literal(rest.substr(0, open));
      if (open == std::string_view::npos) {
        name.pieces.emplace_back(literal, nullptr);
        return;
      }
      size_t close = rest.find('}', open);
      Place at{name.place.file, name.place.offset + 1 + consumed + open};
      if (close == std::string_view::npos) reject(at, "a brace in a name is never closed", "'}'");
      size_t begin = next_, found = begin;
      std::vector<Error> ignored;
      auto piece = std::make_unique<SourceFile>();
      piece->name = name.place.file->name;
      piece->text = std::string(rest.substr(open + 1, close - open - 1));
      std::vector<Token> inner = tokenise(*piece, errors_);
      for (Token &token : inner) token.place = at;
      std::swap(tokens_, inner);
      next_ = 0;
      ExpressionRef value;
      try {
        value = expression();
        if (peek().kind != TokenKind::end)
          reject(at, "syntax error in a name", "'}'", describe(peek()));
      } catch (const Failure &) {
        std::swap(tokens_, inner);
        next_ = found;
        throw;
      }
      std::swap(tokens_, inner);
      next_ = found;
      name.pieces.emplace_back(literal, std::move(value));
      consumed += close + 1;
      rest = rest.substr(close + 1);
    }
  }

  bool at_end_of_statement() const {
    return peek().kind == TokenKind::newline || peek().kind == TokenKind::end || is("}");
  }

  Statement named(Statement s, const std::string &word) {
    s.kind = word == "input"    ? Statement::Kind::input
             : word == "output" ? Statement::Kind::output
                                : Statement::Kind::from;
    if (word == "output" && at_end_of_statement()) return s;
    if (peek().kind != TokenKind::word && peek().kind != TokenKind::text)
      reject(peek().place, "syntax error", fmt::format("a name after '{}'", word),
             describe(peek()));
    s.name = name();
    if (word == "input") s.arguments.push_back({"", expression(), s.place});
    return s;
  }

  Statement let(Statement s) {
    s.kind = Statement::Kind::let;
    s.variable = identifier("a name after 'let'");
    expect("=", "in 'let'");
    s.arguments.push_back({"", expression(), s.place});
    return s;
  }

  Statement repeat(Statement s) {
    s.kind = Statement::Kind::repeat;
    s.arguments.push_back({"", expression(), s.place});
    if (accept("as")) s.variable = identifier("a name after 'as'");
    s.bodies.push_back(block("'repeat'"));
    return s;
  }

  Statement condition(Statement s) {
    s.kind = Statement::Kind::condition;
    s.arguments.push_back({"", expression(), s.place});
    s.bodies.push_back(block("'if'"));
    size_t mark = next_;
    skip_newlines();
    if (accept("else")) {
      if (is("if")) {
        Block nested;
        nested.push_back(statement());
        s.bodies.push_back(std::move(nested));
      } else {
        s.bodies.push_back(block("'else'"));
      }
    } else {
      next_ = mark;
    }
    return s;
  }

  Statement join(Statement s) {
    s.kind = Statement::Kind::join;
    Place open = peek().place;
    expect("{", "before the branches");
    skip_newlines();
    while (!accept("}")) {
      if (!is("{"))
        reject(peek().place, fmt::format("syntax error in '{}'", s.callee),
               "a branch in braces, or '}'", describe(peek()));
      s.bodies.push_back(block("a branch"));
      skip_newlines();
    }
    if (s.bodies.size() < 2)
      reject(open, fmt::format("'{}' joins branches", s.callee), "at least two branches",
             fmt::format("{}", s.bodies.size()));
    return s;
  }

  Statement call(Statement s) {
    s.kind = Statement::Kind::call;
    expect("(", "in a call");
    skip_newlines();
    while (!accept(")")) {
      Argument argument{.option = "", .value = nullptr, .place = peek().place};
      if (peek().kind == TokenKind::word && is("=", 1)) {
        argument.option = take().text;
        take();
      }
      argument.value = expression();
      s.arguments.push_back(std::move(argument));
      skip_newlines();
      if (!accept(",") && !is(")"))
        reject(peek().place, "syntax error in a call", "',' or ')'", describe(peek()));
      skip_newlines();
    }
    return s;
  }

  Statement layer(Statement s, const std::string &word) {
    s.kind = Statement::Kind::layer;
    const LayerRule *rule = find_layer(word);
    if (!rule) {
      std::vector<std::string> known = layer_names();
      for (const char *other : {"repeat", "if", "let", "input", "output", "from", "concat", "add"})
        known.emplace_back(other);
      for (const Definition &definition : program_.definitions) known.push_back(definition.name);
      std::string near = nearest(word, known);
      reject(s.place, fmt::format("unknown layer '{}'", word),
             near.empty() ? "a layer of the language or '(' after a block's name"
                          : fmt::format("perhaps '{}'", near));
    }
    while (!at_end_of_statement()) {
      Argument argument{.option = "", .value = nullptr, .place = peek().place};
      auto is_option = [&](const OptionRule &option) { return is(option.name); };
      auto option = std::ranges::find_if(rule->options, is_option);
      if (option != rule->options.end()) {
        argument.option = take().text;
        if (!option->flag) argument.value = expression();
      } else if (positional_count(s) >= rule->most) {
        std::vector<std::string> names;
        for (const OptionRule &o : rule->options) names.emplace_back(o.name);
        std::string near = peek().kind == TokenKind::word ? nearest(peek().text, names) : "";
        reject(peek().place, fmt::format("unexpected argument of '{}'", word),
               !near.empty()   ? fmt::format("perhaps '{}'", near)
               : names.empty() ? "the end of the statement"
                               : fmt::format("one of {}", fmt::join(names, ", ")),
               describe(peek()));
      } else {
        argument.value = expression();
      }
      s.arguments.push_back(std::move(argument));
    }
    if (positional_count(s) < rule->least)
      reject(peek().place, fmt::format("'{}' needs more arguments", word),
             fmt::format("{}", rule->positional), describe(peek()));
    return s;
  }
  static size_t positional_count(const Statement &s) {
    return static_cast<size_t>(
        std::ranges::count_if(s.arguments, [](const Argument &a) { return a.option.empty(); }));
  }

  // --- Expressions, loosest binding first
  ExpressionRef expression() {
    if (++depth_ > deepest) {
      depth_ = 0;
      reject(peek().place, "an expression is nested too deeply",
             fmt::format("at most {}", deepest));
    }
    ExpressionRef condition = binary(0);
    if (is("?")) {
      auto e = make(Expression::Kind::conditional, take().place, "?");
      e->parts.push_back(std::move(condition));
      e->parts.push_back(expression());
      expect(":", "in a '?' expression");
      e->parts.push_back(expression());
      condition = std::move(e);
    }
    --depth_;
    return condition;
  }

  ExpressionRef binary(size_t level) {
    static const std::vector<std::vector<std::string_view>> levels = {
        {"or"}, {"and"}, {"==", "!=", "<", "<=", ">", ">="}, {"+", "-"}, {"*", "/", "%"}};
    if (level == levels.size()) return unary();
    ExpressionRef left = binary(level + 1);
    int terms = 0;
    while (true) {
      auto found = std::ranges::find_if(levels[level], [&](auto op) { return is(op); });
      if (found == levels[level].end()) return left;
      if (++terms > 1000) reject(peek().place, "an expression is too long", "at most 1000 terms");
      Token op = take();
      auto e = make(Expression::Kind::binary, op.place, op.text);
      e->parts.push_back(std::move(left));
      e->parts.push_back(binary(level + 1));
      left = std::move(e);
    }
  }

  ExpressionRef unary() {
    if (is("-") || is("not")) {
      if (++depth_ > deepest) reject(peek().place, "an expression is nested too deeply");
      Token op = take();
      auto e = make(Expression::Kind::unary, op.place, op.text);
      e->parts.push_back(unary());
      --depth_;
      return e;
    }
    return primary();
  }

  ExpressionRef primary() {
    const Token token = peek();
    switch (token.kind) {
    case TokenKind::number: {
      take();
      auto e = make(Expression::Kind::number, token.place, "");
      e->number = token.number;
      return e;
    }
    case TokenKind::sizes: {
      take();
      auto e = make(Expression::Kind::sizes, token.place, "");
      e->sizes = token.sizes;
      return e;
    }
    case TokenKind::word: {
      take();
      if (token.text == "true" || token.text == "false") {
        auto e = make(Expression::Kind::number, token.place, "");
        e->number = token.text == "true";
        return e;
      }
      auto e = make(Expression::Kind::name, token.place, token.text);
      if (is("(")) {
        e->kind = Expression::Kind::call;
        take();
        list(*e);
      }
      return e;
    }
    default:
      break;
    }
    if (accept("(")) {
      auto e = make(Expression::Kind::tuple, token.place, "");
      list(*e);
      if (e->parts.size() == 1) return std::move(e->parts[0]);
      return e;
    }
    reject(token.place, "syntax error", "a value", describe(token));
  }

  void list(Expression &into) {
    while (!accept(")")) {
      into.parts.push_back(expression());
      if (!accept(",") && !is(")"))
        reject(peek().place, "syntax error in a list", "',' or ')'", describe(peek()));
    }
  }

  static ExpressionRef make(Expression::Kind kind, const Place &place, std::string text) {
    auto e = std::make_unique<Expression>();
    e->kind = kind;
    e->place = place;
    e->text = std::move(text);
    return e;
  }

  std::vector<Token> tokens_;
  Program &program_;
  std::vector<Include> &includes_;
  std::vector<Error> &errors_;
  size_t next_ = 0;
  int depth_ = 0;
};

} // namespace

void parse(const SourceFile &file, Program &program, std::vector<Include> &includes,
           std::vector<Error> &errors) {
  Parser(file, program, includes, errors).run();
}

} // namespace lathe::net
