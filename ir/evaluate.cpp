// The reference evaluator: every op but convolution and dense by its definition, then constants
// and whole graphs.
#include "ir/evaluate.h"
#include "ir/evaluate_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <unordered_map>

namespace lathe {

double apply(const Unary &op, double x) {
  auto clip = [](double v, double low, double high) { return std::min(std::max(v, low), high); };
  switch (op.kind) {
  case UnaryKind::identity:
    return x;
  case UnaryKind::relu:
    return x < 0 ? 0 : x;
  case UnaryKind::leaky_relu:
    return x < 0 ? op.alpha * x : x;
  case UnaryKind::clip:
    return clip(x, op.alpha, op.beta);
  case UnaryKind::sigmoid:
    return 1 / (1 + std::exp(-x));
  case UnaryKind::tanh:
    return std::tanh(x);
  case UnaryKind::hard_sigmoid:
    return clip(op.alpha * x + op.beta, 0, 1);
  case UnaryKind::hard_swish:
    return x * clip(x / 6 + 0.5, 0, 1);
  case UnaryKind::elu:
    return x < 0 ? op.alpha * std::expm1(x) : x;
  case UnaryKind::exp:
    return std::exp(x);
  case UnaryKind::log:
    return std::log(x);
  case UnaryKind::sqrt:
    return std::sqrt(x);
  case UnaryKind::neg:
    return -x;
  case UnaryKind::abs:
    return std::abs(x);
  }
  return x;
}

double apply(BinaryKind kind, double a, double b) {
  switch (kind) {
  case BinaryKind::add:
    return a + b;
  case BinaryKind::sub:
    return a - b;
  case BinaryKind::mul:
    return a * b;
  case BinaryKind::div:
    return a / b;
  case BinaryKind::min:
    return std::min(a, b);
  case BinaryKind::max:
    return std::max(a, b);
  case BinaryKind::prelu:
    return a < 0 ? b * a : a;
  }
  return a;
}

namespace {

using Tensors = std::vector<Tensor>;

// Strides that read a tensor of `shape` as if broadcast to `to`: 0 along repeated dimensions.
std::vector<int64_t> broadcast_strides(const Shape &shape, const Shape &to) {
  std::vector<int64_t> own = row_major_strides(shape), strides(to.size(), 0);
  for (size_t i = 0; i < shape.size(); ++i)
    if (shape[i] != 1) strides[to.size() - shape.size() + i] = own[i];
  return strides;
}

// Visits every index of `shape` in row-major order, innermost dimension in runs:
// body(offsets, length, innermost strides), one offset and stride per list in `strides`.
template <size_t n, typename Body>
void for_each_row(const Shape &shape, const std::array<std::vector<int64_t>, n> &strides,
                  const Body &body) {
  if (element_count(shape) == 0) return;
  std::array<int64_t, n> offsets{}, inner{};
  const size_t rank = shape.size();
  const int64_t length = rank ? shape[rank - 1] : 1;
  for (size_t s = 0; s < n; ++s) inner[s] = rank ? strides[s][rank - 1] : 0;
  std::vector<int64_t> index(rank, 0);
  while (true) {
    body(offsets, length, inner);
    size_t d = rank ? rank - 1 : 0;
    while (true) { // the odometer, without its last wheel
      if (d == 0) return;
      --d;
      for (size_t s = 0; s < n; ++s) offsets[s] += strides[s][d];
      if (++index[d] < shape[d]) break;
      for (size_t s = 0; s < n; ++s) offsets[s] -= strides[s][d] * shape[d];
      index[d] = 0;
    }
  }
}

// Copies elements of any type from strided to strided memory (offsets and strides in elements).
void copy_strided(const Tensor &from, int64_t from_offset, const std::vector<int64_t> &from_strides,
                  Tensor &to, int64_t to_offset, const std::vector<int64_t> &to_strides,
                  const Shape &shape) {
  const size_t bytes = size_of(from.dtype());
  const std::byte *source = from.raw() + static_cast<size_t>(from_offset) * bytes;
  std::byte *target = to.raw_mutable() + static_cast<size_t>(to_offset) * bytes;
  for_each_row<2>(shape, {from_strides, to_strides},
                  [&](const auto &offset, int64_t length, const auto &stride) {
                    for (int64_t i = 0; i < length; ++i)
                      std::memcpy(target + static_cast<size_t>(offset[1] + i * stride[1]) * bytes,
                                  source + static_cast<size_t>(offset[0] + i * stride[0]) * bytes,
                                  bytes);
                  });
}

template <typename T>
Tensor evaluate_binary(BinaryKind kind, const Tensor &a, const Tensor &b, const Type &type) {
  Tensor result(type.dtype, type.shape);
  const T *pa = a.as<T>().data(), *pb = b.as<T>().data();
  T *out = result.as_mutable<T>().data();
  auto combine = [kind](T x, T y) {
    if constexpr (std::is_floating_point_v<T>) {
      return static_cast<T>(apply(kind, x, y));
    } else {
      using U = std::make_unsigned_t<T>; // wraps, as hardware does
      switch (kind) {
      case BinaryKind::add:
        return static_cast<T>(static_cast<U>(x) + static_cast<U>(y));
      case BinaryKind::sub:
        return static_cast<T>(static_cast<U>(x) - static_cast<U>(y));
      case BinaryKind::mul:
        return static_cast<T>(static_cast<U>(x) * static_cast<U>(y));
      case BinaryKind::div:
        return y == 0    ? T{0}
               : y == -1 ? static_cast<T>(U{0} - static_cast<U>(x))
                         : static_cast<T>(x / y);
      case BinaryKind::min:
        return std::min(x, y);
      case BinaryKind::max:
        return std::max(x, y);
      case BinaryKind::prelu:
        return x < 0 ? static_cast<T>(static_cast<U>(x) * static_cast<U>(y)) : x;
      }
      return x;
    }
  };
  for_each_row<2>(
      type.shape,
      {broadcast_strides(a.shape(), type.shape), broadcast_strides(b.shape(), type.shape)},
      [&](const auto &offset, int64_t length, const auto &stride) {
        for (int64_t i = 0; i < length; ++i)
          *out++ = combine(pa[offset[0] + i * stride[0]], pb[offset[1] + i * stride[1]]);
      });
  return result;
}

// A dimension and what stands before and behind it: index = (outer * extent + i) * inner + rest.
struct Axis {
  int64_t outer = 1, extent = 1, inner = 1;
  Axis(const Shape &shape, int64_t axis) {
    auto at = static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(shape.size()) : axis);
    extent = shape[at];
    for (size_t i = 0; i < at; ++i) outer *= shape[i];
    for (size_t i = at + 1; i < shape.size(); ++i) inner *= shape[i];
  }
};

struct Evaluator {
  std::span<const Tensor> in;
  const std::vector<Type> &types;

