// The op vocabulary: each op is a plain attribute struct whose field list drives printing,
// parsing, comparing and hashing. Activations are NCHW here; memory layout is the Plan's matter.
#pragma once

#include "ir/fields.h"
#include "ir/tensor.h"

#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

namespace lathe::core {

struct Size2 { // height, width
  int64_t h = 1, w = 1;
  bool operator==(const Size2 &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("h", &Size2::h), field("w", &Size2::w));
  }
};
struct Pads { // rows above and below, columns left and right; zeros unless an op says otherwise
  int64_t top = 0, left = 0, bottom = 0, right = 0;
  bool operator==(const Pads &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("top", &Pads::top), field("left", &Pads::left),
                           field("bottom", &Pads::bottom), field("right", &Pads::right));
  }
};

// Elementwise functions of one value. alpha and beta as ONNX defines them for each.
enum class UnaryKind : uint8_t {
  identity,
  relu,
  leaky_relu,   // x < 0 ? alpha * x : x
  clip,         // min(max(x, alpha), beta); ReLU6 is clip(0, 6)
  sigmoid,      // 1 / (1 + exp(-x))
  tanh,         //
  hard_sigmoid, // clip(alpha * x + beta, 0, 1)
  hard_swish,   // x * clip(x / 6 + 1/2, 0, 1)
  elu,          // x < 0 ? alpha * (exp(x) - 1) : x
  exp,
  log,
  sqrt,
  neg,
  abs,
  floor,
  ceil,
  erf,              // 2 / sqrt(pi) * integral of exp(-t^2) from 0 to x
  softplus,         // log(1 + exp(x))
  thresholded_relu, // x <= alpha ? 0 : x
};
enum class BinaryKind : uint8_t {
  add,
  sub,
  mul,
  div,
  min, // NaN of either operand propagates, here and in every other maximum and minimum
  max,
  prelu, // x < 0 ? slope * x : x, the slope is the second operand
  pow,   // of numbers: as C's pow
};
enum class PoolKind : uint8_t { max, average, sum };
enum class ReduceKind : uint8_t { mean, sum, max, min, prod };
enum class ArgKind : uint8_t { max, min };
std::string_view to_string(UnaryKind kind);
std::string_view to_string(BinaryKind kind);
std::string_view to_string(PoolKind kind);
std::string_view to_string(ReduceKind kind);
std::string_view to_string(ArgKind kind);
std::optional<UnaryKind> unary_kind(std::string_view name);
std::optional<BinaryKind> binary_kind(std::string_view name);
std::optional<PoolKind> pool_kind(std::string_view name);
std::optional<ReduceKind> reduce_kind(std::string_view name);
std::optional<ArgKind> arg_kind(std::string_view name);

struct Unary {
  UnaryKind kind = UnaryKind::relu;
  float alpha = 0, beta = 0;
  bool operator==(const Unary &) const = default;
  static constexpr std::string_view name = "unary";
  static constexpr auto fields() {
    return std::make_tuple(field("kind", &Unary::kind), field("alpha", &Unary::alpha),
                           field("beta", &Unary::beta));
  }
};

// Two operands, broadcast as NumPy does.
struct Binary {
  BinaryKind kind = BinaryKind::add;
  bool operator==(const Binary &) const = default;
  static constexpr std::string_view name = "binary";
  static constexpr auto fields() { return std::make_tuple(field("kind", &Binary::kind)); }
};

// What a fused layer does to each element of its input before use (`pre`), or to its sum before
// storing it (`post`), in order. A binary step takes the node's next input as its second operand:
// in `pre` a vector over the input's channels, in `post` a tensor of the result's shape.
struct FusedOp {
  std::variant<Unary, Binary> op;
  bool operator==(const FusedOp &) const = default;
  static constexpr auto fields() { return std::make_tuple(field("op", &FusedOp::op)); }
};

