// Graph to Plan: storage for every value, then a kernel or an alias for every node.
#include "passes/plan/planner.h"

#include <climits>
#include <fmt/format.h>

namespace lathe {
namespace {

class Planner {
public:
  Planner(const Graph &graph, const Target &target)
      : graph_(graph), uses_(graph), batched_(images_are_independent(graph)),
        schedule_(make_schedule(graph, uses_)), storage_(graph, batched_, schedule_.last_reader) {
    plan_.name = graph.name;
    plan_.target = target;
    plan_.batched = batched_;
  }

  Result<Plan> run() {
    LATHE_CHECK(check_types());
    place_inputs_and_outputs();
    place_concats();
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (schedule_.absorbed[n]) continue;
      current_ = int(n);
      if (makes_nothing(graph_.nodes[n])) continue;
      if (auto done = lower(graph_.nodes[n]); !done) {
        Error error = done.error();
        const Node &node = graph_.nodes[n];
        error.node = node.name;
        error.op = op_name(node.op);
        error.file = node.source.file;
        error.line = node.source.line;
        return fail(std::move(error));
      }
    }
    current_ = INT_MAX;
    LATHE_CHECK(copy_outputs());
    finish();
    return std::move(plan_);
  }

private:
  // --- Decisions about the whole graph

  // Kernels move any type, do simple arithmetic on whole numbers, and compute in f32.
  Result<void> check_types() {
    std::string problems;
    auto complain = [&](std::string problem) {
      problems += (problems.empty() ? "" : "\n") + problem;
    };
    for (const Node &node : graph_.nodes) {
      bool moves =
          is_view(node.op) || std::holds_alternative<Concat>(node.op) ||
          std::holds_alternative<Gather>(node.op) || std::holds_alternative<Cast>(node.op) ||
          std::holds_alternative<Unary>(node.op) || std::holds_alternative<Binary>(node.op);
      DType dtype = graph_.type(node.inputs[0]).dtype;
      if (!moves && dtype != DType::f32)
        complain(
            fmt::format("  layer '{}': {} on {}", node.name, op_name(node.op), to_string(dtype)));
    }
    if (problems.empty()) return {};
    return fail(Error{.code = ErrorCode::unsupported,
                      .message = "no kernel covers parts of the network",
                      .file = graph_.name,
                      .detail = problems});
  }
  void place_inputs_and_outputs() {
    for (size_t i = 0; i < graph_.inputs.size(); ++i) {
      ValueId id = graph_.inputs[i];
      storage_.set(id, storage_.external(Space::input, int(i), graph_.type(id)));
      plan_.inputs.push_back(graph_.type(id));
      plan_.input_names.push_back(graph_.values[id].name);
    }
    for (size_t j = 0; j < graph_.outputs.size(); ++j) {
      ValueId id = graph_.outputs[j];
      plan_.outputs.push_back(graph_.type(id));
      plan_.output_names.push_back(graph_.values[id].name);
      const Shape &shape = graph_.shape(id);
      int producer = uses_.producer[id];
      bool computed = producer >= 0 && !is_view(graph_.nodes[size_t(producer)].op);
      // NHWC and NCHW agree where there is one channel or one pixel.
      bool row_major = shape.size() != 4 || shape[1] == 1 || shape[2] * shape[3] == 1;
      if (computed && row_major && !storage_.has(id))
        storage_.set(id, storage_.external(Space::output, int(j), graph_.type(id)));
    }
  }

