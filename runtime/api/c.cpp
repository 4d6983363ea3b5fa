// The C interface: each function is one of lathe/lathe.h.
#include "runtime/api/convert.h"

#include <lathe/c.h>

#include <algorithm>
#include <cstring>
#include <new>

using namespace lathe;

struct lathe_error {
  Error error;
  std::string text;
};
struct lathe_model {
  Model model;
  std::vector<std::string> layers; // those that were asked for
  BindReport bound = {};           // of the last binding
};
struct lathe_threads {
  Threads threads;
};
struct lathe_network {
  Executable executable;
  std::vector<KernelInfo> kernels;
};
struct lathe_request {
  Request request;
};

namespace {

// Leaves no error where there is no memory for it.
lathe_status report(Error why, lathe_error **error) noexcept {
  const auto status = lathe_status(why.code);
  if (error) try {
      std::string text = to_string(why);
      *error = new lathe_error{std::move(why), std::move(text)};
    } catch (...) {
    }
  return status;
}

// Runs f, which returns a Result<void>; whatever is thrown becomes a status.
template <typename F> lathe_status call(lathe_error **error, F &&f) noexcept {
  if (error) *error = nullptr;
  try {
    Result<void> done = f();
    return done ? LATHE_OK : report(done.error(), error);
  } catch (...) {
    return report(thrown_error(), error);
  }
}

Error null_argument(const char *what) {
  return {.code = ErrorCode::usage, .message = std::string("no ") + what + " given"};
}

// What the caller's struct has of ours; the rest keeps its defaults.
template <typename Options> void overlay(Options &known, const Options *given) {
  if (given) std::memcpy(&known, given, std::min(given->struct_size, sizeof known));
}

const char *text_or_empty(const char *text) { return text ? text : ""; }

// A list of the caller's: its elements, or an error if there are some and it is NULL.
template <typename T>
Result<std::span<const T>> list(const T *elements, size_t count, const char *what) {
  if (!elements && count > 0) return null_argument(what);
  return std::span<const T>(elements, count);
}
// Evaluates a Result; returns its error from the enclosing function, else binds the value.
#define LATHE_C_TRY(declaration, expression)                                                       \
  auto LATHE_C_CONCAT(result_, __LINE__) = (expression);                                           \
  if (!LATHE_C_CONCAT(result_, __LINE__)) return LATHE_C_CONCAT(result_, __LINE__).error();        \
  declaration = *std::move(LATHE_C_CONCAT(result_, __LINE__))
#define LATHE_C_CONCAT(a, b) LATHE_C_CONCAT_INNER(a, b)
#define LATHE_C_CONCAT_INNER(a, b) a##b

Result<std::string> name_of(const char *name, const char *what) {
  if (!name) return null_argument(what);
  return std::string(name);
}
Result<std::vector<std::string>> names(const char *const *given, size_t count, const char *what) {
  LATHE_C_TRY(const auto elements, list(given, count, what));
  std::vector<std::string> result;
  for (const char *name : elements) {
    LATHE_C_TRY(result.emplace_back(), name_of(name, what));
  }
  return result;
}

Result<TensorView> view(const lathe_tensor &t) {
  LATHE_C_TRY(const auto shape, list(t.shape, t.rank, "shape of a tensor"));
  if (int(t.dtype) < LATHE_F32 || int(t.dtype) > LATHE_F64)
    return Error{.code = ErrorCode::usage,
                 .message = "unknown element type",
                 .node = text_or_empty(t.name),
                 .expected = "a lathe_dtype",
                 .found = std::to_string(int(t.dtype))};
  return TensorView{DType(t.dtype), Shape(shape.begin(), shape.end()), t.data};
}
// Tensors by their names, of which none may come twice.
Result<std::map<std::string, TensorView>> views(const lathe_tensor *given, size_t count,
                                                const char *what) {
  LATHE_C_TRY(const auto tensors, list(given, count, what));
  std::map<std::string, TensorView> result;
  for (const lathe_tensor &t : tensors) {
    LATHE_C_TRY(const std::string name, name_of(t.name, "name of a tensor"));
    LATHE_C_TRY(const TensorView seen, view(t));
    if (!result.emplace(name, seen).second)
      return Error{.code = ErrorCode::usage, .message = "a tensor is given twice", .node = name};
  }
  return result;
}

Result<LoadOptions> load_options(const lathe_load_options *given) {
  lathe_load_options o;
  lathe_load_options_init(&o);
  overlay(o, given);
  LoadOptions options{.batch = o.batch,
                      .largest_file = o.largest_file,
                      .compile_memory = o.compile_memory,
                      .time_limit = o.time_limit};
  LATHE_C_TRY(const auto shapes, views(o.shapes, o.shape_count, "shapes"));
  for (const auto &[name, tensor] : shapes) options.shapes[name] = tensor.shape;
  LATHE_C_TRY(options.values, views(o.values, o.value_count, "values"));
  LATHE_C_TRY(const auto parameters, list(o.parameters, o.parameter_count, "parameters"));
  for (const lathe_parameter &parameter : parameters) {
    LATHE_C_TRY(const std::string name, name_of(parameter.name, "name of a parameter"));
    options.parameters[name] = parameter.value;
  }
  return options;
}

Result<Options> compile_options(const lathe_options *given) {
  lathe_options o;
  lathe_options_init(&o);
  overlay(o, given);
  Options options{.numerics = o.strict ? Numerics::strict : Numerics::fast,
                  .weight_budget = o.weight_budget,
                  .memory_limit = o.memory_limit,
                  .batch = o.batch,
                  .compile_memory = o.compile_memory,
                  .time_limit = o.time_limit,
                  .tune = o.tune != 0,
                  .cache_directory = text_or_empty(o.cache_directory),
                  .cache_bytes = o.cache_bytes};
  if (o.threads) options.threads = o.threads->threads;
  if (o.target) options.target = o.target;
  options.copy_weights = o.copy_weights != 0;
  LATHE_C_TRY(options.disabled_passes,
              names(o.disabled_passes, o.disabled_pass_count, "name of a disabled pass"));
  return options;
}

BindOptions bind_options(const lathe_bind_options *given) {
  lathe_bind_options o;
  lathe_bind_options_init(&o);
  overlay(o, given);
  return {.partial = o.partial != 0, .ignore_unused = o.ignore_unused != 0};
}

// Moves a result's value to where the caller wants a handle on it.
template <typename Handle, typename... Parts> Result<void> give(Handle **result, Parts &&...parts) {
  if (!result) return null_argument("place for the result");
  *result = new Handle{std::forward<Parts>(parts)...};
  return {};
}

lathe_tensor tensor(const TensorInfo &info) {
  return {info.name.c_str(), lathe_dtype(info.dtype), info.shape.size(), info.shape.data(), nullptr,
          info.bytes};
}

lathe_status describe(const std::vector<TensorInfo> &tensors, size_t index, lathe_tensor *info) {
  if (index >= tensors.size() || !info) return LATHE_USAGE;
  *info = tensor(tensors[index]);
  return LATHE_OK;
}

} // namespace

