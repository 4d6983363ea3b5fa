#include "passes/plan/check_params.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core {
namespace {

// A loop: how often, and the bytes that each operand goes on.
struct Step {
  int64_t extent;
  std::vector<int64_t> bytes;
  bool operator==(const Step &) const = default;
};
using Nest = std::vector<Step>;

// The same places in the same pairs, as few loops as can be, by the last operand's steps: two nests
// that are equal then visit the same places of all operands together.
Nest canonical(Nest nest) {
  if (std::ranges::any_of(nest, [](const Step &s) { return s.extent == 0; })) return {{0, {}}};
  std::erase_if(nest, [](const Step &s) { return s.extent == 1; });
  std::ranges::stable_sort(nest, [](const Step &a, const Step &b) {
    return std::ranges::lexicographical_compare(b.bytes.rbegin(), b.bytes.rend(), a.bytes.rbegin(),
                                                a.bytes.rend());
  });
  for (size_t i = nest.size(); i-- > 1;) {
    Step &outer = nest[i - 1];
    const Step &inner = nest[i];
    bool runs_on = true;
    for (size_t o = 0; o < outer.bytes.size(); ++o)
      runs_on = runs_on && outer.bytes[o] == inner.bytes[o] * inner.extent;
    if (!runs_on) continue;
    outer = {outer.extent * inner.extent, inner.bytes};
    nest.erase(nest.begin() + int64_t(i));
  }
  return nest;
}

struct ParamChecker {
  const Kernel &kernel;
  const std::vector<CheckedView> &operands;
  const Op *op;
  int64_t images;
  std::string fault = {};

  // --- Parameters by name

  int64_t number(size_t index) const { return kernel.params.at(index).at(images); }
  template <typename... Path> int64_t param(Path... path) const { return number(leaf(path...)); }

  void expect(std::string_view what, int64_t found, int64_t expected) {
    if (fault.empty() && found != expected)
      fault = fmt::format("it is told that {} is {}, and it is {}", what, found, expected);
  }
  void expect_nest(std::string_view what, const Nest &found, const Nest &expected) {
    if (fault.empty() && canonical(found) != canonical(expected))
      fault = fmt::format("its loops over {} go elsewhere than its operands lie", what);
  }
  bool has_count(size_t count) {
    if (kernel.params.size() == count) return true;
    fault = fmt::format("it has {} parameters instead of {}", kernel.params.size(), count);
    return false;
  }

  int64_t bytes(size_t operand, size_t dimension) const {
    const CheckedView &v = operands[operand];
    return v.strides[dimension] * v.element_bytes;
  }
  void expect_pitches(std::string_view what, size_t first, size_t operand) {
    for (auto [member, dimension] :
         {std::pair{&Pitches::image, 0}, {&Pitches::row, 2}, {&Pitches::pixel, 3}})
      expect(what, number(first + leaf(member)), bytes(operand, size_t(dimension)));
  }

  // --- Loops over all elements of the result

  // Of the Views: operands are broadcast to the last one.
  Nest nest_of_views(const std::vector<CheckedView> &views) const {
    const Shape &dims = views.back().dims;
    Nest nest;
    for (size_t d = 0; d < dims.size(); ++d) {
      Step step{dims[d], {}};
      for (const CheckedView &v : views) {
        const size_t lead = dims.size() - v.dims.size();
        const bool repeats = d < lead || (v.dims[d - lead] == 1 && dims[d] != 1);
        step.bytes.push_back(repeats ? 0 : v.strides[d - lead] * v.element_bytes);
      }
      nest.push_back(step);
    }
    return nest;
  }
  // Of MapSpec::Params and the Loops behind them.
  Nest nest_of_params(size_t count) const {
    using P = MapSpec::Params;
    Nest nest;
    for (size_t l = 0; l < loop_count; ++l) {
      Step step{param(&P::extents, l), {}};
      for (size_t o = 0; o < count; ++o)
        step.bytes.push_back(number(leaves<P>() + o * loop_count + l));
      nest.push_back(step);
    }
    return nest;
  }
  void check_tasks() {
    using P = MapSpec::Params;
    const int64_t rows = param(&P::extents, loop_count - 2), each = param(&P::rows_per_task);
    if (each < 1) return expect("the rows of a task", each, 1);
    expect("the tasks of a block", param(&P::tasks_per_outer), (rows + each - 1) / each);
    int64_t tasks = param(&P::tasks_per_outer);
    for (size_t l = 0; l + 2 < loop_count; ++l) tasks *= param(&P::extents, l);
    expect("the number of tasks", kernel.tasks.at(images), tasks);
  }

