// Every op as kernels or as a view: one function each.
#include "passes/plan/builder.h"

#include <climits>

namespace lathe::core {
namespace {

// Operands that may be overwritten: those whose buffer no other operand shares.
std::vector<Storage> only_buffer(const std::vector<Storage> &candidates,
                                 const std::vector<Storage> &operands) {
  std::vector<Storage> result;
  for (const Storage &c : candidates) {
    bool alone = std::ranges::all_of(
        operands, [&](const Storage &o) { return o.buffer != c.buffer || same_layout(o, c); });
    if (alone) result.push_back(c);
  }
  return result;
}

// Operands of a kernel, with the values that they hold.
struct Operands {
  std::vector<Storage> storages;
  std::vector<ValueId> ids;
  void add(const Storage &storage, ValueId id) {
    storages.push_back(storage);
    ids.push_back(id);
  }
};

// The nodes that one convolution kernel computes.
struct Chain {
  const Node *pool = nullptr;
  std::vector<const Node *> convolutions; // the last one first
};

struct Lowering {
  PlanBuilder &b;
  const Node &node;

  // --- Layers

  Result<void> operator()(const Conv &) { return convolve(chain()); }
  Result<void> operator()(const Pool &op) {
    if (b.schedule.previous[size_t(b.current)] >= 0) return convolve(chain());
    LATHE_TRY(Storage in, b.with_contiguous_channels(node.inputs[0], node));
    Storage out = b.vector_result(node.outputs[0]);
    Operands operands;
    operands.add(in, node.inputs[0]);
    operands.add(out, node.outputs[0]);
    if (op.bias) {
      LATHE_TRY(Storage bias, b.with_row_major(node.inputs[bias_input(op)], node));
      operands.add(bias, node.inputs[bias_input(op)]);
    }
    LATHE_TRY(std::vector<Storage> post, fused_operands(operands, node, op));
    b.append(pool_kernel(op, b.options.strict, in, out, post, b.batched), operands.storages,
             operands.ids, &node);
    return b.deliver(out, node.outputs[0], node);
  }
  Result<void> operator()(const GlobalPool &op) {
    const Shape &x = b.graph.shape(node.inputs[0]);
    Pool whole;
    whole.kind = op.kind;
    whole.kernel = whole.stride = {x[2], x[3]};
    return (*this)(whole);
  }
  Result<void> operator()(const Dense &op) {
    return reads_panels() ? dense_of_panels(op) : dense_of_rows(op);
  }

  Result<void> dense_of_rows(const Dense &op) {
    LATHE_TRY(Storage input, b.with_contiguous_rows(node.inputs[0], node));
    LATHE_TRY(std::vector<Storage> post, contiguous_rows_of_post(op));
    Storage output = b.result(node.outputs[0]);
    Kernel kernel = dense_kernel(op, input, output, post, b.batched);
    kernel.flops_per_image = dense_flops();
    std::vector<Storage> operands{input};
    std::vector<ValueId> ids{node.inputs[0], node.inputs[1], node.outputs[0]};
    LATHE_TRY(operands.emplace_back(), b.with_row_major(node.inputs[1], node));
    operands.push_back(output);
    if (op.bias) {
      LATHE_TRY(operands.emplace_back(), b.with_row_major(node.inputs[2], node));
    }
    operands.insert(operands.end(), post.begin(), post.end());
    ids.insert(ids.end(), node.inputs.begin() + int64_t(bias_input(op)), node.inputs.end());
    b.append(std::move(kernel), operands, std::move(ids), &node);
    return {};
  }

  // A cache delivers one stream faster than several, and panels leave nothing to be added across
  // lanes: weights that the L2 cache holds are packed as those of a convolution over one pixel.
  // Others are used where they lie.
  bool reads_panels() const {
    const ConstantRef weights = b.graph.constant(node.inputs[1]);
    if (weights && b.options.any_algorithm)
      return (*b.options.any_algorithm + size_t(b.current)) % 2;
    return weights && 4 * element_count(weights->type.shape) <= b.plan.target.l2_bytes / 2;
  }

