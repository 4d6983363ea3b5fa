// The planner's own parts: where values are stored, and how nodes become kernels. Private to
// passes/plan.
#pragma once

#include "ir/op_facts.h"
#include "ir/system/memory.h"
#include "passes/plan.h"

#include <algorithm>
#include <optional>

namespace lathe::core {

// Whether every value carries one image per entry of dimension 0, so that a plan for one image
// serves any number.
bool images_are_independent(const Graph &graph);

// What runs together, and how long values live.
struct Schedule {
  std::vector<int> previous;    // per node: the operand's maker that runs in the same kernel, or -1
  std::vector<int> reader;      // per node: its only reader, in whose kernel it runs, or -1
  std::vector<int> last_reader; // per value, through its views too; INT_MAX: an output; -1: nobody
};
// Whether node `n` is a convolution that can run block by block with the one that feeds it.
bool may_chain(const Graph &graph, const Uses &uses, size_t n);
Schedule make_schedule(const Graph &graph, const Uses &uses, const PlanOptions &options);

// Strided memory of a buffer: what a View becomes once the buffer has an offset.
struct Storage {
  int buffer = -1;
  int64_t offset = 0; // elements, from the start of the buffer
  Shape dims;
  std::vector<int64_t> strides; // elements
  DType dtype = DType::f32;
  int64_t element_bytes() const { return int64_t(size_of(dtype)); }
};

struct Buffer {
  Space space = Space::arena;
  int index = 0;         // of the weight, input or output
  Affine bytes;          // arena only
  int first = INT32_MAX; // kernels that touch it
  int last = -1;
  int last_node = -1; // the last node that reads a value in it
  int64_t offset = 0; // arena, per image or fixed as the plan is
};

// Memory for the values of one graph, and who shares it.
class StorageMap {
public:
  // With `jitter`, arena memory has gaps of that seed between pixels, rows, images and values.
  StorageMap(const Graph &graph, bool batched, const std::vector<int> &last_reader,
             uint64_t jitter);

  bool has(ValueId id) const { return storages_[id].buffer >= 0; }
  const Storage &operator[](ValueId id) const { return storages_[id]; }
  void set(ValueId id, Storage storage);
  // Arena memory of the default layout: NHWC for four dimensions, row-major otherwise.
  Storage allocate(const Type &type);
  Storage allocate_row_major(const Type &type);
  Storage external(Space space, int index, const Type &type); // row-major
  void touch(const Storage &storage, int kernel);

