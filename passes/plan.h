// The Plan: what will run, as plain data. Views say where values lie, KernelSpecs what code is
// needed, kernels how the two meet. It names no address and holds no weight.
#pragma once

#include "ir/budget.h"
#include "ir/graph.h"
#include "ir/target.h"
#include "ir/winograd.h"

#include <array>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace lathe::core {

// A quantity that grows with the number of images: per_image * images + fixed. `Plan::sized` says
// for how many images there is such a number.
struct Affine {
  int64_t per_image = 0, fixed = 0;
  int64_t at(int64_t images) const { return per_image * images + fixed; }
  bool operator==(const Affine &) const = default;
};
constexpr Affine fixed(int64_t value) { return {0, value}; }

enum class Space : uint8_t { weights, arena, input, output };

// Where a value lies. Activations are NHWC with a free pixel pitch, expressed by strides over the
// logical (NCHW) dimensions; so slices, channels of a concat and transposes are Views as well.
struct View {
  Space space = Space::arena;
  int index = 0; // which weight, input or output
  Affine offset; // bytes from the start of the space (arena) or of the tensor
  Shape dims;    // logical; with Plan::batched dims[0] is 1 and stands for the images
  std::vector<int64_t> strides; // in elements, one per dimension
  ValueId value = no_value;
  bool operator==(const View &) const = default;
};

// --- Kernel specs: everything that affects bits or code, listed in `fields()`. What layers of
// different shapes differ in are run-time parameters: the struct `Params` of each spec, which the
// planner fills in and generated code reads, member by member; `Kernel::params` holds their leaves.

// Bytes from an image, a row and a pixel to the next.
struct Pitches {
  Affine image, row, pixel;
  static constexpr auto fields() {
    return std::make_tuple(field("image", &Pitches::image), field("row", &Pitches::row),
                           field("pixel", &Pitches::pixel));
  }
};
// Nested loops, outermost first, as extents or as bytes from step to step.
inline constexpr size_t loop_count = 6;
using Loops = std::array<Affine, loop_count>;

// Sums of many terms are those of blocks: up to so many terms, in order, in f32, the blocks' sums
// in float64. The error then does not grow with the number of blocks (Higham 1993, "The accuracy of
// floating point summation", section 3; Castaldo et al. 2008, on superblocks).
inline constexpr int64_t block_terms = 64;

// Max, average or sum pooling, NHWC. Taps outside the picture are skipped. Per element: `pre`, the
// taps row by row, the division of an average, bias, `post`.
struct PoolSpec {
  PoolKind kind = PoolKind::max;
  bool strict = false;  // a maximum keeps NaN wherever it stands, not only of the last tap
  bool blocked = false; // a sum or average of over `most_plain_taps`: blocks of a row's taps
  static constexpr int64_t most_plain_taps = 256;
  bool count_include_pad = false;
  bool dilated = false;
  Size2 window = {0, 0}; // of a small one, to be unrolled; else 0
  bool bias = false;
  std::vector<FusedOp> pre = {}, post = {};
  bool operator==(const PoolSpec &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("kind", &PoolSpec::kind), field("strict", &PoolSpec::strict),
                           field("blocked", &PoolSpec::blocked),
                           field("count_include_pad", &PoolSpec::count_include_pad),
                           field("dilated", &PoolSpec::dilated), field("window", &PoolSpec::window),
                           field("bias", &PoolSpec::bias), field("pre", &PoolSpec::pre),
                           field("post", &PoolSpec::post));
  }
  static constexpr std::string_view name = "pool_f32";
  enum Operand { input, output, first_vector }; // bias, operands of pre and of post
  // Tasks: output rows of every image. The padded extents bound count_include_pad's divisor.
  struct Params { // behind them, of every post operand its Pitches
    Affine out_rows, out_cols, channels, in_rows, in_cols;
    Affine kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    Affine padded_rows, padded_cols;
    Pitches in, out;
    static constexpr auto fields() {
      return std::make_tuple(
          field("out_rows", &Params::out_rows), field("out_cols", &Params::out_cols),
          field("channels", &Params::channels), field("in_rows", &Params::in_rows),
          field("in_cols", &Params::in_cols), field("kernel_h", &Params::kernel_h),
          field("kernel_w", &Params::kernel_w), field("stride_h", &Params::stride_h),
          field("stride_w", &Params::stride_w), field("dilation_h", &Params::dilation_h),
          field("dilation_w", &Params::dilation_w), field("pad_top", &Params::pad_top),
          field("pad_left", &Params::pad_left), field("padded_rows", &Params::padded_rows),
          field("padded_cols", &Params::padded_cols), field("in", &Params::in),
          field("out", &Params::out));
    }
  };
};

