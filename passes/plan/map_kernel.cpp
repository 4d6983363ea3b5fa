// Elementwise kernels: as few and as long loops as the strides of all operands allow.
#include "passes/plan/planner.h"

#include <numeric>

namespace lathe::core {
namespace {

constexpr int64_t longest_inner = 16384; // elements: leave rows to share between threads
constexpr int64_t elements_per_task = 8192;

struct Loop {
  int64_t extent;
  std::vector<int64_t> strides; // bytes, per operand
};

std::vector<int64_t> broadcast_to(const Storage &s, const Shape &dims) {
  std::vector<int64_t> strides(dims.size(), 0);
  size_t lead = dims.size() - s.dims.size();
  for (size_t i = 0; i < s.dims.size(); ++i)
    if (s.dims[i] != 1) strides[lead + i] = s.strides[i] * s.element_bytes();
  return strides;
}

// Adds the parameters of loops over `operands`, the last of which is the output and gives the index
// space: MapSpec::Params, and Loops of strides for each. Returns the innermost loop.
Result<Loop> add_loops(Kernel &kernel, const std::vector<Storage> &operands, bool batched) {
  const Shape &dims = operands.back().dims;
  std::vector<std::vector<int64_t>> strides;
  for (const Storage &operand : operands) strides.push_back(broadcast_to(operand, dims));
  // With one entry, dimension 0 of a batched value still strides from image to image.
  const size_t first = batched ? 1 : 0;
  auto images = [&](const Storage &s) -> int64_t {
    bool carries = s.dims.size() == dims.size() && !s.dims.empty() && s.strides[0] != 0;
    return carries ? s.strides[0] * s.element_bytes() : 0;
  };

  std::vector<Loop> loops;
  for (size_t d = first; d < dims.size(); ++d) {
    if (dims[d] == 1) continue;
    Loop loop{dims[d], {}};
    for (auto &s : strides) loop.strides.push_back(s[d]);
    loops.push_back(std::move(loop));
  }
  std::ranges::stable_sort(loops, std::greater{}, [](const Loop &l) { return l.strides.back(); });
  // Merge neighbours that all operands walk through evenly.
  for (size_t i = loops.size(); i-- > 1;) {
    Loop &outer = loops[i - 1], &inner = loops[i];
    bool even = outer.extent * inner.extent <= longest_inner;
    for (size_t o = 0; even && o < outer.strides.size(); ++o)
      even = outer.strides[o] == inner.strides[o] * inner.extent;
    if (!even) continue;
    outer = {outer.extent * inner.extent, inner.strides};
    loops.erase(loops.begin() + int64_t(i));
  }
  const size_t room = loop_count - first;
  if (loops.size() > room)
    return fail(Error{.code = ErrorCode::unsupported,
                      .message = "an elementwise operation over too many dimensions",
                      .expected = "at most 6",
                      .found = to_string(dims)});
  while (loops.size() < room)
    loops.insert(loops.begin(), {1, std::vector<int64_t>(operands.size(), 0)});

  const int64_t inner = loops.back().extent, rows = loops[loops.size() - 2].extent;
  const int64_t per_task = std::clamp<int64_t>(elements_per_task / std::max<int64_t>(1, inner), 1,
                                               std::max<int64_t>(1, rows));
  const int64_t chunks = (rows + per_task - 1) / per_task;
  MapSpec::Params params{
      .extents = {}, .rows_per_task = fixed(per_task), .tasks_per_outer = fixed(chunks)};
  if (batched) params.extents[0] = {1, 0};
  for (size_t l = 0; l < loops.size(); ++l) params.extents[first + l] = fixed(loops[l].extent);
  append_leaves(kernel.params, params);
  for (size_t o = 0; o < operands.size(); ++o) {
    Loops bytes;
    if (batched) bytes[0] = fixed(images(operands[o]));
    for (size_t l = 0; l < loops.size(); ++l) bytes[first + l] = fixed(loops[l].strides[o]);
    append_leaves(kernel.params, bytes);
  }
  int64_t tasks = chunks;
  for (size_t i = 0; i + 2 < loops.size(); ++i) tasks *= loops[i].extent;
  kernel.tasks = batched ? Affine{tasks, 0} : Affine{0, tasks};
  kernel.grain = std::max<int64_t>(1, elements_per_task / std::max<int64_t>(1, inner * per_task));
  kernel.output = int(operands.size()) - 1;
  return loops.back();
}

} // namespace

Result<Kernel> map_kernel(const MapRequest &request, bool batched) {
  std::vector<Storage> operands = request.inputs;
  operands.push_back(request.output);
  Kernel kernel;
  LATHE_TRY(Loop innermost, add_loops(kernel, operands, batched));
  MapSpec spec;
  spec.steps = request.steps;
  spec.from = request.inputs[0].dtype;
  spec.to = request.output.dtype;
  for (size_t o = 0; o < operands.size(); ++o) {
    int64_t stride = innermost.strides[o];
    bool single = innermost.extent == 1, is_output = o + 1 == operands.size();
    spec.operands.push_back(stride == operands[o].element_bytes() || (single && stride != 0)
                                ? Inner::contiguous
                            : stride == 0 ? (is_output ? Inner::contiguous : Inner::broadcast)
                                          : Inner::strided);
  }
  kernel.spec = std::move(spec);
  return kernel;
}

Result<Kernel> gather_kernel(int64_t axis, const Storage &in, const Storage &indices,
                             const Storage &out, bool batched) {
  const size_t a = axis_index(axis, in.dims.size()), added = indices.dims.size();
  // Both operands as seen from the result: strides of 0 where they have no such dimension.
  auto seen = [&](const Storage &s) {
    Storage result = s;
    result.dims = out.dims;
    result.strides.assign(out.dims.size(), 0);
    return result;
  };
  Storage from = seen(in), by = seen(indices);
  for (size_t d = 0; d < added; ++d) by.strides[a + d] = indices.strides[d];
  for (size_t d = 0; d < in.dims.size(); ++d)
    if (d != a) from.strides[d < a ? d : d - 1 + added] = in.strides[d];
  Kernel kernel;
  LATHE_TRY(Loop innermost, add_loops(kernel, {from, by, out}, batched));
  GatherSpec spec;
  spec.element_bytes = in.element_bytes();
  spec.indices_type = indices.dtype;
  spec.rows = in.dtype == DType::f32 && innermost.strides[0] == 4 && innermost.strides[1] == 0 &&
              innermost.strides[2] == 4;
  for (int64_t v : {in.dims[a], in.strides[a] * in.element_bytes()}) // GatherSpec::Params' axis
    kernel.params.push_back(fixed(v));
  kernel.spec = spec;
  return kernel;
}

} // namespace lathe::core
