// Tokens to a syntax tree, by recursive descent of bounded depth. After an error it goes on at the
// next statement, so that one run reports many.
#include "frontend/net/cursor.h"
#include "frontend/net/layers.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core::net {
namespace {

constexpr int deepest = 64; // braces in braces

class Parser {
public:
  Parser(const SourceFile &file, Program &program, std::vector<Include> &includes,
         std::vector<Error> &errors)
      : cursor_(tokenise({&file, 0, 1}, file.text.size(), errors)), program_(program),
        includes_(includes), errors_(errors) {}

  void run() {
    for (cursor_.skip_newlines(); !cursor_.is(TokenKind::end); cursor_.skip_newlines()) {
      if (errors_.size() >= most_errors) return;
      depth_ = 0;
      try {
        top_level();
      } catch (Failure &failure) {
        errors_.push_back(std::move(failure.error));
        cursor_.skip_to("block", "network");
      }
    }
  }

private:
  void top_level() {
    if (cursor_.accept("include")) {
      if (!cursor_.is(TokenKind::quoted))
        cursor_.reject_here("syntax error", "a file name in quotes");
      const Token &name = cursor_.take();
      includes_.push_back({std::string(name.text), name.place});
      return;
    }
    Definition definition{
        .network = cursor_.is("network"), .name = {}, .place = {}, .parameters = {}, .body = {}};
    if (!cursor_.accept("network") && !cursor_.accept("block"))
      cursor_.reject_here("syntax error", "'network', 'block' or 'include'");
    definition.place = cursor_.peek().place;
    definition.name = cursor_.identifier("a name");
    if (!definition.network && (find_layer(definition.name) || is_join(definition.name)))
      reject(definition.place, fmt::format("'{}' is a layer of the language", definition.name),
             "another name");
    if (cursor_.accept("(")) definition.parameters = parameters();
    cursor_.skip_newlines();
    definition.body = block("a definition");
    program_.definitions.push_back(std::move(definition));
  }

  std::vector<Parameter> parameters() {
    std::vector<Parameter> parameters;
    cursor_.skip_newlines();
    while (!cursor_.accept(")")) {
      Place place = cursor_.peek().place;
      std::string_view name = cursor_.identifier("the name of a parameter, or ')'");
      auto is_same = [&](const Parameter &other) { return other.name == name; };
      if (std::ranges::any_of(parameters, is_same))
        reject(place, fmt::format("two parameters are called '{}'", name));
      parameters.push_back(
          {name, cursor_.accept("=") ? parse_expression(cursor_) : nullptr, place});
      next_in_list("a list of parameters");
    }
    return parameters;
  }
  void next_in_list(std::string_view what) {
    cursor_.skip_newlines();
    if (!cursor_.accept(",") && !cursor_.is(")"))
      cursor_.reject_here(fmt::format("syntax error in {}", what), "',' or ')'");
    cursor_.skip_newlines();
  }

  Block block(std::string_view of) {
    Place open = cursor_.peek().place;
    cursor_.expect("{", fmt::format("before the body of {}", of));
    int depth = ++depth_;
    if (depth > deepest)
      reject(open, "braces are nested too deeply", fmt::format("at most {} levels", deepest));
    Block statements;
    for (cursor_.skip_newlines(); !cursor_.accept("}"); cursor_.skip_newlines()) {
      if (cursor_.is(TokenKind::end))
        reject(open, "this brace is never closed", "'}'", "the end of the file");
      try {
        statements.push_back(statement());
        if (!cursor_.at_end_of_statement())
          cursor_.reject_here("syntax error", "the end of the statement");
      } catch (Failure &failure) {
        if (errors_.size() + 1 >= most_errors || cursor_.is(TokenKind::end)) throw;
        errors_.push_back(std::move(failure.error));
        depth_ = depth;
        cursor_.skip_statement();
      }
    }
    --depth_;
    return statements;
  }

  // --- Statements