  void operator()(const MapSpec &spec) {
    const size_t count = spec.operands.size();
    if (!has_count(leaves<MapSpec::Params>() + count * loop_count)) return;
    check_tasks();
    Nest nest = nest_of_params(count);
    const bool vectors = spec.from == DType::f32 && spec.to == DType::f32 &&
                         std::ranges::count(spec.operands, Inner::strided) == 0;
    for (size_t o = 0; vectors && o < count; ++o) // such code does not ask for the innermost step
      nest.back().bytes[o] = spec.operands[o] == Inner::contiguous ? operands[o].element_bytes : 0;
    expect_nest("elements", nest, nest_of_views(operands));
  }
  void operator()(const GatherSpec &spec) {
    using P = GatherSpec::Params;
    const auto *gather = op ? std::get_if<Gather>(op) : nullptr;
    if (!gather) return void(fault = "no layer of the graph is it");
    if (!has_count(leaves<P>())) return;
    check_tasks();
    const CheckedView &in = operands[GatherSpec::input], &by = operands[GatherSpec::indices];
    const CheckedView &out = operands[GatherSpec::output];
    const size_t axis = axis_index(gather->axis, in.dims.size()), added = by.dims.size();
    expect("the axis' extent", param(&P::axis_extent), in.dims[axis]);
    expect("the axis' step", param(&P::axis_stride), bytes(GatherSpec::input, axis));
    CheckedView from = out, looked_up = out;
    from.element_bytes = in.element_bytes;
    looked_up.element_bytes = by.element_bytes;
    std::ranges::fill(from.strides, 0);
    std::ranges::fill(looked_up.strides, 0);
    for (size_t d = 0; d < added; ++d) looked_up.strides[axis + d] = by.strides[d];
    for (size_t d = 0; d < in.dims.size(); ++d)
      if (d != axis) from.strides[d < axis ? d : d + added - 1] = in.strides[d];
    Nest nest = nest_of_params(3);
    if (spec.rows) nest.back().bytes = {4, 0, 4};
    expect_nest("elements", nest, nest_of_views({from, looked_up, out}));
  }

  // --- Lines along an axis

  // Of dimensions that are kept, in input and output.
  template <typename P> Nest nest_of_lines() const {
    Nest nest;
    for (size_t l = 0; l < loop_count; ++l)
      nest.push_back(
          {param(&P::extents, l), {param(&P::in_strides, l), param(&P::out_strides, l)}});
    return nest;
  }
  // Of the Views' but the axis, which the output has or has not.
  Nest nest_beside(size_t axis, bool kept) const {
    const CheckedView &in = operands[0];
    Nest nest;
    for (size_t d = 0; d < in.dims.size(); ++d)
      if (d != axis)
        nest.push_back({in.dims[d], {bytes(0, d), bytes(1, d > axis && !kept ? d - 1 : d)}});
    return nest;
  }
  void check_line(size_t axis, bool kept, bool contiguous, bool writes_line) {
    using P = SoftmaxSpec::Params;
    if (!has_count(leaves<P>())) return;
    expect_nest("lines", nest_of_lines<P>(), nest_beside(axis, kept));
    const int64_t length = operands[0].dims[axis];
    expect("the axis' length", param(&P::length), length);
    if (length == 1) return;
    expect("the axis' step", contiguous ? 4 : param(&P::in_step), bytes(0, axis));
    if (writes_line)
      expect("the result's step", contiguous ? 4 : param(&P::out_step), bytes(1, axis));
  }
  void operator()(const SoftmaxSpec &spec) {
    const auto *softmax = op ? std::get_if<Softmax>(op) : nullptr;
    if (!softmax) return void(fault = "no layer of the graph is it");
    check_line(axis_index(softmax->axis, operands[0].dims.size()), true, spec.contiguous, true);
  }
  void operator()(const ArgSpec &spec) {
    const auto *hardmax = op ? std::get_if<Hardmax>(op) : nullptr;
    const auto *arg = op ? std::get_if<ArgReduce>(op) : nullptr;
    if (!hardmax && !arg) return void(fault = "no layer of the graph is it");
    check_line(axis_index(hardmax ? hardmax->axis : arg->axis, operands[0].dims.size()),
               hardmax || arg->keep_dims, false, spec.one_hot);
  }
  void operator()(const ReduceSpec &spec) {
    using P = ReduceSpec::Params;
    const CheckedView &in = operands[0];
    std::vector<bool> gone(in.dims.size());
    bool keeps = true;
    if (const auto *reduce = op ? std::get_if<Reduce>(op) : nullptr) {
      for (int64_t axis : reduce->axes) gone[axis_index(axis, gone.size())] = true;
      keeps = reduce->keep_dims;
    } else if (op && std::holds_alternative<GlobalPool>(*op)) {
      gone[2] = gone[3] = true;
    } else {
      return void(fault = "no layer of the graph is it");
    }
    if (!has_count(leaves<P>())) return;
    Nest kept, reduced, told;
    size_t result = 0;
    for (size_t d = 0; d < gone.size(); ++d) {
      if (gone[d])
        reduced.push_back({in.dims[d], {bytes(0, d)}});
      else
        kept.push_back({in.dims[d], {bytes(0, d), bytes(1, result)}});
      result += keeps || !gone[d];
    }
    for (size_t l = 0; l < loop_count; ++l)
      told.push_back({param(&P::reduced, l), {param(&P::reduced_strides, l)}});
    Nest lines = nest_of_lines<P>();
    if (spec.vector) lines.back().bytes = {4, 4};
    expect_nest("what is kept", lines, kept);
    expect_nest("what is reduced", told, reduced);
  }

