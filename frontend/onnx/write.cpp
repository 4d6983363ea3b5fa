// Graphs as ONNX: what Netron draws and other runtimes run. Parameters that ONNX wants as inputs
// become initialisers of the node's name.
#include "frontend/onnx.h"
#include "frontend/onnx/proto.h"
#include "ir/evaluate.h"
#include "ir/op_facts.h"

#include <algorithm>
#include <fmt/format.h>
#include <limits>
#include <protozero/pbf_writer.hpp>
#include <unordered_set>

namespace lathe::core {
namespace onnx {
namespace {

constexpr int64_t ir_version = 8, opset = 16;

using protozero::pbf_writer;

// Encoded AttributeProtos.
struct Attributes {
  std::vector<std::string> list;

  void put(std::string_view name, int64_t value) {
    add(name, AttributeProto::i_, [&](pbf_writer &w) { w.add_int64(3, value); });
  }
  void put(std::string_view name, float value) {
    add(name, AttributeProto::f_, [&](pbf_writer &w) { w.add_float(2, value); });
  }
  void put(std::string_view name, const std::string &value) {
    add(name, AttributeProto::s_, [&](pbf_writer &w) { w.add_bytes(4, value); });
  }
  void put(std::string_view name, const std::vector<int64_t> &values) {
    add(name, AttributeProto::ints_, [&](pbf_writer &w) {
      for (int64_t value : values) w.add_int64(8, value);
    });
  }

private:
  template <typename Value>
  void add(std::string_view name, AttributeProto::Type type, const Value &value) {
    pbf_writer attribute(list.emplace_back());
    attribute.add_string(1, name.data(), name.size());
    value(attribute);
    attribute.add_int32(20, type);
  }
};

// A node as ONNX will have it.
struct Written {
  std::string op, domain = {};
  Attributes attributes = {};
  std::vector<std::string> inputs = {}; // behind those that the graph's node has
};

std::string value_info(std::string_view name, const Type &type) {
  std::string bytes;
  pbf_writer info(bytes);
  info.add_string(1, name.data(), name.size());
  pbf_writer proto(info, 2), tensor(proto, 1);
  tensor.add_int32(1, data_type(type.dtype));
  pbf_writer shape(tensor, 2);
  for (int64_t d : type.shape) {
    pbf_writer dimension(shape, 1);
    dimension.add_int64(1, d);
  }
  return bytes;
}

class Writer {
public:
  Writer(const Graph &graph, const Budget &budget)
      : graph_(graph), budget_(budget), message_(body_) {}

  Result<std::string> run() {
    name_values();
    for (const Node &node : graph_.nodes) {
      node_ = &node;
      Written written = std::visit(*this, node.op);
      write_node(node, written);
    }
    message_.add_string(2, graph_.name);
    LATHE_CHECK(write_constants());
    for (ValueId id : graph_.inputs)
      message_.add_bytes(11, value_info(names_[id], graph_.type(id)));
    for (ValueId id : graph_.outputs)
      message_.add_bytes(12, value_info(names_[id], graph_.type(id)));
    for (const Node &node : graph_.nodes)
      for (ValueId id : node.outputs)
        message_.add_bytes(13, value_info(names_[id], graph_.type(id)));
    std::string model;
    pbf_writer top(model);
    top.add_int64(1, ir_version);
    top.add_string(2, "lathe");
    top.add_bytes(7, body_);
    for (std::string_view domain : {"", "lathe"}) {
      pbf_writer import(top, 8);
      import.add_string(1, domain.data(), domain.size());
      import.add_int64(2, domain.empty() ? opset : 1);
    }
    return model;
  }

  // --- One function per op