  const Tensor &x() const { return in[0]; }
  const Shape &shape() const { return in[0].shape(); }
  Tensor result() const { return Tensor(types[0].dtype, types[0].shape); }

  Tensors operator()(const Conv &op) const { return {evaluate_conv(op, in, types[0])}; }
  Tensors operator()(const Dense &op) const { return {evaluate_dense(op, in, types[0])}; }

  Tensors operator()(const Pool &op) const {
    Tensor y = result();
    float *out = y.f32_mutable().data();
    const int64_t planes = shape()[0] * shape()[1], h = shape()[2], w = shape()[3];
    const int64_t out_h = types[0].shape[2], out_w = types[0].shape[3];
    for (int64_t p = 0; p < planes; ++p)
      for (int64_t oy = 0; oy < out_h; ++oy)
        for (int64_t ox = 0; ox < out_w; ++ox)
          *out++ = pool_window(op, x().f32().data() + p * h * w, h, w, oy, ox);
    return {y};
  }
  static float pool_window(const Pool &op, const float *plane, int64_t h, int64_t w, int64_t oy,
                           int64_t ox) {
    double sum = 0, most = -std::numeric_limits<double>::infinity();
    int64_t inside = 0, padded = 0;
    for (int64_t kh = 0; kh < op.kernel.h; ++kh)
      for (int64_t kw = 0; kw < op.kernel.w; ++kw) {
        int64_t iy = oy * op.stride.h - op.pad.top + kh * op.dilation.h;
        int64_t ix = ox * op.stride.w - op.pad.left + kw * op.dilation.w;
        padded += iy < h + op.pad.bottom && ix < w + op.pad.right;
        if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue;
        double value = plane[iy * w + ix];
        sum += value;
        most = std::max(most, value);
        ++inside;
      }
    if (op.kind == PoolKind::max) return static_cast<float>(most);
    return static_cast<float>(sum /
                              double(std::max<int64_t>(1, op.count_include_pad ? padded : inside)));
  }
  Tensors operator()(const GlobalPool &op) const {
    Tensor y = result();
    const int64_t area = shape()[2] * shape()[3];
    auto from = x().f32();
    auto to = y.f32_mutable();
    for (size_t p = 0; p < to.size(); ++p) {
      double sum = 0, most = -std::numeric_limits<double>::infinity();
      for (double value : from.subspan(p * size_t(area), size_t(area))) {
        sum += value;
        most = std::max(most, value);
      }
      to[p] = static_cast<float>(op.kind == PoolKind::max ? most : sum / double(area));
    }
    return {y};
  }
  Tensors operator()(const Lrn &op) const {
    Tensor y = result();
    const Axis axis(shape(), 1);
    const float *from = x().f32().data();
    float *to = y.f32_mutable().data();
    for (int64_t n = 0; n < axis.outer; ++n)
      for (int64_t c = 0; c < axis.extent; ++c) {
        int64_t first = std::max<int64_t>(0, c - (op.size - 1) / 2);
        int64_t last = std::min(axis.extent - 1, c + op.size / 2);
        for (int64_t i = 0; i < axis.inner; ++i) {
          double squares = 0;
          for (int64_t j = first; j <= last; ++j) {
            double value = from[(n * axis.extent + j) * axis.inner + i];
            squares += value * value;
          }
          int64_t at = (n * axis.extent + c) * axis.inner + i;
          double base = op.k + double(op.alpha) / double(op.size) * squares;
          to[at] = static_cast<float>(from[at] * std::pow(base, -double(op.beta)));
        }
      }
    return {y};
  }
  Tensors operator()(const BatchNorm &op) const {
    Tensor y = result();
    const Axis axis(shape(), 1);
    auto from = x().f32();
    auto to = y.f32_mutable();
    for (int64_t n = 0; n < axis.outer; ++n)
      for (int64_t c = 0; c < axis.extent; ++c) {
        auto parameter = [&](size_t i) { return double(in[i].f32()[static_cast<size_t>(c)]); };
        double factor = parameter(1) / std::sqrt(parameter(4) + double(op.epsilon));
        for (int64_t i = 0; i < axis.inner; ++i) {
          auto at = static_cast<size_t>((n * axis.extent + c) * axis.inner + i);
          to[at] = static_cast<float>((from[at] - parameter(3)) * factor + parameter(2));
        }
      }
    return {y};
  }
  Tensors operator()(const Unary &op) const {
    if (op.kind == UnaryKind::identity) return {x()};
    Tensor y = result();
    std::ranges::transform(x().f32(), y.f32_mutable().begin(),
                           [&](float v) { return static_cast<float>(apply(op, v)); });
    return {y};
  }
  Tensors operator()(const Binary &op) const {
    switch (types[0].dtype) {
    case DType::f32:
      return {evaluate_binary<float>(op.kind, in[0], in[1], types[0])};
    case DType::i64:
      return {evaluate_binary<int64_t>(op.kind, in[0], in[1], types[0])};
    default:
      return {evaluate_binary<int32_t>(op.kind, in[0], in[1], types[0])};
    }
  }
  Tensors operator()(const Softmax &op) const {
    Tensor y = result();
    if (y.size() == 0) return {y};
    const Axis axis(shape(), op.axis);
    const float *from = x().f32().data();
    float *to = y.f32_mutable().data();
    for (int64_t n = 0; n < axis.outer; ++n)
      for (int64_t i = 0; i < axis.inner; ++i) {
        auto at = [&](int64_t c) { return (n * axis.extent + c) * axis.inner + i; };
        double most = -std::numeric_limits<double>::infinity(), sum = 0;
        for (int64_t c = 0; c < axis.extent; ++c) most = std::max(most, double(from[at(c)]));
        for (int64_t c = 0; c < axis.extent; ++c) sum += std::exp(from[at(c)] - most);
        for (int64_t c = 0; c < axis.extent; ++c) {
          double shifted = from[at(c)] - most;
          to[at(c)] =
              static_cast<float>(op.log ? shifted - std::log(sum) : std::exp(shifted) / sum);
        }
      }
    return {y};
  }
  Tensors operator()(const Concat &op) const {
    Tensor y = result();
    const Axis whole(types[0].shape, op.axis);
    int64_t offset = 0;
    for (const Tensor &part : in) {
      const Axis axis(part.shape(), op.axis);
      const size_t bytes = size_of(part.dtype()), run = size_t(axis.extent * axis.inner) * bytes;
      for (int64_t n = 0; n < axis.outer && run; ++n)
        std::memcpy(y.raw_mutable() + size_t((n * whole.extent + offset) * whole.inner) * bytes,
                    part.raw() + size_t(n) * run, run);
      offset += axis.extent;
    }
    return {y};
  }
  Tensors operator()(const Slice &op) const {
    Tensor y = result();
    std::vector<int64_t> strides = row_major_strides(shape());
    int64_t offset = 0;
    for (size_t i = 0; i < op.axes.size(); ++i) {
      auto a =
          static_cast<size_t>(op.axes[i] < 0 ? op.axes[i] + int64_t(shape().size()) : op.axes[i]);
      int64_t d = shape()[a];
      offset +=
          std::clamp<int64_t>(op.begin[i] < 0 ? op.begin[i] + d : op.begin[i], 0, d) * strides[a];
      strides[a] *= op.step[i];
    }
    copy_strided(x(), offset, strides, y, 0, row_major_strides(y.shape()), y.shape());
    return {y};
  }
  Tensors operator()(const Split &op) const {
    Tensors parts;
    int64_t begin = 0;
    for (const Type &type : types) {
      auto a = static_cast<size_t>(op.axis < 0 ? op.axis + int64_t(shape().size()) : op.axis);
      Tensor part(type.dtype, type.shape);
      std::vector<int64_t> strides = row_major_strides(shape());
      copy_strided(x(), begin * strides[a], strides, part, 0, row_major_strides(type.shape),
                   type.shape);
      begin += type.shape[a];
      parts.push_back(part);
    }
    return parts;
  }
  Tensors operator()(const Pad &op) const {
    Tensor y = result();
    std::vector<int64_t> strides = row_major_strides(y.shape());
    switch (y.dtype()) {
    case DType::f32:
      std::ranges::fill(y.f32_mutable(), op.value);
      break;
    case DType::i64:
      std::ranges::fill(y.as_mutable<int64_t>(), int64_t(op.value));
      break;
    case DType::i32:
      std::ranges::fill(y.as_mutable<int32_t>(), int32_t(op.value));
      break;
    case DType::boolean:
      std::ranges::fill(y.as_mutable<uint8_t>(), op.value != 0);
      break;
    }
    int64_t offset = 0;
    for (size_t i = 0; i < strides.size(); ++i) offset += op.before[i] * strides[i];
    copy_strided(x(), 0, row_major_strides(shape()), y, offset, strides, shape());
    return {y};
  }
  Tensors operator()(const Reshape &) const { return {x().reshaped(types[0].shape)}; }
  Tensors operator()(const Flatten &) const { return {x().reshaped(types[0].shape)}; }
  Tensors operator()(const Dropout &) const { return {x()}; }
  Tensors operator()(const Transpose &op) const {
    Tensor y = result();
    std::vector<int64_t> own = row_major_strides(shape()), strides;
    for (int64_t p : op.perm) strides.push_back(own[static_cast<size_t>(p)]);
    copy_strided(x(), 0, strides, y, 0, row_major_strides(y.shape()), y.shape());
    return {y};
  }
  Tensors operator()(const ReduceMean &op) const {
    Shape kept = shape();
    for (int64_t a : op.axes) kept[static_cast<size_t>(a < 0 ? a + int64_t(kept.size()) : a)] = 1;
    std::vector<double> sums(static_cast<size_t>(element_count(kept)), 0.0);
    const float *from = x().f32().data();
    for_each_row<2>(shape(), {row_major_strides(shape()), broadcast_strides(kept, shape())},
                    [&](const auto &offset, int64_t length, const auto &stride) {
                      for (int64_t i = 0; i < length; ++i)
                        sums[static_cast<size_t>(offset[1] + i * stride[1])] +=
                            from[offset[0] + i * stride[0]];
                    });
    Tensor y = result();
    double count = sums.empty() ? 1 : double(x().size()) / double(sums.size());
    std::ranges::transform(sums, y.f32_mutable().begin(),
                           [&](double sum) { return static_cast<float>(sum / count); });
    return {y};
  }
};

} // namespace