  // --- Rows

  void operator()(const PoolSpec &spec) {
    using P = PoolSpec::Params;
    const CheckedView &in = operands[PoolSpec::input], &out = operands[PoolSpec::output];
    Pool whole;
    whole.kernel = {in.dims[2], in.dims[3]};
    const auto *pool = op ? std::get_if<Pool>(op) : nullptr;
    if (op && std::holds_alternative<GlobalPool>(*op)) pool = &whole;
    if (!pool) return void(fault = "no layer of the graph is it");
    const size_t post = operands_of(spec.post);
    if (!has_count(leaves<P>() + post * leaves<Pitches>())) return;
    const Pads &pad = pool->pad;
    expect("the rows of the result", param(&P::out_rows), out.dims[2]);
    expect("the columns of the result", param(&P::out_cols), out.dims[3]);
    expect("the number of channels", param(&P::channels), out.dims[1]);
    expect("the rows of the input", param(&P::in_rows), in.dims[2]);
    expect("the columns of the input", param(&P::in_cols), in.dims[3]);
    expect("the window's height", param(&P::kernel_h), pool->kernel.h);
    expect("the window's width", param(&P::kernel_w), pool->kernel.w);
    if (out.dims[2] > 1) expect("the stride", param(&P::stride_h), pool->stride.h);
    if (out.dims[3] > 1) expect("the stride", param(&P::stride_w), pool->stride.w);
    if (spec.dilated) {
      expect("the dilation", param(&P::dilation_h), pool->dilation.h);
      expect("the dilation", param(&P::dilation_w), pool->dilation.w);
    } else if (pool->dilation != Size2{}) {
      fault = "its window is dilated";
    }
    expect("the padding above", param(&P::pad_top), pad.top);
    expect("the padding to the left", param(&P::pad_left), pad.left);
    if (spec.count_include_pad) {
      expect("the padded height", param(&P::padded_rows), in.dims[2] + pad.top + pad.bottom);
      expect("the padded width", param(&P::padded_cols), in.dims[3] + pad.left + pad.right);
    }
    expect_pitches("a pitch of the input", leaf(&P::in), PoolSpec::input);
    expect_pitches("a pitch of the result", leaf(&P::out), PoolSpec::output);
    for (size_t i = 0; i < post; ++i)
      expect_pitches("a pitch of an operand", leaves<P>() + i * leaves<Pitches>(),
                     operands.size() - post + i);
    expect("the number of tasks", kernel.tasks.at(images), out.dims[0] * out.dims[2]);
  }
  void operator()(const LrnSpec &) {
    using P = LrnSpec::Params;
    const auto *lrn = op ? std::get_if<Lrn>(op) : nullptr;
    if (!lrn) return void(fault = "no layer of the graph is it");
    if (!has_count(leaves<P>())) return;
    const Shape &dims = operands[LrnSpec::input].dims;
    expect("the number of rows", param(&P::rows), dims[2]);
    expect("the number of columns", param(&P::cols), dims[3]);
    expect("the number of channels", param(&P::channels), dims[1]);
    const int64_t others = dims[1] - 1;
    expect("the channels before", std::min(others, param(&P::before)),
           std::min(others, (lrn->size - 1) / 2));
    expect("the channels after", std::min(others, param(&P::after)),
           std::min(others, lrn->size / 2));
    expect_pitches("a pitch of the input", leaf(&P::in), LrnSpec::input);
    expect_pitches("a pitch of the result", leaf(&P::out), LrnSpec::output);
    expect("the number of tasks", kernel.tasks.at(images), dims[0] * dims[2]);
  }
  void operator()(const DenseSpec &spec) {
    using P = DenseSpec::Params;
    const CheckedView &in = operands[DenseSpec::input], &out = operands[DenseSpec::output];
    const size_t post = operands_of(spec.post);
    if (!has_count(leaves<P>() + post)) return;
    expect("the number of images", param(&P::images), out.dims[0]);
    expect("the number of outputs", param(&P::outputs), out.dims[1]);
    expect("the number of inputs", param(&P::depth), in.dims[1]);
    expect("the input's pitch", param(&P::in_image), bytes(DenseSpec::input, 0));
    expect("the result's pitch", param(&P::out_image), bytes(DenseSpec::output, 0));
    for (size_t i = 0; i < post; ++i)
      expect("an operand's pitch", number(leaves<P>() + i), bytes(operands.size() - post + i, 0));
    const int64_t rows = param(&P::block_rows);
    if (rows < 1) return expect("the rows of a task", rows, 1);
    expect("the number of tasks", kernel.tasks.at(images), (out.dims[1] + rows - 1) / rows);
  }
  void operator()(const ConvSpec &) {} // see check_conv.h
};

} // namespace

std::string fault_of_params(const Kernel &kernel, const std::vector<CheckedView> &operands,
                            const Op *op, int64_t images) {
  ParamChecker checker{kernel, operands, op, images};
  std::visit(checker, kernel.spec);
  return checker.fault;
}

} // namespace lathe::core