// How a convolution's input reaches the matrix product.
enum class Prologue : uint8_t {
  none,     // read in place, by a 1x1 window also where channels are strided
  copy,     // rows of a block in zero-padded scratch, `pre` applied; channels are contiguous
  gather,   // the same with strided channels (an NCHW input, say)
  convolve, // the rows are computed there by another convolution: a chain run block by block
};

// Convolution, NHWC to NHWC. Direct, per output element: bias, then for every kernel row, kernel
// column, and input channel of the group, ascending, one fused multiply-add (padding included as
// zeros). By Winograd: the products of a tile's points, each a sum over channels, ascending;
// transformed back, height before width; bias. Then `post`; then perhaps a pool, which the conv
// feeds panel by panel through scratch. Weights: [group][panel][kh][kw][channel][lane]; [point]
// instead of taps, or [group][panel][channel][kh][kw][lane] if they become points here, rounded at
// every step of the transform (height before width); panels of `tile_vectors` vectors, a group's
// last one of no more than it needs, zero-filled behind the last channel; bias:
// [group][panel][lane]; operands of `pre`: [channel].
struct ConvSpec {
  int64_t tile_pixels = 1;   // output pixels per register tile; a row is split into tiles of this
  bool smaller_tile = false; // many and, if set, of `vector_pixels` less; by Winograd, at most this
  int64_t tile_vectors = 1;
  int64_t lanes = 4; // of these vectors: the target's, or fewer for few channels
  // Of a group, where a panel holds several groups: few, as many in as out. A step over K is then
  // a tap, a vector of the source; its elements are spread within their groups. 1: depthwise.
  int64_t group_channels = 0;
  // Neighbours in a row that share a vector, lane by lane ([channel][pixel]): where few channels
  // leave lanes of the target's free, and the source's pixels are one element each.
  int64_t vector_pixels = 1;
  bool apart = false;  // the window is 1x1, and channels of the source do not follow each other
  int64_t step = 1;    // products that one step over K adds: of a group's channels, or a row's taps
  bool masked = false; // the last vector of a panel is not full
  struct LastPanel {
    int64_t vectors;
    bool masked;
    bool operator==(const LastPanel &) const = default;
    static constexpr auto fields() {
      return std::make_tuple(field("vectors", &LastPanel::vectors),
                             field("masked", &LastPanel::masked));
    }
  };
  std::optional<LastPanel> last = {}; // of a group's panels, where it differs from those before it
  bool bias = false;
  Prologue prologue = Prologue::none;
  int64_t gathered = 0; // by Prologue::gather: how many channels, where they are few
  // Tiles are read from scratch, so there is a prologue; never in a chain.
  std::optional<Winograd> winograd = {};
  Size2 edge_outputs = {}; // of its tiles in the last row, and in the last column
  std::vector<FusedOp> pre = {}, post = {};
  std::vector<ConvSpec> source = {}; // of Prologue::convolve, one; else none
  std::optional<PoolSpec> pool = {}; // with a bias as its only operand
  bool operator==(const ConvSpec &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(
        field("tile_pixels", &ConvSpec::tile_pixels),
        field("smaller_tile", &ConvSpec::smaller_tile),
        field("tile_vectors", &ConvSpec::tile_vectors), field("lanes", &ConvSpec::lanes),
        field("group_channels", &ConvSpec::group_channels),
        field("vector_pixels", &ConvSpec::vector_pixels), field("apart", &ConvSpec::apart),
        field("step", &ConvSpec::step), field("masked", &ConvSpec::masked),
        field("last", &ConvSpec::last), field("bias", &ConvSpec::bias),
        field("prologue", &ConvSpec::prologue), field("gathered", &ConvSpec::gathered),
        field("winograd", &ConvSpec::winograd), field("edge_outputs", &ConvSpec::edge_outputs),
        field("pre", &ConvSpec::pre), field("post", &ConvSpec::post),
        field("source", &ConvSpec::source), field("pool", &ConvSpec::pool));
  }
  static constexpr std::string_view name = "conv2d_f32";

