// Kernels whose tasks are lines along an axis: softmax, extremes, and reductions.
#include "passes/plan/planner.h"

#include <array>

namespace lathe::core {
namespace {

// An extent with its strides, in bytes, in input and output.
using Dimension = std::array<int64_t, 3>;

// Loops with their strides in bytes; the images, if there are any, are the first.
struct Lines {
  Loops extents, in, out;
  Affine count{0, 1};
};
Result<Lines> lines(std::vector<Dimension> dims, const std::optional<Dimension> &images) {
  std::erase_if(dims, [](const Dimension &d) { return d[0] == 1; });
  const size_t room = loop_count - images.has_value();
  if (dims.size() > room)
    return fail(ErrorCode::unsupported, "an operation over more than six dimensions");
  dims.insert(dims.begin(), room - dims.size(), {1, 0, 0});
  if (images) dims.insert(dims.begin(), *images);
  Lines l;
  int64_t count = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    l.extents[i] = images && i == 0 ? Affine{1, 0} : fixed(dims[i][0]);
    l.in[i] = fixed(dims[i][1]);
    l.out[i] = fixed(dims[i][2]);
    count *= dims[i][0];
  }
  l.count = images ? Affine{count, 0} : Affine{0, count};
  return l;
}
std::optional<Dimension> image_dimension(const Storage &in, const Storage &out, bool batched) {
  if (!batched) return std::nullopt;
  return Dimension{1, in.strides[0] * 4, out.strides[0] * out.element_bytes()};
}

// What is reduced, as it lies in memory, in loops as long as may be.
std::vector<Dimension> joined(std::vector<Dimension> dims) {
  std::erase_if(dims, [](const Dimension &d) { return d[0] == 1; });
  std::ranges::stable_sort(dims, std::greater{}, [](const Dimension &d) { return d[1]; });
  for (size_t i = dims.size(); i-- > 1;) {
    Dimension &outer = dims[i - 1];
    const Dimension &inner = dims[i];
    if (outer[1] != inner[0] * inner[1]) continue;
    outer = {outer[0] * inner[0], inner[1], 0};
    dims.erase(dims.begin() + int64_t(i));
  }
  return dims;
}

} // namespace

Result<Kernel> softmax_kernel(const Softmax &op, const Storage &in, const Storage &out,
                              bool batched) {
  const size_t axis = axis_index(op.axis, in.dims.size());
  std::vector<Dimension> dims;
  for (size_t d = batched ? 1 : 0; d < in.dims.size(); ++d)
    if (d != axis) dims.push_back({in.dims[d], in.strides[d] * 4, out.strides[d] * 4});
  LATHE_TRY(Lines l, lines(std::move(dims), image_dimension(in, out, batched)));
  Kernel k;
  bool contiguous = in.dims[axis] == 1 || (in.strides[axis] == 1 && out.strides[axis] == 1);
  k.spec = SoftmaxSpec{op.log, contiguous, in.dims[axis] > SoftmaxSpec::most_plain_terms};
  k.output = SoftmaxSpec::output;
  append_leaves(k.params, SoftmaxSpec::Params{.extents = l.extents,
                                              .in_strides = l.in,
                                              .out_strides = l.out,
                                              .length = fixed(in.dims[axis]),
                                              .in_step = fixed(in.strides[axis] * 4),
                                              .out_step = fixed(out.strides[axis] * 4)});
  k.tasks = l.count;
  k.grain = grain_for(8 * in.dims[axis]);
  return k;
}

Result<Kernel> arg_kernel(const ArgSpec &spec, int64_t axis, bool keep_dims, const Storage &in,
                          const Storage &out, bool batched) {
  const size_t a = axis_index(axis, in.dims.size());
  auto step = [&](size_t d) { return out.strides[d] * out.element_bytes(); };
  std::vector<Dimension> dims;
  for (size_t d = batched ? 1 : 0; d < in.dims.size(); ++d)
    if (d != a)
      dims.push_back({in.dims[d], in.strides[d] * 4, step(d < a || keep_dims ? d : d - 1)});
  LATHE_TRY(Lines l, lines(std::move(dims), image_dimension(in, out, batched)));
  Kernel k;
  k.spec = spec;
  k.output = ArgSpec::output;
  append_leaves(k.params, ArgSpec::Params{.extents = l.extents,
                                          .in_strides = l.in,
                                          .out_strides = l.out,
                                          .length = fixed(in.dims[a]),
                                          .in_step = fixed(in.strides[a] * 4),
                                          .out_step = fixed(keep_dims ? step(a) : 0)});
  k.tasks = l.count;
  k.grain = grain_for(in.dims[a]);
  return k;
}

Result<Kernel> reduce_kernel(const Reduce &op, const Storage &in, const Storage &out,
                             bool batched) {
  std::vector<bool> reduced(in.dims.size());
  for (int64_t a : op.axes) reduced[axis_index(a, in.dims.size())] = true;
  std::vector<Dimension> kept, gone;
  size_t out_d = 0;
  for (size_t d = 0; d < in.dims.size(); ++d) {
    Dimension dimension{in.dims[d], in.strides[d] * 4, reduced[d] ? 0 : out.strides[out_d] * 4};
    out_d += !reduced[d] || op.keep_dims;
    if (batched && d == 0) continue;
    (reduced[d] ? gone : kept).push_back(dimension);
  }
  std::erase_if(kept, [](const Dimension &d) { return d[0] == 1; });
  std::ranges::stable_sort(kept, std::greater{}, [](const Dimension &d) { return d[1]; });
  bool vector = !kept.empty() && kept.back()[1] == 4 && kept.back()[2] == 4;
  LATHE_TRY(Lines l, lines(std::move(kept), image_dimension(in, out, batched)));
  LATHE_TRY(Lines sums, lines(joined(std::move(gone)), std::nullopt));
  Kernel k;
  k.spec = ReduceSpec{op.kind, vector};
  k.output = ReduceSpec::output;
  append_leaves(k.params, ReduceSpec::Params{.extents = l.extents,
                                             .in_strides = l.in,
                                             .out_strides = l.out,
                                             .reduced = sums.extents,
                                             .reduced_strides = sums.in});
  const int64_t inner = l.extents.back().fixed;
  k.tasks = inner == 0 ? Affine{} : Affine{l.count.per_image / inner, l.count.fixed / inner};
  return k;
}

} // namespace lathe::core
