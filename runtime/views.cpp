#include "runtime/views.h"

#include <algorithm>

namespace lathe::core {

bool is_packed(const Plan &plan, const View &view) {
  return view.space == Space::weights &&
         plan.weights[size_t(view.index)].packing != Weight::Packing::as_is;
}

DType element_type(const Plan &plan, const Graph &graph, const View &view) {
  // What fills a padding is a weight, but no value.
  return view.space == Space::weights ? plan.weights[size_t(view.index)].constant->type.dtype
                                      : graph.type(view.value).dtype;
}

Shape dims_for(const Plan &plan, const View &view, int64_t images) {
  Shape dims = view.dims;
  if (plan.batched && view.space != Space::weights && !dims.empty()) dims[0] = images;
  return dims;
}

int64_t bytes_held(const Plan &plan, const Graph &graph, const View &view, int64_t images) {
  if (is_packed(plan, view)) return plan.weights[size_t(view.index)].bytes;
  int64_t bytes = int64_t(size_of(element_type(plan, graph, view)));
  const Shape dims = dims_for(plan, view, images);
  for (size_t d = 0; d < dims.size(); ++d)
    if (view.strides[d] != 0 || dims[d] == 0) bytes *= dims[d];
  return bytes;
}

ByteRange bytes_spanned(const Plan &plan, const Graph &graph, const View &view, int64_t images) {
  const int64_t at = view.offset.at(images);
  if (is_packed(plan, view)) return {at, at + plan.weights[size_t(view.index)].bytes};
  const Shape dims = dims_for(plan, view, images);
  const int64_t element = int64_t(size_of(element_type(plan, graph, view)));
  if (std::ranges::count(dims, 0)) return {at, at};
  ByteRange range{at, at + element};
  for (size_t d = 0; d < dims.size(); ++d) {
    const int64_t reach = (dims[d] - 1) * view.strides[d] * element;
    (reach < 0 ? range.begin : range.end) += reach;
  }
  return range;
}

} // namespace lathe::core
