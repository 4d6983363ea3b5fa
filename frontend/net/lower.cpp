// Runs the description: a cursor walks over the current value, every layer moves it on. After an
// error the value is `lost`: what reads it is checked as far as that goes, but adds no nodes.
#include "frontend/net/lower.h"

#include "frontend/net/layers.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <unordered_map>
#include <unordered_set>

namespace lathe::core::net {
namespace {

constexpr size_t deepest_calls = 64, deepest_blocks = 300; // what recursion may cost
constexpr size_t most_nodes = 200'000, longest_name = 500;
constexpr int64_t most_repeats = 100'000;
constexpr ValueId lost = no_value - 1;

struct TooManyErrors {};

class Lowering {
public:
  Lowering(const Program &program, const NetOptions &options, std::vector<Error> &errors)
      : program_(program), options_(options), errors_(errors) {}

  Graph run() {
    try {
      if (const Definition *network = find_network()) describe_network(*network);
    } catch (Failure &failure) {
      errors_.push_back(std::move(failure.error));
    } catch (const TooManyErrors &) {
    }
    return std::move(graph_);
  }

private:
  // --- The network

  const Definition *find_network() {
    for (auto d = program_.definitions.rbegin(); d != program_.definitions.rend(); ++d)
      if (d->network) return &*d;
    errors_.push_back({.code = ErrorCode::invalid,
                       .message = "the file describes no network",
                       .file = program_.files[0]->name,
                       .expected = "'network NAME { ... }'"});
    return nullptr;
  }

  void describe_network(const Definition &network) {
    graph_.name = network.name;
    std::map<std::string, Value, std::less<>> given;
    for (const auto &[name, value] : options_.parameters) {
      auto refuse = [&](std::string message, std::string expected) {
        errors_.push_back({.code = ErrorCode::usage,
                           .message = std::move(message),
                           .file = network.place.file->name,
                           .expected = std::move(expected)});
      };
      if (!has_parameter(network, name))
        return refuse(fmt::format("network '{}' has no parameter '{}'", network.name, name),
                      perhaps(name, parameter_names(network), listed(network)));
      if (!(std::abs(value) <= 1e15))
        return refuse(fmt::format("parameter '{}' is out of range", name), "at most 1e15");
      given[name] = {value};
    }
    run_block(network.body, bind(network, std::move(given), network.place));
    if (errors_.empty()) finish(network);
  }

  void finish(const Definition &network) {
    if (graph_.nodes.empty())
      reject(network.place, fmt::format("network '{}' computes nothing", network.name),
             "an 'input' and layers");
    // The last value is a result; the first one, unless an `output` says otherwise.
    if (!std::ranges::count(graph_.outputs, current_))
      graph_.outputs.insert(graph_.outputs.begin(), current_);
  }

  // --- Parameters

  static std::vector<std::string> parameter_names(const Definition &definition) {
    std::vector<std::string> names;
    for (const Parameter &p : definition.parameters) names.emplace_back(p.name);
    return names;
  }
  static std::string listed(const Definition &definition) {
    return definition.parameters.empty()
               ? "no parameters"
               : fmt::format("one of {}", fmt::join(parameter_names(definition), ", "));
  }
  static bool has_parameter(const Definition &definition, std::string_view name) {
    return std::ranges::count(definition.parameters, name, &Parameter::name) > 0;
  }

  // A default may use the parameters before it.
  Scope bind(const Definition &definition, std::map<std::string, Value, std::less<>> given,
             const Place &place) {
    Scope scope(steps_);
    for (const Parameter &parameter : definition.parameters) {
      if (auto found = given.find(parameter.name); found != given.end())
        scope.set(parameter.name, std::move(found->second));
      else if (parameter.standard)
        scope.set(parameter.name, scope.evaluate(*parameter.standard));
      else
        reject(place,
               fmt::format("'{}' needs its parameter '{}'", definition.name, parameter.name));
    }
    return scope;
  }

  // --- Statements

  void run_block(const Block &block, Scope scope) {
    if (++depth_ > deepest_blocks)
      reject(block.empty() ? Place{} : block[0].place, "braces and calls are nested too deeply",
             fmt::format("at most {} levels", deepest_blocks));
    for (size_t i = 0; i < block.size(); ++i) {
      size_t prefix = prefix_.size(), calls = calls_.size(), depth = depth_;
      try {
        steps_.take(block[i].place);
        const Statement *next = i + 1 < block.size() ? &block[i + 1] : nullptr;
        run_statement(block[i], next, scope);
      } catch (Failure &failure) {
        record(std::move(failure.error));
        prefix_.resize(prefix);
        calls_.resize(calls);
        depth_ = depth;
        current_ = lost;
      }
    }
    --depth_;
  }