  // Operands: the output; the pool's bias, if it has one; of every convolution, from the last of
  // the chain to the first, what StageOperand lists; the chain's input. An element of the output
  // depends on no other element of a post operand than its own.
  enum Operand { output, pool_bias };
  enum StageOperand { weights, first_vector }; // then bias, operands of pre, operands of post
  // Parameters: Params; of every convolution in that order StageParams, PostPitches of each post
  // operand and, if it goes by Winograd, WinogradParams; PoolParams, if there is a pool. Strides
  // and pitches are bytes. Where a panel holds several groups, "group" means all those of a panel,
  // of which the last may have fewer channels. Tasks: image, group, block of rows (of the pool's,
  // if there is one), group of panels; the last varies fastest.
  struct Params {
    Affine groups, row_blocks, panel_groups;
    Affine rows, block_rows;
    Affine panels, panels_per_task;
    Pitches out;
    Affine out_group;
    static constexpr auto fields() {
      return std::make_tuple(
          field("groups", &Params::groups), field("row_blocks", &Params::row_blocks),
          field("panel_groups", &Params::panel_groups), field("rows", &Params::rows),
          field("block_rows", &Params::block_rows), field("panels", &Params::panels),
          field("panels_per_task", &Params::panels_per_task), field("out", &Params::out),
          field("out_group", &Params::out_group));
    }
  };
  struct StageParams {
    Affine stage_rows; // of its whole result
    Affine tiles, large_tiles;
    Affine stage_panels;
    Affine channels;       // output channels of a group
    Affine all_channels;   // of all groups
    Affine src_row_step;   // per output row, in the source of the product (scratch or input)
    Affine src_pixel_step; // per output pixel
    Affine tap_rows, tap_row_pitch, tap_cols;
    Affine tap_col_pitch; // if the source's channels lie apart, from one to the next
    Affine depth;         // loops of the product
    Affine row_stride;    // prologue: input rows per output row
    Affine pad_top, pad_left;
    Affine in_rows, in_cols, in_channels, all_in_channels;
    Affine scratch_at; // where its source lies in scratch, and the padded extents there
    Affine scratch_rows, scratch_cols;
    Pitches in; // the input as it lies
    Affine in_channel, in_group;
    Affine rows_run_on; // 1: a row of it is one run of elements, as it is in scratch
    Affine weight_panel, weight_group, bias_group; // bytes per panel, and per group
    // What is fetched of the weights while others are used, in bytes: how far ahead of them, per
    // row (by Winograd, point), per register tile, per step over K.
    Affine fetch_ahead, fetch_row, fetch_call, fetch_step;
    static constexpr auto fields() {
      return std::make_tuple(
          field("stage_rows", &StageParams::stage_rows), field("tiles", &StageParams::tiles),
          field("large_tiles", &StageParams::large_tiles),
          field("stage_panels", &StageParams::stage_panels),
          field("channels", &StageParams::channels),
          field("all_channels", &StageParams::all_channels),
          field("src_row_step", &StageParams::src_row_step),
          field("src_pixel_step", &StageParams::src_pixel_step),
          field("tap_rows", &StageParams::tap_rows),
          field("tap_row_pitch", &StageParams::tap_row_pitch),
          field("tap_cols", &StageParams::tap_cols),
          field("tap_col_pitch", &StageParams::tap_col_pitch), field("depth", &StageParams::depth),
          field("row_stride", &StageParams::row_stride), field("pad_top", &StageParams::pad_top),
          field("pad_left", &StageParams::pad_left), field("in_rows", &StageParams::in_rows),
          field("in_cols", &StageParams::in_cols), field("in_channels", &StageParams::in_channels),
          field("all_in_channels", &StageParams::all_in_channels),
          field("scratch_at", &StageParams::scratch_at),
          field("scratch_rows", &StageParams::scratch_rows),
          field("scratch_cols", &StageParams::scratch_cols), field("in", &StageParams::in),
          field("in_channel", &StageParams::in_channel), field("in_group", &StageParams::in_group),
          field("rows_run_on", &StageParams::rows_run_on),
          field("weight_panel", &StageParams::weight_panel),
          field("weight_group", &StageParams::weight_group),
          field("bias_group", &StageParams::bias_group),
          field("fetch_ahead", &StageParams::fetch_ahead),
          field("fetch_row", &StageParams::fetch_row),
          field("fetch_call", &StageParams::fetch_call),
          field("fetch_step", &StageParams::fetch_step));
    }
  };
  struct PostPitches {
    Pitches place;
    Affine group;
    static constexpr auto fields() {
      return std::make_tuple(field("place", &PostPitches::place),
                             field("group", &PostPitches::group));
    }
  };
  // The src steps of a stage that goes by Winograd are between tiles of the input, and `tiles` says
  // how many register tiles those of a full block make. Scratch holds the transformed tiles as
  // [point][tile][channel], and products as [point][tile][lane of a panel]; if filters are
  // transformed from their taps, so many channels of a panel at a time, those as
  // [point][channel][lane].
  struct WinogradParams {
    Affine tile_rows, tile_cols;             // of the whole result
    Affine whole_tile_rows, whole_tile_cols; // of tiles of which all outputs are wanted
    Affine block_tile_rows;
    Affine transformed_at, transformed_tile, transformed_point; // bytes from each to the next
    Affine products_at, products_point;
    Affine filter_channels, filters_at, filters_point;
    static constexpr auto fields() {
      return std::make_tuple(field("tile_rows", &WinogradParams::tile_rows),
                             field("tile_cols", &WinogradParams::tile_cols),
                             field("whole_tile_rows", &WinogradParams::whole_tile_rows),
                             field("whole_tile_cols", &WinogradParams::whole_tile_cols),
                             field("block_tile_rows", &WinogradParams::block_tile_rows),
                             field("transformed_at", &WinogradParams::transformed_at),
                             field("transformed_tile", &WinogradParams::transformed_tile),
                             field("transformed_point", &WinogradParams::transformed_point),
                             field("products_at", &WinogradParams::products_at),
                             field("products_point", &WinogradParams::products_point),
                             field("filter_channels", &WinogradParams::filter_channels),
                             field("filters_at", &WinogradParams::filters_at),
                             field("filters_point", &WinogradParams::filters_point));
    }
  };
  struct PoolParams {
    Affine pool_at, conv_rows; // the pool reads so many rows of one panel from scratch
    PoolSpec::Params pool;
    static constexpr auto fields() {
      return std::make_tuple(field("pool_at", &PoolParams::pool_at),
                             field("conv_rows", &PoolParams::conv_rows),
                             field("pool", &PoolParams::pool));
    }
  };

