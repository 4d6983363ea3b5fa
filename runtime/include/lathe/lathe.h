// Lathe compiles convolutional networks to native code for CPUs and runs them.
//
//   auto model = lathe::Model::load("resnet50.onnx").value();
//   auto network = lathe::compile(model).value();      // immutable, shared by threads
//   auto request = network.request().value();          // owns the memory of one run at a time
//   std::ranges::copy(picture, request.input().begin());
//   request.run();                                     // no allocation, no lock, no exception
//   for (float score : request.output()) ...
//
// Needs C++20. Errors are values. Tensors are dense and row-major, of the shapes that the model
// declares (N,C,H,W for pictures).
//
// When the system refuses memory, pages, threads or files, what returns a Result gives an error
// (limit or io) and leaves everything as it was; fewer threads do the same work; what returns a
// plain value may throw std::bad_alloc. docs/developing.md, "When the system refuses", says how far
// that goes inside LLVM.
// Stacks: loading, weights, compiling and pictures work on a thread of their own where less than
// 512 KiB are left of the caller's stack, or are an error (limit) if the system gives none. Other
// functions take at most 64 KiB, and `run` what the smallest thread has (PTHREAD_STACK_MIN).
// A child of fork() may load, compile and run anew, run a request that it inherits, on its one
// thread and with the same bits, and free what it inherits, whatever other threads of the parent
// did at the fork. (Not after vfork or a raw clone.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#if defined(__GNUC__)
#define LATHE_API __attribute__((visibility("default")))
#else
#define LATHE_API
#endif

namespace lathe {

// --- Errors ---------------------------------------------------------------------------------

// The numbers are also the exit codes of the command line and the status codes of the C interface.
enum class ErrorCode : int {
  mismatch = 1,    // results differ from their reference
  usage = 2,       // a wrong option or argument
  invalid = 3,     // a malformed model, weights file or tensor
  unsupported = 4, // well formed, but nothing that Lathe or this machine can do
  io = 5,          // the operating system refused
  limit = 6,       // a limit, or the memory there is, would be exceeded
  internal = 70,   // a bug in Lathe
};

// What is not known is empty or 0.
struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message = {}; // one sentence, without the place
  std::string file = {};
  int line = 0, column = 0; // 1-based
  std::string node = {};    // the layer, input or weight concerned
  std::string op = {};      // its operation
  std::string expected = {};
  std::string found = {};
  std::string detail = {}; // further lines: the source with a caret, further errors
};
// "model.net:3:7: error: message (at 'conv1', op conv): expected A, found B" and the detail.
LATHE_API std::string to_string(const Error &error);

// Thrown by Result::value() and by nothing else.
struct LATHE_API BadResult : std::runtime_error {
  explicit BadResult(Error why) : std::runtime_error(to_string(why)), error(std::move(why)) {}
  Error error;
};

// A value, or why there is none.
template <typename T> class [[nodiscard]] Result {
public:
  Result(T value) : state_(std::move(value)) {}
  Result(Error error) : state_(std::move(error)) {}
  bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }
  // Throws BadResult if there is no value.
  T &value() & { return check(), *std::get_if<0>(&state_); }
  const T &value() const & { return check(), *std::get_if<0>(&state_); }
  T value() && { return check(), std::move(*std::get_if<0>(&state_)); }
  // Only if there is a value.
  T &operator*() & noexcept { return *std::get_if<0>(&state_); }
  const T &operator*() const & noexcept { return *std::get_if<0>(&state_); }
  T &&operator*() && noexcept { return std::move(*std::get_if<0>(&state_)); }
  T *operator->() noexcept { return std::get_if<0>(&state_); }
  const T *operator->() const noexcept { return std::get_if<0>(&state_); }
  // Only if there is none.
  const Error &error() const noexcept { return *std::get_if<1>(&state_); }

private:
  void check() const {
    if (!has_value()) throw BadResult(error());
  }
  std::variant<T, Error> state_;
};
template <> class [[nodiscard]] Result<void> {
public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}
  bool has_value() const noexcept { return !error_; }
  explicit operator bool() const noexcept { return has_value(); }
  void value() const {
    if (error_) throw BadResult(*error_);
  }
  const Error &error() const noexcept { return *error_; }

private:
  std::optional<Error> error_;
};

// --- Tensors --------------------------------------------------------------------------------