  // Once for every place, though blocks and repeats come by often.
  void record(Error error) {
    bool final = error.code == ErrorCode::limit;
    auto is_same = [&](const Error &other) {
      return other.line == error.line && other.column == error.column && other.file == error.file;
    };
    if (std::ranges::none_of(errors_, is_same)) {
      for (auto call = calls_.rbegin(); call != calls_.rend() && call - calls_.rbegin() < 10;
           ++call)
        error.detail += fmt::format("\n        in block '{}', called from {}:{}", call->first,
                                    call->second.file->name, call->second.line);
      errors_.push_back(std::move(error));
    }
    if (final || errors_.size() >= most_errors) throw TooManyErrors{};
  }

  void run_statement(const Statement &s, const Statement *next, Scope &scope) {
    using Kind = Statement::Kind;
    switch (s.kind) {
    case Kind::input:
      return input(s, scope);
    case Kind::output:
      return output(s, scope);
    case Kind::from:
      current_ = find_value(s, scope);
      return;
    case Kind::let:
      return scope.set(s.word, scope.evaluate(*s.arguments[0].value));
    case Kind::layer:
      return layer(s, next, scope);
    case Kind::call:
      return call(s, scope);
    case Kind::join:
      return join(s, scope);
    case Kind::repeat:
      return repeat(s, scope);
    case Kind::group:
      return run_named(s, label(s, scope), s.bodies[0], Scope(&scope));
    case Kind::condition:
      if (scope.number(*s.arguments[0].value) != 0)
        run_block(s.bodies[0], Scope(&scope));
      else if (s.bodies.size() > 1)
        run_block(s.bodies[1], Scope(&scope));
      return;
    }
  }

  // Names inside start with `name`, which afterwards is also a name of the last value.
  void run_named(const Statement &s, const std::string &name, const Block &block, Scope scope) {
    size_t before = prefix_.size();
    if (!name.empty()) prefix_ += name + ".";
    check_length(prefix_, s.place);
    run_block(block, std::move(scope));
    prefix_.resize(before);
    name_value(name);
  }
  void name_value(const std::string &name) {
    if (!name.empty() && current_ != no_value) named_.try_emplace(prefix_ + name, current_);
  }

  void repeat(const Statement &s, const Scope &scope) {
    const Expression &times = *s.arguments[0].value;
    int64_t count = scope.integer(times);
    if (count < 0 || count > most_repeats)
      reject(times.place, "bad number of repeats", fmt::format("0 to {}", most_repeats),
             fmt::format("{}", count));
    std::string name = label(s, scope);
    for (int64_t i = 0; i < count; ++i) {
      steps_.take(s.place);
      Scope inner(&scope);
      if (!s.word.empty()) inner.set(s.word, {static_cast<double>(i)});
      run_named(s, name.empty() ? "" : fmt::format("{}.{}", name, i), s.bodies[0],
                std::move(inner));
    }
    name_value(name);
  }

  void call(const Statement &s, const Scope &scope) {
    const Definition *block = nullptr;
    for (const Definition &definition : program_.definitions)
      if (!definition.network && definition.name == s.word) block = &definition;
    if (!block) {
      std::vector<std::string> known = layer_names();
      for (const Definition &definition : program_.definitions) known.emplace_back(definition.name);
      reject(s.place, fmt::format("unknown block '{}'", s.word), perhaps(s.word, known));
    }
    if (calls_.size() >= deepest_calls)
      reject(s.place, "blocks call each other too deeply",
             fmt::format("at most {} levels", deepest_calls));
    Scope inner = bind(*block, arguments(*block, s, scope), s.place);
    calls_.emplace_back(block->name, s.place);
    run_named(s, label(s, scope), block->body, std::move(inner));
    calls_.pop_back();
  }