  int64_t panel() const { return tile_vectors * lanes; } // output channels
  ConvSpec of_last_panel() const {
    ConvSpec spec = *this;
    if (last) spec.tile_vectors = last->vectors, spec.masked = last->masked;
    return spec;
  }
  size_t first_stage_operand() const { return pool_bias + size_t(pool && pool->bias); }
  size_t stage_operands() const {
    return first_vector + bias + operands_of(pre) + operands_of(post);
  }
  // Of a stage's parameters, from its first one on.
  static size_t post_param(size_t operand) {
    return leaves<StageParams>() + operand * leaves<PostPitches>();
  }
  size_t winograd_param() const { return post_param(operands_of(post)); }
  size_t stage_params() const {
    return winograd_param() + (winograd ? leaves<WinogradParams>() : 0);
  }
};

// Products over row-major weights where they lie; two images share what is read of them:
// y[n][m] = post(dot(x[n], w[m]) + bias[m]). A dot product keeps `accumulators` vectors, added
// pairwise at the end; the tail of K is masked.
struct DenseSpec {
  bool bias = false;
  std::vector<FusedOp> post;
  bool operator==(const DenseSpec &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("bias", &DenseSpec::bias), field("post", &DenseSpec::post));
  }
  static constexpr std::string_view name = "dense_f32_rows";
  static constexpr int64_t rows = 4, accumulators = 4;
  enum Operand { input, weights, output, bias_operand, first_post };
  // Tasks: blocks of `block_rows` rows of the weights.
  struct Params { // behind them, of every post operand the bytes from image to image
    Affine images, outputs, depth, block_rows;
    Affine in_image, out_image; // bytes
    static constexpr auto fields() {
      return std::make_tuple(
          field("images", &Params::images), field("outputs", &Params::outputs),
          field("depth", &Params::depth), field("block_rows", &Params::block_rows),
          field("in_image", &Params::in_image), field("out_image", &Params::out_image));
    }
  };
};

// How the elements of an operand follow each other along the innermost loop.
enum class Inner : uint8_t { contiguous, broadcast, strided };

