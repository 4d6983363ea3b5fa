// Runs the description: a cursor walks over the current value, every layer moves it on.
#include "frontend/net/lower.h"

#include "frontend/suggest.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <set>

namespace lathe::net {
namespace {

constexpr int deepest_calls = 64;
constexpr int64_t most_nodes = 200'000, most_steps = 1'000'000;

using Value = std::vector<double>; // a number, or a tuple of several
using Scope = std::map<std::string, Value>;
struct Failure {
  Error error;
};

[[noreturn]] void reject(const Place &place, std::string message, std::string expected = {},
                         std::string found = {}) {
  throw Failure{error_at(place, std::move(message), std::move(expected), std::move(found))};
}

class Lowering {
public:
  Lowering(const Program &program, const NetOptions &options)
      : program_(program), options_(options) {}

  Result<Graph> run() {
    try {
      const Definition *network = nullptr;
      for (const Definition &definition : program_.definitions)
        if (definition.network) network = &definition;
      if (!network)
        return fail(Error{.code = ErrorCode::invalid,
                          .message = "the file describes no network",
                          .file = program_.files.empty() ? "" : program_.files[0]->name,
                          .expected = "'network NAME { ... }'"});
      graph_.name = network->name;
      Scope scope = defaults(*network);
      for (const auto &[name, value] : options_.parameters) {
        if (!scope.contains(name))
          return fail(Error{
              .code = ErrorCode::usage,
              .message = fmt::format("network '{}' has no parameter '{}'", network->name, name),
              .expected = fmt::format("one of {}", parameter_names(*network))});
        scope[name] = {value};
      }
      for (const auto &[name, value] : scope)
        if (value.empty()) reject(network->place, fmt::format("parameter '{}' has no value", name));
      run_block(network->body, scope);
      finish(*network);
      return std::move(graph_);
    } catch (Failure &failure) {
      for (auto call = calls_.rbegin(); call != calls_.rend(); ++call)
        failure.error.detail +=
            fmt::format("\n  in block '{}', called from {}", call->first, line_of(call->second));
      return fail(std::move(failure.error));
    }
  }

private:
  static std::string line_of(const Place &place) {
    Error error = error_at(place, "");
    return fmt::format("{}:{}", error.file, error.line);
  }
  static std::string parameter_names(const Definition &definition) {
    std::string names;
    for (const Parameter &p : definition.parameters) names += (names.empty() ? "" : ", ") + p.name;
    return names.empty() ? "none" : names;
  }

  // --- Expressions

  Scope defaults(const Definition &definition) {
    Scope scope; // a default may use the parameters before it
    for (const Parameter &parameter : definition.parameters)
      scope[parameter.name] = parameter.standard ? evaluate(*parameter.standard, scope) : Value{};
    return scope;
  }

  Value evaluate(const Expression &e, const Scope &scope) {
    using Kind = Expression::Kind;
    switch (e.kind) {
    case Kind::number:
      return {e.number};
    case Kind::sizes:
      return e.sizes;
    case Kind::tuple: {
      Value values;
      for (const ExpressionRef &part : e.parts) values.push_back(number(*part, scope));
      return values;
    }
    case Kind::name:
      return variable(e, scope);
    case Kind::conditional:
      return evaluate(number(*e.parts[0], scope) != 0 ? *e.parts[1] : *e.parts[2], scope);
    case Kind::unary: {
      double value = number(*e.parts[0], scope);
      return {e.text == "-" ? -value : value == 0};
    }
    case Kind::binary:
      return {arithmetic(e, scope)};
    case Kind::call:
      return {function(e, scope)};
    }
    return {};
  }

  Value variable(const Expression &e, const Scope &scope) {
    auto found = scope.find(e.text);
    if (found != scope.end() && !found->second.empty()) return found->second;
    std::vector<std::string> known;
    for (const auto &[name, value] : scope) known.push_back(name);
    std::string near = nearest(e.text, known);
    reject(e.place, fmt::format("unknown name '{}'", e.text),
           near.empty() ? "" : fmt::format("perhaps '{}'", near));
  }