  Statement statement() {
    Statement s;
    bool nameable = cursor_.is(TokenKind::word) || cursor_.is(TokenKind::quoted) ||
                    cursor_.is(TokenKind::number);
    if (nameable && cursor_.is(":", 1)) {
      s.name = name();
      cursor_.take();
    }
    s.place = cursor_.peek().place;
    if (cursor_.is("{")) {
      s.kind = Statement::Kind::group;
      s.bodies.push_back(block("a group"));
      return s;
    }
    if (!cursor_.is(TokenKind::word))
      cursor_.reject_here("syntax error", "a layer, a block or a statement");
    s.word = cursor_.take().text;
    if (s.word == "repeat") return repeat(std::move(s));
    if (is_join(s.word)) return join(std::move(s));
    if (cursor_.is("(") && !find_layer(s.word)) return call(std::move(s));
    bool plain = s.word == "input" || s.word == "output" || s.word == "from" || s.word == "let" ||
                 s.word == "if";
    if (!plain) return layer(std::move(s));
    if (!s.name.pieces.empty())
      reject(s.name.place, fmt::format("'{}' cannot have a name in front", s.word));
    if (s.word == "let") return let(std::move(s));
    if (s.word == "if") return condition(std::move(s));
    return named(std::move(s));
  }

  Name name() {
    const Token &token = cursor_.take();
    Name name{token.place, {}};
    std::string_view rest = token.text;
    // "denselayer{i + 1}": the braces only mean something in quotes, elsewhere there are none.
    for (size_t open; (open = rest.find('{')) != std::string_view::npos;) {
      size_t behind = static_cast<size_t>(rest.data() - token.text.data()) + open + 1;
      Place inside = token.place;
      inside.offset += behind + 1; // and the quote
      size_t close = rest.find('}', open);
      if (close == std::string_view::npos)
        reject(inside, "a brace in a name is never closed", "'}'");
      Cursor cursor(tokenise(inside, close - open - 1, errors_));
      ExpressionRef value = parse_expression(cursor);
      if (!cursor.is(TokenKind::end)) cursor.reject_here("syntax error in a name", "'}'");
      name.pieces.push_back({rest.substr(0, open), std::move(value)});
      rest.remove_prefix(close + 1);
    }
    if (!rest.empty() || name.pieces.empty()) name.pieces.push_back({rest, nullptr});
    return name;
  }

  void add_value(Statement &s) {
    Place place = cursor_.peek().place;
    s.arguments.push_back({"", parse_expression(cursor_), place});
  }

  Statement named(Statement s) {
    s.kind = s.word == "input"    ? Statement::Kind::input
             : s.word == "output" ? Statement::Kind::output
                                  : Statement::Kind::from;
    if (s.word == "output" && cursor_.at_end_of_statement()) return s;
    if (!cursor_.is(TokenKind::word) && !cursor_.is(TokenKind::quoted))
      cursor_.reject_here("syntax error", fmt::format("a name after '{}'", s.word));
    s.name = name();
    if (s.word == "input") add_value(s);
    return s;
  }

  Statement let(Statement s) {
    s.kind = Statement::Kind::let;
    s.word = cursor_.identifier("a name after 'let'");
    cursor_.expect("=", "in 'let'");
    add_value(s);
    return s;
  }

  Statement repeat(Statement s) {
    s.kind = Statement::Kind::repeat;
    s.word = {};
    add_value(s);
    if (cursor_.accept("as")) s.word = cursor_.identifier("a name after 'as'");
    s.bodies.push_back(block("'repeat'"));
    return s;
  }

  Statement condition(Statement s) {
    s.kind = Statement::Kind::condition;
    add_value(s);
    s.bodies.push_back(block("'if'"));
    size_t mark = cursor_.position();
    cursor_.skip_newlines();
    if (!cursor_.accept("else")) {
      cursor_.go_back(mark);
    } else if (cursor_.is("if")) {
      if (++depth_ > deepest)
        cursor_.reject_here("too many 'else if'", fmt::format("at most {}", deepest));
      s.bodies.emplace_back().push_back(statement());
      --depth_;
    } else {
      s.bodies.push_back(block("'else'"));
    }
    return s;
  }

