// lathe::Builder and Value: a graph, built layer by layer.
#include "runtime/api/convert.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <set>

namespace lathe {

using Weights = std::vector<std::pair<std::string_view, Shape>>; // suffixes of the layer's name

struct Value::Graph {
  core::Graph graph;
  std::optional<Error> error; // the first
  std::set<std::string> names;
  std::map<std::string, int64_t> counts; // of layers without a name, by operation

  static constexpr uint32_t none = core::no_value;

  uint32_t fail(Error why) {
    if (!error) error = std::move(why);
    return none;
  }

  // What `make` gives; what it throws becomes the network's error.
  template <typename F> static Value made(const std::shared_ptr<Graph> &graph, F &&make) {
    try {
      return make();
    } catch (...) {
      return {graph, graph->fail(thrown_error())};
    }
  }

  // A layer that reads `values`, then weights that are named after it.
  static Value layer(std::span<const Value> values, std::string_view name, core::Op op,
                     const Weights &weights = {}) {
    const std::shared_ptr<Graph> graph = values[0].graph_;
    return made(graph, [&]() -> Value {
      return {graph, graph->add(values, name, std::move(op), weights)};
    });
  }

  uint32_t add(std::span<const Value> values, std::string_view given, core::Op op,
               const Weights &weights) {
    if (error) return none;
    const std::string kind = core::op_name(op), name = layer_name(given, kind);
    auto refuse = [&](Error why) {
      why.node = name;
      why.op = kind;
      return fail(std::move(why));
    };
    if (!names.insert(name).second)
      return refuse({.code = ErrorCode::invalid, .message = "two layers have the same name"});
    std::vector<uint32_t> inputs;
    for (const Value &value : values) {
      if (value.graph_.get() != this)
        return refuse({.code = ErrorCode::usage, .message = "an input of another network"});
      inputs.push_back(value.id_);
    }
    for (const auto &[suffix, shape] : weights) {
      if (auto count = core::checked_element_count(shape); !count)
        return refuse(public_error(count.error()));
      const std::string weight = fmt::format("{}.{}", name, suffix);
      inputs.push_back(
          graph.add_constant(weight, core::named_constant(weight, {core::DType::f32, shape})));
    }
    auto result = graph.add_node(name, std::move(op), std::move(inputs));
    return result ? *result : fail(public_error(result.error()));
  }

  std::string layer_name(std::string_view given, const std::string &kind) {
    std::string name(given);
    while (name.empty() || (given.empty() && names.contains(name)))
      name = fmt::format("{}_{}", kind, ++counts[kind]);
    return name;
  }

