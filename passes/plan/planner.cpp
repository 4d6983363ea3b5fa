// Graph to Plan: storage for every value, then a kernel or an alias for every node.
#include "passes/plan/planner.h"

#include <climits>
#include <fmt/format.h>

namespace lathe {
namespace {

constexpr int no_node = -1;

bool is_elementwise(const Op &op) {
  return std::holds_alternative<Unary>(op) || std::holds_alternative<Binary>(op);
}
// Ops whose result is a view of their operand, if strides can say it.
bool is_view(const Op &op) {
  return std::holds_alternative<Slice>(op) || std::holds_alternative<Split>(op) ||
         std::holds_alternative<Reshape>(op) || std::holds_alternative<Flatten>(op) ||
         std::holds_alternative<Transpose>(op);
}

class Planner {
public:
  Planner(const Graph &graph, const Target &target)
      : graph_(graph), uses_(graph), batched_(images_are_independent(graph)),
        previous_(graph.nodes.size(), no_node), absorbed_(graph.nodes.size()),
        last_reader_(graph.values.size(), -1), storage_(graph, batched_, last_reader_) {
    plan_.name = graph.name;
    plan_.target = target;
    plan_.batched = batched_;
  }

  Result<Plan> run() {
    LATHE_CHECK(check_types());
    join_elementwise_chains();
    find_last_readers();
    place_inputs_and_outputs();
    place_concats();
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (absorbed_[n]) continue;
      current_ = int(n);
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

  // Kernels move any type and compute in f32.
  Result<void> check_types() {
    std::string problems;
    auto complain = [&](std::string problem) {
      problems += (problems.empty() ? "" : "\n") + problem;
    };
    for (const Node &node : graph_.nodes) {
      bool moves = is_view(node.op) || std::holds_alternative<Concat>(node.op);
      DType dtype = graph_.type(node.inputs[0]).dtype;
      if (!moves && dtype != DType::f32)
        complain(
            fmt::format("  layer '{}': {} on {}", node.name, op_name(node.op), to_string(dtype)));
      bool weighted =
          std::holds_alternative<Conv>(node.op) || std::holds_alternative<Dense>(node.op);
      if (weighted)
        for (size_t i = 1; i < 3 && i < node.inputs.size(); ++i)
          if (i < fixed_inputs_of(node.op) && !graph_.constant(node.inputs[i]))
            complain(fmt::format("  layer '{}': weights that are computed at run time", node.name));
    }
    for (const Value &value : graph_.values)
      if (!value.constant && element_count(value.type.shape) == 0)
        complain(fmt::format("  value '{}' has no elements: {}", value.name,
                             to_string(value.type.shape)));
    if (problems.empty()) return {};
    return fail(Error{.code = ErrorCode::unsupported,
                      .message = "no kernel covers parts of the network",
                      .file = graph_.name,
                      .detail = problems});
  }
  static size_t fixed_inputs_of(const Op &op) {
    if (auto *conv = std::get_if<Conv>(&op)) return fixed_inputs(*conv);
    return fixed_inputs(std::get<Dense>(op));
  }

  // f(g(x)) of equal shapes becomes one kernel: the inner node is absorbed by its only reader.
  void join_elementwise_chains() {
    std::vector<int> length(graph_.nodes.size(), 1);
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      const Node &node = graph_.nodes[n];
      if (!is_elementwise(node.op)) continue;
      for (ValueId id : node.inputs) {
        int p = uses_.producer[id];
        if (p < 0 || !is_elementwise(graph_.nodes[size_t(p)].op) ||
            uses_.single_reader(id) != int(n) ||
            graph_.shape(id) != graph_.shape(node.outputs[0]) || length[size_t(p)] >= 6)
          continue;
        previous_[n] = p;
        absorbed_[size_t(p)] = true;
        length[n] = length[size_t(p)] + 1;
        break;
      }
    }
  }

