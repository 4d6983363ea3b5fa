// The syntax tree of the `.net` language, and the tokens it is made from. Private to the frontend.
#pragma once

#include "ir/error.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::core::net {

// A file that is being read; tokens and errors point into it.
struct SourceFile {
  std::string name, text;
};
struct Place {
  const SourceFile *file = nullptr;
  size_t offset = 0;
  int line = 0;
};
// An error at a place: line, column, the line itself and a caret.
Error error_at(const Place &place, std::string message, std::string expected = {},
               std::string found = {});

// Unwinds to the next statement; thrown and caught inside this folder only.
struct Failure {
  Error error;
};
[[noreturn]] void reject(const Place &place, std::string message, std::string expected = {},
                         std::string found = {});

inline constexpr size_t most_errors = 20; // then reading stops

enum class TokenKind : uint8_t { word, quoted, number, sizes, symbol, newline, end };
struct Token {
  TokenKind kind = TokenKind::end;
  std::string_view text; // as written; quoted text without its quotes
  Place place;
};
std::string describe(const Token &token);
// The tokens of `length` bytes from `begin` on. What means nothing becomes an error and is skipped.
std::vector<Token> tokenise(const Place &begin, size_t length, std::vector<Error> &errors);
// Of a number or of sizes: "3x224x224" is {3, 224, 224}.
std::vector<double> values_of(const Token &token);

struct Expression;
using ExpressionRef = std::unique_ptr<Expression>;
struct Expression {
  enum class Kind : uint8_t { literal, name, unary, binary, conditional, call, tuple } kind;
  Place place;
  std::string_view text{};       // name, operator or function
  std::vector<double> literal{}; // one number, or several
  std::vector<ExpressionRef> parts{};
  int height = 1; // of this tree; bounded, since evaluation and destruction recurse
};

// A layer name may hold expressions in braces: "denselayer{i + 1}".
struct Name {
  struct Piece {
    std::string_view text;
    ExpressionRef value; // behind the text, or null
  };
  Place place{};
  std::vector<Piece> pieces{}; // none: not given
};

struct Argument {
  std::string_view option; // empty: positional
  ExpressionRef value;     // null: a flag
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
  Place place{};
  Name name{};                       // label in front, or what input, output and from name
  std::string_view word{};           // the layer, block or join; the variable of let and repeat
  std::vector<Argument> arguments{}; // also the count of a repeat, the condition of an if, ...
  std::vector<Block> bodies{};       // branches; then, else; the body of a repeat or group
};

struct Parameter {
  std::string_view name;
  ExpressionRef standard; // default, or null
  Place place;
};
struct Definition { // of a block or a network
  bool network = false;
  std::string_view name;
  Place place;
  std::vector<Parameter> parameters;
  Block body;
};
struct Program { // its text lives in `files`
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

} // namespace lathe::core::net
