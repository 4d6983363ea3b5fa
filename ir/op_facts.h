// What each op is: one row an op, one row an elementwise function. Passes, planner, checker,
// evaluator and frontends ask here instead of listing ops. An op without a row does not compile,
// and neither does a row that lacks an entry.
#pragma once

#include "ir/ops.h"

#include <array>
#include <cstdint>

namespace lathe::core {

struct Arity {
  size_t least, most;
};

enum class Effect : uint8_t {
  computes,    // anything
  elementwise, // an element of the result depends on those at its place alone
  looks_up,    // elements of the first operand, at places that the second one says
  moves,       // elements of the operands, and constants, at places that attributes say
  rearranges,  // elements of the first operand alone, likewise: strides of a View may say it
};

struct OpFacts {
  Arity operands; // of a layer, its attributes say how many (`inputs_of`)
  Effect effect;
  bool keeps_order; // the result is the operand, row by row, at most under another shape
  bool any_type;    // kernels take more than f32: any type, or whole numbers
  std::optional<size_t> weights; // the operand with the weights of a layer that sums products
  size_t learnt;                 // how many operands, from the first on, training may change
  // f(a x + b y) = a f(x) + b f(y) for the first operand, whatever the attributes; of a layer
  // without bias, `pre` and `post`.
  bool linear;
  std::string_view onnx; // its name there; empty where attributes decide
};

// The row of an op, by its type.
template <typename T> struct OpRow : OpFacts {
  using op = T;
};

namespace op_rows {

inline constexpr size_t many = SIZE_MAX;
inline constexpr std::optional<size_t> none = std::nullopt;
enum Order { lost, kept };
enum Types { f32_only, any_type };
enum Linearity { no, linear };
template <typename T>
consteval OpRow<T> row(Arity operands, Effect effect, Order order, Types types,
                       std::optional<size_t> weights, size_t learnt, Linearity linearity,
                       std::string_view onnx) {
  return {{operands, effect, order == kept, types == any_type, weights, learnt, linearity == linear,
           onnx}};
}
using enum Effect;

// BatchNorm learns no statistics, and Concat is linear in all operands together, not in one.
// clang-format off
inline constexpr std::tuple rows{
    //                  operands    effect        order  types      weights  learnt  linear   ONNX
    row<Conv>(        {2, many},  computes,     lost,  f32_only,  1,       many,   linear,  ""),
    row<Dense>(       {2, many},  computes,     lost,  f32_only,  1,       many,   linear,  ""),
    row<Pool>(        {1, many},  computes,     lost,  f32_only,  none,    many,   no,      ""),
    row<GlobalPool>(  {1, 1},     computes,     lost,  f32_only,  none,    many,   no,      ""),
    row<Lrn>(         {1, 1},     computes,     lost,  f32_only,  none,    many,   no,      "LRN"),
    row<BatchNorm>(   {5, 5},     computes,     lost,  f32_only,  none,    3,      no,      "BatchNormalization"),
    row<Unary>(       {1, 1},     elementwise,  lost,  any_type,  none,    many,   no,      ""),
    row<Binary>(      {2, 2},     elementwise,  lost,  any_type,  none,    many,   no,      ""),
    row<Softmax>(     {1, 1},     computes,     lost,  f32_only,  none,    many,   no,      ""),
    row<Hardmax>(     {1, 1},     computes,     lost,  f32_only,  none,    many,   no,      "Hardmax"),
    row<Concat>(      {1, many},  moves,        lost,  any_type,  none,    many,   no,      "Concat"),
    row<Slice>(       {1, 1},     rearranges,   lost,  any_type,  none,    many,   linear,  "Slice"),
    row<Split>(       {1, 1},     rearranges,   lost,  any_type,  none,    many,   linear,  "Split"),
    row<Pad>(         {1, 1},     moves,        lost,  f32_only,  none,    many,   no,      "Pad"),
    row<Reshape>(     {1, 1},     rearranges,   kept,  any_type,  none,    many,   linear,  "Reshape"),
    row<Flatten>(     {1, 1},     rearranges,   kept,  any_type,  none,    many,   linear,  "Flatten"),
    row<Transpose>(   {1, 1},     rearranges,   lost,  any_type,  none,    many,   linear,  "Transpose"),
    row<Expand>(      {1, 1},     rearranges,   lost,  any_type,  none,    many,   linear,  "Expand"),
    row<Gather>(      {2, 2},     looks_up,     lost,  any_type,  none,    many,   linear,  "Gather"),
    row<Reduce>(      {1, 1},     computes,     lost,  f32_only,  none,    many,   no,      ""),
    row<ArgReduce>(   {1, 1},     computes,     lost,  f32_only,  none,    many,   no,      ""),
    row<Cast>(        {1, 1},     elementwise,  lost,  any_type,  none,    many,   no,      "Cast"),
    row<Dropout>(     {1, 1},     rearranges,   kept,  any_type,  none,    many,   linear,  "Dropout")
};
// clang-format on

template <typename> struct Ops;
template <typename... Rows> struct Ops<std::tuple<Rows...>> {
  using type = std::variant<typename Rows::op...>;
};
static_assert(std::is_same_v<Ops<std::remove_cv_t<decltype(rows)>>::type, Op>,
              "a row for every op, in the order of Op");

} // namespace op_rows

template <typename T> constexpr const OpFacts &facts_of() {
  return std::get<OpRow<T>>(op_rows::rows);
}
inline const OpFacts &facts_of(const Op &op) {
  return std::visit([]<typename T>(const T &) -> const OpFacts & { return facts_of<T>(); }, op);
}

// Whether strides of a View may say all that an op does.
inline bool is_view(const Op &op) { return facts_of(op).effect == Effect::rearranges; }
// The operand with the weights of a convolution or dense layer.
inline std::optional<size_t> weights_of(const Op &op) { return facts_of(op).weights; }
// How many operands an op takes.
inline Arity arity(const Op &op) {
  return std::visit(
      []<typename T>(const T &o) -> Arity {
        if constexpr (LayerOp<T>)
          return {inputs_of(o), inputs_of(o)};
        else
          return facts_of<T>().operands;
      },
      op);
}
// Calls `use` with the op as the layer that it is; false for other ops.
template <typename Use> bool as_layer(Op &op, const Use &use) {
  return std::visit(
      [&]<typename T>(T &o) -> bool {
        if constexpr (LayerOp<T>)
          return use(o);
        else
          return false;
      },
      op);
}

// --- Elementwise functions

struct UnaryFacts {
  UnaryKind kind;
  std::string_view name, onnx;
  int parameters; // 2: alpha and beta; 1: alpha; 0: neither
};
inline constexpr std::array unary_rows{
    UnaryFacts{UnaryKind::identity, "identity", "Identity", 0},
    UnaryFacts{UnaryKind::relu, "relu", "Relu", 0},
    UnaryFacts{UnaryKind::leaky_relu, "leaky_relu", "LeakyRelu", 1},
    UnaryFacts{UnaryKind::clip, "clip", "Clip", 2},
    UnaryFacts{UnaryKind::sigmoid, "sigmoid", "Sigmoid", 0},
    UnaryFacts{UnaryKind::tanh, "tanh", "Tanh", 0},
    UnaryFacts{UnaryKind::hard_sigmoid, "hard_sigmoid", "HardSigmoid", 2},
    UnaryFacts{UnaryKind::hard_swish, "hard_swish", "HardSwish", 0},
    UnaryFacts{UnaryKind::elu, "elu", "Elu", 1},
    UnaryFacts{UnaryKind::exp, "exp", "Exp", 0},
    UnaryFacts{UnaryKind::log, "log", "Log", 0},
    UnaryFacts{UnaryKind::sqrt, "sqrt", "Sqrt", 0},
    UnaryFacts{UnaryKind::neg, "neg", "Neg", 0},
    UnaryFacts{UnaryKind::abs, "abs", "Abs", 0},
    UnaryFacts{UnaryKind::floor, "floor", "Floor", 0},
    UnaryFacts{UnaryKind::ceil, "ceil", "Ceil", 0},
    UnaryFacts{UnaryKind::erf, "erf", "Erf", 0},
    UnaryFacts{UnaryKind::softplus, "softplus", "Softplus", 0},
    UnaryFacts{UnaryKind::thresholded_relu, "thresholded_relu", "ThresholdedRelu", 1},
};

struct BinaryFacts {
  BinaryKind kind;
  std::string_view name, onnx;
  bool commutes;
};
inline constexpr std::array binary_rows{
    BinaryFacts{BinaryKind::add, "add", "Add", true},
    BinaryFacts{BinaryKind::sub, "sub", "Sub", false},
    BinaryFacts{BinaryKind::mul, "mul", "Mul", true},
    BinaryFacts{BinaryKind::div, "div", "Div", false},
    BinaryFacts{BinaryKind::min, "min", "Min", true},
    BinaryFacts{BinaryKind::max, "max", "Max", true},
    BinaryFacts{BinaryKind::prelu, "prelu", "PRelu", false},
    BinaryFacts{BinaryKind::pow, "pow", "Pow", false},
};

constexpr const UnaryFacts &facts_of(UnaryKind kind) { return unary_rows[size_t(kind)]; }
constexpr const BinaryFacts &facts_of(BinaryKind kind) { return binary_rows[size_t(kind)]; }
constexpr bool commutes(BinaryKind kind) { return facts_of(kind).commutes; }

namespace op_rows {
constexpr bool in_order(const auto &rows) {
  for (size_t i = 0; i < rows.size(); ++i)
    if (size_t(rows[i].kind) != i) return false;
  return true;
}
static_assert(in_order(unary_rows) && in_order(binary_rows), "rows in the order of the kinds");
} // namespace op_rows

} // namespace lathe::core