const char *lathe_version(void) { return version().data(); }
int lathe_usable_cpus(void) { return usable_cpus(); }

namespace {
// An error that could not be made, for want of memory, says nothing.
const Error &of(const lathe_error *error) {
  static const Error unknown{.code = ErrorCode::limit};
  return error ? error->error : unknown;
}
} // namespace

lathe_status lathe_error_status(const lathe_error *e) { return lathe_status(of(e).code); }
const char *lathe_error_text(const lathe_error *e) { return e ? e->text.c_str() : "no memory"; }
const char *lathe_error_message(const lathe_error *e) { return of(e).message.c_str(); }
const char *lathe_error_file(const lathe_error *e) { return of(e).file.c_str(); }
int lathe_error_line(const lathe_error *e) { return of(e).line; }
int lathe_error_column(const lathe_error *e) { return of(e).column; }
const char *lathe_error_node(const lathe_error *e) { return of(e).node.c_str(); }
const char *lathe_error_op(const lathe_error *e) { return of(e).op.c_str(); }
const char *lathe_error_expected(const lathe_error *e) { return of(e).expected.c_str(); }
const char *lathe_error_found(const lathe_error *e) { return of(e).found.c_str(); }
const char *lathe_error_detail(const lathe_error *e) { return of(e).detail.c_str(); }
void lathe_error_free(lathe_error *error) { delete error; }

namespace {
// The part of the defaults that the caller knows.
template <typename Options> void fill(Options *options, size_t struct_size, Options all) {
  if (!options) return;
  all.struct_size = struct_size;
  std::memcpy(options, &all, std::min(struct_size, sizeof all));
}
} // namespace