  // Parts of a concat are computed where the whole lies. Last concat first, so that a concat of
  // concats becomes one buffer.
  void place_concats() {
    for (size_t n = graph_.nodes.size(); n-- > 0;) {
      const Node &node = graph_.nodes[n];
      auto *concat = std::get_if<Concat>(&node.op);
      if (!concat || graph_.type(node.outputs[0]).dtype != DType::f32) continue;
      ValueId whole = node.outputs[0];
      if (!storage_.has(whole)) storage_.set(whole, storage_.allocate(graph_.type(whole)));
      const size_t axis = axis_index(concat->axis, graph_.shape(whole).size());
      int64_t begin = 0;
      for (ValueId part : node.inputs) {
        int64_t extent = graph_.shape(part)[axis];
        int producer = uses_.producer[part];
        bool own =
            producer >= 0 && !is_view(graph_.nodes[size_t(producer)].op) && !uses_.is_output[part];
        if (own && !storage_.has(part))
          storage_.set(part, subview(storage_[whole], axis, begin, extent));
        begin += extent;
      }
    }
  }

  // --- Storage of operands and results

  Storage operand(ValueId id) {
    if (!storage_.has(id)) storage_.set(id, weight(id));
    return storage_[id];
  }
  Storage weight(ValueId id, Weight::Packing packing = Weight::Packing::as_is, int64_t groups = 1,
                 int64_t panel = 1) {
    const Value &value = graph_.values[id];
    return add_weight({packing, value.constant, groups, panel, 0, value.name});
  }
  Storage add_weight(Weight weight) {
    const Shape &shape = weight.constant->type.shape;
    int64_t elements = element_count(shape);
    if (weight.packing != Weight::Packing::as_is) {
      int64_t rows = shape[0] / weight.groups, depth = elements / shape[0];
      elements = weight.groups * ((rows + weight.panel - 1) / weight.panel * weight.panel) * depth;
    }
    weight.bytes = elements * int64_t(size_of(weight.constant->type.dtype));
    Shape dims = weight.packing == Weight::Packing::as_is ? shape : Shape{elements};
    const DType dtype = weight.constant->type.dtype;
    plan_.weights.push_back(std::move(weight));
    Storage storage =
        storage_.external(Space::weights, int(plan_.weights.size()) - 1, {dtype, dims});
    if (batched_ && !dims.empty() && dims[0] == 1)
      storage.strides[0] = 0; // the same for all images
    return storage;
  }

  // The storage of a result: placed already, in place of a dying operand, or new.
  Storage result(ValueId id, const std::vector<Storage> &may_replace = {}) {
    if (storage_.has(id)) return storage_[id];
    for (const Storage &s : may_replace) {
      const Buffer &buffer = storage_.buffers[size_t(s.buffer)];
      bool dies = buffer.space == Space::arena && buffer.last_node == current_;
      if (!dies || s.dims != graph_.shape(id) || !is_injective(s)) continue;
      storage_.set(id, s);
      return s;
    }
    storage_.set(id, storage_.allocate(graph_.type(id)));
    return storage_[id];
  }

  // Results without elements need storage, for their readers, but no kernel.
  bool makes_nothing(const Node &node) {
    for (ValueId id : node.outputs)
      if (element_count(graph_.shape(id)) > 0) return false;
    for (ValueId id : node.outputs) result(id);
    return true;
  }

  // --- Kernels

  void append(Kernel kernel, const std::vector<Storage> &operands, std::vector<ValueId> ids,
              const Node *node) {
    int number = int(plan_.kernels.size());
    for (size_t i = 0; i < operands.size(); ++i) {
      const Storage &s = operands[i];
      storage_.touch(s, number);
      View view;
      view.index = s.buffer; // resolved in `finish`
      view.offset = {0, s.offset * s.element_bytes()};
      view.dims = s.dims;
      view.strides = s.strides;
      view.value = i < ids.size() ? ids[i] : no_value;
      kernel.operands.push_back(std::move(view));
    }
    if (node) {
      kernel.sources.push_back(node->name);
      kernel.sources.insert(kernel.sources.end(), node->fused.begin(), node->fused.end());
    }
    plan_.kernels.push_back(std::move(kernel));
  }