// x: N,C,H,W; w: M,C/groups,kh,kw; optional bias: M; then the operands of `pre` and of `post`.
// A cross-correlation. Padding is zeros behind `pre`, which are multiplied as all elements are.
struct Conv {
  Size2 kernel, stride, dilation;
  Pads pad;
  int64_t groups = 1;
  bool bias = false;
  std::vector<FusedOp> pre = {}, post = {};
  bool operator==(const Conv &) const = default;
  static constexpr std::string_view name = "conv";
  static constexpr size_t weights = 1;
  static constexpr auto fields() {
    return std::make_tuple(field("kernel", &Conv::kernel), field("stride", &Conv::stride),
                           field("dilation", &Conv::dilation), field("pad", &Conv::pad),
                           field("groups", &Conv::groups), field("bias", &Conv::bias),
                           field("pre", &Conv::pre), field("post", &Conv::post));
  }
};
// A sum over channels at every pixel, 1x1 in steps of one.
inline bool is_pointwise(const Conv &conv) {
  return conv.kernel == Size2{} && conv.stride == Size2{} && conv.pad == Pads{};
}

// x: N,K; w: M,K (row-major rows of the product x * w^T); optional bias: M; operands of `post`.
struct Dense {
  bool bias = false;
  std::vector<FusedOp> post = {};
  bool operator==(const Dense &) const = default;
  static constexpr std::string_view name = "dense";
  static constexpr size_t weights = 1;
  static constexpr auto fields() {
    return std::make_tuple(field("bias", &Dense::bias), field("post", &Dense::post));
  }
};

// x: N,C,H,W; optional bias, added to the result: C; then the operands of `pre` and of `post`.
// Padding never wins a maximum. An average divides by the taps inside the picture, or, with
// count_include_pad, by those inside the padded picture (so a window that ceil_mode lets hang
// over the padding's end counts only its part inside), as PyTorch and ONNX do. ceil_mode rounds
// the output size up, but no window starts beyond the picture and its leading padding.
struct Pool {
  PoolKind kind = PoolKind::max;
  Size2 kernel, stride, dilation;
  Pads pad;
  bool ceil_mode = false, count_include_pad = false;
  bool bias = false;
  std::vector<FusedOp> pre = {}, post = {};
  bool operator==(const Pool &) const = default;
  static constexpr std::string_view name = "pool";
  static constexpr size_t weights = 0;
  static constexpr auto fields() {
    return std::make_tuple(
        field("kind", &Pool::kind), field("kernel", &Pool::kernel), field("stride", &Pool::stride),
        field("dilation", &Pool::dilation), field("pad", &Pool::pad),
        field("ceil_mode", &Pool::ceil_mode), field("count_include_pad", &Pool::count_include_pad),
        field("bias", &Pool::bias), field("pre", &Pool::pre), field("post", &Pool::post));
  }
};

// N,C,H,W -> N,C,1,1; max or average.
struct GlobalPool {
  PoolKind kind = PoolKind::average;
  bool operator==(const GlobalPool &) const = default;
  static constexpr std::string_view name = "global_pool";
  static constexpr auto fields() { return std::make_tuple(field("kind", &GlobalPool::kind)); }
};

// Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3, with alpha
// divided by the size as Caffe, PyTorch and ONNX do):
//   y[c] = x[c] / (k + alpha / size * sum x[j]^2)^beta,  j from c-floor((size-1)/2) to
//   c+ceil((size-1)/2), inside the channels.
struct Lrn {
  int64_t size = 5;
  float alpha = 1e-4f, beta = 0.75f, k = 1;
  bool operator==(const Lrn &) const = default;
  static constexpr std::string_view name = "lrn";
  static constexpr auto fields() {
    return std::make_tuple(field("size", &Lrn::size), field("alpha", &Lrn::alpha),
                           field("beta", &Lrn::beta), field("k", &Lrn::k));
  }
};

// x: N,C,...; scale, shift, mean, variance: C.  y = (x - mean) / sqrt(variance + epsilon) * scale
// + shift, with the stored statistics (inference; Ioffe and Szegedy 2015, section 3.1).
struct BatchNorm {
  float epsilon = 1e-5f;
  bool operator==(const BatchNorm &) const = default;
  static constexpr std::string_view name = "batch_norm";
  static constexpr auto fields() { return std::make_tuple(field("epsilon", &BatchNorm::epsilon)); }
};