void lathe_load_options_fill(lathe_load_options *options, size_t struct_size) {
  const LoadOptions standard; // empty containers take no memory
  lathe_load_options all{};
  all.batch = standard.batch;
  all.largest_file = standard.largest_file;
  all.time_limit = standard.time_limit;
  fill(options, struct_size, all);
}
void lathe_options_fill(lathe_options *options, size_t struct_size) {
  const Options standard;
  lathe_options all{};
  all.weight_budget = standard.weight_budget;
  all.batch = standard.batch;
  all.time_limit = standard.time_limit;
  all.cache_bytes = standard.cache_bytes;
  fill(options, struct_size, all);
}
void lathe_bind_options_fill(lathe_bind_options *options, size_t struct_size) {
  fill(options, struct_size, lathe_bind_options{});
}

lathe_status lathe_model_load(const char *model, const lathe_load_options *options,
                              lathe_model **result, lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model || !result) return null_argument("model, or no place for the result,");
    LATHE_C_TRY(const LoadOptions known, load_options(options));
    LATHE_C_TRY(Model loaded, Model::load(model, known));
    return give(result, std::move(loaded), std::vector<std::string>());
  });
}
lathe_status lathe_model_parse(const void *bytes, size_t size, const char *format,
                               const lathe_load_options *options, lathe_model **result,
                               lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!bytes || !result) return null_argument("model, or no place for the result,");
    LATHE_C_TRY(const Format form, find_format(std::string(text_or_empty(format))));
    LATHE_C_TRY(const LoadOptions known, load_options(options));
    LATHE_C_TRY(Model loaded,
                Model::parse({static_cast<const std::byte *>(bytes), size}, form, known));
    return give(result, std::move(loaded), std::vector<std::string>());
  });
}
lathe_status lathe_model_bind_weights_file(lathe_model *model, const char *safetensors,
                                           lathe_error **error) {
  return lathe_model_bind_weights_file_with(model, safetensors, nullptr, error);
}
lathe_status lathe_model_bind_weights_file_with(lathe_model *model, const char *safetensors,
                                                const lathe_bind_options *options,
                                                lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model || !safetensors) return null_argument("model, or no file,");
    LATHE_C_TRY(model->bound,
                model->model.bind_weights(std::string(safetensors), bind_options(options)));
    return {};
  });
}
lathe_status lathe_model_bind_weights(lathe_model *model, const lathe_tensor *weights, size_t count,
                                      lathe_error **error) {
  return lathe_model_bind_weights_with(model, weights, count, nullptr, error);
}
lathe_status lathe_model_bind_weights_with(lathe_model *model, const lathe_tensor *weights,
                                           size_t count, const lathe_bind_options *options,
                                           lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model) return null_argument("model");
    LATHE_C_TRY(const auto given, views(weights, count, "weights"));
    LATHE_C_TRY(model->bound, model->model.bind_weights(given, bind_options(options)));
    return {};
  });
}
namespace {
const char *element(const std::vector<std::string> &names, size_t index) {
  return index < names.size() ? names[index].c_str() : nullptr;
}
} // namespace
const char *lathe_model_leftover(const lathe_model *model, lathe_leftover which, size_t index) {
  if (!model) return nullptr;
  switch (which) {
  case LATHE_UNUSED:
    return element(model->bound.unused, index);
  case LATHE_KEPT:
    return element(model->bound.kept, index);
  case LATHE_MISSING:
    return element(model->bound.missing, index);
  }
  return nullptr;
}
const char *lathe_model_warning(const lathe_model *model, size_t index) {
  return model ? element(model->model.warnings(), index) : nullptr;
}
lathe_status lathe_model_randomise_weights(lathe_model *model, uint64_t seed, lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model) return null_argument("model");
    return model->model.randomise_weights(seed);
  });
}
lathe_status lathe_model_set_outputs(lathe_model *model, const char *const *given, size_t count,
                                     lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model) return null_argument("model");
    LATHE_C_TRY(const auto outputs, names(given, count, "name of an output"));
    model->layers.clear(); // some may go
    return model->model.set_outputs(outputs);
  });
}
size_t lathe_model_layer_count(const lathe_model *model) {
  size_t count = 0;
  call(nullptr, [&]() -> Result<void> {
    if (model) count = model->model.layers().size();
    return {};
  });
  return count;
}
const char *lathe_model_layer(lathe_model *model, size_t index) {
  const char *name = nullptr;
  call(nullptr, [&]() -> Result<void> {
    if (!model) return {};
    if (model->layers.empty()) model->layers = model->model.layers();
    name = element(model->layers, index);
    return {};
  });
  return name;
}
void lathe_model_free(lathe_model *model) { delete model; }

