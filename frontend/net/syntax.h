// The syntax tree of the `.net` language, and the tokens it is made from. Private to the frontend.
#pragma once

#include "ir/error.h"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::net {

// A file that is being read; tokens and errors point into it.
struct SourceFile {
  std::string name, text;
};
struct Place {
  const SourceFile *file = nullptr;
  size_t offset = 0;
};
// An error at a place: line, column, the line itself and a caret.
Error error_at(const Place &place, std::string message, std::string expected = {},
               std::string found = {});

enum class TokenKind : uint8_t { word, text, number, sizes, symbol, newline, end };
struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;            // word, quoted text without its quotes, symbol
  double number = 0;           // number
  std::vector<double> sizes{}; // 3x224x224
  Place place;
};
std::string describe(const Token &token);
// Never fails: characters that mean nothing become errors and are skipped.
std::vector<Token> tokenise(const SourceFile &file, std::vector<Error> &errors);

struct Expression;
using ExpressionRef = std::unique_ptr<Expression>;
struct Expression {
  enum class Kind : uint8_t { number, sizes, name, unary, binary, conditional, call, tuple } kind;
  Place place;
  double number = 0;
  std::vector<double> sizes{};
  std::string text{}; // name, operator or function
  std::vector<ExpressionRef> parts{};
};

// A layer name may hold expressions in braces: "denselayer{i + 1}".
struct Name {
  std::string text;
  Place place;
  std::vector<std::pair<std::string, ExpressionRef>> pieces{}; // literal text, then an expression
  bool given() const { return place.file != nullptr; }
};

struct Argument {
  std::string option;  // empty: positional
  ExpressionRef value; // null: a flag
  Place place;
};

struct Statement;
using Block = std::vector<Statement>;
struct Statement {
  enum class Kind : uint8_t {
    layer,
    call,
    join,
    repeat,
    condition,
    let,
    input,
    output,
    from,
    group
  };
  Kind kind = Kind::layer;
  Place place;
  Name name;            // label in front, or what input, output, from and let name
  std::string callee{}; // op, block, or "add"/"concat"...
  std::vector<Argument> arguments{};
  std::string variable{};      // repeat ... as variable
  std::vector<Block> bodies{}; // branches; then, else; the body of a repeat or group
};

struct Parameter {
  std::string name;
  ExpressionRef standard; // default, or null
  Place place;
};
struct Definition { // of a block or a network
  bool network = false;
  std::string name;
  Place place;
  std::vector<Parameter> parameters;
  Block body;
};
struct Program {
  std::vector<std::unique_ptr<SourceFile>> files;
  std::vector<Definition> definitions;
};

struct Include {
  std::string name;
  Place place;
};
// Adds the definitions of `file` to the program and reports the files it includes.
void parse(const SourceFile &file, Program &program, std::vector<Include> &includes,
           std::vector<Error> &errors);

// What a layer statement may say. Positional arguments first, in order, then options.
struct OptionRule {
  std::string_view name;
  bool flag = false;
};
struct LayerRule {
  std::string_view name;
  std::string_view positional; // for messages: "channels kernel"
  size_t least = 0, most = 0;  // positional arguments
  std::vector<OptionRule> options;
};
const LayerRule *find_layer(std::string_view name);
std::vector<std::string> layer_names();

} // namespace lathe::net
