// Where values lie: default layouts, and the strided views that make concat, slice, transpose and
// reshape free.
#include "passes/plan/planner.h"

#include <cassert>

namespace lathe::core {

StorageMap::StorageMap(const Graph &graph, bool batched, const std::vector<int> &last_reader,
                       uint64_t jitter)
    : last_reader_(last_reader), batched_(batched), jitter_(jitter),
      storages_(graph.values.size()) {}

void StorageMap::set(ValueId id, Storage storage) {
  Buffer &buffer = buffers[size_t(storage.buffer)];
  buffer.last_node = std::max(buffer.last_node, last_reader_[id]);
  storages_[id] = std::move(storage);
}

int64_t StorageMap::gap() {
  if (jitter_ == 0) return 0;
  jitter_ = jitter_ * 6364136223846793005u + 1442695040888963407u;
  return int64_t(jitter_ >> 60);
}

Storage StorageMap::allocate(const Type &type) {
  const Shape &s = type.shape;
  if (s.size() == 2) return allocate(type, {s[1] + gap(), 1});
  if (s.size() != 4) return allocate(type, row_major_strides(s));
  int64_t pixel = s[1] + gap();
  // Pitches of whole 4 KB pages put every row of a register tile into one set of the L1 cache; half
  // pages do where a stride skips every second pixel.
  if (pixel % 512 == 0 && s[2] * s[3] > 1) pixel += 16;
  const int64_t row = s[3] * pixel + gap();
  return allocate(type, {s[2] * row + gap(), 1, row, pixel});
}
Storage StorageMap::allocate_row_major(const Type &type) {
  return allocate(type, row_major_strides(type.shape));
}

Storage StorageMap::allocate(const Type &type, std::vector<int64_t> strides) {
  const int64_t offset = gap();
  int64_t elements = 1; // from the first to the last, inclusive
  for (size_t i = 0; i < type.shape.size(); ++i)
    elements += std::max<int64_t>(0, type.shape[i] - 1) * strides[i];
  if (batched_) elements = std::max(elements, strides[0]);
  int64_t bytes = whole_lines((offset + elements) * int64_t(size_of(type.dtype)));
  Buffer buffer;
  buffer.bytes = batched_ ? Affine{bytes, 0} : Affine{0, bytes};
  buffers.push_back(buffer);
  return {int(buffers.size()) - 1, offset, type.shape, std::move(strides), type.dtype};
}

Storage StorageMap::external(Space space, int index, const Type &type) {
  Buffer buffer;
  buffer.space = space;
  buffer.index = index;
  buffers.push_back(buffer);
  return {int(buffers.size()) - 1, 0, type.shape, row_major_strides(type.shape), type.dtype};
}

void StorageMap::touch(const Storage &storage, int kernel) {
  Buffer &buffer = buffers[size_t(storage.buffer)];
  buffer.first = std::min(buffer.first, kernel);
  buffer.last = std::max(buffer.last, kernel);
}

Storage subview(const Storage &whole, size_t axis, int64_t begin, int64_t extent, int64_t step) {
  Storage part = whole;
  part.offset += begin * whole.strides[axis];
  part.dims[axis] = extent;
  part.strides[axis] *= step;
  return part;
}

std::optional<Storage> reshaped(const Storage &s, const Shape &shape, bool keep_first) {
  Storage result = s;
  result.dims = shape;
  result.strides.assign(shape.size(), 0);
  size_t from = 0, to = 0;
  if (keep_first) {
    if (s.dims.empty() || shape.empty() || s.dims[0] != shape[0]) return std::nullopt;
    result.strides[0] = s.strides[0];
    from = to = 1;
  }
  // Match runs of dimensions with equal products; each run must be evenly strided.
  while (from < s.dims.size() || to < shape.size()) {
    size_t from_end = from, to_end = to;
    int64_t in = 1, out = 1;
    do {
      if ((in <= out && from_end < s.dims.size()) || to_end == shape.size())
        in *= s.dims[from_end++];
      else
        out *= shape[to_end++];
    } while (in != out ||
             (from_end < s.dims.size() && s.dims[from_end] == 1 && to_end == shape.size()));
    int64_t stride = 1;
    bool first = true;
    for (size_t i = from_end; i-- > from;) { // innermost to outermost
      if (s.dims[i] == 1) continue;
      if (first) {
        stride = s.strides[i];
        first = false;
      } else {
        int64_t inner = 1;
        for (size_t j = i + 1; j < from_end; ++j) inner *= s.dims[j];
        if (s.strides[i] != stride * inner) return std::nullopt;
      }
    }
    for (size_t i = to_end; i-- > to;) {
      result.strides[i] = stride;
      stride *= shape[i];
    }
    from = from_end;
    to = to_end;
  }
  return result;
}

bool same_layout(const Storage &a, const Storage &b) {
  if (a.buffer != b.buffer || a.offset != b.offset || a.dims != b.dims) return false;
  for (size_t i = 0; i < a.dims.size(); ++i)
    if (a.dims[i] > 1 && a.strides[i] != b.strides[i]) return false;
  return true;
}

bool is_injective(const Storage &s) {
  for (size_t i = 0; i < s.dims.size(); ++i)
    if (s.dims[i] > 1 && s.strides[i] == 0) return false;
  return true;
}

bool channels_contiguous(const Storage &s) {
  return s.dims.size() == 4 && (s.strides[1] == 1 || s.dims[1] == 1);
}

} // namespace lathe::core