  Result<void> dense_of_panels(const Dense &op) {
    Conv conv;
    conv.bias = op.bias;
    conv.post = op.post;
    auto as_picture = [](Storage s) {
      s.dims.resize(4, 1);
      s.strides.resize(4, 0);
      return s;
    };
    LATHE_TRY(const Storage input, b.with_contiguous_rows(node.inputs[0], node));
    LATHE_TRY(const std::vector<Storage> post, contiguous_rows_of_post(op));
    const Storage output = b.result(node.outputs[0]);
    ConvRequest request;
    request.input = as_picture(input);
    request.output = as_picture(output);
    ConvStage stage{&conv, {}, request.input.dims, request.output.dims, {}};
    for (const Storage &s : post) stage.post.push_back(as_picture(s));
    Operands operands;
    operands.add(output, node.outputs[0]);
    LATHE_CHECK(add_panels(operands, node, conv, stage));
    for (size_t i = 0; i < post.size(); ++i) operands.add(post[i], node.inputs[post_input(op) + i]);
    operands.add(input, node.inputs[0]);
    request.stages.push_back(std::move(stage));
    LATHE_TRY(Kernel kernel, conv_kernel(std::move(request), b.plan.target, b.batched));
    kernel.flops_per_image = dense_flops();
    b.append(std::move(kernel), operands.storages, std::move(operands.ids), &node);
    return {};
  }
  double dense_flops() const { // of an image
    return 2.0 * double(element_count(b.graph.shape(node.inputs[1])));
  }
  Result<std::vector<Storage>> contiguous_rows_of_post(const Dense &op) {
    std::vector<Storage> post;
    for (size_t i = post_input(op); i < node.inputs.size(); ++i) {
      LATHE_TRY(post.emplace_back(), b.with_contiguous_rows(node.inputs[i], node));
    }
    return post;
  }

  Chain chain() const {
    Chain chain;
    for (int n = b.current; n >= 0; n = b.schedule.previous[size_t(n)]) {
      const Node &link = b.graph.nodes[size_t(n)];
      if (std::holds_alternative<Pool>(link.op))
        chain.pool = &link;
      else
        chain.convolutions.push_back(&link);
    }
    return chain;
  }

  // Appends weights and bias of a layer, packed as its tiles read them.
  Result<void> add_panels(Operands &operands, const Node &layer, const Conv &op,
                          const ConvStage &stage) {
    const ConvShape shape = conv_shape(op, stage.x, stage.y, b.plan.target);
    const ConvTile tile = conv_tile(b.plan.target, shape);
    const Panels panels{shape.groups, tile.panel(), tile.lanes};
    LATHE_TRY(Storage weights, b.in_panels(layer.inputs[1], Weight::Packing::conv_panels, panels,
                                           stage.winograd, node));
    operands.add(weights, layer.inputs[1]);
    if (!op.bias) return {};
    LATHE_TRY(Storage bias,
              b.in_panels(layer.inputs[2], Weight::Packing::conv_bias, panels, {}, node));
    operands.add(bias, layer.inputs[2]);
    return {};
  }

  // Appends the operands of a layer's `pre` and `post`; returns the latter.
  template <LayerOp L>
  Result<std::vector<Storage>> fused_operands(Operands &operands, const Node &layer, const L &op) {
    for (size_t i = pre_input(op); i < post_input(op); ++i) {
      LATHE_TRY(Storage vector, b.with_row_major(layer.inputs[i], node));
      operands.add(vector, layer.inputs[i]);
    }
    std::vector<Storage> post;
    for (size_t i = post_input(op); i < layer.inputs.size(); ++i) {
      LATHE_TRY(post.emplace_back(), b.with_contiguous_channels(layer.inputs[i], node));
      operands.add(post.back(), layer.inputs[i]);
    }
    return post;
  }