// f16 (IEEE 754 binary16), bf16 and f64: only where a model declares an input or output so; what it
// computes it computes in f32.
enum class DType : std::uint8_t { f32, i64, i32, boolean, f16, bf16, f64 };
template <typename T>
inline constexpr DType dtype_of = [] {
  static_assert(sizeof(T) == 0, "tensors hold float, double, std::int64_t, std::int32_t or bool");
  return DType::f32;
}();
template <> inline constexpr DType dtype_of<float> = DType::f32;
template <> inline constexpr DType dtype_of<std::int64_t> = DType::i64;
template <> inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <> inline constexpr DType dtype_of<bool> = DType::boolean;
template <> inline constexpr DType dtype_of<double> = DType::f64;

using Shape = std::vector<std::int64_t>; // outermost first; {} is a scalar

struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  Shape shape; // dimension 0 is the number of images, where that is free: here 1
  std::size_t bytes = 0;
};

// Memory of the caller's, dense and row-major, that Lathe reads.
struct TensorView {
  DType dtype = DType::f32;
  Shape shape;
  const void *data = nullptr;
};

// --- Models ---------------------------------------------------------------------------------

struct LoadOptions {
  // ONNX: the number of images, where the file leaves dimension 0 open; shapes of inputs by name;
  // values of inputs that decide shapes, which are then constants.
  std::int64_t batch = 1;
  std::map<std::string, Shape> shapes = {};
  std::map<std::string, TensorView> values = {};
  // `.net`: parameters of the network, "classes" for one.
  std::map<std::string, double> parameters = {};
  // A model file that is larger is refused.
  std::uint64_t largest_file = std::uint64_t{1} << 40;
  // As in Options: for reading the model, and for `randomise_weights`.
  std::int64_t compile_memory = 0;
  double time_limit = 3600;
};

enum class Format { net, onnx };
// By its name: "net", "onnx". Errors: usage.
LATHE_API Result<Format> find_format(const std::string &name);

// How strictly weights must fit a model.
struct BindOptions {
  // Weights that are not given stay as they are; otherwise all must be given.
  bool partial = false;
  // Tensors that no weight is named after are ignored; otherwise they are errors, but for what
  // checkpoints carry along: a batch norm's num_batches_tracked, and auxiliary heads that the
  // network leaves out.
  bool ignore_unused = false;
};
struct BindReport {                 // names, sorted
  std::vector<std::string> unused;  // given, but of no weight
  std::vector<std::string> kept;    // weights that were not given and stay as they were
  std::vector<std::string> missing; // weights that were not given and have no numbers yet
};

// A network with its weights, before it is compiled. Copies share what lies in files. Large files
// stay mapped, and are to stay as they are until the network is compiled: if one is cut or written
// to, `compile` says so. Afterwards see Options::copy_weights.
class LATHE_API Model {
public:
  // A file (`.net`, `.onnx`), or the name of a bundled network ("resnet50"; a file of such a name
  // is "./resnet50"). An ONNX file brings its weights, a bundled network trained ones if there are
  // any; others have none yet. Errors: io, invalid (which lists everything that is wrong),
  // unsupported, limit, usage.
  static Result<Model> load(const std::string &model, const LoadOptions &options = {});
  // The same from memory, which is copied; no other file is read.
  static Result<Model> parse(std::span<const std::byte> bytes, Format format,
                             const LoadOptions &options = {});

  // Gives the layers their weights, in place of those that there are: from a safetensors file, or
  // from memory, which is copied. Names are those of the layers ("conv1.weight"), in an ONNX file
  // those of its initialisers. Errors: io; invalid, with all that are missing, misshapen or
  // unknown; the model is then as it was.
  Result<BindReport> bind_weights(const std::string &safetensors, const BindOptions &options = {});
  Result<BindReport> bind_weights(const std::map<std::string, TensorView> &weights,
                                  const BindOptions &options = {});
  // Random weights under which signals neither fade nor explode: the same ones on every machine.
  // The weights that there are stay.
  Result<void> randomise_weights(std::uint64_t seed);
  // Layers whose results are the outputs from now on, instead of those that the model names: for
  // features. Names are those of layers and of values. Errors: usage, for an unknown one.
  Result<void> set_outputs(std::span<const std::string> names);

  const std::string &name() const;
  std::vector<TensorInfo> inputs() const;
  std::vector<TensorInfo> outputs() const;
  std::vector<std::string> layers() const; // names, in the order of execution
  // What is allowed and yet looks wrong in a `.net` file, with its place.
  const std::vector<std::string> &warnings() const;

  struct Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  Model(const Model &);
  Model(Model &&) noexcept;
  Model &operator=(Model) noexcept;
  ~Model();
  const Impl &impl() const { return *impl_; }

private:
  std::unique_ptr<Impl> impl_;
};

