// Text back to graphs: the inverse of text.cpp, for any input whatsoever.
#include "ir/graph.h"
#include "ir/op_table.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <fmt/format.h>
#include <unordered_map>

namespace lathe::core {

namespace {

struct Failure {
  Error error;
};

class Reader {
public:
  Reader(std::string_view text, std::string_view file) : text_(text), file_(file) {}

  Result<Graph> run() {
    try {
      word("graph");
      graph_.name = quoted();
      symbol("{");
      while (!accept("}")) statement();
      skip_blank();
      if (at_ < text_.size()) reject("the end of the text");
    } catch (Failure &failure) {
      return fail(std::move(failure.error));
    }
    if (auto whole = verify(graph_); !whole) {
      auto node = std::ranges::find(graph_.nodes, whole.error().node, &Node::name);
      size_t index = static_cast<size_t>(node - graph_.nodes.begin());
      if (index < node_at_.size()) at_ = node_at_[index];
      return fail(placed(std::move(whole).error()));
    }
    return std::move(graph_);
  }

private:
  // --- Characters
  // The error with the present place in this text.
  Error placed(Error error) {
    std::string_view before = text_.substr(0, at_);
    error.file = file_;
    error.line = static_cast<int>(1 + std::ranges::count(before, '\n'));
    error.column = static_cast<int>(before.size() - (before.rfind('\n') + 1)) + 1;
    return error;
  }
  [[noreturn]] void reject(std::string expected) {
    std::string found = at_ < text_.size() ? fmt::format("'{}'", text_.substr(at_, 12)) : "the end";
    for (char &c : found)
      if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    throw Failure{placed({.code = ErrorCode::invalid,
                          .message = "bad graph text",
                          .expected = std::move(expected),
                          .found = std::move(found)})};
  }
  void skip_blank() {
    while (at_ < text_.size()) {
      if (text_[at_] == '#')
        at_ = std::min(text_.find('\n', at_), text_.size());
      else if (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')
        ++at_;
      else
        return;
    }
  }
  bool accept(std::string_view symbol) {
    skip_blank();
    if (text_.substr(at_, symbol.size()) != symbol) return false;
    at_ += symbol.size();
    return true;
  }
  void symbol(std::string_view s) {
    if (!accept(s)) reject(fmt::format("'{}'", s));
  }
  std::string_view name() {
    skip_blank();
    size_t end = at_;
    while (end < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[end])) || text_[end] == '_'))
      ++end;
    if (end == at_) reject("a word");
    std::string_view result = text_.substr(at_, end - at_);
    at_ = end;
    return result;
  }
  void word(std::string_view expected) {
    size_t before = at_;
    if (name() != expected) {
      at_ = before;
      reject(fmt::format("'{}'", expected));
    }
  }
  std::string quoted() {
    symbol("\"");
    std::string result;
    while (true) {
      if (at_ >= text_.size()) reject("'\"'");
      char c = text_[at_++];
      if (c == '"') return result;
      if (c != '\\') {
        result += c;
        continue;
      }
      if (at_ < text_.size() && text_[at_] == 'x') {
        unsigned char value = 0;
        if (at_ + 3 > text_.size()) reject("two hexadecimal digits");
        auto [stop, status] =
            std::from_chars(text_.data() + at_ + 1, text_.data() + at_ + 3, value, 16);
        if (status != std::errc{} || stop != text_.data() + at_ + 3)
          reject("two hexadecimal digits");
        result += static_cast<char>(value);
        at_ += 3;
      } else {
        if (at_ >= text_.size()) reject("a character");
        result += text_[at_++];
      }
    }
  }
  template <typename T> T number(auto... base) {
    skip_blank();
    T value{};
    auto [stop, status] =
        std::from_chars(text_.data() + at_, text_.data() + text_.size(), value, base...);
    if (status != std::errc{}) reject("a number");
    at_ = size_t(stop - text_.data());
    return value;
  }
  template <typename Item>
  void list(std::string_view open, std::string_view close, const Item &item) {
    symbol(open);
    if (accept(close)) return;
    do item();
    while (accept(","));
    symbol(close);
  }