  // One kernel for a chain of convolutions and a pool behind them.
  Result<void> convolve(const Chain &chain) {
    ConvRequest request;
    double multiplies = 0;
    std::vector<Operands> stages; // of each convolution, weights first
    for (const Node *layer : chain.convolutions) {
      const Conv &op = std::get<Conv>(layer->op);
      const Shape &x = b.graph.shape(layer->inputs[0]), &w = b.graph.shape(layer->inputs[1]);
      const Shape &y = b.graph.shape(layer->outputs[0]);
      Operands operands;
      ConvStage stage{&op, choice(*layer).algorithm(), x, y, {}};
      LATHE_CHECK(add_panels(operands, *layer, op, stage));
      LATHE_TRY(stage.post, fused_operands(operands, *layer, op));
      request.stages.push_back(std::move(stage));
      stages.push_back(std::move(operands));
      multiplies += double(element_count(y) / y[0]) * double(element_count(w) / w[0]);
    }
    const ValueId input = chain.convolutions.back()->inputs[0];
    request.input = b.operand(input);

    // Tiles read neighbours of the input and of what earlier stages add, but only their own
    // elements of what the last one adds.
    std::vector<Storage> others, replaceable;
    for (const Operands &stage : stages)
      others.insert(others.end(), stage.storages.begin(), stage.storages.end());
    auto read_elsewhere = [&](const Storage &s) {
      bool read = s.buffer == request.input.buffer;
      for (size_t i = 1; i < request.stages.size(); ++i)
        for (const Storage &post : request.stages[i].post) read |= s.buffer == post.buffer;
      return read;
    };
    if (!chain.pool)
      for (const Storage &s : request.stages[0].post)
        if (!read_elsewhere(s)) replaceable.push_back(s);
    const ValueId result = node.outputs[0];
    request.output = b.vector_result(result, only_buffer(replaceable, others));
    request.smallest_block = b.options.smallest_blocks;
    if (chain.pool) request.pool = &std::get<Pool>(chain.pool->op);
    request.strict = b.options.strict;

    Operands operands;
    operands.add(request.output, result);
    if (request.pool && request.pool->bias) {
      LATHE_TRY(Storage bias, b.with_row_major(chain.pool->inputs[1], node));
      operands.add(bias, chain.pool->inputs[1]);
    }
    for (const Operands &stage : stages)
      for (size_t i = 0; i < stage.ids.size(); ++i) operands.add(stage.storages[i], stage.ids[i]);
    operands.add(request.input, input);
    const Storage output = request.output;
    LATHE_TRY(Kernel kernel, conv_kernel(std::move(request), b.plan.target, b.batched));
    kernel.flops_per_image = 2 * multiplies;
    if (chain.convolutions.size() == 1) kernel.choice = choice(*chain.convolutions[0]);
    const Node whole = described(chain);
    b.append(std::move(kernel), operands.storages, std::move(operands.ids), &whole);
    return b.deliver(output, result, node);
  }
  const Choice &choice(const Node &layer) const {
    return b.choices[size_t(&layer - b.graph.nodes.data())];
  }
  // The node with the names of all that its kernel computes, in the order of the source.
  static Node described(const Chain &chain) {
    Node all = *chain.convolutions.back();
    auto add = [&](const Node &link) {
      all.fused.push_back(link.name);
      all.fused.insert(all.fused.end(), link.fused.begin(), link.fused.end());
    };
    for (size_t i = chain.convolutions.size() - 1; i-- > 0;) add(*chain.convolutions[i]);
    if (chain.pool) add(*chain.pool);
    return all;
  }

  Result<void> operator()(const BatchNorm &) {
    return fail(ErrorCode::internal, "a batch norm reached the planner");
  }

  // --- Along an axis

  Result<void> operator()(const Lrn &op) {
    LATHE_TRY(Storage in, b.with_contiguous_channels(node.inputs[0], node));
    Storage out = b.vector_result(node.outputs[0], {in});
    b.append(lrn_kernel(op, in, out, b.batched), {in, out}, {node.inputs[0], node.outputs[0]},
             &node);
    return b.deliver(out, node.outputs[0], node);
  }

  Result<void> operator()(const Softmax &op) {
    Storage in = b.operand(node.inputs[0]), out = b.result(node.outputs[0], {in});
    LATHE_TRY(Kernel kernel, softmax_kernel(op, in, out, b.batched));
    b.append(std::move(kernel), {in, out}, {node.inputs[0], node.outputs[0]}, &node);
    return {};
  }
  Result<void> operator()(const Hardmax &op) { return arg({.one_hot = true}, op.axis, true); }
  Result<void> operator()(const ArgReduce &op) {
    return arg({op.kind, op.last}, op.axis, op.keep_dims);
  }
  Result<void> arg(const ArgSpec &spec, int64_t axis, bool keep_dims) {
    Storage in = b.operand(node.inputs[0]), out = b.result(node.outputs[0]);
    LATHE_TRY(Kernel kernel, arg_kernel(spec, axis, keep_dims, in, out, b.batched));
    b.append(std::move(kernel), {in, out}, {node.inputs[0], node.outputs[0]}, &node);
    return {};
  }
  Result<void> operator()(const Gather &op) {
    Storage in = b.operand(node.inputs[0]), indices = b.operand(node.inputs[1]);
    Storage out = b.result(node.outputs[0]);
    LATHE_TRY(Kernel kernel, gather_kernel(op.axis, in, indices, out, b.batched));
    b.append(std::move(kernel), {in, indices, out},
             {node.inputs[0], node.inputs[1], node.outputs[0]}, &node);
    return {};
  }
  Result<void> operator()(const Cast &) {
    return b.copy(b.operand(node.inputs[0]), b.result(node.outputs[0]), node.inputs[0],
                  node.outputs[0], &node);
  }
  Result<void> operator()(const Reduce &op) {
    Storage in = b.operand(node.inputs[0]), out = b.result(node.outputs[0]);
    LATHE_TRY(Kernel kernel, reduce_kernel(op, in, out, b.batched));
    b.append(std::move(kernel), {in, out}, {node.inputs[0], node.outputs[0]}, &node);
    return {};
  }

  // --- Elementwise, and what moves elements