// --- Building a network in code ----------------------------------------------------------------

struct Size2 {
  std::int64_t h, w;
  constexpr Size2(std::int64_t both) : h(both), w(both) {} // NOLINT: 3 is 3x3
  constexpr Size2(std::int64_t height, std::int64_t width) : h(height), w(width) {}
};
struct Pads { // of zeros around a picture
  std::int64_t top, left, bottom, right;
  constexpr Pads(std::int64_t all) : Pads(all, all) {} // NOLINT
  constexpr Pads(std::int64_t rows, std::int64_t cols)
      : top(rows), left(cols), bottom(rows), right(cols) {}
  constexpr Pads(std::int64_t t, std::int64_t l, std::int64_t b, std::int64_t r)
      : top(t), left(l), bottom(b), right(r) {}
};
struct ConvOptions {
  Size2 stride = 1;
  Pads pad = 0;
  Size2 dilation = 1;
  std::int64_t groups = 1;
  bool bias = true; // false before a batch norm
};
struct PoolOptions {
  std::optional<Size2> stride = {}; // the kernel's size, if not given
  Pads pad = 0;
  bool ceil_mode = false;         // rounds the output's size up
  bool count_include_pad = false; // an average counts the zeros around a picture
};

class LATHE_API Builder;

// A value of the network that is being built. Every method adds a layer that reads it and gives
// that layer's result. Layers have the meanings of docs/net-language.md. A name that is left empty
// is made up. Weights are named after their layer: "conv1.weight", "conv1.bias";
// "bn1.running_mean".
class LATHE_API Value {
public:
  // x: N,C,H,W; weight: M,C/groups,kh,kw.
  Value conv(std::string_view name, std::int64_t channels, Size2 kernel, ConvOptions = {}) const;
  // x: N,K; weight: M,K.
  Value dense(std::string_view name, std::int64_t outputs, bool bias = true) const;
  // weight, bias, running_mean, running_var: C.
  Value batch_norm(std::string_view name, float epsilon = 1e-5f) const;
  Value prelu(std::string_view name) const; // weight: C
  Value max_pool(Size2 kernel, PoolOptions = {}, std::string_view name = {}) const;
  Value average_pool(Size2 kernel, PoolOptions = {}, std::string_view name = {}) const;
  Value global_average_pool(std::string_view name = {}) const; // N,C,H,W -> N,C,1,1
  Value global_max_pool(std::string_view name = {}) const;
  Value lrn(std::int64_t size, float alpha, float beta, float k, std::string_view name = {}) const;
  Value relu(std::string_view name = {}) const;
  Value leaky_relu(float slope, std::string_view name = {}) const;
  Value clip(float least, float most, std::string_view name = {}) const;
  Value sigmoid(std::string_view name = {}) const;
  Value tanh(std::string_view name = {}) const;
  Value hard_swish(std::string_view name = {}) const;
  Value elu(float alpha, std::string_view name = {}) const;
  Value softmax(std::int64_t axis = -1, std::string_view name = {}) const;
  Value flatten(std::int64_t axis = 1, std::string_view name = {}) const;
  Value reshape(Shape shape, std::string_view name = {}) const; // 0 copies, one -1 takes the rest
  Value transpose(std::vector<std::int64_t> order, std::string_view name = {}) const;
  // Elements begin to end - 1 along an axis; negative numbers count from the end.
  Value slice(std::int64_t axis, std::int64_t begin, std::int64_t end,
              std::string_view name = {}) const;
  Value dropout(float rate, std::string_view name = {}) const;
  friend LATHE_API Value operator+(const Value &a, const Value &b); // broadcast as NumPy does
  friend LATHE_API Value operator*(const Value &a, const Value &b);
  friend LATHE_API Value concat(std::span<const Value> parts, std::int64_t axis,
                                std::string_view name);

  Shape shape() const; // {} after an error

private:
  friend class Builder;
  struct Graph;
  Value(std::shared_ptr<Graph> graph, std::uint32_t id) : graph_(std::move(graph)), id_(id) {}
  std::shared_ptr<Graph> graph_;
  std::uint32_t id_;
};
LATHE_API Value concat(std::span<const Value> parts, std::int64_t axis = 1,
                       std::string_view name = {});

// An error anywhere makes further layers do nothing; `build` returns the first one.
class LATHE_API Builder {
public:
  explicit Builder(std::string name);
  Value input(std::string_view name, Shape shape, DType dtype = DType::f32);
  // Errors: the first that any layer met, with its name.
  Result<Model> build(std::span<const Value> outputs);
  Result<Model> build(const Value &output) { return build(std::span(&output, 1)); }

private:
  std::shared_ptr<Value::Graph> graph_;
};