Result<std::vector<Tensor>> evaluate(const Op &op, std::span<const Tensor> inputs) {
  std::vector<Type> types;
  for (const Tensor &input : inputs) types.push_back({input.dtype(), input.shape()});
  LATHE_TRY(auto results, infer_types(op, types));
  return std::visit(Evaluator{inputs, results}, op);
}

Result<Tensor> materialise(const ConstantRef &root) {
  // Post-order over the recipe without recursion: recipes may be deep and share parts.
  std::unordered_map<const Constant *, Tensor> done;
  std::vector<const Constant *> stack{root.get()};
  while (!stack.empty()) {
    const Constant *c = stack.back();
    if (done.contains(c)) {
      stack.pop_back();
      continue;
    }
    if (!c->op) {
      if (c->splat)
        done[c] = Tensor::splat(*c->splat, c->type.shape);
      else if (c->data.defined())
        done[c] = c->data;
      else
        return fail(Error{.code = ErrorCode::invalid,
                          .message = "a weight has no data",
                          .node = c->name,
                          .expected = to_string(c->type.shape)});
      continue;
    }
    size_t waiting = stack.size();
    for (const ConstantRef &input : c->inputs)
      if (!done.contains(input.get())) stack.push_back(input.get());
    if (stack.size() > waiting) continue;
    std::vector<Tensor> inputs;
    for (const ConstantRef &input : c->inputs) inputs.push_back(done.at(input.get()));
    LATHE_TRY(auto results, evaluate(*c->op, inputs));
    done[c] = results[0];
  }
  return done.at(root.get());
}