  double arithmetic(const Expression &e, const Scope &scope) {
    const std::string &op = e.text;
    double a = number(*e.parts[0], scope);
    if (op == "and") return a != 0 && number(*e.parts[1], scope) != 0;
    if (op == "or") return a != 0 || number(*e.parts[1], scope) != 0;
    double b = number(*e.parts[1], scope);
    if ((op == "/" || op == "%") && b == 0) reject(e.place, "division by zero");
    double result = op == "+"    ? a + b
                    : op == "-"  ? a - b
                    : op == "*"  ? a * b
                    : op == "/"  ? a / b
                    : op == "%"  ? a - b * std::floor(a / b)
                    : op == "==" ? a == b
                    : op == "!=" ? a != b
                    : op == "<"  ? a < b
                    : op == "<=" ? a <= b
                    : op == ">"  ? a > b
                                 : a >= b;
    if (!(std::abs(result) <= 1e15)) reject(e.place, "the result is out of range", "at most 1e15");
    return result;
  }

  double function(const Expression &e, const Scope &scope) {
    std::vector<double> arguments;
    for (const ExpressionRef &part : e.parts) arguments.push_back(number(*part, scope));
    auto takes = [&](size_t n) {
      if (arguments.size() != n)
        reject(e.place, fmt::format("'{}' takes {} arguments", e.text, n), "",
               fmt::format("{}", arguments.size()));
    };
    if (e.text == "floor" || e.text == "ceil" || e.text == "round") {
      takes(1);
      return e.text == "floor"  ? std::floor(arguments[0])
             : e.text == "ceil" ? std::ceil(arguments[0])
                                : std::round(arguments[0]);
    }
    if (e.text == "min" || e.text == "max") {
      takes(2);
      return e.text == "min" ? std::min(arguments[0], arguments[1])
                             : std::max(arguments[0], arguments[1]);
    }
    reject(e.place, fmt::format("unknown function '{}'", e.text), "floor, ceil, round, min or max");
  }

  double number(const Expression &e, const Scope &scope) {
    Value value = evaluate(e, scope);
    if (value.size() != 1) reject(e.place, "wrong kind of value", "one number", show(value));
    return value[0];
  }
  static std::string show(const Value &value) {
    return fmt::format("({})", fmt::join(value, ", "));
  }

  int64_t integer(const Place &place, double value) {
    if (value != std::floor(value))
      reject(place, "not a whole number", "a whole number", fmt::format("{}", value));
    return static_cast<int64_t>(value);
  }
  std::vector<int64_t> integers(const Place &place, const Value &value) {
    std::vector<int64_t> result;
    for (double v : value) result.push_back(integer(place, v));
    return result;
  }

  // --- The arguments of one layer
  struct Arguments {
    Lowering &lowering;
    const Statement &s;
    const Scope &scope;