// acc = operand[0]; then every step, in order; result stored. A unary step takes acc; a binary
// one takes acc and the next operand (or the other way round, if swapped). Without steps: a copy,
// or a cast.
struct MapStep {
  std::variant<Unary, Binary> op;
  bool swapped = false;
  bool operator==(const MapStep &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("op", &MapStep::op), field("swapped", &MapStep::swapped));
  }
};
struct MapSpec {
  std::vector<MapStep> steps;
  std::vector<Inner> operands;              // inputs in order, then the output
  DType from = DType::f32, to = DType::f32; // f32 or whole numbers; copies and casts: any
  bool operator==(const MapSpec &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("steps", &MapSpec::steps), field("operands", &MapSpec::operands),
                           field("from", &MapSpec::from), field("to", &MapSpec::to));
  }
  static constexpr std::string_view name = "map";
  // Operands: inputs, then the output. Tasks: the four outer extents, and the fifth in chunks of
  // rows_per_task.
  struct Params { // behind them, of every operand the bytes of its Loops
    Loops extents;
    Affine rows_per_task, tasks_per_outer;
    static constexpr auto fields() {
      return std::make_tuple(field("extents", &Params::extents),
                             field("rows_per_task", &Params::rows_per_task),
                             field("tasks_per_outer", &Params::tasks_per_outer));
    }
  };
};

// y[a..., i..., b...] = x[a..., indices[i...], b...]; negative indices count from the end, and
// those outside are clamped.
struct GatherSpec {
  int64_t element_bytes = 4;
  DType indices_type = DType::i64;
  bool rows = false; // innermost, elements of f32 follow each other and share an index
  bool operator==(const GatherSpec &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("element_bytes", &GatherSpec::element_bytes),
                           field("indices_type", &GatherSpec::indices_type),
                           field("rows", &GatherSpec::rows));
  }
  static constexpr std::string_view name = "gather";
  enum Operand { input, indices, output };
  // As a map over the result, with strides of 0 where an operand has no such dimension; and the
  // indexed axis. Tasks: as a map's.
  struct Params {
    MapSpec::Params loops;
    std::array<Loops, 3> strides;
    Affine axis_extent, axis_stride;
    static constexpr auto fields() {
      return std::make_tuple(field("loops", &Params::loops), field("strides", &Params::strides),
                             field("axis_extent", &Params::axis_extent),
                             field("axis_stride", &Params::axis_stride));
    }
  };
};

// Some pixels are copied into scratch first, between zeros: the result may replace the input, and
// what was just stored is not yet read.
struct LrnSpec {
  float scale = 0, beta = 0.75f, k = 1; // scale = alpha / size
  bool operator==(const LrnSpec &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("scale", &LrnSpec::scale), field("beta", &LrnSpec::beta),
                           field("k", &LrnSpec::k));
  }
  static constexpr std::string_view name = "lrn_f32";
  static constexpr int64_t together = 4;
  enum Operand { input, output };
  // Tasks: rows of every image.
  struct Params {
    Affine rows, cols, channels;
    Affine before, after; // channels before and after that count
    Pitches in, out;
    static constexpr auto fields() {
      return std::make_tuple(field("rows", &Params::rows), field("cols", &Params::cols),
                             field("channels", &Params::channels), field("before", &Params::before),
                             field("after", &Params::after), field("in", &Params::in),
                             field("out", &Params::out));
    }
  };
};

// Softmax over one axis; every other index is a line of its own.
struct SoftmaxSpec {
  bool log = false;
  bool contiguous = true; // along the axis, in both operands
  bool blocked = false;   // over `most_plain_terms`: summed in blocks, of vectors if contiguous
  static constexpr int64_t most_plain_terms = 1024;
  bool operator==(const SoftmaxSpec &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("log", &SoftmaxSpec::log),
                           field("contiguous", &SoftmaxSpec::contiguous),
                           field("blocked", &SoftmaxSpec::blocked));
  }
  static constexpr std::string_view name = "softmax_f32";
  enum Operand { input, output };
  // Tasks: lines.
  struct Params {
    Loops extents, in_strides, out_strides; // of lines
    Affine length, in_step, out_step;       // of the axis
    static constexpr auto fields() {
      return std::make_tuple(
          field("extents", &Params::extents), field("in_strides", &Params::in_strides),
          field("out_strides", &Params::out_strides), field("length", &Params::length),
          field("in_step", &Params::in_step), field("out_step", &Params::out_step));
    }
  };
};