  std::vector<Buffer> buffers;

private:
  Storage allocate(const Type &type, std::vector<int64_t> strides);
  int64_t gap(); // elements; none without jitter
  const std::vector<int> &last_reader_;
  bool batched_;
  uint64_t jitter_;
  std::vector<Storage> storages_;
};

// The part of `whole` from `begin` along an axis.
Storage subview(const Storage &whole, size_t axis, int64_t begin, int64_t extent, int64_t step = 1);
// `storage` under another shape of as many elements, where strides can say it; dimension 0 stays
// alone if `keep_first`.
std::optional<Storage> reshaped(const Storage &storage, const Shape &shape, bool keep_first);
// Whether two storages address the same elements in the same order.
bool same_layout(const Storage &a, const Storage &b);
// No two elements share memory, as they do where dimensions are broadcast.
bool is_injective(const Storage &storage);
// Channels follow each other, as vector kernels need (NCHW with four dimensions).
bool channels_contiguous(const Storage &s);

// Offsets for all arena buffers: greedy by size (the order of Pisarchyk and Lee 2020, "Efficient
// Memory Management for Deep Neural Net Inference", section 5.2), and, where that takes more than
// the most bytes alive at once, a search for a better order. Returns both numbers.
struct ArenaSize {
  int64_t bytes = 0, lower_bound = 0;
};
// Errors: limit, where the bytes cannot be counted, or the budget's time is over.
Result<ArenaSize> assign_offsets(std::vector<Buffer> &buffers, bool batched, const Budget &budget);

// One elementwise kernel: operands broadcast to the shape of `output` by NumPy's rules. Without
// steps: a copy, or a cast between the storages' types.
struct MapRequest {
  std::vector<MapStep> steps;
  std::vector<Storage> inputs;
  Storage output;
};
// Fills spec, params, tasks and grain. Errors: unsupported beyond six dimensions.
Result<Kernel> map_kernel(const MapRequest &request, bool batched);
// Errors: as map_kernel.
Result<Kernel> gather_kernel(int64_t axis, const Storage &in, const Storage &indices,
                             const Storage &out, bool batched);

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// Pixels from a window's first tap to its last.
inline int64_t reach(int64_t kernel, int64_t dilation) { return (kernel - 1) * dilation + 1; }

struct ConvTile { // of registers
  int64_t pixels, vectors, lanes;
  int64_t panel() const { return vectors * lanes; } // output channels
};
// A register tile of `pixels`: one step over K, in FMAs. Few of them wait for their own results, or
// for their operands, of which as many can be loaded in a cycle.
inline double step_cost(int64_t pixels, int64_t vectors) {
  constexpr int64_t latency = 8;
  return double(std::max({pixels * vectors, pixels + vectors, latency}));
}
// An output row as register tiles, nearly equal in size: of `pixels`, and the rest of one less.
struct RowTiles {
  int64_t pixels, count, large;
  double efficiency; // of the widest tile's throughput
};
RowTiles split_row(int64_t width, int64_t most_pixels);

// --- Algorithms of convolutions

// Seconds of one vector FMA, and bytes that stream from memory and from the L3 cache meanwhile.
inline double fma_seconds(const Target &target) { return 2e-9 * target.lanes() / target.gflops; }
inline double memory_rate(const Target &target) {
  return 1e9 * target.memory_gbs * fma_seconds(target);
}
inline double l3_rate(const Target &target) { return 1e9 * target.l3_gbs * fma_seconds(target); }
// Of data that is read again and again, and does not fit the L2 cache.
inline double rate_beyond_l2(double bytes, const Target &target) {
  return bytes < 0.5 * double(target.l3_bytes) ? l3_rate(target) : memory_rate(target);
}

// What a convolution's cost depends on, per image.
struct ConvShape {
  int64_t groups, depth, channels; // in and out of a group
  int64_t group_channels;          // where panels hold several groups, which then count as one
  Size2 y, kernel;
  bool pixels_join; // all output pixels may be one row
};
ConvShape conv_shape(const Conv &op, const Shape &x, const Shape &y, const Target &target);
ConvTile conv_tile(const Target &target, const ConvShape &shape);
// Time, in vector FMAs at full rate.
double direct_cost(const ConvShape &shape, const Target &target);
double winograd_cost(const ConvShape &shape, const Winograd &winograd, int64_t block_tile_rows,
                     const Target &target);
// Bytes that a block of so many rows of tiles has in scratch, about; and what no block may have.
double winograd_scratch(const ConvShape &shape, const Winograd &winograd, int64_t block_tile_rows,
                        const Target &target);
// Outputs that are wanted of the tiles in the last row, and in the last column.
inline Size2 edge_outputs(const Winograd &w, Size2 y) {
  return {(y.h - 1) % w.outputs.h + 1, (y.w - 1) % w.outputs.w + 1};
}
// How many channels' filters are transformed from taps at a time: these and a row of their points
// stay in the L1 cache.
inline int64_t filter_channels_at_once(const Winograd &w, int64_t panel, const Target &target) {
  const int64_t of_channel = 4 * panel * (w.kernel.h * w.kernel.w + w.points().w);
  return std::max<int64_t>(8, int64_t(0.65 * double(target.l1_bytes)) / of_channel / 8 * 8);
}
inline double most_winograd_scratch(const Target &target) { return 0.5 * double(target.l3_bytes); }
// Whether threads should rather share rows than panels: the weights are fewer than the input, of
// which a thread then reads little that another wrote.
inline bool shares_rows(const ConvShape &s) {
  return s.channels * s.kernel.h * s.kernel.w < s.y.h * s.y.w;
}
// Blocks of rows that threads can share: where there are few panels and groups to share, and where
// rows should be.
int64_t fewest_blocks(const ConvShape &shape, int64_t rows, int64_t fewest_rows,
                      const Target &target);
// Sizes to choose from, largest first: `rows` in at least `fewest` blocks.
std::vector<int64_t> block_sizes(int64_t rows, int64_t fewest);
// Rows of tiles that a task should take.
int64_t winograd_block(const ConvShape &shape, const Winograd &winograd, const Target &target);

// What may replace the direct algorithm.
std::vector<Winograd> alternatives(const Conv &op);
// Per node.
std::vector<Choice> choose_algorithms(const Graph &graph, const Schedule &schedule,
                                      const Target &target, const PlanOptions &options);

// A convolution with everything about its surroundings known; or a chain of them, the last one
// first, in which each reads only what the next one makes.
struct ConvStage {
  const Conv *op = nullptr;
  std::optional<Winograd> winograd = {};
  Shape x, y; // of its input and its result
  std::vector<Storage> post;
};
struct ConvRequest {
  std::vector<ConvStage> stages;
  Storage input;              // of the last stage in the list
  const Pool *pool = nullptr; // of the first stage's result
  bool strict = false;        // the pool
  Storage output;
  bool smallest_block = false; // a row of the output, or of its tiles, per task
};
// Errors: limit, for windows so large that no scratch holds one row of them.
Result<Kernel> conv_kernel(ConvRequest request, const Target &target, bool batched);

// The other kernels; operands and parameters are those that their specs list. Channels, and rows of
// dense layers, are contiguous. Errors: unsupported beyond six dimensions.
Kernel dense_kernel(const Dense &op, const Storage &in, const Storage &out,
                    const std::vector<Storage> &post, bool batched);
PoolSpec pool_spec(const Pool &op, bool strict);
PoolSpec::Params pool_params(const Pool &op, const Storage &in, const Storage &out);
Kernel pool_kernel(const Pool &op, bool strict, const Storage &in, const Storage &out,
                   const std::vector<Storage> &post, bool batched);
Kernel lrn_kernel(const Lrn &op, const Storage &in, const Storage &out, bool batched);
Result<Kernel> softmax_kernel(const Softmax &op, const Storage &in, const Storage &out,
                              bool batched);
Result<Kernel> arg_kernel(const ArgSpec &spec, int64_t axis, bool keep_dims, const Storage &in,
                          const Storage &out, bool batched);
Result<Kernel> reduce_kernel(const Reduce &op, const Storage &in, const Storage &out, bool batched);
Pitches pitches_of(const Storage &s);
// Least number of tasks worth a thread, for tasks that touch so many elements.
int64_t grain_for(int64_t work_per_task);

} // namespace lathe::core