  // --- Attributes
  void read(int64_t &value) { value = number<int64_t>(); }
  void read(int32_t &value) { value = number<int32_t>(); }
  void read(float &value) { // a decimal, or the bits of a NaN
    if (accept("0x"))
      value = std::bit_cast<float>(number<uint32_t>(16));
    else
      value = number<float>();
  }
  void read(bool &value) {
    std::string_view text = name();
    if (text != "true" && text != "false") reject("true or false");
    value = text == "true";
  }
  void read(Size2 &size) {
    size.h = number<int64_t>();
    symbol("x");
    size.w = number<int64_t>();
  }
  void read(std::vector<int64_t> &values) {
    values.clear();
    list("[", "]", [&] { values.push_back(number<int64_t>()); });
  }
  void read(Pads &pads) {
    std::vector<int64_t> v;
    read(v);
    if (v.size() != 4) reject("four paddings");
    pads = {v[0], v[1], v[2], v[3]};
  }
  void read(UnaryKind &kind) { kind = known(unary_kind(name()), "an elementwise function"); }
  void read(BinaryKind &kind) { kind = known(binary_kind(name()), "an elementwise operator"); }
  void read(PoolKind &kind) { kind = known(pool_kind(name()), "max, average or sum"); }
  void read(ReduceKind &kind) { kind = known(reduce_kind(name()), "a kind of reduction"); }
  void read(ArgKind &kind) { kind = known(arg_kind(name()), "max or min"); }
  void read(DType &dtype) { dtype = known(find_dtype(name()), "f32, i64, i32 or bool"); }
  void read(std::vector<FusedOp> &post) {
    post.clear();
    list("[", "]", [&] {
      Op op = operation();
      // Before its attributes: only these have no list of their own, so that nothing nests deeper.
      if (!std::holds_alternative<Unary>(op) && !std::holds_alternative<Binary>(op))
        reject("an elementwise op");
      attributes(op);
      if (auto *unary = std::get_if<Unary>(&op))
        post.push_back({*unary});
      else
        post.push_back({std::get<Binary>(op)});
    });
  }
  template <typename T> T known(std::optional<T> value, std::string_view what) {
    if (!value) reject(std::string(what));
    return *value;
  }
  Op operation() { return op_named(name(), "an op"); }
  Op op_named(std::string_view op, std::string_view expected) {
    auto found = op_table().find(op);
    if (found == op_table().end()) reject(std::string(expected));
    return found->second;
  }
  // " {name = value, ...}", if it is there.
  void attributes(Op &op) {
    if (!accept("{")) return;
    do {
      std::string_view attribute = name();
      symbol("=");
      bool found = false;
      std::visit(
          [&]<typename T>(T &o) {
            std::apply(
                [&](const auto &...field) {
                  auto try_one = [&](const auto &f) {
                    if (found || f.name != attribute) return;
                    found = true;
                    read(o.*(f.member));
                  };
                  (try_one(field), ...);
                },
                T::fields());
          },
          op);
      if (!found) reject(fmt::format("an attribute of {}", op_name(op)));
    } while (accept(","));
    symbol("}");
  }