    const Argument *find(std::string_view option) const {
      for (const Argument &a : s.arguments)
        if (a.option == option) return &a;
      return nullptr;
    }
    const Argument *positional(size_t index) const {
      for (const Argument &a : s.arguments)
        if (a.option.empty() && index-- == 0) return &a;
      return nullptr;
    }
    bool flag(std::string_view option) const { return find(option) != nullptr; }
    Value value(const Argument *a, Value standard) const {
      return a ? lowering.evaluate(*a->value, scope) : standard;
    }
    double number(const Argument *a, double standard) const {
      return a ? lowering.number(*a->value, scope) : standard;
    }
    int64_t integer(const Argument *a, int64_t standard) const {
      return a ? lowering.integer(a->place, lowering.number(*a->value, scope)) : standard;
    }
    std::vector<int64_t> integers(const Argument *a, std::vector<int64_t> standard) const {
      return a ? lowering.integers(a->place, lowering.evaluate(*a->value, scope)) : standard;
    }
    Size2 size(const Argument *a, Size2 standard) const {
      if (!a) return standard;
      auto values = integers(a, {});
      if (values.size() > 2)
        reject(a->place, "too many sizes", "height and width, or one for both");
      return {values.front(), values.back()};
    }
    // One value for all sides, two for height and width, four for top, left, bottom, right; or
    // `same`: output sizes as without a kernel, the odd row or column of padding at the end.
    Pads pads(const Argument *a, Size2 kernel, Size2 stride, Size2 dilation, const Shape &x) const {
      if (!a) return {};
      if (a->value->kind == Expression::Kind::name && a->value->text == "same") {
        if (x.size() != 4 || stride.h < 1 || stride.w < 1) return {};
        auto total = [](int64_t in, int64_t k, int64_t step, int64_t dilation) {
          int64_t out = (in + step - 1) / step;
          return std::max<int64_t>(0, (out - 1) * step + (k - 1) * dilation + 1 - in);
        };
        int64_t h = total(x[2], kernel.h, stride.h, dilation.h);
        int64_t w = total(x[3], kernel.w, stride.w, dilation.w);
        return {h / 2, w / 2, h - h / 2, w - w / 2};
      }
      auto v = integers(a, {});
      if (v.size() == 4) return {v[0], v[1], v[2], v[3]};
      if (v.size() > 2) reject(a->place, "wrong number of paddings", "one, two, or four");
      return {v.front(), v.back(), v.front(), v.back()};
    }
  };

  // --- Statements

  void run_block(const Block &block, Scope scope) {
    for (size_t i = 0; i < block.size(); ++i) {
      if (++steps_ > most_steps)
        reject(block[i].place, "the description is too long",
               fmt::format("at most {} statements", most_steps));
      const Statement *next = i + 1 < block.size() ? &block[i + 1] : nullptr;
      run_statement(block[i], next, scope);
    }
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
      scope[s.variable] = evaluate(*s.arguments[0].value, scope);
      return;
    case Kind::layer:
      return layer(s, next, scope);
    case Kind::call:
      return call(s, scope);
    case Kind::join:
      return join(s, scope);
    case Kind::repeat:
      return repeat(s, scope);
    case Kind::group:
      return with_prefix(label(s, scope), [&] { run_block(s.bodies[0], scope); });
    case Kind::condition:
      if (number(*s.arguments[0].value, scope) != 0)
        run_block(s.bodies[0], scope);
      else if (s.bodies.size() > 1)
        run_block(s.bodies[1], scope);
      return;
    }
  }

  std::string text_of(const Name &name, const Scope &scope) {
    if (name.pieces.empty()) return name.text;
    std::string text;
    for (const auto &[literal, expression] : name.pieces) {
      text += literal;
      if (expression) text += fmt::format("{}", integer(name.place, number(*expression, scope)));
    }
    return text;
  }
  std::string label(const Statement &s, const Scope &scope) {
    return s.name.given() ? text_of(s.name, scope) : "";
  }
  template <typename Body> void with_prefix(const std::string &label, const Body &body) {
    std::string before = prefix_;
    if (!label.empty()) prefix_ += label + ".";
    body();
    prefix_ = before;
  }

  void input(const Statement &s, const Scope &scope) {
    Shape shape{1};
    for (int64_t d : integers(s.place, evaluate(*s.arguments[0].value, scope))) {
      if (d < 1 || d > (int64_t{1} << 31))
        reject(s.arguments[0].value->place, "bad input size", "at least 1", fmt::format("{}", d));
      shape.push_back(d);
    }
    if (element_count(shape) < 0) reject(s.arguments[0].value->place, "the input is too large");
    std::string name = text_of(s.name, scope);
    if (named_.contains(name)) reject(s.name.place, fmt::format("'{}' is defined twice", name));
    current_ = graph_.add_input(name, {DType::f32, shape});
    named_[name] = current_;
  }

