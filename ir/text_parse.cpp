// Text back to graphs: the inverse of text.cpp, for any input whatsoever.
#include "ir/graph.h"
#include "ir/op_table.h"

#include <charconv>
#include <fmt/format.h>
#include <limits>
#include <map>

namespace lathe {

std::optional<Op> op_by_name(std::string_view name) {
  if (auto kind = unary_kind(name)) return Unary{*kind};
  if (auto kind = binary_kind(name)) return Binary{*kind};
  Pool max, average;
  average.kind = PoolKind::average;
  static const std::map<std::string_view, Op> table = {
      {"conv", Conv{}},
      {"dense", Dense{}},
      {"max_pool", max},
      {"average_pool", average},
      {"global_max_pool", GlobalPool{PoolKind::max}},
      {"global_average_pool", GlobalPool{PoolKind::average}},
      {"lrn", Lrn{}},
      {"batch_norm", BatchNorm{}},
      {"softmax", Softmax{}},
      {"log_softmax", Softmax{-1, true}},
      {"concat", Concat{}},
      {"slice", Slice{}},
      {"split", Split{}},
      {"pad", Pad{}},
      {"reshape", Reshape{}},
      {"flatten", Flatten{}},
      {"transpose", Transpose{}},
      {"reduce_mean", ReduceMean{}},
      {"dropout", Dropout{}},
  };
  auto found = table.find(name);
  return found == table.end() ? std::nullopt : std::optional(found->second);
}

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
    LATHE_CHECK(verify(graph_));
    return std::move(graph_);
  }

private:
  // --- Characters
  [[noreturn]] void reject(std::string expected) {
    int line = 1, column = 1;
    for (size_t i = 0; i < at_ && i < text_.size(); ++i) {
      ++column;
      if (text_[i] == '\n') {
        ++line;
        column = 1;
      }
    }
    std::string found = at_ < text_.size() ? fmt::format("'{}'", text_.substr(at_, 12)) : "the end";
    for (char &c : found)
      if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    throw Failure{Error{.code = ErrorCode::invalid,
                        .message = "bad graph text",
                        .file = std::string(file_),
                        .line = line,
                        .column = column,
                        .expected = std::move(expected),
                        .found = found}};
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
        int value = 0;
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
  template <typename T> T number() {
    skip_blank();
    T value{};
    auto [stop, status] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
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
  void read(float &value) { value = number<float>(); }
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
  void read(PoolKind &kind) { kind = name() == "max" ? PoolKind::max : PoolKind::average; }
  void read(std::vector<PostOp> &post) {
    post.clear();
    list("[", "]", [&] {
      Op op = operation();
      attributes(op);
      if (auto *unary = std::get_if<Unary>(&op))
        post.push_back({*unary});
      else if (auto *binary = std::get_if<Binary>(&op))
        post.push_back({*binary});
      else
        reject("an elementwise op");
    });
  }
  template <typename T> T known(std::optional<T> value, std::string_view what) {
    if (!value) reject(std::string(what));
    return *value;
  }
  Op operation() { return known(op_by_name(name()), "an op"); }
  // " {name = value, ...}", if it is there. A post list nests once: its ops have no lists.
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
    std::string_view dtype = name();
    Type result;
    bool found = false;
    for (DType d : {DType::f32, DType::i64, DType::i32, DType::boolean})
      if (to_string(d) == dtype) {
        result.dtype = d;
        found = true;
      }
    if (!found) reject("f32, i64, i32 or bool");
    list("[", "]", [&] { result.shape.push_back(number<int64_t>()); });
    if (element_count(result.shape) < 0) reject("a shape of sane size");
    return result;
  }
  ValueId value_id() {
    symbol("%");
    auto id = number<uint32_t>();
    if (id > 1'000'000) reject("a smaller value number");
    if (id >= graph_.values.size()) graph_.values.resize(size_t(id) + 1);
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
      ValueId id = value_id();
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
      recipes_[id] = recipe(t);
    } else if (kind == "const") {
      ValueId id = value_id();
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
      return splat_constant(number<float>(), type.shape);
    }
    if (how == "literal") return literal(type);
    Op op = known(op_by_name(how), "named, splat, literal or an op");
    std::vector<ConstantRef> inputs;
    list("(", ")", [&] { inputs.push_back(recipe_ref()); });
    attributes(op);
    auto result = computed_constant(op, inputs);
    if (!result) throw Failure{result.error()};
    if ((*result)->type != type) reject(fmt::format("a type that {} gives", op_name(op)));
    return *result;
  }

  ConstantRef literal(const Type &type) {
    std::vector<double> reals;
    std::vector<int64_t> integers;
    list("[", "]", [&] {
      if (type.dtype == DType::f32) {
        reals.push_back(number<float>());
      } else if (type.dtype == DType::boolean) {
        bool value = false;
        read(value);
        integers.push_back(value);
      } else {
        integers.push_back(number<int64_t>());
      }
    });
    if (int64_t(reals.size() + integers.size()) != element_count(type.shape))
      reject("as many elements as the shape has");
    Tensor tensor(type.dtype, type.shape);
    for (size_t i = 0; i < size_t(tensor.size()); ++i) switch (type.dtype) {
      case DType::f32:
        tensor.f32_mutable()[i] = float(reals[i]);
        break;
      case DType::i64:
        tensor.as_mutable<int64_t>()[i] = integers[i];
        break;
      case DType::i32:
        tensor.as_mutable<int32_t>()[i] = int32_t(integers[i]);
        break;
      case DType::boolean:
        tensor.as_mutable<uint8_t>()[i] = integers[i] != 0;
        break;
      }
    return literal_constant(std::move(tensor));
  }

  void node() {
    Node node;
    node.name = quoted();
    symbol("->");
    do {
      ValueId id = value_id();
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
  std::map<uint32_t, ConstantRef> recipes_;
};

} // namespace

Result<Graph> parse_graph(std::string_view text, std::string_view file_name) {
  return Reader(text, file_name).run();
}

} // namespace lathe