Result<std::vector<Tensor>> evaluate(const Graph &graph, std::span<const Tensor> inputs,
                                     const Observer &observe) {
  if (inputs.size() != graph.inputs.size())
    return fail(ErrorCode::invalid, "wrong number of input tensors");
  std::vector<Tensor> values(graph.values.size());
  std::vector<size_t> last_use(graph.values.size(), 0);
  for (size_t n = 0; n < graph.nodes.size(); ++n)
    for (ValueId id : graph.nodes[n].inputs) last_use[id] = n;
  for (ValueId id : graph.outputs) last_use[id] = graph.nodes.size();
  for (size_t i = 0; i < inputs.size(); ++i) values[graph.inputs[i]] = inputs[i];
  auto value = [&](ValueId id) -> Result<Tensor> {
    if (!values[id].defined() && graph.constant(id)) {
      LATHE_TRY(values[id], materialise(graph.constant(id)));
    }
    return values[id];
  };
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node &node = graph.nodes[n];
    std::vector<Tensor> operands;
    for (ValueId id : node.inputs) {
      LATHE_TRY(Tensor operand, value(id));
      operands.push_back(operand);
    }
    auto results = evaluate(node.op, operands);
    if (!results) {
      Error error = results.error();
      error.node = node.name;
      error.op = op_name(node.op);
      return fail(std::move(error));
    }
    if (observe) observe(node, *results);
    for (size_t i = 0; i < results->size(); ++i) values[node.outputs[i]] = (*results)[i];
    for (ValueId id : node.inputs)
      if (last_use[id] == n) values[id] = {};
  }
  std::vector<Tensor> outputs;
  for (ValueId id : graph.outputs) {
    LATHE_TRY(Tensor output, value(id));
    outputs.push_back(output);
  }
  return outputs;
}

} // namespace lathe