// The extreme element's index along an axis, or, for `one_hot`, 1 where it stands and else 0. NaN
// is more extreme than any number.
struct ArgSpec {
  ArgKind kind = ArgKind::max;
  bool last = false; // of equal ones
  bool one_hot = false;
  bool operator==(const ArgSpec &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("kind", &ArgSpec::kind), field("last", &ArgSpec::last),
                           field("one_hot", &ArgSpec::one_hot));
  }
  static constexpr std::string_view name = "arg";
  enum Operand { input, output };
  using Params = SoftmaxSpec::Params;
};

// A reduction over the inner loops, for each of the outer ones. Sums and means: blocks of the
// innermost loop. Extremes keep NaN.
struct ReduceSpec {
  ReduceKind kind = ReduceKind::mean;
  bool vector = false; // the innermost kept axis is contiguous in both operands
  bool operator==(const ReduceSpec &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("kind", &ReduceSpec::kind), field("vector", &ReduceSpec::vector));
  }
  static constexpr std::string_view name = "reduce";
  enum Operand { input, output };
  // Tasks: all kept extents but the last, which is the innermost.
  struct Params {
    Loops extents, in_strides, out_strides;
    Loops reduced, reduced_strides;
    static constexpr auto fields() {
      return std::make_tuple(
          field("extents", &Params::extents), field("in_strides", &Params::in_strides),
          field("out_strides", &Params::out_strides), field("reduced", &Params::reduced),
          field("reduced_strides", &Params::reduced_strides));
    }
  };
};

using KernelSpec = std::variant<ConvSpec, DenseSpec, MapSpec, GatherSpec, PoolSpec, LrnSpec,
                                SoftmaxSpec, ArgSpec, ReduceSpec>;

// What people call a kernel: "conv2d_f32_direct_gather_bias_relu__avx512_14x32", a C identifier.
std::string kernel_name(const KernelSpec &spec, const Target &target);
// What its code is known by, in object files, archives and caches: the name, and a hash (XXH3) of
// all fields of the spec and of those that code depends on of the target.
std::string kernel_symbol(const KernelSpec &spec, const Target &target);

// One way to compute a convolution, and what is known of it.
struct Candidate {
  std::optional<Winograd> winograd = {}; // none: the direct one
  double estimated = 0;                  // seconds for an image, by the cost model
  std::optional<double> measured = {};   // where there are measurements
  int64_t extra_bytes = 0;               // that its weights add to the model's
  double seconds() const { return measured.value_or(estimated); } // what it is judged by
};
// What was considered for a convolution.
struct Choice {
  std::string layer;                 // its shapes and attributes: what measurements are known by
  std::vector<Candidate> candidates; // direct first; none, where there is nothing to choose from
  size_t chosen = 0;
  std::optional<Winograd> algorithm() const {
    return candidates.empty() ? std::nullopt : candidates[chosen].winograd;
  }
};
// "direct", "winograd 4", "winograd 1x2"
std::string algorithm_name(const std::optional<Winograd> &winograd);
// "chosen", "slower", or "over the weight budget"
std::string_view verdict(const Choice &choice, size_t candidate);
// "direct 12.1 us, slower; winograd 2 7.3 us, +1024 bytes, chosen"
std::string to_string(const Choice &choice);

struct Kernel {
  KernelSpec spec;
  std::vector<View> operands;       // in the order of the spec's Operand list
  int output = 0;                   // index in `operands` of the one that is written
  std::vector<Affine> params;       // the leaves of the spec's Params
  Affine tasks;                     // independent units of work, numbered from 0
  int64_t grain = 1;                // least number of tasks worth a thread of its own
  int64_t scratch_bytes = 0;        // per thread
  int64_t alive_bytes = 0;          // of the arena, while it runs; per image if the plan is batched
  std::vector<std::string> sources; // names of the layers it computes
  double flops_per_image = 0;       // of the layers, multiplies and adds
  Choice choice;                    // of a convolution's algorithm
};