  Statement join(Statement s) {
    s.kind = Statement::Kind::join;
    if (s.word == "concat" && cursor_.accept("axis")) add_value(s);
    cursor_.expect("{", fmt::format("after '{}'", s.word));
    for (cursor_.skip_newlines(); !cursor_.accept("}"); cursor_.skip_newlines()) {
      if (!cursor_.is("{")) {
        const Token &found = cursor_.peek();
        cursor_.skip_group();
        reject(found.place, fmt::format("syntax error in '{}'", s.word),
               "a branch in braces, or '}'", describe(found));
      }
      s.bodies.push_back(block("a branch"));
    }
    if (s.bodies.size() < 2)
      reject(s.place, fmt::format("'{}' joins branches", s.word), "at least two",
             fmt::format("{}", s.bodies.size()));
    return s;
  }

  Statement call(Statement s) {
    s.kind = Statement::Kind::call;
    cursor_.take();
    cursor_.skip_newlines();
    while (!cursor_.accept(")")) {
      Argument argument{{}, nullptr, cursor_.peek().place};
      if (cursor_.is(TokenKind::word) && cursor_.is("=", 1)) {
        argument.option = cursor_.take().text;
        cursor_.take();
      }
      argument.value = parse_expression(cursor_);
      s.arguments.push_back(std::move(argument));
      next_in_list("a call");
    }
    return s;
  }

  // --- Layers

  Statement layer(Statement s) {
    s.kind = Statement::Kind::layer;
    const LayerRule *rule = find_layer(s.word);
    if (!rule) unknown_layer(s);
    size_t positional = 0;
    while (!cursor_.at_end_of_statement()) {
      Argument argument{{}, nullptr, cursor_.peek().place};
      if (const OptionRule *option = option_here(*rule)) {
        auto is_same = [&](const Argument &other) { return other.option == option->name; };
        if (std::ranges::any_of(s.arguments, is_same))
          reject(argument.place, fmt::format("'{}' is given twice", option->name));
        argument.option = cursor_.take().text;
        bool alone = option->flag && (cursor_.at_end_of_statement() || option_here(*rule));
        if (!alone) argument.value = parse_expression(cursor_);
      } else if (positional++ == rule->most) {
        unexpected_argument(*rule);
      } else {
        argument.value = parse_expression(cursor_);
      }
      s.arguments.push_back(std::move(argument));
    }
    if (positional < rule->least)
      cursor_.reject_here(fmt::format("'{}' needs more values", s.word),
                          std::string(rule->positional));
    return s;
  }
  const OptionRule *option_here(const LayerRule &rule) const {
    if (!cursor_.is(TokenKind::word)) return nullptr;
    auto found = std::ranges::find(rule.options, cursor_.peek().text, &OptionRule::name);
    return found == rule.options.end() ? nullptr : &*found;
  }

  [[noreturn]] void unexpected_argument(const LayerRule &rule) const {
    std::vector<std::string> names;
    for (const OptionRule &option : rule.options) names.emplace_back(option.name);
    std::string otherwise = names.empty() ? "the end of the statement"
                                          : fmt::format("one of {}", fmt::join(names, ", "));
    cursor_.reject_here(fmt::format("unexpected argument of '{}'", rule.name),
                        perhaps(cursor_.peek().text, names, otherwise));
  }

  [[noreturn]] void unknown_layer(const Statement &s) const {
    std::vector<std::string> known = layer_names();
    known.insert(known.end(),
                 {"repeat", "if", "let", "input", "output", "from", "concat", "add", "mul"});
    for (const Definition &definition : program_.definitions) known.emplace_back(definition.name);
    if (std::ranges::count(known, s.word))
      cursor_.reject_here(fmt::format("'{}' is a block", s.word), "'(' and its arguments");
    reject(s.place, fmt::format("unknown layer '{}'", s.word),
           perhaps(s.word, known, "a layer, or '(' after the name of a block"));
  }

  Cursor cursor_;
  Program &program_;
  std::vector<Include> &includes_;
  std::vector<Error> &errors_;
  int depth_ = 0;
};

} // namespace

void parse(const SourceFile &file, Program &program, std::vector<Include> &includes,
           std::vector<Error> &errors) {
  Parser(file, program, includes, errors).run();
}

} // namespace lathe::core::net