// --- Threads --------------------------------------------------------------------------------

// Who works on a run. May be shared by any number of executables and requests: a run that finds
// it taken by another one works on the calling thread alone, with the same bits.
class LATHE_API Threads {
public:
  // A pool of `count` threads, the caller among them, or fewer if the system gives no more; 0: as
  // many CPUs as this process may really use (affinity, quotas of its cgroup and those above).
  // Idle threads sleep.
  static Threads pool(int count = 0);
  // The caller's own threads. `parallel_for` must call job(context, i) once for every i in
  // [0, jobs), in any order, on any threads, and return when all have returned. It must not throw.
  // Called from the thread that called `run`.
  using ParallelFor = void (*)(void *host, int jobs, void (*job)(void *context, int index),
                               void *context);
  static Threads host(ParallelFor parallel_for, void *host, int jobs);

  int count() const;

  struct Impl;
  const std::shared_ptr<Impl> &impl() const { return impl_; }

private:
  explicit Threads(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

// --- Compiling ------------------------------------------------------------------------------

enum class Numerics {
  fast,   // other orders of a sum (Winograd), with an error that stays within a few roundings
  strict, // direct sums only; infinities as IEEE 754 has them, NaN through every op as in NumPy
};

struct Options {
  // Who works on the requests; none given: a pool of as many threads as CPUs are usable.
  std::optional<Threads> threads = {};
  std::string target = "native"; // or "avx512", "avx2", "plain", ...: what this machine can run
  Numerics numerics = Numerics::fast;
  // What transformed weights may add, as a multiple of the model's own, or of 2 MiB if it has
  // fewer.
  double weight_budget = 1.5;
  // Bytes that weights, arena, scratch, inputs and outputs of one request of `batch` images may
  // take together; 0: no limit. Requests that would take more are errors. The code is the same for
  // any number of images.
  std::int64_t memory_limit = 0;
  std::int64_t batch = 1;
  // Bytes of memory that compiling may work in, for what a file's numbers make large: constants,
  // packed weights, layers. 0: as much as any real network needs, which is at most 16 GiB, three
  // quarters of the machine's memory and, with a memory limit, twice that and 256 MiB. Seconds
  // after which compiling gives up; 0: never. Beyond either: an error (limit).
  std::int64_t compile_memory = 0;
  double time_limit = 3600;
  bool tune = false; // measure algorithms on this machine instead of estimating them
  // Where compiled networks are kept between processes; empty: nowhere. Bytes: of all of them.
  std::string cache_directory = {};
  std::int64_t cache_bytes = std::int64_t{4} << 30;
  std::vector<std::string> disabled_passes = {}; // by the names that `lathe dump` shows
  // Weights that need no packing are used where they lie: in the model's or weights file, which is
  // mapped. Whoever overwrites that file changes the network's results, and whoever cuts it short
  // ends the program with SIGBUS at the next run. (A file that is replaced by renaming another is
  // not touched.) True: all weights are copied to memory of the network's own.
  bool copy_weights = false;
};

struct MemoryUse {          // bytes
  std::int64_t weights = 0; // in the form that kernels read; shared by all requests
  std::int64_t arena = 0;   // values between kernels
  std::int64_t scratch = 0; // of all threads
  std::int64_t tensors = 0; // inputs and outputs
  std::int64_t total() const { return weights + arena + scratch + tensors; }
};

struct KernelInfo {
  std::string name;                // "conv2d_f32_winograd4_3x3_bias_relu__avx512_14x32"
  std::string algorithm;           // "winograd 4 3x3"
  std::string shapes;              // "64x56x56 to 64x56x56": one image, channels first
  std::vector<std::string> layers; // of the model, that it computes
  double flops = 0;                // multiplies and adds of an image; 0 where none are counted
};

struct CompileTimes { // milliseconds; weights are packed beside the work on code
  double passes = 0, tune = 0, plan = 0, code = 0, link = 0, pack = 0, total = 0;
};

class LATHE_API Request;

// A compiled network. Immutable; copies share it; any number of threads may use it at once.
class LATHE_API Executable {
public:
  const std::vector<TensorInfo> &inputs() const;
  const std::vector<TensorInfo> &outputs() const;
  std::optional<std::size_t> find_input(std::string_view name) const;
  std::optional<std::size_t> find_output(std::string_view name) const;
  // Whether requests may be for any number of images; otherwise all dimensions are fixed.
  bool batched() const;
  // What a request takes, exactly. Threads: 0 for those of the options. Each number is a quarter of
  // the largest, where no request could be so large.
  MemoryUse memory(std::int64_t images = 1, int threads = 0) const;
  std::vector<KernelInfo> kernels() const; // in the order in which they run
  const std::string &target() const;       // "avx512"
  CompileTimes times() const;
  bool cached() const; // whether code and weights came from the cache
  // Errors: usage, for a number of images that it was not compiled for; limit.
  Result<Request> request(std::int64_t images = 1) const;
  Result<Request> request(std::int64_t images, const Threads &threads) const;

  struct Impl;
  explicit Executable(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl &impl() const { return *impl_; }

private:
  std::shared_ptr<const Impl> impl_;
};

// Errors: invalid (weights that are missing), unsupported (an operation that no kernel covers, a
// target that this machine lacks, a system that forbids generated code), usage, limit, io (a file
// with weights that was cut or written to since it was opened).
LATHE_API Result<Executable> compile(const Model &model, const Options &options = {});

// One run at a time, of one thread at a time: inputs, outputs and the memory between. Make one for
// each thread that runs.
class LATHE_API Request {
public:
  std::int64_t images() const;
  // The request's tensors, for the number of images; write inputs before run, read outputs after.
  // Valid until the tensor is bound to other memory. Empty for another element type or index.
  template <typename T = float> std::span<T> input(std::size_t i = 0) noexcept {
    if (input_dtype(i) != dtype_of<T>) return {};
    const std::span<std::byte> bytes = input_bytes(i);
    return {reinterpret_cast<T *>(bytes.data()), bytes.size() / sizeof(T)};
  }
  template <typename T = float> std::span<const T> output(std::size_t j = 0) const noexcept {
    if (output_dtype(j) != dtype_of<T>) return {};
    const std::span<const std::byte> bytes = output_bytes(j);
    return {reinterpret_cast<const T *>(bytes.data()), bytes.size() / sizeof(T)};
  }
  std::span<std::byte> input_bytes(std::size_t i) noexcept; // empty if there is no such
  std::span<const std::byte> output_bytes(std::size_t j) const noexcept;
  std::optional<DType> input_dtype(std::size_t i) const noexcept;
  std::optional<DType> output_dtype(std::size_t j) const noexcept;
  Shape input_shape(std::size_t i = 0) const;
  Shape output_shape(std::size_t j = 0) const;

  // The caller's memory instead of the request's own, which is freed: read or written in place by
  // every run until other memory is bound. It must have the tensor's size, be aligned for its
  // elements, outlive the runs, and overlap no other tensor of this request. Errors: invalid; the
  // tensor is then bound as before.
  Result<void> bind_input(std::size_t i, std::span<const std::byte> memory);
  Result<void> bind_output(std::size_t j, std::span<std::byte> memory);

  // Allocates nothing, throws nothing, and takes no lock; with several threads of a pool it wakes
  // and waits for them. The same input gives the same bits at any number of threads and at any
  // position among the images.
  void run() noexcept;
  // The same; tells what each of the executable's kernels() took, as far as there is room.
  void run_timed(std::span<double> milliseconds) noexcept;

  struct Impl;
  explicit Request(std::unique_ptr<Impl> impl);
  Request(Request &&) noexcept;
  Request &operator=(Request &&) noexcept;
  ~Request();

private:
  std::unique_ptr<Impl> impl_;
};

// Fills an input of shape 1,C,H,W with a picture (PNG, JPEG, binary PPM) as a checkpoint's training
// prepared its own, for an input of 224x224 and others in proportion: "torchvision" (the shorter
// side to 256, centre crop, RGB, ImageNet's mean and deviation: its V1 weights), "torchvision-v2"
// (the same with 232: its V2 weights of ResNets), "caffe-bgr" (to 256x256, centre crop, BGR minus
// 104, 117, 123), "fashion-mnist" (what the bundled LeNet-5 expects), "raw" (0 to 255, not
// resized). A picture that has the input's size already goes through the same steps. Errors: io,
// invalid, unsupported, usage, limit.
LATHE_API Result<void> read_picture(const std::string &file, std::string_view preset,
                                    const Shape &shape, std::span<float> to);

// CPUs that this process may really use: its affinity, and the quotas of its cgroup and those
// above.
LATHE_API int usable_cpus();
LATHE_API std::string_view version(); // "0.1.0"
LATHE_API std::vector<std::string> bundled_models();

} // namespace lathe