  Result<void> map(MapRequest request, std::vector<ValueId> ids, const Node *node) {
    LATHE_TRY(Kernel kernel, map_kernel(request, batched_));
    std::vector<Storage> operands = request.inputs;
    operands.push_back(request.output);
    append(std::move(kernel), operands, std::move(ids), node);
    return {};
  }
  Result<void> copy(const Storage &from, const Storage &to, ValueId from_id, ValueId to_id,
                    const Node *node) {
    return map({{}, {from}, to}, {from_id, to_id}, node);
  }
  // `s`, or a copy of it in the default layout, if its channels do not follow each other.
  Result<Storage> with_contiguous_channels(Storage s, ValueId id, const Node *node) {
    if (channels_contiguous(s)) return s;
    Storage fresh = storage_.allocate(graph_.type(id));
    LATHE_CHECK(copy(s, fresh, id, id, node));
    return fresh;
  }

  Result<void> lower(const Node &node) {
    struct Visitor {
      Planner &p;
      const Node &n;
      Result<void> operator()(const Conv &op) { return p.conv(n, op); }
      Result<void> operator()(const Dense &op) { return p.dense(n, op); }
      Result<void> operator()(const Pool &op) { return p.pool(n, op); }
      Result<void> operator()(const GlobalPool &op) { return p.global_pool(n, op); }
      Result<void> operator()(const Lrn &op) { return p.lrn(n, op); }
      Result<void> operator()(const Softmax &op) { return p.softmax(n, op); }
      Result<void> operator()(const Hardmax &op) {
        return p.arg(n, ArgSpec{.one_hot = true}, op.axis, true);
      }
      Result<void> operator()(const ArgReduce &op) {
        return p.arg(n, ArgSpec{op.kind, op.last}, op.axis, op.keep_dims);
      }
      Result<void> operator()(const Reduce &op) { return p.reduce(n, op); }
      Result<void> operator()(const Gather &op) { return p.gather(n, op); }
      Result<void> operator()(const Cast &) { return p.cast(n); }
      Result<void> operator()(const Expand &) { return p.expand(n); }
      Result<void> operator()(const Concat &op) { return p.concat(n, op); }
      Result<void> operator()(const Pad &op) { return p.pad(n, op); }
      Result<void> operator()(const Unary &) { return p.elementwise(n); }
      Result<void> operator()(const Binary &) { return p.elementwise(n); }
      Result<void> operator()(const Slice &op) { return p.slice(n, op); }
      Result<void> operator()(const Split &op) { return p.split(n, op); }
      Result<void> operator()(const Reshape &) { return p.reshape(n); }
      Result<void> operator()(const Flatten &) { return p.reshape(n); }
      Result<void> operator()(const Transpose &op) { return p.transpose(n, op); }
      Result<void> operator()(const Dropout &) { return p.view_of_first(n); }
      Result<void> operator()(const BatchNorm &) {
        return fail(ErrorCode::internal, "a batch norm reached the planner");
      }
    };
    return std::visit(Visitor{*this, node}, node.op);
  }

