// The evaluator's ops, one function each, and what they share. `evaluate` calls them with inputs
// that inference has accepted.
#pragma once

#include "ir/budget.h"
#include "ir/ops.h"

#include <cmath>
#include <limits>

namespace lathe::core {

using Tensors = std::vector<Tensor>;

struct Operands {
  std::span<const Tensor> in;
  std::span<const Type> types; // of the results
  const Budget &budget;

  const Tensor &x() const { return in[0]; }
  const Shape &shape() const { return in[0].shape(); }
  Tensor result() const { return Tensor(types[0].dtype, types[0].shape); }
};

// Thrown by an op when its time is over; `evaluate` makes an error of it.
struct OutOfTime {};

// Asks now and then, in loops that are long for the memory they touch, whether there is time left.
class Pulse {
public:
  explicit Pulse(const Budget &budget) : budget_(budget) {}
  // False once the time is over.
  bool goes_on(int64_t steps) {
    if ((steps_ += steps) < often) return !over_;
    steps_ = 0;
    return !(over_ = over_ || budget_.over());
  }
  void beat(int64_t steps) {
    if (!goes_on(steps)) throw OutOfTime();
  }

private:
  static constexpr int64_t often = 1 << 22;
  const Budget &budget_;
  int64_t steps_ = 0;
  bool over_ = false;
};

// A dimension and what stands before and behind it: index = (before * extent + i) * behind + rest.
struct Axis {
  size_t position;
  int64_t before = 1, extent = 1, behind = 1;
  Axis(const Shape &shape, int64_t axis) // negative counts from the end
      : position(axis_index(axis, shape.size())), extent(shape[position]) {
    for (size_t i = 0; i < position; ++i) before *= shape[i];
    for (size_t i = position + 1; i < shape.size(); ++i) behind *= shape[i];
  }
};

// The nearest integer of a type towards zero; 0 for NaN.
template <typename T> T saturate(float value) {
  if (std::isnan(value)) return 0;
  if (value >= static_cast<float>(std::numeric_limits<T>::max()))
    return std::numeric_limits<T>::max();
  if (value <= static_cast<float>(std::numeric_limits<T>::min()))
    return std::numeric_limits<T>::min();
  return static_cast<T>(value);
}

// NaN of either operand propagates, as in NumPy; of equal ones the first.
template <typename T> T smaller(T a, T b) { return b < a || b != b ? b : a; }
template <typename T> T larger(T a, T b) { return a < b || b != b ? b : a; }

double apply(const Unary &op, double x);
double apply(BinaryKind kind, double a, double b);
// Fused steps in order; `operand` gives the second operand of the i-th binary one.
template <typename Operand>
double apply(const std::vector<FusedOp> &steps, double x, const Operand &operand) {
  size_t next = 0;
  for (const FusedOp &step : steps) {
    if (auto *unary = std::get_if<Unary>(&step.op))
      x = apply(*unary, x);
    else
      x = apply(std::get<Binary>(step.op).kind, x, double{operand(next++)});
  }
  return x;
}
// x (N,C,...) as the steps of `pre` make it.
template <LayerOp L> Tensor prepared(const L &layer, std::span<const Tensor> in) {
  const std::vector<FusedOp> &steps = pre_of(layer);
  if (steps.empty()) return in[0];
  Tensor y(DType::f32, in[0].shape());
  const Axis channel(y.shape(), 1);
  for (int64_t i = 0; i < y.size(); ++i) {
    const auto c = static_cast<size_t>(i / channel.behind % channel.extent);
    y.f32_mutable()[static_cast<size_t>(i)] =
        static_cast<float>(apply(steps, in[0].f32()[static_cast<size_t>(i)],
                                 [&](size_t n) { return in[pre_input(layer) + n].f32()[c]; }));
  }
  return y;
}
// The bias of a layer's channel and its fused steps, applied to the sum of the element at `index`.
template <LayerOp L>
float finish(const L &layer, std::span<const Tensor> in, int64_t channel, int64_t index,
             double sum) {
  if (layer.bias) sum += double{in[bias_input(layer)].f32()[static_cast<size_t>(channel)]};
  return static_cast<float>(apply(layer.post, sum, [&](size_t n) {
    return in[post_input(layer) + n].f32()[static_cast<size_t>(index)];
  }));
}

// evaluate_conv.cpp
Tensors compute(const Conv &, const Operands &);
Tensors compute(const Dense &, const Operands &);
// evaluate_elementwise.cpp
Tensors compute(const Unary &, const Operands &);
Tensors compute(const Binary &, const Operands &);
Tensors compute(const BatchNorm &, const Operands &);
Tensors compute(const Dropout &, const Operands &);
Tensors compute(const Cast &, const Operands &);
// evaluate_reduce.cpp
Tensors compute(const Pool &, const Operands &);
Tensors compute(const GlobalPool &, const Operands &);
Tensors compute(const Lrn &, const Operands &);
Tensors compute(const Softmax &, const Operands &);
Tensors compute(const Reduce &, const Operands &);
Tensors compute(const ArgReduce &, const Operands &);
Tensors compute(const Hardmax &, const Operands &);
// evaluate_move.cpp
Tensors compute(const Concat &, const Operands &);
Tensors compute(const Slice &, const Operands &);
Tensors compute(const Split &, const Operands &);
Tensors compute(const Pad &, const Operands &);
Tensors compute(const Reshape &, const Operands &);
Tensors compute(const Flatten &, const Operands &);
Tensors compute(const Transpose &, const Operands &);
Tensors compute(const Expand &, const Operands &);
Tensors compute(const Gather &, const Operands &);

} // namespace lathe::core