  void output(const Statement &s, const Scope &scope) {
    need_value(s);
    ValueId id = s.name.given() ? find_value(s, scope) : current_;
    if (!std::ranges::count(outputs_, id)) outputs_.push_back(id);
  }

  ValueId find_value(const Statement &s, const Scope &scope) {
    std::string name = text_of(s.name, scope);
    if (auto found = named_.find(prefix_ + name); found != named_.end()) return found->second;
    if (auto found = named_.find(name); found != named_.end()) return found->second;
    std::vector<std::string> known;
    for (const auto &[other, id] : named_) known.push_back(other);
    std::string near = nearest(name, known);
    reject(s.name.place, fmt::format("no layer or input '{}' stands before this", name),
           near.empty() ? "" : fmt::format("perhaps '{}'", near));
  }

  void call(const Statement &s, Scope &scope) {
    const Definition *block = nullptr;
    std::vector<std::string> known = layer_names();
    for (const Definition &definition : program_.definitions) {
      if (definition.network) continue;
      known.push_back(definition.name);
      if (definition.name == s.callee) block = &definition;
    }
    if (!block) {
      std::string near = nearest(s.callee, known);
      reject(s.place, fmt::format("unknown block '{}'", s.callee),
             near.empty() ? "" : fmt::format("perhaps '{}'", near));
    }
    if (calls_.size() >= deepest_calls)
      reject(s.place, "blocks call each other too deeply",
             fmt::format("at most {} levels", deepest_calls));
    Scope inner = bind(*block, s, scope);
    calls_.emplace_back(block->name, s.place);
    with_prefix(label(s, scope), [&] { run_block(block->body, inner); });
    calls_.pop_back();
  }

  Scope bind(const Definition &block, const Statement &s, const Scope &scope) {
    Scope given;
    size_t position = 0;
    for (const Argument &argument : s.arguments) {
      std::string name = argument.option;
      if (name.empty()) {
        if (position >= block.parameters.size())
          reject(argument.place, fmt::format("too many arguments for block '{}'", block.name),
                 fmt::format("at most {}: {}", block.parameters.size(), parameter_names(block)));
        name = block.parameters[position++].name;
      } else if (std::ranges::none_of(block.parameters,
                                      [&](const Parameter &p) { return p.name == name; })) {
        std::vector<std::string> known;
        for (const Parameter &p : block.parameters) known.push_back(p.name);
        std::string near = nearest(name, known);
        reject(argument.place, fmt::format("block '{}' has no parameter '{}'", block.name, name),
               near.empty() ? parameter_names(block) : fmt::format("perhaps '{}'", near));
      }
      if (given.contains(name))
        reject(argument.place, fmt::format("parameter '{}' is given twice", name));
      given[name] = evaluate(*argument.value, scope);
    }
    Scope inner;
    for (const Parameter &parameter : block.parameters) {
      if (given.contains(parameter.name))
        inner[parameter.name] = given[parameter.name];
      else if (parameter.standard)
        inner[parameter.name] = evaluate(*parameter.standard, inner);
      else
        reject(s.place,
               fmt::format("block '{}' needs its parameter '{}'", block.name, parameter.name));
    }
    return inner;
  }