  static std::map<std::string, Value, std::less<>>
  arguments(const Definition &block, const Statement &s, const Scope &scope) {
    std::map<std::string, Value, std::less<>> given;
    size_t position = 0;
    for (const Argument &argument : s.arguments) {
      std::string name(argument.option);
      if (!name.empty() && !has_parameter(block, name))
        reject(argument.place, fmt::format("block '{}' has no parameter '{}'", block.name, name),
               perhaps(name, parameter_names(block), listed(block)));
      if (name.empty()) {
        if (position >= block.parameters.size())
          reject(argument.place, fmt::format("too many arguments for block '{}'", block.name),
                 listed(block));
        name = block.parameters[position++].name;
      }
      if (!given.emplace(name, scope.evaluate(*argument.value)).second)
        reject(argument.place, fmt::format("parameter '{}' is given twice", name));
    }
    return given;
  }

  // --- Values

  static std::string text_of(const Name &name, const Scope &scope) {
    std::string text;
    for (const Name::Piece &piece : name.pieces) {
      text += piece.text;
      if (piece.value) text += fmt::format("{}", scope.integer(*piece.value));
    }
    return text;
  }
  static std::string label(const Statement &s, const Scope &scope) {
    return text_of(s.name, scope);
  }

  void input(const Statement &s, const Scope &scope) {
    const Expression &sizes = *s.arguments[0].value;
    Shape shape{1}; // one picture
    for (int64_t d : scope.integers(sizes)) {
      if (d < 1) reject(sizes.place, "bad input size", "at least 1", fmt::format("{}", d));
      shape.push_back(d);
    }
    if (element_count(shape) < 0)
      reject(sizes.place, "the input is too large", "", to_string(shape));
    question(shape, sizes.place);
    std::string name = text_of(s.name, scope);
    claim(name, s.name.place);
    current_ = graph_.add_input(name, {DType::f32, shape});
    named_[name] = current_;
  }

  // 32x32x3 is a picture in most other programs.
  void question(const Shape &shape, const Place &place) {
    if (shape.size() != 4 || shape[1] <= 3 || shape[2] <= shape[3]) return;
    if (shape[3] != 1 && shape[3] != 3) return;
    Error warning = error_at(place, "");
    options_.warnings->push_back(fmt::format(
        "{}:{}:{}: warning: an input is channels x height x width, and this one has {} channels: "
        "perhaps {}x{}x{} is meant\n{}",
        warning.file, warning.line, warning.column, shape[1], shape[3], shape[1], shape[2],
        warning.detail));
  }

  void output(const Statement &s, const Scope &scope) {
    ValueId id = s.name.pieces.empty() ? current_ : find_value(s, scope);
    if (id == no_value) need_value(s);
    if (id != lost && !std::ranges::count(graph_.outputs, id)) graph_.outputs.push_back(id);
  }