  // --- Statements
  Type type() {
    Type result;
    read(result.dtype);
    list("[", "]", [&] { result.shape.push_back(number<int64_t>()); });
    if (element_count(result.shape) < 0) reject("a shape of sane size");
    return result;
  }
  ValueId value_id() {
    symbol("%");
    auto id = number<uint32_t>();
    // A gap in the numbers is fine, but no reason to make more values than the text could name.
    if (id > std::max<size_t>(100'000, text_.size())) reject("a smaller value number");
    if (id >= graph_.values.size()) graph_.values.resize(size_t(id) + 1);
    return id;
  }
  ValueId new_value() {
    ValueId id = value_id();
    if (id >= defined_.size()) defined_.resize(size_t(id) + 1);
    if (defined_[id]) reject("a value that is not yet defined");
    defined_[id] = true;
    return id;
  }
  ConstantRef recipe_ref() {
    symbol("@");
    auto found = recipes_.find(number<uint32_t>());
    if (found == recipes_.end()) reject("a recipe that is defined before this");
    return found->second;
  }

  void statement() {
    std::string_view kind = name();
    if (kind == "input") {
      ValueId id = new_value();
      std::string value_name = quoted();
      symbol(":");
      graph_.values[id] = {value_name, type(), nullptr};
      graph_.inputs.push_back(id);
    } else if (kind == "recipe") {
      symbol("@");
      auto id = number<uint32_t>();
      symbol(":");
      Type t = type();
      symbol("=");
      if (!recipes_.emplace(id, recipe(t)).second) reject("a recipe that is not yet defined");
    } else if (kind == "const") {
      ValueId id = new_value();
      std::string value_name = quoted();
      symbol("=");
      ConstantRef constant = recipe_ref();
      graph_.values[id] = {value_name, constant->type, constant};
    } else if (kind == "node") {
      node();
    } else if (kind == "output") {
      graph_.outputs.push_back(value_id());
    } else {
      at_ -= kind.size();
      reject("input, recipe, const, node or output");
    }
  }

  ConstantRef recipe(const Type &type) {
    std::string_view how = name();
    if (how == "named") return named_constant(quoted(), type);
    if (how == "splat") {
      if (type.dtype != DType::f32) reject("a splat of f32");
      float value = 0;
      read(value);
      return splat_constant(value, type.shape);
    }
    if (how == "literal") return literal(type);
    Op op = op_named(how, "named, splat, literal or an op");
    std::vector<ConstantRef> inputs;
    list("(", ")", [&] { inputs.push_back(recipe_ref()); });
    attributes(op);
    auto result = computed_constant(op, inputs);
    if (!result) {
      Error error = std::move(result).error();
      error.op = op_name(op);
      throw Failure{placed(std::move(error))};
    }
    if ((*result)->type != type) reject(fmt::format("a type that {} gives", op_name(op)));
    return *result;
  }

  ConstantRef literal(const Type &type) {
    switch (type.dtype) {
    case DType::f32:
      return literal_of<float, float>(type);
    case DType::i64:
      return literal_of<int64_t, int64_t>(type);
    case DType::i32:
      return literal_of<int32_t, int32_t>(type);
    case DType::boolean:
      return literal_of<uint8_t, bool>(type);
    default:
      return literal_constant(to_floats(literal({DType::f32, type.shape})->data, type.dtype));
    }
  }
  template <typename Stored, typename Written> ConstantRef literal_of(const Type &type) {
    std::vector<Stored> values;
    list("[", "]", [&] {
      Written value{};
      read(value);
      values.push_back(static_cast<Stored>(value));
    });
    if (static_cast<int64_t>(values.size()) != element_count(type.shape))
      reject("as many elements as the shape has");
    Tensor tensor(type.dtype, type.shape);
    std::ranges::copy(values, tensor.as_mutable<Stored>().begin());
    return literal_constant(std::move(tensor));
  }

  void node() {
    Node node;
    skip_blank();
    node_at_.push_back(at_);
    node.name = quoted();
    symbol("->");
    do {
      ValueId id = new_value();
      std::string value_name = quoted();
      symbol(":");
      graph_.values[id] = {value_name, type(), nullptr};
      node.outputs.push_back(id);
    } while (accept(","));
    symbol("=");
    node.op = operation();
    list("(", ")", [&] { node.inputs.push_back(value_id()); });
    attributes(node.op);
    if (accept("at ")) {
      node.source.file = quoted();
      symbol(":");
      node.source.line = number<int>();
    }
    if (accept("fused")) list("[", "]", [&] { node.fused.push_back(quoted()); });
    graph_.nodes.push_back(std::move(node));
  }

  std::string_view text_, file_;
  size_t at_ = 0;
  Graph graph_;
  std::vector<size_t> node_at_; // places of the nodes
  std::vector<bool> defined_;   // by ValueId
  std::unordered_map<uint32_t, ConstantRef> recipes_;
};

} // namespace

Result<Graph> parse_graph(std::string_view text, std::string_view file_name) {
  return Reader(text, file_name).run();
}

} // namespace lathe::core
