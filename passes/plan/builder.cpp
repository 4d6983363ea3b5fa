#include "passes/plan/builder.h"

namespace lathe::core {

PlanBuilder::PlanBuilder(const Graph &g, const Target &target, const PlanOptions &o)
    : graph(g), options(o), uses(graph), batched(images_are_independent(graph)),
      schedule(make_schedule(graph, uses, options)),
      choices(choose_algorithms(graph, schedule, target, options)),
      storage(graph, batched, schedule.last_reader, options.jitter) {
  plan.name = graph.name;
  plan.target = target;
  plan.batched = batched;
}

// --- Storage of operands and results

Storage PlanBuilder::operand(ValueId id) {
  if (!storage.has(id)) storage.set(id, weight(id));
  return storage[id];
}
Storage PlanBuilder::weight(ValueId id, Weight::Packing packing, const Panels &panels,
                            std::optional<Winograd> winograd) {
  const Value &value = graph.values[id];
  return add_weight({packing, value.constant, panels, winograd, 0, value.name});
}
Storage PlanBuilder::add_weight(Weight weight) {
  const Shape &shape = weight.constant->type.shape;
  int64_t elements = element_count(shape);
  if (weight.packing != Weight::Packing::as_is) {
    int64_t rows = shape[0] / weight.panels.groups, depth = elements / shape[0];
    if (weight.winograd && !weight.winograd->from_taps) {
      const auto [kernel, points] = std::pair{weight.winograd->kernel, weight.winograd->points()};
      depth = depth / (kernel.h * kernel.w) * (points.h * points.w);
    }
    elements = weight.panels.groups * weight.panels.padded(rows) * depth;
  }
  weight.bytes = elements * int64_t(size_of(weight.constant->type.dtype));
  // Packed ones lie in one block, each from a cache line of its own on.
  if (weight.packing != Weight::Packing::as_is) weight.bytes = whole_lines(weight.bytes);
  Shape dims = weight.packing == Weight::Packing::as_is ? shape : Shape{elements};
  const DType dtype = weight.constant->type.dtype;
  plan.weights.push_back(std::move(weight));
  Storage placed = storage.external(Space::weights, int(plan.weights.size()) - 1, {dtype, dims});
  if (batched && !dims.empty() && dims[0] == 1) placed.strides[0] = 0; // the same for all images
  return placed;
}

Storage PlanBuilder::filler(float value) {
  return add_weight({Weight::Packing::as_is, splat_constant(value, {1}), {}, {}, 0, "padding"});
}

Storage PlanBuilder::result(ValueId id, const std::vector<Storage> &may_replace) {
  if (storage.has(id)) return storage[id];
  for (const Storage &s : may_replace) {
    const Buffer &buffer = storage.buffers[size_t(s.buffer)];
    bool dies = buffer.space == Space::arena && buffer.last_node == current;
    if (!dies || s.dims != graph.shape(id) || !is_injective(s)) continue;
    storage.set(id, s);
    return s;
  }
  storage.set(id, storage.allocate(graph.type(id)));
  return storage[id];
}

Storage PlanBuilder::vector_result(ValueId id, const std::vector<Storage> &may_replace) {
  Storage output = result(id, may_replace);
  return channels_contiguous(output) ? output : storage.allocate(graph.type(id));
}

Result<void> PlanBuilder::deliver(const Storage &made, ValueId id, const Node &node) {
  if (same_layout(made, storage[id])) return {};
  return copy(made, storage[id], id, id, &node);
}

Result<Storage> PlanBuilder::with_contiguous_channels(ValueId id, const Node &node) {
  Storage s = operand(id);
  if (channels_contiguous(s)) return s;
  Storage fresh = storage.allocate(graph.type(id));
  LATHE_CHECK(copy(s, fresh, id, id, &node));
  return fresh;
}

Result<Storage> PlanBuilder::with_contiguous_rows(ValueId id, const Node &node) {
  Storage s = operand(id);
  if (s.strides[1] == 1 || s.dims[1] == 1) return s;
  Storage fresh = storage.allocate(graph.type(id));
  LATHE_CHECK(copy(s, fresh, id, id, &node));
  return fresh;
}

Result<Storage> PlanBuilder::with_row_major(ValueId id, const Node &node) {
  Storage s = operand(id), flat = s;
  flat.strides = row_major_strides(s.dims);
  if (same_layout(s, flat)) return s;
  flat = storage.allocate_row_major(graph.type(id));
  LATHE_CHECK(copy(s, flat, id, id, &node));
  return flat;
}

// Run-time ones are copied: [group][panel][kh][kw][channel][lane], zeros behind the last channel.
Result<Storage> PlanBuilder::in_panels(ValueId id, Weight::Packing packing, const Panels &panels,
                                       std::optional<Winograd> winograd, const Node &node) {
  if (graph.constant(id)) return weight(id, packing, panels, winograd);
  Storage from = operand(id);
  from.dims.resize(4, 1);
  from.strides.resize(4, 0);
  const int64_t rows = from.dims[0] / panels.groups, padded = panels.padded(rows);
  const int64_t depth = element_count(from.dims) / from.dims[0], m = from.strides[0];
  const Storage all = storage.allocate_row_major({DType::f32, {panels.groups * padded * depth}});
  // `count` panels of every group, from a channel on, `width` lanes each, of which so many are
  // live.
  auto move = [&](int64_t first, int64_t count, int64_t width, int64_t live) -> Result<void> {
    if (count == 0) return {};
    Storage part = from, slot = all;
    part.offset += first * m;
    slot.offset += first * depth;
    part.dims = slot.dims = {panels.groups, count, from.dims[2], from.dims[3], from.dims[1], live};
    part.strides = {rows * m, width * m, from.strides[2], from.strides[3], from.strides[1], m};
    slot.strides = row_major_strides({1, 1, from.dims[2], from.dims[3], from.dims[1], width});
    slot.strides[0] = padded * depth;
    slot.strides[1] = width * depth;
    return copy(part, slot, id, id, &node);
  };
  const int64_t full = rows / panels.width, first = full * panels.width, rest = rows - first;
  if (padded != rows) LATHE_CHECK(map({{}, {filler(0)}, all}, {no_value, id}, &node));
  LATHE_CHECK(move(0, full, panels.width, panels.width));
  LATHE_CHECK(move(first, rest != 0, padded - first, rest));
  return all;
}

// --- Kernels

void PlanBuilder::append(Kernel kernel, const std::vector<Storage> &operands,
                         std::vector<ValueId> ids, const Node *node) {
  int number = int(plan.kernels.size());
  for (size_t i = 0; i < operands.size(); ++i) {
    const Storage &s = operands[i];
    storage.touch(s, number);
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
  plan.kernels.push_back(std::move(kernel));
}

Result<void> PlanBuilder::map(MapRequest request, std::vector<ValueId> ids, const Node *node) {
  LATHE_TRY(Kernel kernel, map_kernel(request, batched));
  std::vector<Storage> operands = request.inputs;
  operands.push_back(request.output);
  append(std::move(kernel), operands, std::move(ids), node);
  return {};
}
Result<void> PlanBuilder::copy(const Storage &from, const Storage &to, ValueId from_id,
                               ValueId to_id, const Node *node) {
  return map({{}, {from}, to}, {from_id, to_id}, node);
}

} // namespace lathe::core