  // The last node that reads each value, also through views of it. Absorbed nodes read where their
  // chain ends.
  void find_last_readers() {
    std::vector<int> runs_at(graph_.nodes.size());
    for (size_t n = graph_.nodes.size(); n-- > 0;) {
      if (!absorbed_[n]) runs_at[n] = int(n);
      if (previous_[n] >= 0) runs_at[size_t(previous_[n])] = runs_at[n];
    }
    for (ValueId id : graph_.outputs) last_reader_[id] = INT_MAX;
    for (size_t n = graph_.nodes.size(); n-- > 0;) {
      const Node &node = graph_.nodes[n];
      int last = runs_at[n];
      if (is_view(node.op) || std::holds_alternative<Concat>(node.op))
        for (ValueId id : node.outputs) last = std::max(last, last_reader_[id]);
      for (ValueId id : node.inputs) last_reader_[id] = std::max(last_reader_[id], last);
    }
  }

  void place_inputs_and_outputs() {
    for (size_t i = 0; i < graph_.inputs.size(); ++i) {
      ValueId id = graph_.inputs[i];
      storage_.set(id, storage_.external(Space::input, int(i), graph_.shape(id)));
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
      if (computed && row_major && !storage_.has(id) && graph_.type(id).dtype == DType::f32)
        storage_.set(id, storage_.external(Space::output, int(j), shape));
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
      if (!storage_.has(whole)) storage_.set(whole, storage_.allocate(graph_.shape(whole)));
      size_t axis = size_t(concat->axis < 0 ? concat->axis + int64_t(graph_.shape(whole).size())
                                            : concat->axis);
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
    plan_.weights.push_back(std::move(weight));
    Storage storage = storage_.external(Space::weights, int(plan_.weights.size()) - 1, dims);
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
      if (!dies || s.dims != graph_.shape(id)) continue;
      storage_.set(id, s);
      return s;
    }
    storage_.set(id, storage_.allocate(graph_.shape(id)));
    return storage_[id];
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
      view.offset = {0, s.offset * 4};
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
    int64_t bytes = from_id == no_value ? 4 : int64_t(size_of(graph_.type(from_id).dtype));
    return map({{}, {from}, to, bytes}, {from_id, to_id}, node);
  }
  // `s`, or a copy of it in the default layout, if its channels do not follow each other.
  Result<Storage> with_contiguous_channels(Storage s, ValueId id, const Node *node) {
    if (channels_contiguous(s)) return s;
    Storage fresh = storage_.allocate(s.dims);
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
      Result<void> operator()(const ReduceMean &op) { return p.reduce_mean(n, op); }
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
    if (!channels_contiguous(output)) target = storage_.allocate(y);
    Kernel kernel = conv_kernel({op, input, target, post, x[1], y[1]}, plan_.target, batched_);
    int64_t panel = std::get<ConvSpec>(kernel.spec).tile_vectors * plan_.target.lanes();
    std::vector<Storage> operands{
        input, weight(node.inputs[1], Weight::Packing::conv_panels, op.groups, panel), target};
    std::vector<ValueId> ids{node.inputs[0], node.inputs[1], node.outputs[0]};
    if (op.bias) {
      operands.push_back(weight(node.inputs[2], Weight::Packing::conv_bias, op.groups, panel));
      ids.push_back(node.inputs[2]);
    }
    operands.insert(operands.end(), post.begin(), post.end());
    ids.insert(ids.end(), post_ids.begin(), post_ids.end());
    const Shape &w = graph_.shape(node.inputs[1]);
    kernel.flops_per_image =
        2.0 * double(element_count(y) / y[0]) * double(element_count(w) / w[0]);
    append(std::move(kernel), operands, ids, &node);
    if (!same_layout(target, output))
      return copy(target, output, node.outputs[0], node.outputs[0], &node);
    return {};
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
      Storage fresh = storage_.allocate(s.dims);
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
    const int64_t outputs = output.dims[1], depth = input.dims[1];
    Kernel k;
    k.spec = DenseSpec{op.bias, op.post};
    k.output = DenseSpec::output;
    const int64_t rows = std::clamp<int64_t>(65536 / (depth * 4) / 4 * 4, 4, 64);
    k.params = {batched_ ? Affine{1, 0} : Affine{0, input.dims[0]},
                {0, outputs},
                {0, depth},
                {0, rows},
                {0, input.strides[0] * 4},
                {0, output.strides[0] * 4}};
    for (const Storage &s : post) k.params.push_back({0, s.strides[0] * 4});
    k.tasks = {0, (outputs + rows - 1) / rows};
    k.grain = std::max<int64_t>(1, 65536 / (rows * depth));
    k.flops_per_image = 2.0 * double(outputs) * double(depth);
    std::vector<Storage> operands{input, weight(node.inputs[1]), output};
    std::vector<ValueId> ids{node.inputs[0], node.inputs[1], node.outputs[0]};
    if (op.bias) {
      operands.push_back(weight(node.inputs[2]));
      ids.push_back(node.inputs[2]);
    }
    operands.insert(operands.end(), post.begin(), post.end());
    ids.insert(ids.end(), post_ids.begin(), post_ids.end());
    append(std::move(k), operands, ids, &node);
    return {};
  }