lathe_status lathe_threads_pool(int count, lathe_threads **result, lathe_error **error) {
  return call(error, [&]() -> Result<void> { return give(result, Threads::pool(count)); });
}
lathe_status lathe_threads_host(lathe_parallel_for parallel_for, void *host, int jobs,
                                lathe_threads **result, lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!parallel_for) return null_argument("parallel_for");
    return give(result, Threads::host(parallel_for, host, jobs));
  });
}
void lathe_threads_free(lathe_threads *threads) { delete threads; }

lathe_status lathe_compile(const lathe_model *model, const lathe_options *options,
                           lathe_network **result, lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model || !result) return null_argument("model, or no place for the result,");
    LATHE_C_TRY(const Options known, compile_options(options));
    LATHE_C_TRY(Executable executable, compile(model->model, known));
    auto kernels = executable.kernels();
    return give(result, std::move(executable), std::move(kernels));
  });
}

size_t lathe_network_input_count(const lathe_network *n) {
  return n ? n->executable.inputs().size() : 0;
}
size_t lathe_network_output_count(const lathe_network *n) {
  return n ? n->executable.outputs().size() : 0;
}
lathe_status lathe_network_input(const lathe_network *n, size_t index, lathe_tensor *info) {
  return n ? describe(n->executable.inputs(), index, info) : LATHE_USAGE;
}
lathe_status lathe_network_output(const lathe_network *n, size_t index, lathe_tensor *info) {
  return n ? describe(n->executable.outputs(), index, info) : LATHE_USAGE;
}
int lathe_network_batched(const lathe_network *n) { return n && n->executable.batched(); }
void lathe_network_memory(const lathe_network *n, int64_t images, int threads,
                          lathe_memory *memory) {
  if (!n || !memory) return;
  const MemoryUse use = n->executable.memory(images, threads);
  const lathe_memory all{memory->struct_size, use.weights, use.arena, use.scratch, use.tensors};
  std::memcpy(memory, &all, std::min(memory->struct_size, sizeof all));
}
const char *lathe_network_target(const lathe_network *n) {
  return n ? n->executable.target().c_str() : nullptr;
}
size_t lathe_network_kernel_count(const lathe_network *n) { return n ? n->kernels.size() : 0; }
const char *lathe_network_kernel(const lathe_network *n, size_t index) {
  return n && index < n->kernels.size() ? n->kernels[index].name.c_str() : nullptr;
}
void lathe_network_free(lathe_network *network) { delete network; }

lathe_status lathe_read_picture(const char *file, const char *preset, const int64_t shape[4],
                                float *to, size_t count, lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!file || !shape || !to) return null_argument("file, shape or memory");
    return read_picture(file, text_or_empty(preset), Shape(shape, shape + 4), {to, count});
  });
}

lathe_status lathe_request_create(const lathe_network *network, int64_t images,
                                  const lathe_threads *threads, lathe_request **result,
                                  lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!network || !result) return null_argument("network, or no place for the result,");
    const Executable &executable = network->executable;
    auto request =
        threads ? executable.request(images, threads->threads) : executable.request(images);
    if (!request) return request.error();
    return give(result, *std::move(request));
  });
}

void *lathe_request_input(lathe_request *r, size_t index, size_t *bytes) {
  const std::span<std::byte> memory = r ? r->request.input_bytes(index) : std::span<std::byte>();
  if (bytes) *bytes = memory.size();
  return memory.data();
}
const void *lathe_request_output(const lathe_request *r, size_t index, size_t *bytes) {
  const std::span<const std::byte> memory =
      r ? r->request.output_bytes(index) : std::span<const std::byte>();
  if (bytes) *bytes = memory.size();
  return memory.data();
}
lathe_status lathe_request_bind_input(lathe_request *r, size_t index, const void *memory,
                                      size_t bytes, lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!r || !memory) return null_argument("request or memory");
    return r->request.bind_input(index, {static_cast<const std::byte *>(memory), bytes});
  });
}
lathe_status lathe_request_bind_output(lathe_request *r, size_t index, void *memory, size_t bytes,
                                       lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!r || !memory) return null_argument("request or memory");
    return r->request.bind_output(index, {static_cast<std::byte *>(memory), bytes});
  });
}
void lathe_request_run(lathe_request *r) {
  if (r) r->request.run();
}
void lathe_request_run_timed(lathe_request *r, double *milliseconds, size_t count) {
  if (r) r->request.run_timed({milliseconds, milliseconds ? count : 0});
}
void lathe_request_free(lathe_request *request) { delete request; }