  Result<void> operator()(const Unary &) { return elementwise(); }
  Result<void> operator()(const Binary &) { return elementwise(); }
  Result<void> elementwise() {
    std::vector<const Node *> chain{&node};
    const std::vector<int> &previous = b.schedule.previous;
    for (int p = previous[size_t(b.current)]; p >= 0; p = previous[size_t(p)])
      chain.push_back(&b.graph.nodes[size_t(p)]);
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
      request.inputs.push_back(b.operand(id));
      replaceable.push_back(request.inputs.back());
    }
    request.output = b.result(node.outputs[0], only_buffer(replaceable, request.inputs));
    ids.push_back(node.outputs[0]);
    Node described = node;
    for (const Node *link : chain)
      if (link != &node) described.fused.push_back(link->name);
    return b.map(std::move(request), std::move(ids), &described);
  }

  Result<void> operator()(const Concat &op) {
    ValueId whole = node.outputs[0];
    if (!b.storage.has(whole)) b.storage.set(whole, b.storage.allocate(b.graph.type(whole)));
    const size_t axis = axis_index(op.axis, b.graph.shape(whole).size());
    int64_t begin = 0;
    for (ValueId part : node.inputs) {
      int64_t extent = b.graph.shape(part)[axis];
      Storage slot = subview(b.storage[whole], axis, begin, extent);
      Storage source = b.operand(part);
      if (!same_layout(source, slot)) LATHE_CHECK(b.copy(source, slot, part, whole, &node));
      begin += extent;
    }
    return {};
  }

  Result<void> operator()(const Pad &op) {
    Storage input = b.operand(node.inputs[0]), output = b.result(node.outputs[0]);
    LATHE_CHECK(b.map({{}, {b.filler(op.value)}, output}, {no_value, node.outputs[0]}, &node));
    Storage inside = output;
    for (size_t d = 0; d < inside.dims.size(); ++d)
      inside = subview(inside, d, op.before[d], input.dims[d]);
    return b.copy(input, inside, node.inputs[0], node.outputs[0], &node);
  }

  // --- Views

  Result<void> operator()(const Dropout &) {
    b.storage.set(node.outputs[0], b.operand(node.inputs[0]));
    return {};
  }
  Result<void> operator()(const Slice &op) {
    Storage view = b.operand(node.inputs[0]);
    for (size_t i = 0; i < op.axes.size(); ++i) {
      const size_t a = axis_index(op.axes[i], view.dims.size());
      const SliceRange range = slice_range(view.dims[a], op.begin[i], op.end[i], op.step[i]);
      view = subview(view, a, range.first, range.count, range.step);
    }
    b.storage.set(node.outputs[0], view);
    return {};
  }
  Result<void> operator()(const Expand &) {
    Storage in = b.operand(node.inputs[0]), view = in;
    view.dims = b.graph.shape(node.outputs[0]);
    view.strides.assign(view.dims.size(), 0);
    const size_t lead = view.dims.size() - in.dims.size();
    for (size_t d = 0; d < in.dims.size(); ++d)
      if (in.dims[d] == view.dims[lead + d]) view.strides[lead + d] = in.strides[d];
    b.storage.set(node.outputs[0], view);
    return {};
  }
  Result<void> operator()(const Split &op) {
    Storage whole = b.operand(node.inputs[0]);
    const size_t axis = axis_index(op.axis, whole.dims.size());
    int64_t begin = 0;
    for (size_t i = 0; i < op.sizes.size(); ++i) {
      b.storage.set(node.outputs[i], subview(whole, axis, begin, op.sizes[i]));
      begin += op.sizes[i];
    }
    return {};
  }
  Result<void> operator()(const Transpose &op) {
    Storage in = b.operand(node.inputs[0]), view = in;
    for (size_t i = 0; i < op.perm.size(); ++i) {
      view.dims[i] = in.dims[size_t(op.perm[i])];
      view.strides[i] = in.strides[size_t(op.perm[i])];
    }
    b.storage.set(node.outputs[0], view);
    return {};
  }
  Result<void> operator()(const Flatten &) { return reshape(); }
  Result<void> operator()(const Reshape &) { return reshape(); }
  Result<void> reshape() {
    Storage in = b.operand(node.inputs[0]);
    const Shape &shape = b.graph.shape(node.outputs[0]);
    auto view = reshaped(in, shape, b.batched);
    if (!view) {
      Storage flat = b.storage.allocate_row_major(b.graph.type(node.inputs[0]));
      LATHE_CHECK(b.copy(in, flat, node.inputs[0], node.inputs[0], &node));
      view = reshaped(flat, shape, b.batched);
    }
    b.storage.set(node.outputs[0], *view);
    return {};
  }
};

} // namespace

Result<void> lower(PlanBuilder &builder, const Node &node) {
  return std::visit([&](const auto &op) { return Lowering{builder, node}(op); }, node.op);
}

} // namespace lathe::core