// How a convolution's output channels lie in packed weights: group by group, in panels of `width`
// channels, a group's last one of as many vectors as it needs.
struct Panels {
  int64_t groups = 1, width = 1, lanes = 1;
  // With the zeros behind its last channel, a group of so many.
  int64_t padded(int64_t channels) const { return (channels + lanes - 1) / lanes * lanes; }
  // Of the panel that begins at one of them.
  int64_t width_at(int64_t channel, int64_t channels) const {
    return std::min(width, padded(channels) - channel);
  }
  bool operator==(const Panels &) const = default;
  static constexpr auto fields() {
    return std::make_tuple(field("groups", &Panels::groups), field("width", &Panels::width),
                           field("lanes", &Panels::lanes));
  }
};
// How a weight lies in memory.
struct Weight {
  enum class Packing : uint8_t { as_is, conv_panels, conv_bias } packing = Packing::as_is;
  ConstantRef constant;
  Panels panels = {};
  std::optional<Winograd> winograd = {}; // of conv_panels: points instead of taps, or their order
  int64_t bytes = 0;                     // packed: whole cache lines
  std::string name;
};

// Bytes that a run takes, exactly.
struct PlanSizes {
  int64_t weights = 0;                                    // packed
  int64_t arena = 0, scratch_per_thread = 0, scratch = 0; // scratch: of all threads
  int64_t tensors = 0;                                    // inputs and outputs
  int64_t total = 0;
};

struct Plan {
  std::string name;
  Target target;
  bool batched = false; // runs any number of images; otherwise exactly what the graph says
  std::vector<Type> inputs, outputs;
  std::vector<std::string> input_names, output_names;
  std::vector<Weight> weights;
  std::vector<Kernel> kernels;
  Affine arena_bytes, arena_lower_bound_bytes;
  int64_t scratch_bytes = 0;    // per thread, the largest of any kernel
  int64_t weight_bytes() const; // of a plan as make_plan returns it
  // What each thread is given: a page between the threads' scratch keeps their rows out of one
  // another's cache sets.
  int64_t scratch_per_thread() const;
  // What a run takes for so many images on so many threads, beforehand. Nothing runs whose sizes
  // were not asked for here: then every number of the plan that grows with the images is one.
  // Errors: usage, for a number that the plan cannot run; limit, where no address space has room.
  Result<PlanSizes> sized(int64_t images, int threads) const;
};

// Images that a run has at most, and threads.
inline constexpr int64_t most_images = 1 << 20;
inline constexpr int most_threads = 1024;

// Seconds that algorithms took, by Choice::layer and the algorithm's name.
using MeasuredCosts = std::map<std::string, std::map<std::string, double>>;

struct PlanOptions {
  // Per node, if there are any: whether a convolution runs block by block with the one that feeds
  // it, so that what stands between them never lies in the arena: less memory, for rows at the
  // blocks' edges that are computed twice.
  std::vector<bool> chained = {};
  bool smallest_blocks = false; // a row (by Winograd, of tiles) per task: the least scratch
  // No algorithm that sums in another order: no Winograd. With `strict` besides NaN goes through
  // every maximum.
  bool direct = false;
  bool strict = false;
  // What transformed weights may add, as a multiple of the weights of convolutions and dense
  // layers; models with few of them may add as much as one with so many bytes.
  double weight_budget = 1.5;
  static constexpr int64_t few_weights = 2 << 20;
  // Layers that it has all candidates of are judged by them, others by the cost model.
  MeasuredCosts measured = {};
  // For tests: any algorithm that a layer may have, by this seed and not by its cost.
  std::optional<uint64_t> any_algorithm = {};
  // For tests: values in the arena get pitches and offsets of this seed instead of tight ones.
  uint64_t jitter = 0;
};
// Errors: unsupported, for graphs with ops or types no kernel covers; limit.
Result<Plan> make_plan(const Graph &graph, const Target &target, const PlanOptions &options = {},
                       const Budget &budget = {});

// What `sized` may come to; no bytes: anything that can be addressed.
struct MemoryLimit {
  int64_t bytes = 0, images = 1;
  int threads = 1;
};
// A plan that keeps the limit: what `options` ask for if that does, else without transformed
// weights, else with direct convolutions, as few of them chained as a greedy search finds, else
// with the smallest blocks as well. Errors: limit, where none does; as make_plan.
Result<Plan> make_plan_within(const Graph &graph, const Target &target, const MemoryLimit &limit,
                              const PlanOptions &options = {}, const Budget &budget = {});

std::string print(const Plan &plan);

// Proves, sharing no code with the planner, that every kernel reads what the graph says it reads:
// simulates the plan element by element for `images` images; and, by the parameters of a
// convolution, which elements meet in its products. Errors: internal, for a wrong plan; as
// Plan::sized; limit.
Result<void> check_plan(const Plan &plan, const Graph &graph, int64_t images,
                        const Budget &budget = {});

} // namespace lathe::core