  Result<void> conv(const Node &node, const Conv &op) {
    Storage input = operand(node.inputs[0]);
    std::vector<Storage> post, replaceable;
    std::vector<ValueId> post_ids(node.inputs.begin() + int64_t(fixed_inputs(op)),
                                  node.inputs.end());
    for (ValueId id : post_ids) {
      LATHE_TRY(Storage s, with_contiguous_channels(operand(id), id, &node));
      post.push_back(s);
      // Tiles read neighbours of the input, but only their own elements of a post operand.
      if (s.buffer != input.buffer && channels_contiguous(s)) replaceable.push_back(s);
    }
    const Shape &x = graph_.shape(node.inputs[0]), &y = graph_.shape(node.outputs[0]);
    Storage output = result(node.outputs[0], only_buffer(replaceable, post));
    Storage target = output;
    if (!channels_contiguous(output)) target = storage_.allocate(graph_.type(node.outputs[0]));
    Kernel kernel = conv_kernel({op, input, target, post, x[1], y[1]}, plan_.target, batched_);
    int64_t panel = std::get<ConvSpec>(kernel.spec).tile_vectors * plan_.target.lanes();
    const Shape &w = graph_.shape(node.inputs[1]);
    kernel.flops_per_image =
        2.0 * double(element_count(y) / y[0]) * double(element_count(w) / w[0]);
    std::vector<Storage> weights;
    for (size_t i = 1; i < fixed_inputs(op); ++i) {
      ValueId id = node.inputs[i];
      auto packing = i == 1 ? Weight::Packing::conv_panels : Weight::Packing::conv_bias;
      if (graph_.constant(id)) {
        weights.push_back(weight(id, packing, op.groups, panel));
      } else {
        LATHE_TRY(Storage packed, pack_panels(node, id, op.groups, panel));
        weights.push_back(packed);
      }
    }
    append_layer(node, std::move(kernel), input, target, weights, post);
    if (!same_layout(target, output))
      return copy(target, output, node.outputs[0], node.outputs[0], &node);
    return {};
  }
  // Weights (M,C,kh,kw) or biases (M) that are computed at run time, copied into the panels that
  // ConvSpec describes: [group][panel][kh][kw][channel][lane], zeros behind the last channel.
  Result<Storage> pack_panels(const Node &node, ValueId id, int64_t groups, int64_t panel) {
    Storage from = operand(id);
    from.dims.resize(4, 1);
    from.strides.resize(4, 0);
    const int64_t rows = from.dims[0] / groups, panels = (rows + panel - 1) / panel;
    const int64_t full = rows / panel, rest = rows % panel, m = from.strides[0];
    auto as_panels = [&](Storage s, int64_t row_panels, int64_t lanes) {
      s.dims = {groups, row_panels, from.dims[2], from.dims[3], from.dims[1], lanes};
      return s;
    };
    Storage packed = storage_.allocate_row_major({DType::f32, as_panels(from, panels, panel).dims});
    Storage source = from;
    source.strides = {rows * m, panel * m, from.strides[2], from.strides[3], from.strides[1], m};
    const Storage whole = packed;
    auto move = [&](Storage part, Storage slot) -> Result<void> {
      return copy(part, slot, id, id, &node);
    };
    if (rest != 0) {
      LATHE_CHECK(map({{}, {filler(0)}, whole}, {no_value, id}, &node));
      Storage part = as_panels(source, 1, rest), slot = as_panels(whole, 1, rest);
      part.offset += full * panel * m;
      slot.offset += full * whole.strides[1];
      LATHE_CHECK(move(part, slot));
    }
    if (full > 0) LATHE_CHECK(move(as_panels(source, full, panel), as_panels(whole, full, panel)));
    packed.dims = {element_count(whole.dims)};
    packed.strides = {1};
    return packed;
  }
  Storage filler(float value) {
    return add_weight({Weight::Packing::as_is, splat_constant(value, {1}), 1, 1, 0, "padding"});
  }

  // Operands that may be overwritten: those whose buffer no other operand shares.
  static std::vector<Storage> only_buffer(const std::vector<Storage> &candidates,
                                          const std::vector<Storage> &operands) {
    std::vector<Storage> result;
    for (const Storage &c : candidates) {
      bool alone = std::ranges::all_of(
          operands, [&](const Storage &o) { return o.buffer != c.buffer || same_layout(o, c); });
      if (alone) result.push_back(c);
    }
    return result;
  }

  Result<void> dense(const Node &node, const Dense &op) {
    auto contiguous_rows = [&](ValueId id) -> Result<Storage> {
      Storage s = operand(id);
      if (s.strides[1] == 1 || s.dims[1] == 1) return s;
      Storage fresh = storage_.allocate(graph_.type(id));
      LATHE_CHECK(copy(s, fresh, id, id, &node));
      return fresh;
    };
    LATHE_TRY(Storage input, contiguous_rows(node.inputs[0]));
    std::vector<Storage> post;
    std::vector<ValueId> post_ids(node.inputs.begin() + int64_t(fixed_inputs(op)),
                                  node.inputs.end());
    for (ValueId id : post_ids) {
      LATHE_TRY(Storage s, contiguous_rows(id));
      post.push_back(s);
    }
    Storage output = result(node.outputs[0]);
    Kernel kernel = dense_kernel(op, input, output, post, batched_);
    kernel.flops_per_image = 2.0 * double(output.dims[1]) * double(input.dims[1]);
    std::vector<Storage> weights;
    for (size_t i = 1; i < fixed_inputs(op); ++i) {
      LATHE_TRY(Storage row_major, with_row_major(node.inputs[i], &node));
      weights.push_back(row_major);
    }
    append_layer(node, std::move(kernel), input, output, weights, post);
    return {};
  }