  Written operator()(const Conv &op) {
    const bool fused = !op.pre.empty() || !op.post.empty();
    Written w{fused ? "FusedConv" : "Conv", fused ? "lathe" : ""};
    put_window(w, op.kernel, op.stride, op.pad);
    w.attributes.put("dilations", std::vector{op.dilation.h, op.dilation.w});
    w.attributes.put("group", op.groups);
    put_steps(w, "pre", op.pre);
    put_steps(w, "post", op.post);
    return w;
  }
  Written operator()(const Dense &op) {
    Written w{op.post.empty() ? "Gemm" : "FusedGemm", op.post.empty() ? "" : "lathe"};
    w.attributes.put("transB", int64_t{1});
    put_steps(w, "post", op.post);
    return w;
  }
  Written operator()(const Pool &op) {
    const bool dilated = op.dilation != Size2{};
    const bool fused = op.bias || !op.pre.empty() || !op.post.empty();
    const bool own =
        !fused && (op.kind == PoolKind::max || (op.kind == PoolKind::average && !dilated));
    Written w{own ? op.kind == PoolKind::max ? "MaxPool" : "AveragePool"
                  : std::string(to_string(op.kind)) + "_pool",
              own ? "" : "lathe"};
    put_window(w, op.kernel, op.stride, op.pad);
    w.attributes.put("ceil_mode", int64_t{op.ceil_mode});
    if (dilated) w.attributes.put("dilations", std::vector{op.dilation.h, op.dilation.w});
    if (op.kind == PoolKind::average)
      w.attributes.put("count_include_pad", int64_t{op.count_include_pad});
    put_steps(w, "pre", op.pre);
    put_steps(w, "post", op.post);
    return w;
  }
  Written operator()(const GlobalPool &op) {
    return {op.kind == PoolKind::max ? "GlobalMaxPool" : "GlobalAveragePool"};
  }
  Written operator()(const Lrn &op) {
    Written w = named<Lrn>();
    w.attributes.put("size", op.size);
    w.attributes.put("alpha", op.alpha);
    w.attributes.put("beta", op.beta);
    w.attributes.put("bias", op.k);
    return w;
  }
  Written operator()(const BatchNorm &op) {
    Written w = named<BatchNorm>();
    w.attributes.put("epsilon", op.epsilon);
    return w;
  }
  Written operator()(const Unary &op) {
    const UnaryFacts &facts = facts_of(op.kind);
    Written w{std::string(facts.onnx)};
    if (op.kind == UnaryKind::clip) {
      w.inputs = {parameter("min", Tensor::of({op.alpha}, {})),
                  parameter("max", Tensor::of({op.beta}, {}))};
      return w;
    }
    if (facts.parameters > 0) w.attributes.put("alpha", op.alpha);
    if (facts.parameters > 1) w.attributes.put("beta", op.beta);
    return w;
  }
  Written operator()(const Binary &op) { return {std::string(facts_of(op.kind).onnx)}; }
  Written operator()(const Softmax &op) {
    return with_axis({op.log ? "LogSoftmax" : "Softmax"}, op.axis);
  }
  Written operator()(const Hardmax &op) { return with_axis(named<Hardmax>(), op.axis); }
  Written operator()(const Concat &op) { return with_axis(named<Concat>(), op.axis); }
  Written operator()(const Gather &op) { return with_axis(named<Gather>(), op.axis); }
  Written operator()(const Flatten &op) { return with_axis(named<Flatten>(), op.axis); }
  Written operator()(const Slice &op) {
    return named<Slice>({list("starts", op.begin), list("ends", op.end), list("axes", op.axes),
                         list("steps", op.step)});
  }
  Written operator()(const Split &op) {
    return with_axis(named<Split>({list("sizes", op.sizes)}), op.axis);
  }
  Written operator()(const Pad &op) {
    std::vector<int64_t> pads = op.before;
    pads.insert(pads.end(), op.after.begin(), op.after.end());
    return named<Pad>({list("pads", pads), parameter("value", Tensor::of({op.value}, {}))});
  }
  Written operator()(const Reshape &op) { return named<Reshape>({list("shape", op.shape)}); }
  Written operator()(const Expand &op) { return named<Expand>({list("shape", op.shape)}); }
  Written operator()(const Transpose &op) {
    Written w = named<Transpose>();
    w.attributes.put("perm", op.perm);
    return w;
  }
  Written operator()(const Reduce &op) {
    static constexpr std::string_view names[] = {"ReduceMean", "ReduceSum", "ReduceMax",
                                                 "ReduceMin", "ReduceProd"};
    if (op.axes.empty()) return {"Identity"};
    Written w{std::string(names[size_t(op.kind)])};
    w.attributes.put("keepdims", int64_t{op.keep_dims});
    if (op.kind == ReduceKind::sum) // the only one whose axes are an input at this opset
      w.inputs = {list("axes", op.axes)};
    else
      w.attributes.put("axes", op.axes);
    return w;
  }
  Written operator()(const ArgReduce &op) {
    Written w = with_axis({op.kind == ArgKind::max ? "ArgMax" : "ArgMin"}, op.axis);
    w.attributes.put("keepdims", int64_t{op.keep_dims});
    w.attributes.put("select_last_index", int64_t{op.last});
    return w;
  }
  Written operator()(const Cast &op) {
    Written w = named<Cast>();
    w.attributes.put("to", int64_t{data_type(op.to)});
    return w;
  }
  Written operator()(const Dropout &op) {
    return named<Dropout>({parameter("ratio", Tensor::of({op.rate}, {}))});
  }

private:
  template <typename T> static Written named(std::vector<std::string> inputs = {}) {
    static_assert(!facts_of<T>().onnx.empty());
    return {std::string(facts_of<T>().onnx), "", {}, std::move(inputs)};
  }
  static Written with_axis(Written w, int64_t axis) {
    w.attributes.put("axis", axis);
    return w;
  }
  static void put_window(Written &w, const Size2 &kernel, const Size2 &stride, const Pads &pad) {
    w.attributes.put("kernel_shape", std::vector{kernel.h, kernel.w});
    w.attributes.put("strides", std::vector{stride.h, stride.w});
    w.attributes.put("pads", std::vector{pad.top, pad.left, pad.bottom, pad.right});
  }
  static void put_steps(Written &w, const char *name, const std::vector<FusedOp> &steps) {
    std::string text;
    for (const FusedOp &step : steps)
      text += (text.empty() ? "" : ", ") +
              print(std::visit([](const auto &op) { return Op(op); }, step.op));
    if (!text.empty()) w.attributes.put(name, text);
  }

