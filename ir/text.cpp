// Graphs as text. One statement per line:
//   recipe @1: f32[6,1,5,5] = named "conv1.weight"
//   const %1 "conv1.weight" = @1
//   node "conv1" -> %3 "conv1": f32[1,6,28,28] = conv(%0, %1, %2) {kernel = 5x5, bias = true}
// Attributes that equal their default are left out.
#include "ir/graph.h"
#include "ir/op_table.h"

#include <bit>
#include <cmath>
#include <fmt/format.h>
#include <functional>
#include <unordered_map>

namespace lathe::core {
namespace {

std::string quote(std::string_view text) {
  std::string quoted = "\"";
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      quoted += fmt::format("\\{}", c);
    else if (byte < 0x20 || byte == 0x7f)
      quoted += fmt::format("\\x{:02x}", byte);
    else
      quoted += c;
  }
  return quoted + "\"";
}

std::string show(const Type &type) {
  return fmt::format("{}[{}]", to_string(type.dtype), fmt::join(type.shape, ","));
}
std::string show(int64_t value) { return fmt::format("{}", value); }
std::string show(bool value) { return value ? "true" : "false"; }
// The shortest that reads back to the same bits.
std::string show(float value) {
  if (std::isnan(value)) return fmt::format("{:#010x}", std::bit_cast<uint32_t>(value));
  return fmt::format("{}", value);
}
std::string show(const Size2 &size) { return fmt::format("{}x{}", size.h, size.w); }
std::string show(const Pads &p) {
  return fmt::format("[{}, {}, {}, {}]", p.top, p.left, p.bottom, p.right);
}
std::string show(const std::vector<int64_t> &values) {
  return fmt::format("[{}]", fmt::join(values, ", "));
}
std::string show(UnaryKind kind) { return std::string(to_string(kind)); }
std::string show(BinaryKind kind) { return std::string(to_string(kind)); }
std::string show(PoolKind kind) { return std::string(to_string(kind)); }
std::string show(ReduceKind kind) { return std::string(to_string(kind)); }
std::string show(ArgKind kind) { return std::string(to_string(kind)); }
std::string show(DType dtype) { return std::string(to_string(dtype)); }
std::string show(const std::vector<FusedOp> &post) {
  std::string text;
  for (const FusedOp &step : post) {
    Op op = std::visit([](const auto &o) { return Op(o); }, step.op);
    text += (text.empty() ? "" : ", ") + print(op);
  }
  return "[" + text + "]";
}

template <typename T> bool same(const T &a, const T &b) { return a == b; }
bool same(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

// " {name = value, ...}" of the attributes that differ from the op of the same name.
std::string attributes(const Op &op) {
  std::string text;
  std::visit(
      [&]<typename T>(const T &o) {
        const T &standard = std::get<T>(op_table().at(op_name(op)));
        std::apply(
            [&](const auto &...field) {
              auto add = [&](const auto &f) {
                if (same(o.*(f.member), standard.*(f.member))) return;
                text +=
                    fmt::format("{}{} = {}", text.empty() ? "" : ", ", f.name, show(o.*(f.member)));
              };
              (add(field), ...);
            },
            T::fields());
      },
      op);
  return text.empty() ? "" : " {" + text + "}";
}

std::string literal(const Tensor &tensor) {
  std::string text;
  auto append = [&]<typename Shown, typename Stored>(std::span<const Stored> values) {
    for (Stored value : values) {
      if (!text.empty()) text += ", ";
      text += show(static_cast<Shown>(value));
    }
  };
  switch (tensor.dtype()) {
  case DType::f32:
  case DType::f16:
  case DType::bf16:
  case DType::f64:
    append.operator()<float>(to_f32(tensor).f32());
    break;
  case DType::i64:
    append.operator()<int64_t>(tensor.as<int64_t>());
    break;
  case DType::i32:
    append.operator()<int64_t>(tensor.as<int32_t>());
    break;
  case DType::boolean:
    append.operator()<bool>(tensor.as<uint8_t>());
    break;
  }
  return "[" + text + "]";
}

// Numbers recipes so that parts come before wholes, without recursion.
class RecipePrinter {
public:
  std::string lines;

  size_t number(const ConstantRef &root) {
    std::vector<const Constant *> stack{root.get()};
    while (!stack.empty()) {
      const Constant *c = stack.back();
      if (numbers_.contains(c)) {
        stack.pop_back();
        continue;
      }
      size_t waiting = stack.size();
      for (const ConstantRef &input : c->inputs)
        if (!numbers_.contains(input.get())) stack.push_back(input.get());
      if (stack.size() == waiting) print_one(*c);
    }
    return numbers_.at(root.get());
  }

private:
  void print_one(const Constant &c) {
    size_t id = numbers_.size();
    numbers_[&c] = id;
    std::string made;
    if (c.op) {
      std::string operands;
      for (const ConstantRef &input : c.inputs)
        operands += fmt::format("{}@{}", operands.empty() ? "" : ", ", numbers_.at(input.get()));
      made = fmt::format("{}({}){}", op_name(*c.op), operands, attributes(*c.op));
    } else if (c.splat) {
      made = fmt::format("splat {}", show(*c.splat));
    } else if (!c.name.empty() || !c.data.defined()) {
      made = fmt::format("named {}", quote(c.name));
    } else {
      made = fmt::format("literal {}", literal(c.data));
    }
    lines += fmt::format("  recipe @{}: {} = {}\n", id, show(c.type), made);
  }
  std::unordered_map<const Constant *, size_t> numbers_;
};

} // namespace

std::string print(const Op &op) { return op_name(op) + attributes(op); }

std::string print(const Graph &graph) {
  std::string text = fmt::format("graph {} {{\n", quote(graph.name)), constants;
  auto value = [&](ValueId id) { return fmt::format("%{} {}", id, quote(graph.values[id].name)); };
  for (ValueId id : graph.inputs)
    text += fmt::format("  input {}: {}\n", value(id), show(graph.type(id)));
  RecipePrinter recipes;
  for (size_t id = 0; id < graph.values.size(); ++id)
    if (const ConstantRef &constant = graph.values[id].constant)
      constants += fmt::format("  const {} = @{}\n", value(ValueId(id)), recipes.number(constant));
  text += recipes.lines + constants;
  for (const Node &node : graph.nodes) {
    std::string results, operands, fused;
    for (ValueId id : node.outputs)
      results +=
          fmt::format("{}{}: {}", results.empty() ? "" : ", ", value(id), show(graph.type(id)));
    for (ValueId id : node.inputs)
      operands += fmt::format("{}%{}", operands.empty() ? "" : ", ", id);
    for (const std::string &name : node.fused) fused += (fused.empty() ? "" : ", ") + quote(name);
    text += fmt::format("  node {} -> {} = {}({}){}", quote(node.name), results, op_name(node.op),
                        operands, attributes(node.op));
    if (node.source.line > 0)
      text += fmt::format(" at {}:{}", quote(node.source.file), node.source.line);
    if (!fused.empty()) text += fmt::format(" fused [{}]", fused);
    text += "\n";
  }
  for (ValueId id : graph.outputs) text += fmt::format("  output %{}\n", id);
  return text + "}\n";
}

bool equal(const Graph &a, const Graph &b) { return print(a) == print(b); }
size_t hash(const Graph &graph) { return std::hash<std::string>{}(print(graph)); }

} // namespace lathe::core