  // A value whose elements follow each other, or a copy of it.
  Result<Storage> with_row_major(ValueId id, const Node *node) {
    Storage s = operand(id), flat = s;
    flat.strides = row_major_strides(s.dims);
    if (same_layout(s, flat)) return s;
    flat = storage_.allocate_row_major(graph_.type(id));
    LATHE_CHECK(copy(s, flat, id, id, node));
    return flat;
  }

  // Operands in the order that ConvSpec and DenseSpec share: input, weights, output, bias, post.
  void append_layer(const Node &node, Kernel kernel, const Storage &input, const Storage &output,
                    const std::vector<Storage> &weights, const std::vector<Storage> &post) {
    std::vector<Storage> operands{input, weights[0], output};
    std::vector<ValueId> ids{node.inputs[0], node.inputs[1], node.outputs[0]};
    if (weights.size() > 1) {
      operands.push_back(weights[1]);
      ids.push_back(node.inputs[2]);
    }
    operands.insert(operands.end(), post.begin(), post.end());
    ids.insert(ids.end(), node.inputs.end() - int64_t(post.size()), node.inputs.end());
    append(std::move(kernel), operands, std::move(ids), &node);
  }

  // A kernel over NHWC rows whose operands are one input and one output.
  template <typename MakeKernel> Result<void> rowwise(const Node &node, const MakeKernel &make) {
    LATHE_TRY(Storage input,
              with_contiguous_channels(operand(node.inputs[0]), node.inputs[0], &node));
    Storage output = result(node.outputs[0]), target = output;
    if (!channels_contiguous(output)) target = storage_.allocate(graph_.type(node.outputs[0]));
    append(make(input, target), {input, target}, {node.inputs[0], node.outputs[0]}, &node);
    if (!same_layout(target, output))
      return copy(target, output, node.outputs[0], node.outputs[0], &node);
    return {};
  }

  Result<void> pool(const Node &node, const Pool &op) {
    return rowwise(node, [&](const Storage &in, const Storage &out) {
      return pool_kernel(op, in, out, batched_);
    });
  }
  Result<void> global_pool(const Node &node, const GlobalPool &op) {
    const Shape &x = graph_.shape(node.inputs[0]);
    Pool whole;
    whole.kind = op.kind;
    whole.kernel = whole.stride = {x[2], x[3]};
    return pool(node, whole);
  }

  Result<void> lrn(const Node &node, const Lrn &op) {
    return rowwise(node, [&](const Storage &in, const Storage &out) {
      return lrn_kernel(op, in, out, batched_);
    });
  }