struct Softmax {
  int64_t axis = -1; // negative counts from the end
  bool log = false;
  bool operator==(const Softmax &) const = default;
  static constexpr std::string_view name = "softmax";
  static constexpr auto fields() {
    return std::make_tuple(field("axis", &Softmax::axis), field("log", &Softmax::log));
  }
};

struct Concat {
  int64_t axis = 1;
  bool operator==(const Concat &) const = default;
  static constexpr std::string_view name = "concat";
  static constexpr auto fields() { return std::make_tuple(field("axis", &Concat::axis)); }
};

// Along every listed axis, elements begin, begin+step, ... below end, or above it for a negative
// step. begin and end may be negative (from the end) and are clamped, as in Python.
struct Slice {
  std::vector<int64_t> axes, begin, end, step;
  bool operator==(const Slice &) const = default;
  static constexpr std::string_view name = "slice";
  static constexpr auto fields() {
    return std::make_tuple(field("axes", &Slice::axes), field("begin", &Slice::begin),
                           field("end", &Slice::end), field("step", &Slice::step));
  }
};

// One output per size; the sizes add up to the dimension.
struct Split {
  int64_t axis = 1;
  std::vector<int64_t> sizes;
  bool operator==(const Split &) const = default;
  static constexpr std::string_view name = "split";
  static constexpr auto fields() {
    return std::make_tuple(field("axis", &Split::axis), field("sizes", &Split::sizes));
  }
};

// Constant padding; one entry per dimension, non-negative.
struct Pad {
  std::vector<int64_t> before, after;
  float value = 0;
  bool operator==(const Pad &) const = default;
  static constexpr std::string_view name = "pad";
  static constexpr auto fields() {
    return std::make_tuple(field("before", &Pad::before), field("after", &Pad::after),
                           field("value", &Pad::value));
  }
};

// 0 copies the input's dimension, one -1 takes what is left (ONNX Reshape, allowzero = 0).
struct Reshape {
  std::vector<int64_t> shape;
  bool operator==(const Reshape &) const = default;
  static constexpr std::string_view name = "reshape";
  static constexpr auto fields() { return std::make_tuple(field("shape", &Reshape::shape)); }
};

// To two dimensions: those before `axis`, and the rest.
struct Flatten {
  int64_t axis = 1;
  bool operator==(const Flatten &) const = default;
  static constexpr std::string_view name = "flatten";
  static constexpr auto fields() { return std::make_tuple(field("axis", &Flatten::axis)); }
};

// Output dimension i is input dimension perm[i].
struct Transpose {
  std::vector<int64_t> perm;
  bool operator==(const Transpose &) const = default;
  static constexpr std::string_view name = "transpose";
  static constexpr auto fields() { return std::make_tuple(field("perm", &Transpose::perm)); }
};

// Elements of the listed axes become one; none listed: none. Over nothing, a sum is 0, a product 1,
// a maximum or minimum the infinity that loses to all.
struct Reduce {
  ReduceKind kind = ReduceKind::mean;
  std::vector<int64_t> axes;
  bool keep_dims = true;
  bool operator==(const Reduce &) const = default;
  static constexpr std::string_view name = "reduce";
  static constexpr auto fields() {
    return std::make_tuple(field("kind", &Reduce::kind), field("axes", &Reduce::axes),
                           field("keep_dims", &Reduce::keep_dims));
  }
};

// The index (i64) of an axis' extreme element, which is NaN if any is; of equals the first or last.
struct ArgReduce {
  ArgKind kind = ArgKind::max;
  int64_t axis = 0;
  bool keep_dims = true, last = false;
  bool operator==(const ArgReduce &) const = default;
  static constexpr std::string_view name = "arg";
  static constexpr auto fields() {
    return std::make_tuple(field("kind", &ArgReduce::kind), field("axis", &ArgReduce::axis),
                           field("keep_dims", &ArgReduce::keep_dims),
                           field("last", &ArgReduce::last));
  }
};

// 1 where the first of the largest elements along an axis stands, else 0.
struct Hardmax {
  int64_t axis = -1;
  bool operator==(const Hardmax &) const = default;
  static constexpr std::string_view name = "hardmax";
  static constexpr auto fields() { return std::make_tuple(field("axis", &Hardmax::axis)); }
};