  // An initialiser that belongs to the present node; its name.
  std::string parameter(std::string_view what, const Tensor &tensor) {
    std::string name = unique(fmt::format("{}:{}", node_->name, what));
    message_.add_bytes(5, encode(name, tensor));
    return name;
  }
  std::string list(std::string_view what, const std::vector<int64_t> &values) {
    return parameter(what, Tensor::of(values, {static_cast<int64_t>(values.size())}));
  }

  void name_values() {
    // Inputs and outputs keep their names, whatever the others are called.
    names_.resize(graph_.values.size());
    for (auto *ids : {&graph_.inputs, &graph_.outputs})
      for (ValueId id : *ids)
        if (names_[id].empty()) names_[id] = unique(graph_.values[id].name);
    for (size_t id = 0; id < names_.size(); ++id)
      if (names_[id].empty()) names_[id] = unique(graph_.values[id].name);
  }
  std::string unique(std::string name) {
    if (name.empty()) name = "value";
    std::string result = name;
    for (int n = 1; !taken_.insert(result).second; ++n) result = fmt::format("{}#{}", name, n);
    return result;
  }

  void write_node(const Node &node, const Written &written) {
    pbf_writer proto(message_, 1);
    for (ValueId id : node.inputs) proto.add_string(1, names_[id]);
    for (const std::string &name : written.inputs) proto.add_string(1, name);
    for (ValueId id : node.outputs) proto.add_string(2, names_[id]);
    proto.add_string(3, node.name);
    proto.add_string(4, written.op);
    if (!written.domain.empty()) proto.add_string(7, written.domain);
    if (!node.fused.empty())
      proto.add_string(6, fmt::format("fused with it: {}", fmt::join(node.fused, ", ")));
    for (const std::string &attribute : written.attributes.list) proto.add_bytes(5, attribute);
  }

  Result<void> write_constants() {
    for (size_t id = 0; id < graph_.values.size(); ++id) {
      const ConstantRef &constant = graph_.values[id].constant;
      if (!constant) continue;
      auto tensor = materialise(constant, budget_);
      if (tensor) {
        LATHE_TRY(grants_.emplace_back(),
                  budget_.take(int64_t(tensor->bytes()), "writing weights"));
        message_.add_bytes(5, encode(names_[id], *tensor));
      } else if (tensor.error().code == ErrorCode::invalid) // a weight without data: an input
        message_.add_bytes(11, value_info(names_[id], constant->type));
      else
        return std::unexpected(std::move(tensor).error());
    }
    return {};
  }

  const Graph &graph_;
  const Budget &budget_;
  std::vector<Grant> grants_; // of what is written
  std::string body_;          // GraphProto
  pbf_writer message_;
  const Node *node_ = nullptr;
  std::vector<std::string> names_; // by ValueId
  std::unordered_set<std::string> taken_;
};

} // namespace
} // namespace onnx

Result<std::string> write_onnx(const Graph &graph, const Budget &budget) {
  return onnx::Writer(graph, budget).run();
}

} // namespace lathe::core