  // The name as seen from here: first beside, then further out.
  ValueId find_value(const Statement &s, const Scope &scope) const {
    std::string name = text_of(s.name, scope);
    for (std::string_view prefix = prefix_;;) {
      if (auto found = named_.find(std::string(prefix) + name); found != named_.end())
        return found->second;
      if (prefix.empty()) break;
      prefix.remove_suffix(1);
      prefix = prefix.substr(0, prefix.rfind('.') + 1); // npos + 1 is 0
    }
    std::vector<std::string> known;
    for (const auto &[other, id] : named_)
      if (known.size() < 10'000) known.push_back(other);
    std::ranges::sort(known);
    reject(s.name.place, fmt::format("no layer or input '{}' stands before this", name),
           perhaps(name, known));
  }

  void join(const Statement &s, const Scope &scope) {
    need_value(s);
    ValueId start = current_;
    std::vector<ValueId> ends;
    for (const Block &branch : s.bodies) {
      current_ = start;
      run_block(branch, Scope(&scope));
      ends.push_back(current_);
    }
    std::string name = full_name(s, scope);
    if (std::ranges::count(ends, lost)) return lose(name);
    if (s.word == "concat") {
      int64_t axis = s.arguments.empty() ? 1 : scope.integer(*s.arguments[0].value);
      return append(s, name, Concat{axis}, ends);
    }
    BinaryKind kind = *binary_kind(s.word);
    current_ = ends[0];
    for (size_t i = 1; i < ends.size(); ++i) // the statement's name belongs to the last
      append(s, i + 1 < ends.size() ? counted_name(s) : name, Binary{kind}, {current_, ends[i]});
  }

  void layer(const Statement &s, const Statement *next, const Scope &scope) {
    need_value(s);
    std::string name = full_name(s, scope);
    if (current_ == lost) {
      for (const Argument &a : s.arguments)
        if (a.value && !(a.option == "pad" && a.value->text == "same")) scope.evaluate(*a.value);
      return lose(name);
    }
    bool normalised = next && next->kind == Statement::Kind::layer && next->word == "batchnorm";
    Layer layer = find_layer(s.word)->make({s, scope, name, graph_.shape(current_), normalised});
    std::vector<ValueId> inputs{current_};
    for (Operand &operand : layer.operands) {
      std::string operand_name = fmt::format("{}.{}", name, operand.suffix);
      claim(operand_name, s.place);
      inputs.push_back(graph_.add_constant(operand_name, std::move(operand.constant)));
    }
    append(s, name, std::move(layer.op), std::move(inputs));
  }

  void need_value(const Statement &s) {
    if (current_ == no_value)
      reject(s.place, "nothing has been computed yet", "an 'input' before this");
  }

  void append(const Statement &s, const std::string &name, Op op, std::vector<ValueId> inputs) {
    claim(name, s.name.pieces.empty() ? s.place : s.name.place);
    if (graph_.nodes.size() >= most_nodes) {
      Error error = error_at(s.place, "the network is too large",
                             fmt::format("at most {} layers", most_nodes));
      error.code = ErrorCode::limit;
      throw Failure{std::move(error)};
    }
    pay(s, name);
    auto result =
        graph_.add_node(name, std::move(op), std::move(inputs), {s.place.file->name, s.place.line});
    if (!result) {
      Error error =
          error_at(s.place, result.error().message, result.error().expected, result.error().found);
      error.node = result.error().node;
      error.op = result.error().op;
      named_[name] = lost;
      throw Failure{std::move(error)};
    }
    current_ = *result;
    named_[name] = current_;
    size_t results = graph_.nodes.back().outputs.size();
    for (size_t i = 0; results > 1 && i < results; ++i)
      named_[fmt::format("{}.{}", name, i)] = current_ + static_cast<ValueId>(i);
  }
  // For a node, its values and their names.
  void pay(const Statement &s, const std::string &name) {
    constexpr int64_t together = 1 << 20;
    owed_ += node_bytes + 4 * static_cast<int64_t>(name.size());
    if (owed_ < together) return;
    auto grant = options_.budget.take(owed_, "reading the network");
    const auto time = options_.budget.check("reading the network");
    if (!grant || !time) {
      Error error = grant ? time.error() : grant.error();
      error.file = s.place.file->name;
      error.line = s.place.line;
      throw Failure{std::move(error)};
    }
    grants_.push_back(std::move(*grant));
    owed_ = 0;
  }
  void lose(const std::string &name) {
    current_ = lost;
    named_.try_emplace(name, lost);
  }

  // --- Names

  std::string full_name(const Statement &s, const Scope &scope) {
    return s.name.pieces.empty() ? counted_name(s) : prefix_ + text_of(s.name, scope);
  }
  std::string counted_name(const Statement &s) {
    std::string stem = fmt::format("{}{}", prefix_, s.word);
    return fmt::format("{}_{}", stem, ++counters_[stem]);
  }
  static void check_length(const std::string &name, const Place &place) {
    if (name.size() > longest_name)
      reject(place, "a name is too long", fmt::format("at most {} characters", longest_name),
             fmt::format("{}", name.size()));
  }
  // Names of inputs, layers and weights are unique in a graph.
  void claim(const std::string &name, const Place &place) {
    if (name.empty()) reject(place, "a name is empty");
    check_length(name, place);
    if (!taken_.insert(name).second) reject(place, fmt::format("'{}' is defined twice", name));
  }

  const Program &program_;
  const NetOptions &options_;
  std::vector<Error> &errors_;
  Graph graph_;
  Steps steps_;
  ValueId current_ = no_value;
  std::unordered_map<std::string, ValueId> named_; // inputs and layers, by full name
  std::unordered_set<std::string> taken_;
  std::unordered_map<std::string, int> counters_;
  std::string prefix_;
  std::vector<std::pair<std::string_view, Place>> calls_;
  size_t depth_ = 0;
  int64_t owed_ = 0; // bytes
  std::vector<Grant> grants_;
};

} // namespace

Graph lower(const Program &program, const NetOptions &options, std::vector<Error> &errors) {
  return Lowering(program, options, errors).run();
}

} // namespace lathe::core::net