// y[a..., i..., b...] = x[a..., indices[i...], b...]: the indices' dimensions replace `axis` of x.
// Indices are i64 or i32; negative ones count from the end, and those outside are clamped (an
// importer refuses constant ones, the frontends' own language has none).
struct Gather {
  int64_t axis = 0;
  bool operator==(const Gather &) const = default;
  static constexpr std::string_view name = "gather";
  static constexpr auto fields() { return std::make_tuple(field("axis", &Gather::axis)); }
};

// Repeats along dimensions of one element, as NumPy broadcasts a tensor with one of this shape: an
// entry of 1 keeps the dimension.
struct Expand {
  std::vector<int64_t> shape;
  bool operator==(const Expand &) const = default;
  static constexpr std::string_view name = "expand";
  static constexpr auto fields() { return std::make_tuple(field("shape", &Expand::shape)); }
};

// To another element type: floats are cut towards zero and saturate, NaN becomes 0; a bool is
// whether a number differs from zero, and 0 or 1 as a number.
struct Cast {
  DType to = DType::f32;
  bool operator==(const Cast &) const = default;
  static constexpr std::string_view name = "cast";
  static constexpr auto fields() { return std::make_tuple(field("to", &Cast::to)); }
};

// The identity at inference; kept until a pass drops it, so that the model as written can be
// printed and, one day, trained.
struct Dropout {
  float rate = 0.5f;
  bool operator==(const Dropout &) const = default;
  static constexpr std::string_view name = "dropout";
  static constexpr auto fields() { return std::make_tuple(field("rate", &Dropout::rate)); }
};

using Op = std::variant<Conv, Dense, Pool, GlobalPool, Lrn, BatchNorm, Unary, Binary, Softmax,
                        Hardmax, Concat, Slice, Split, Pad, Reshape, Flatten, Transpose, Expand,
                        Gather, Reduce, ArgReduce, Cast, Dropout>;

// The op's name as text shows it: the kind for Unary and Binary ("relu", "add"), "max_pool",
// "reduce_mean", ....
std::string op_name(const Op &op);

// Result types of an op applied to inputs of the given types: the shape rule. Errors say what was
// expected and found; the caller adds node and place.
struct Type {
  DType dtype = DType::f32;
  Shape shape;
  bool operator==(const Type &) const = default;
};
Result<std::vector<Type>> infer_types(const Op &op, std::span<const Type> inputs);

// The dimension that `axis` names; negative ones count from the end. For axes that inference
// accepted.
inline size_t axis_index(int64_t axis, size_t rank) {
  return static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(rank) : axis);
}

// What a Slice takes of a dimension: `count` elements from `first` on, `step` apart.
struct SliceRange {
  int64_t first = 0, count = 0, step = 1;
};
// For a step that inference accepted.
SliceRange slice_range(int64_t extent, int64_t begin, int64_t end, int64_t step);

// NumPy broadcasting of two shapes.
Result<Shape> broadcast(const Shape &a, const Shape &b);

// Output extent of a sliding window along one axis; an error if it has no valid position.
Result<int64_t> window_extent(int64_t input, int64_t kernel, int64_t stride, int64_t dilation,
                              int64_t pad_before, int64_t pad_after, bool ceil_mode);

// Layers are the ops that take others along: Conv, Dense and Pool. Their inputs in order: x, the
// weights if there are any, the bias if there is one, then the operands of `pre` and of `post`.
template <typename Op>
concept LayerOp = requires(const Op &op) { op.weights, op.bias, op.post; };
size_t operands_of(const std::vector<FusedOp> &steps); // as many as steps are binary
template <LayerOp L> const std::vector<FusedOp> &pre_of(const L &layer) {
  static const std::vector<FusedOp> none;
  if constexpr (requires { layer.pre; }) return layer.pre;
  return none;
}
template <LayerOp L> size_t bias_input(const L &) { return 1 + L::weights; }
template <LayerOp L> size_t pre_input(const L &layer) { return bias_input(layer) + layer.bias; }
template <LayerOp L> size_t post_input(const L &layer) {
  return pre_input(layer) + operands_of(pre_of(layer));
}
template <LayerOp L> size_t inputs_of(const L &layer) {
  return post_input(layer) + operands_of(layer.post);
}

} // namespace lathe::core