  // One dimension of a value, 0 where it has no such: the shape rule then says what is wrong.
  static int64_t extent(const Value &value, size_t axis) {
    const Shape shape = value.shape();
    return axis < shape.size() ? shape[axis] : 0;
  }
};

namespace {

core::Size2 size(Size2 s) { return {s.h, s.w}; }
core::Pads pads(Pads p) { return {p.top, p.left, p.bottom, p.right}; }

core::Pool pool(core::PoolKind kind, Size2 kernel, const PoolOptions &options) {
  core::Pool pool;
  pool.kind = kind;
  pool.kernel = size(kernel);
  pool.stride = size(options.stride.value_or(kernel));
  pool.pad = pads(options.pad);
  pool.ceil_mode = options.ceil_mode;
  pool.count_include_pad = options.count_include_pad;
  return pool;
}

} // namespace

Builder::Builder(std::string name) : graph_(std::make_shared<Value::Graph>()) {
  graph_->graph.name = std::move(name);
}

Value Builder::input(std::string_view name, Shape shape, DType dtype) {
  return Value::Graph::made(graph_, [&]() -> Value {
    if (auto count = core::checked_element_count(shape); !count) {
      Error why = public_error(count.error());
      why.node = name;
      return {graph_, graph_->fail(std::move(why))};
    }
    if (!graph_->names.emplace(name).second)
      return {graph_, graph_->fail({.code = ErrorCode::invalid,
                                    .message = "two values have the same name",
                                    .node = std::string(name)})};
    return {graph_,
            graph_->graph.add_input(std::string(name), {core::DType(dtype), std::move(shape)})};
  });
}

Result<Model> Builder::build(std::span<const Value> outputs) {
  return guarded([&]() -> Result<Model> {
    if (graph_->error) return *graph_->error;
    core::Graph graph = graph_->graph;
    for (const Value &output : outputs) {
      if (output.graph_ != graph_)
        return Error{.code = ErrorCode::usage, .message = "an output is another network's value"};
      graph.outputs.push_back(output.id_);
    }
    core::remove_dead_code(graph);
    LATHE_PUBLIC_CHECK(core::verify(graph));
    return Model(std::make_unique<Model::Impl>(std::move(graph)));
  });
}

Shape Value::shape() const { return id_ == Graph::none ? Shape{} : graph_->graph.shape(id_); }

Value Value::conv(std::string_view name, std::int64_t channels, Size2 kernel,
                  ConvOptions options) const {
  return Graph::made(graph_, [&]() -> Value {
    core::Conv conv;
    conv.kernel = size(kernel);
    conv.stride = size(options.stride);
    conv.dilation = size(options.dilation);
    conv.pad = pads(options.pad);
    conv.groups = options.groups;
    conv.bias = options.bias;
    const int64_t depth = Graph::extent(*this, 1) / std::max<int64_t>(1, options.groups);
    Weights weights{{"weight", {channels, depth, kernel.h, kernel.w}}};
    if (options.bias) weights.push_back({"bias", {channels}});
    return Graph::layer({this, 1}, name, conv, weights);
  });
}

Value Value::dense(std::string_view name, std::int64_t outputs, bool bias) const {
  return Graph::made(graph_, [&]() -> Value {
    core::Dense dense;
    dense.bias = bias;
    Weights weights{{"weight", {outputs, Graph::extent(*this, 1)}}};
    if (bias) weights.push_back({"bias", {outputs}});
    return Graph::layer({this, 1}, name, dense, weights);
  });
}

Value Value::batch_norm(std::string_view name, float epsilon) const {
  return Graph::made(graph_, [&]() -> Value {
    const Shape channels{Graph::extent(*this, 1)};
    return Graph::layer({this, 1}, name, core::BatchNorm{epsilon},
                        {{"weight", channels},
                         {"bias", channels},
                         {"running_mean", channels},
                         {"running_var", channels}});
  });
}

Value Value::prelu(std::string_view name) const {
  return Graph::made(graph_, [&]() -> Value {
    Shape slopes(std::max<size_t>(shape().size(), 2) - 1, 1); // broadcasts over what follows
    slopes[0] = Graph::extent(*this, 1);
    return Graph::layer({this, 1}, name, core::Binary{core::BinaryKind::prelu},
                        {{"weight", std::move(slopes)}});
  });
}

Value Value::max_pool(Size2 kernel, PoolOptions options, std::string_view name) const {
  return Graph::layer({this, 1}, name, pool(core::PoolKind::max, kernel, options));
}
Value Value::average_pool(Size2 kernel, PoolOptions options, std::string_view name) const {
  return Graph::layer({this, 1}, name, pool(core::PoolKind::average, kernel, options));
}
Value Value::global_average_pool(std::string_view name) const {
  return Graph::layer({this, 1}, name, core::GlobalPool{core::PoolKind::average});
}
Value Value::global_max_pool(std::string_view name) const {
  return Graph::layer({this, 1}, name, core::GlobalPool{core::PoolKind::max});
}
Value Value::lrn(std::int64_t size, float alpha, float beta, float k, std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Lrn{size, alpha, beta, k});
}
Value Value::relu(std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Unary{core::UnaryKind::relu});
}
Value Value::leaky_relu(float slope, std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Unary{core::UnaryKind::leaky_relu, slope});
}
Value Value::clip(float least, float most, std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Unary{core::UnaryKind::clip, least, most});
}
Value Value::sigmoid(std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Unary{core::UnaryKind::sigmoid});
}
Value Value::tanh(std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Unary{core::UnaryKind::tanh});
}
Value Value::hard_swish(std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Unary{core::UnaryKind::hard_swish});
}
Value Value::elu(float alpha, std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Unary{core::UnaryKind::elu, alpha});
}
Value Value::softmax(std::int64_t axis, std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Softmax{axis});
}
Value Value::flatten(std::int64_t axis, std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Flatten{axis});
}
Value Value::reshape(Shape shape, std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Reshape{std::move(shape)});
}
Value Value::transpose(std::vector<std::int64_t> order, std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Transpose{std::move(order)});
}
Value Value::slice(std::int64_t axis, std::int64_t begin, std::int64_t end,
                   std::string_view name) const {
  return Graph::made(graph_, [&]() -> Value {
    return Graph::layer({this, 1}, name, core::Slice{{axis}, {begin}, {end}, {1}});
  });
}
Value Value::dropout(float rate, std::string_view name) const {
  return Graph::layer({this, 1}, name, core::Dropout{rate});
}

Value operator+(const Value &a, const Value &b) {
  return Value::Graph::layer(std::array{a, b}, {}, core::Binary{core::BinaryKind::add});
}
Value operator*(const Value &a, const Value &b) {
  return Value::Graph::layer(std::array{a, b}, {}, core::Binary{core::BinaryKind::mul});
}
Value concat(std::span<const Value> parts, std::int64_t axis, std::string_view name) {
  if (!parts.empty()) return Value::Graph::layer(parts, name, core::Concat{axis});
  auto graph = std::make_shared<Value::Graph>();
  return {graph, graph->fail({.code = ErrorCode::usage, .message = "nothing to concatenate"})};
}

} // namespace lathe