  Result<void> softmax(const Node &node, const Softmax &op) {
    Storage in = operand(node.inputs[0]), out = result(node.outputs[0], {in});
    LATHE_TRY(Kernel kernel, softmax_kernel(op, in, out, batched_));
    append(std::move(kernel), {in, out}, {node.inputs[0], node.outputs[0]}, &node);
    return {};
  }
  Result<void> arg(const Node &node, const ArgSpec &spec, int64_t axis, bool keep_dims) {
    Storage in = operand(node.inputs[0]), out = result(node.outputs[0]);
    LATHE_TRY(Kernel kernel, arg_kernel(spec, axis, keep_dims, in, out, batched_));
    append(std::move(kernel), {in, out}, {node.inputs[0], node.outputs[0]}, &node);
    return {};
  }
  Result<void> gather(const Node &node, const Gather &op) {
    Storage in = operand(node.inputs[0]), indices = operand(node.inputs[1]);
    Storage out = result(node.outputs[0]);
    LATHE_TRY(Kernel kernel, gather_kernel(op.axis, in, indices, out, batched_));
    append(std::move(kernel), {in, indices, out}, {node.inputs[0], node.inputs[1], node.outputs[0]},
           &node);
    return {};
  }
  Result<void> cast(const Node &node) {
    return copy(operand(node.inputs[0]), result(node.outputs[0]), node.inputs[0], node.outputs[0],
                &node);
  }
  Result<void> reduce(const Node &node, const Reduce &op) {
    Storage in = operand(node.inputs[0]), out = result(node.outputs[0]);
    LATHE_TRY(Kernel kernel, reduce_kernel(op, in, out, batched_));
    append(std::move(kernel), {in, out}, {node.inputs[0], node.outputs[0]}, &node);
    return {};
  }

  Result<void> elementwise(const Node &node) {
    std::vector<const Node *> chain{&node};
    const std::vector<int> &previous = schedule_.previous;
    for (int p = previous[size_t(current_)]; p >= 0; p = previous[size_t(p)])
      chain.push_back(&graph_.nodes[size_t(p)]);
    std::ranges::reverse(chain);
    MapRequest request;
    std::vector<ValueId> ids{chain[0]->inputs[0]};
    ValueId carried = no_value;
    for (const Node *link : chain) {
      if (auto *unary = std::get_if<Unary>(&link->op)) {
        request.steps.push_back({*unary});
      } else {
        bool swapped = link->inputs[0] != carried && carried != no_value;
        ids.push_back(link->inputs[swapped ? 0 : 1]);
        request.steps.push_back({std::get<Binary>(link->op), swapped});
      }
      carried = link->outputs[0];
    }
    std::vector<Storage> replaceable;
    for (ValueId id : ids) {
      request.inputs.push_back(operand(id));
      replaceable.push_back(request.inputs.back());
    }
    request.output = result(node.outputs[0], only_buffer(replaceable, request.inputs));
    ids.push_back(node.outputs[0]);
    Node described = node;
    for (const Node *link : chain)
      if (link != &node) described.fused.push_back(link->name);
    return map(std::move(request), std::move(ids), &described);
  }

  Result<void> concat(const Node &node, const Concat &op) {
    ValueId whole = node.outputs[0];
    if (!storage_.has(whole)) storage_.set(whole, storage_.allocate(graph_.type(whole)));
    const size_t axis = axis_index(op.axis, graph_.shape(whole).size());
    int64_t begin = 0;
    for (ValueId part : node.inputs) {
      int64_t extent = graph_.shape(part)[axis];
      Storage slot = subview(storage_[whole], axis, begin, extent);
      Storage source = operand(part);
      if (!same_layout(source, slot)) LATHE_CHECK(copy(source, slot, part, whole, &node));
      begin += extent;
    }
    return {};
  }

  Result<void> pad(const Node &node, const Pad &op) {
    Storage input = operand(node.inputs[0]), output = result(node.outputs[0]);
    LATHE_CHECK(map({{}, {filler(op.value)}, output}, {no_value, node.outputs[0]}, &node));
    Storage inside = output;
    for (size_t d = 0; d < inside.dims.size(); ++d)
      inside = subview(inside, d, op.before[d], input.dims[d]);
    return copy(input, inside, node.inputs[0], node.outputs[0], &node);
  }

  // --- Views