  // A kernel over NHWC rows whose operands are one input and one output.
  template <typename MakeKernel>
  Result<void> rowwise(const Node &node, bool in_place, const MakeKernel &make) {
    LATHE_TRY(Storage input,
              with_contiguous_channels(operand(node.inputs[0]), node.inputs[0], &node));
    std::vector<Storage> replaceable;
    if (in_place) replaceable.push_back(input);
    Storage output = result(node.outputs[0], replaceable), target = output;
    if (!channels_contiguous(output)) target = storage_.allocate(output.dims);
    append(make(input, target), {input, target}, {node.inputs[0], node.outputs[0]}, &node);
    if (!same_layout(target, output))
      return copy(target, output, node.outputs[0], node.outputs[0], &node);
    return {};
  }

  Result<void> pool(const Node &node, const Pool &op) {
    return rowwise(node, false, [&](const Storage &in, const Storage &out) {
      Kernel k;
      k.spec = PoolSpec{op.kind, op.kind == PoolKind::average && op.count_include_pad};
      k.output = PoolSpec::output;
      const Shape &x = in.dims, &y = out.dims;
      for (int64_t v : {y[2], y[3], y[1], x[2], x[3], op.kernel.h, op.kernel.w, op.stride.h,
                        op.stride.w, op.dilation.h, op.dilation.w, op.pad.top, op.pad.left,
                        x[2] + op.pad.top + op.pad.bottom, x[3] + op.pad.left + op.pad.right})
        k.params.push_back({0, v});
      for (const Storage *s : {&in, &out})
        for (size_t d : {0, 2, 3}) k.params.push_back({0, s->strides[d] * 4});
      k.tasks = batched_ ? Affine{y[2], 0} : Affine{0, y[0] * y[2]};
      k.grain = std::max<int64_t>(
          1, elements_per_chunk / std::max<int64_t>(1, y[3] * y[1] * op.kernel.h * op.kernel.w));
      return k;
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
    return rowwise(node, false, [&](const Storage &in, const Storage &out) {
      Kernel k;
      k.spec = LrnSpec{op.alpha / float(op.size), op.beta, op.k};
      k.output = LrnSpec::output;
      const Shape &x = in.dims;
      for (int64_t v : {x[2], x[3], x[1], (op.size - 1) / 2, op.size / 2})
        k.params.push_back({0, v});
      for (const Storage *s : {&in, &out})
        for (size_t d : {0, 2, 3}) k.params.push_back({0, s->strides[d] * 4});
      k.tasks = batched_ ? Affine{x[2], 0} : Affine{0, x[0] * x[2]};
      k.grain = std::max<int64_t>(1, elements_per_chunk / std::max<int64_t>(1, x[3] * x[1] * 4));
      return k;
    });
  }

  // Up to six extents with the strides of input and output, outermost first; the batch is the
  // first.
  struct Lines {
    std::vector<Affine> extents, in, out;
    Affine count{0, 1};
  };
  Result<Lines> lines(const std::vector<std::array<int64_t, 3>> &dims,
                      std::optional<std::array<int64_t, 3>> batch) {
    Lines l;
    std::vector<std::array<int64_t, 3>> kept;
    for (const auto &d : dims)
      if (d[0] != 1) kept.push_back(d);
    size_t room = batch ? 5 : 6;
    if (kept.size() > room)
      return fail(ErrorCode::unsupported, "an operation over more than six dimensions");
    while (kept.size() < room) kept.insert(kept.begin(), {1, 0, 0});
    if (batch) kept.insert(kept.begin(), *batch);
    int64_t count = 1;
    for (size_t i = 0; i < 6; ++i) {
      l.extents.push_back(batch && i == 0 ? Affine{1, 0} : Affine{0, kept[i][0]});
      l.in.push_back({0, kept[i][1] * 4});
      l.out.push_back({0, kept[i][2] * 4});
      count *= kept[i][0];
    }
    l.count = batch ? Affine{count, 0} : Affine{0, count};
    return l;
  }
  std::optional<std::array<int64_t, 3>> batch_line(const Storage &in, const Storage &out) const {
    if (!batched_) return std::nullopt;
    return std::array<int64_t, 3>{1, in.strides[0], out.strides[0]};
  }

  Result<void> softmax(const Node &node, const Softmax &op) {
    Storage in = operand(node.inputs[0]), out = result(node.outputs[0], {in});
    size_t axis = size_t(op.axis < 0 ? op.axis + int64_t(in.dims.size()) : op.axis);
    std::vector<std::array<int64_t, 3>> dims;
    for (size_t d = batched_ ? 1 : 0; d < in.dims.size(); ++d)
      if (d != axis) dims.push_back({in.dims[d], in.strides[d], out.strides[d]});
    LATHE_TRY(Lines l, lines(dims, batch_line(in, out)));
    Kernel k;
    bool contiguous = in.dims[axis] == 1 || (in.strides[axis] == 1 && out.strides[axis] == 1);
    k.spec = SoftmaxSpec{op.log, contiguous};
    k.output = SoftmaxSpec::output;
    for (auto *list : {&l.extents, &l.in, &l.out})
      k.params.insert(k.params.end(), list->begin(), list->end());
    k.params.push_back({0, in.dims[axis]});
    k.params.push_back({0, in.strides[axis] * 4});
    k.params.push_back({0, out.strides[axis] * 4});
    k.tasks = l.count;
    k.grain = std::max<int64_t>(1, elements_per_chunk / 8 / in.dims[axis]);
    append(std::move(k), {in, out}, {node.inputs[0], node.outputs[0]}, &node);
    return {};
  }

  Result<void> reduce_mean(const Node &node, const ReduceMean &op) {
    Storage in = operand(node.inputs[0]), out = result(node.outputs[0]);
    std::vector<bool> reduced(in.dims.size());
    for (int64_t a : op.axes) reduced[size_t(a < 0 ? a + int64_t(in.dims.size()) : a)] = true;
    std::vector<std::array<int64_t, 3>> kept, gone;
    size_t out_d = 0;
    for (size_t d = 0; d < in.dims.size(); ++d) {
      std::array<int64_t, 3> entry{in.dims[d], in.strides[d], 0};
      if (!reduced[d]) entry[2] = out.strides[out_d];
      out_d += !reduced[d] || op.keep_dims;
      if (batched_ && d == 0) continue;
      (reduced[d] ? gone : kept).push_back(entry);
    }
    std::erase_if(kept, [](const auto &e) { return e[0] == 1; });
    std::ranges::stable_sort(kept, std::greater{}, [](const auto &e) { return e[1]; });
    bool vector = !kept.empty() && kept.back()[1] == 1 && kept.back()[2] == 1;
    LATHE_TRY(Lines l, lines(kept, batch_line(in, out)));
    LATHE_TRY(Lines sums, lines(gone, std::nullopt));
    Kernel k;
    k.spec = ReduceSpec{vector};
    k.output = ReduceSpec::output;
    for (auto *list : {&l.extents, &l.in, &l.out, &sums.extents, &sums.in})
      k.params.insert(k.params.end(), list->begin(), list->end());
    int64_t inner = l.extents.back().fixed;
    k.tasks = {l.count.per_image / inner, l.count.fixed / inner};
    k.grain = 1;
    append(std::move(k), {in, out}, {node.inputs[0], node.outputs[0]}, &node);
    return {};
  }

  Result<void> elementwise(const Node &node) {
    std::vector<const Node *> chain{&node};
    for (int p = previous_[size_t(current_)]; p >= 0; p = previous_[size_t(p)])
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
    if (!storage_.has(whole)) storage_.set(whole, storage_.allocate(graph_.shape(whole)));
    size_t axis = size_t(op.axis < 0 ? op.axis + int64_t(graph_.shape(whole).size()) : op.axis);
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
    Storage filler =
        add_weight({Weight::Packing::as_is, splat_constant(op.value, {1}), 1, 1, 0, "padding"});
    LATHE_CHECK(map({{}, {filler}, output, 4}, {no_value, node.outputs[0]}, &node));
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
    const Shape &y = graph_.shape(node.outputs[0]);
    for (size_t i = 0; i < op.axes.size(); ++i) {
      size_t a = size_t(op.axes[i] < 0 ? op.axes[i] + int64_t(y.size()) : op.axes[i]);
      int64_t d = graph_.shape(node.inputs[0])[a];
      int64_t begin = std::clamp<int64_t>(op.begin[i] < 0 ? op.begin[i] + d : op.begin[i], 0, d);
      view = subview(view, a, begin, y[a], op.step[i]);
    }
    storage_.set(node.outputs[0], view);
    return {};
  }
  Result<void> split(const Node &node, const Split &op) {
    Storage whole = operand(node.inputs[0]);
    size_t axis = size_t(op.axis < 0 ? op.axis + int64_t(whole.dims.size()) : op.axis);
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
      Storage flat = storage_.allocate_row_major(in.dims);
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
      LATHE_CHECK(copy(source, storage_.external(Space::output, int(j), graph_.shape(id)), id, id,
                       nullptr));
    }
    return {};
  }

  void finish() {
    ArenaSize size = assign_offsets(storage_.buffers, batched_);
    plan_.arena_bytes = batched_ ? Affine{size.bytes, 0} : Affine{0, size.bytes};
    plan_.arena_lower_bound_bytes =
        batched_ ? Affine{size.lower_bound, 0} : Affine{0, size.lower_bound};
    for (Kernel &kernel : plan_.kernels) {
      int64_t element = 4;
      if (auto *spec = std::get_if<MapSpec>(&kernel.spec)) element = spec->element_bytes;
      for (View &view : kernel.operands) {
        const Buffer &buffer = storage_.buffers[size_t(view.index)];
        view.space = buffer.space;
        view.index = buffer.space == Space::arena ? 0 : buffer.index;
        view.offset.fixed = view.offset.fixed / 4 * element;
        (batched_ ? view.offset.per_image : view.offset.fixed) += buffer.offset;
      }
      plan_.scratch_bytes = std::max(plan_.scratch_bytes, kernel.scratch_bytes);
    }
  }

  static constexpr int64_t elements_per_chunk = 32768;

  const Graph &graph_;
  Uses uses_;
  bool batched_;
  std::vector<int> previous_; // the chain: which absorbed node feeds this one
  std::vector<bool> absorbed_;
  std::vector<int> last_reader_;
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