  void repeat(const Statement &s, Scope &scope) {
    int64_t count = integer(s.place, number(*s.arguments[0].value, scope));
    if (count < 0 || count > 100'000)
      reject(s.arguments[0].value->place, "bad repeat count", "0 to 100000",
             fmt::format("{}", count));
    std::string name = label(s, scope);
    for (int64_t i = 0; i < count; ++i) {
      Scope inner = scope;
      if (!s.variable.empty()) inner[s.variable] = {double(i)};
      with_prefix(name.empty() ? "" : fmt::format("{}.{}", name, i),
                  [&] { run_block(s.bodies[0], inner); });
    }
  }

  void join(const Statement &s, Scope &scope) {
    need_value(s);
    ValueId start = current_;
    std::vector<ValueId> ends;
    for (const Block &branch : s.bodies) {
      current_ = start;
      run_block(branch, scope);
      ends.push_back(current_);
    }
    if (s.callee == "concat") {
      append(s, scope, "concat", Concat{1}, ends);
      return;
    }
    BinaryKind kind = *binary_kind(s.callee);
    for (size_t i = 1; i < ends.size(); ++i)
      append(s, scope, s.callee, Binary{kind}, {i == 1 ? ends[0] : current_, ends[i]},
             i + 1 < ends.size());
  }

  void need_value(const Statement &s) {
    if (current_ == no_value)
      reject(s.place, "nothing has been computed yet", "an 'input' before this");
  }

  // --- Layers

  void layer(const Statement &s, const Statement *next, Scope &scope) {
    need_value(s);
    Arguments a{*this, s, scope};
    const std::string &op = s.callee;
    const Shape x = graph_.shape(current_);
    if (op == "conv") return conv(s, next, scope, a, x);
    if (op == "dense") return dense(s, next, scope, a, x);
    if (op == "batchnorm") return batch_norm(s, scope, a, x);
    if (op == "prelu") return prelu(s, scope, a, x);
    if (op == "scale") {
      auto factor = splat_constant(float(a.number(a.positional(0), 1)), Shape{1});
      ValueId id = graph_.add_constant(fmt::format("{}factor", prefix_), factor);
      return append(s, scope, op, Binary{BinaryKind::mul}, {current_, id});
    }
    append(s, scope, op, simple(s, a, x), {current_});
  }

  // Layers without weights.
  Op simple(const Statement &s, const Arguments &a, const Shape &x) {
    const std::string &op = s.callee;
    if (op == "maxpool" || op == "avgpool") {
      Pool pool;
      pool.kind = op == "maxpool" ? PoolKind::max : PoolKind::average;
      pool.kernel = a.size(a.positional(0), {});
      pool.stride = a.size(a.find("stride"), pool.kernel);
      pool.dilation = a.size(a.find("dilation"), {});
      pool.pad = a.pads(a.find("pad"), pool.kernel, pool.stride, pool.dilation, x);
      pool.ceil_mode = a.flag("ceil");
      pool.count_include_pad = a.flag("count_include_pad");
      return pool;
    }
    auto real = [&](const Argument *argument, double standard) {
      return static_cast<float>(a.number(argument, standard));
    };
    if (op == "global_avgpool") return GlobalPool{PoolKind::average};
    if (op == "global_maxpool") return GlobalPool{PoolKind::max};
    if (op == "lrn")
      return Lrn{a.integer(a.positional(0), 5), real(a.find("alpha"), 1e-4),
                 real(a.find("beta"), 0.75), real(a.find("k"), 1)};
    if (op == "relu6") return Unary{UnaryKind::clip, 0, 6};
    if (op == "clip")
      return Unary{UnaryKind::clip, real(a.positional(0), 0), real(a.positional(1), 1)};
    if (op == "leaky_relu") return Unary{UnaryKind::leaky_relu, real(a.positional(0), 0.01), 0};
    if (op == "elu") return Unary{UnaryKind::elu, real(a.positional(0), 1), 0};
    if (op == "hard_sigmoid")
      return Unary{UnaryKind::hard_sigmoid, real(a.find("alpha"), 0.2), real(a.find("beta"), 0.5)};
    if (op == "softmax" || op == "log_softmax")
      return Softmax{a.integer(a.find("axis"), x.size() == 4 ? 1 : -1), op == "log_softmax"};
    if (op == "dropout") return Dropout{real(a.positional(0), 0.5)};
    if (op == "flatten") return Flatten{a.integer(a.positional(0), 1)};
    if (op == "reshape") {
      Reshape reshape{{0}}; // the batch stays
      for (int64_t d : a.integers(a.positional(0), {})) reshape.shape.push_back(d);
      return reshape;
    }
    if (op == "transpose") return Transpose{a.integers(a.positional(0), {})};
    if (op == "reduce_mean") return ReduceMean{a.integers(a.positional(0), {}), !a.flag("drop")};
    if (op == "slice") {
      Slice slice;
      slice.axes = a.integers(a.find("axis"), {1});
      size_t n = slice.axes.size();
      slice.begin = a.integers(a.find("begin"), std::vector<int64_t>(n, 0));
      slice.end =
          a.integers(a.find("end"), std::vector<int64_t>(n, std::numeric_limits<int64_t>::max()));
      slice.step = a.integers(a.find("step"), std::vector<int64_t>(n, 1));
      return slice;
    }
    if (op == "zeropad") {
      Pad pad{std::vector<int64_t>(x.size(), 0), std::vector<int64_t>(x.size(), 0),
              real(a.find("value"), 0)};
      size_t axis = 1;
      for (const char *option : {"channels", "rows", "cols"}) {
        if (axis >= x.size()) break;
        std::vector<int64_t> sides = a.integers(a.find(option), {0, 0});
        pad.before[axis] = sides.front();
        pad.after[axis++] = sides.back();
      }
      return pad;
    }
    return Unary{unary_kind(op).value_or(UnaryKind::identity)};
  }

  // A batch norm has a shift of its own: what stands before it needs no bias.
  static bool wants_bias(const Arguments &a, const Statement *next) {
    if (a.flag("bias")) return true;
    bool normalised = next && next->kind == Statement::Kind::layer && next->callee == "batchnorm";
    return !a.flag("nobias") && !normalised;
  }

  ValueId weight(const std::string &layer, std::string_view suffix, Shape shape,
                 const Place &place) {
    if (element_count(shape) < 0)
      reject(place, "the weight is too large or has a negative size", "", to_string(shape));
    std::string name = fmt::format("{}.{}", layer, suffix);
    return graph_.add_constant(name, named_constant(name, {DType::f32, std::move(shape)}));
  }

  void conv(const Statement &s, const Statement *next, Scope &scope, const Arguments &a,
            const Shape &x) {
    Conv conv;
    int64_t channels = a.integer(a.positional(0), 1);
    if (channels < 1)
      reject(a.positional(0)->place, "a convolution needs output channels", "at least 1",
             fmt::format("{}", channels));
    conv.kernel = a.size(a.positional(1), {});
    conv.stride = a.size(a.find("stride"), {});
    conv.dilation = a.size(a.find("dilation"), {});
    conv.pad = a.pads(a.find("pad"), conv.kernel, conv.stride, conv.dilation, x);
    conv.groups = a.integer(a.find("groups"), 1);
    conv.bias = wants_bias(a, next);
    std::string name = layer_name(s, scope, "conv");
    int64_t in = x.size() > 1 ? x[1] : 1;
    std::vector<ValueId> inputs{current_};
    inputs.push_back(
        weight(name, "weight",
               {channels, conv.groups > 0 ? in / conv.groups : in, conv.kernel.h, conv.kernel.w},
               s.place));
    if (conv.bias) inputs.push_back(weight(name, "bias", {channels}, s.place));
    append_named(s, name, conv, inputs);
  }

  void dense(const Statement &s, const Statement *next, Scope &scope, const Arguments &a,
             const Shape &x) {
    if (x.size() != 2)
      reject(s.place, "a dense layer reads vectors", "a 'flatten' before it", to_string(x));
    int64_t outputs = a.integer(a.positional(0), 1);
    if (outputs < 1)
      reject(a.positional(0)->place, "a dense layer needs outputs", "at least 1",
             fmt::format("{}", outputs));
    Dense dense{.bias = wants_bias(a, next), .post = {}};
    std::string name = layer_name(s, scope, "dense");
    std::vector<ValueId> inputs{current_, weight(name, "weight", {outputs, x[1]}, s.place)};
    if (dense.bias) inputs.push_back(weight(name, "bias", {outputs}, s.place));
    append_named(s, name, dense, inputs);
  }

  void batch_norm(const Statement &s, Scope &scope, const Arguments &a, const Shape &x) {
    std::string name = layer_name(s, scope, "batchnorm");
    std::vector<ValueId> inputs{current_};
    for (const char *suffix : {"weight", "bias", "running_mean", "running_var"})
      inputs.push_back(weight(name, suffix, {x.size() > 1 ? x[1] : 1}, s.place));
    append_named(s, name, BatchNorm{float(a.number(a.find("eps"), 1e-5))}, inputs);
  }

  void prelu(const Statement &s, Scope &scope, const Arguments &a, const Shape &x) {
    std::string name = layer_name(s, scope, "prelu");
    int64_t channels = a.flag("shared") || x.size() < 2 ? 1 : x[1];
    ValueId slope = weight(name, "weight", {channels}, s.place);
    Shape aligned(x.size() > 1 ? x.size() - 1 : 1, 1); // C,1,1: along the channels
    aligned[0] = channels;
    ConstantRef recipe = *computed_constant(Reshape{aligned}, {graph_.constant(slope)});
    append_named(s, name, Binary{BinaryKind::prelu},
                 {current_, graph_.add_constant(name + ".slope", recipe)});
  }

  // --- Names and nodes

  std::string layer_name(const Statement &s, const Scope &scope, const std::string &op) {
    if (s.name.given()) return prefix_ + text_of(s.name, scope);
    return fmt::format("{}{}_{}", prefix_, op, ++counters_[prefix_ + op]);
  }
  // `intermediate`: one of several nodes of a statement; the name belongs to the last.
  void append(const Statement &s, const Scope &scope, const std::string &op, Op node,
              std::vector<ValueId> inputs, bool intermediate = false) {
    std::string name = intermediate ? fmt::format("{}{}_{}", prefix_, op, ++counters_[prefix_ + op])
                                    : layer_name(s, scope, op);
    append_named(s, name, std::move(node), std::move(inputs));
  }
  void append_named(const Statement &s, const std::string &name, Op op,
                    std::vector<ValueId> inputs) {
    if (named_.contains(name))
      reject(s.name.given() ? s.name.place : s.place, fmt::format("'{}' is defined twice", name));
    if (int64_t(graph_.nodes.size()) >= most_nodes)
      reject(s.place, "the network is too large", fmt::format("at most {} layers", most_nodes));
    Error here = error_at(s.place, "");
    auto result = graph_.add_node(name, std::move(op), std::move(inputs), {here.file, here.line});
    if (!result) {
      Error error = result.error();
      error.file = here.file;
      error.line = here.line;
      error.column = here.column;
      error.detail = here.detail;
      throw Failure{std::move(error)};
    }
    current_ = *result;
    named_[name] = current_;
  }

  void finish(const Definition &network) {
    if (current_ == no_value)
      reject(network.place, fmt::format("network '{}' computes nothing", network.name),
             "an input and layers");
    if (outputs_.empty() || outputs_.back() != current_) {
      std::erase(outputs_, current_);
      outputs_.insert(outputs_.begin(), current_);
    }
    graph_.outputs = outputs_;
  }

  const Program &program_;
  const NetOptions &options_;
  Graph graph_;
  ValueId current_ = no_value;
  std::vector<ValueId> outputs_;
  std::map<std::string, ValueId> named_; // inputs and layers, by full name
  std::map<std::string, int> counters_;
  std::string prefix_;
  std::vector<std::pair<std::string, Place>> calls_;
  int64_t steps_ = 0;
};

} // namespace

Result<Graph> lower(const Program &program, const NetOptions &options) {
  return Lowering(program, options).run();
}

} // namespace lathe::net