  Result<void> view_of_first(const Node &node) {
    storage_.set(node.outputs[0], operand(node.inputs[0]));
    return {};
  }
  Result<void> slice(const Node &node, const Slice &op) {
    Storage view = operand(node.inputs[0]);
    for (size_t i = 0; i < op.axes.size(); ++i) {
      const size_t a = axis_index(op.axes[i], view.dims.size());
      const SliceRange range = slice_range(view.dims[a], op.begin[i], op.end[i], op.step[i]);
      view = subview(view, a, range.first, range.count, range.step);
    }
    storage_.set(node.outputs[0], view);
    return {};
  }
  Result<void> expand(const Node &node) {
    Storage in = operand(node.inputs[0]), view = in;
    view.dims = graph_.shape(node.outputs[0]);
    view.strides.assign(view.dims.size(), 0);
    const size_t lead = view.dims.size() - in.dims.size();
    for (size_t d = 0; d < in.dims.size(); ++d)
      if (in.dims[d] == view.dims[lead + d]) view.strides[lead + d] = in.strides[d];
    storage_.set(node.outputs[0], view);
    return {};
  }
  Result<void> split(const Node &node, const Split &op) {
    Storage whole = operand(node.inputs[0]);
    const size_t axis = axis_index(op.axis, whole.dims.size());
    int64_t begin = 0;
    for (size_t i = 0; i < op.sizes.size(); ++i) {
      storage_.set(node.outputs[i], subview(whole, axis, begin, op.sizes[i]));
      begin += op.sizes[i];
    }
    return {};
  }
  Result<void> transpose(const Node &node, const Transpose &op) {
    Storage in = operand(node.inputs[0]), view = in;
    for (size_t i = 0; i < op.perm.size(); ++i) {
      view.dims[i] = in.dims[size_t(op.perm[i])];
      view.strides[i] = in.strides[size_t(op.perm[i])];
    }
    storage_.set(node.outputs[0], view);
    return {};
  }
  Result<void> reshape(const Node &node) {
    Storage in = operand(node.inputs[0]);
    const Shape &shape = graph_.shape(node.outputs[0]);
    auto view = reshaped(in, shape, batched_);
    if (!view) {
      Storage flat = storage_.allocate_row_major(graph_.type(node.inputs[0]));
      LATHE_CHECK(copy(in, flat, node.inputs[0], node.inputs[0], &node));
      view = reshaped(flat, shape, batched_);
    }
    storage_.set(node.outputs[0], *view);
    return {};
  }

  // --- The end

  Result<void> copy_outputs() {
    for (size_t j = 0; j < graph_.outputs.size(); ++j) {
      ValueId id = graph_.outputs[j];
      Storage source = operand(id);
      const Buffer &buffer = storage_.buffers[size_t(source.buffer)];
      if (buffer.space == Space::output && buffer.index == int(j)) continue;
      LATHE_CHECK(
          copy(source, storage_.external(Space::output, int(j), graph_.type(id)), id, id, nullptr));
    }
    return {};
  }

  void finish() {
    ArenaSize size = assign_offsets(storage_.buffers, batched_);
    plan_.arena_bytes = batched_ ? Affine{size.bytes, 0} : Affine{0, size.bytes};
    plan_.arena_lower_bound_bytes =
        batched_ ? Affine{size.lower_bound, 0} : Affine{0, size.lower_bound};
    for (Kernel &kernel : plan_.kernels) {
      for (View &view : kernel.operands) {
        const Buffer &buffer = storage_.buffers[size_t(view.index)];
        view.space = buffer.space;
        view.index = buffer.space == Space::arena ? 0 : buffer.index;
        (batched_ ? view.offset.per_image : view.offset.fixed) += buffer.offset;
      }
      plan_.scratch_bytes = std::max(plan_.scratch_bytes, kernel.scratch_bytes);
    }
  }

  const Graph &graph_;
  Uses uses_;
  bool batched_;
  Schedule schedule_;
  StorageMap storage_;
  int current_ = 0; // the node that is being lowered
  Plan plan_;
};

} // namespace

Result<Plan> make_plan(const Graph &graph, const Target &target) {
  return Planner(graph, target).run();
}

int64_t Plan::weight_bytes() const {
  int64_t total = 0;
  for (const Weight &weight : weights) total += weight.bytes;
  return total;
}

} // namespace lathe
