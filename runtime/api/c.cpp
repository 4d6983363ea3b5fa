// The C interface: each function is one of lathe/lathe.h.
#include <lathe/c.h>
#include <lathe/lathe.h>

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

lathe_status report(Error why, lathe_error **error) noexcept {
  const auto status = lathe_status(why.code);
  if (error) {
    std::string text = to_string(why);
    *error = new (std::nothrow) lathe_error{std::move(why), std::move(text)};
  }
  return status;
}

// Runs f, which returns a Result<void>; whatever is thrown becomes a status.
template <typename F> lathe_status call(lathe_error **error, F &&f) noexcept {
  if (error) *error = nullptr;
  try {
    Result<void> done = f();
    return done ? LATHE_OK : report(done.error(), error);
  } catch (const std::bad_alloc &) {
    return LATHE_LIMIT; // no memory to say more
  } catch (const std::exception &e) {
    return report({.code = ErrorCode::internal, .message = e.what()}, error);
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

TensorView view(const lathe_tensor &t) {
  return {DType(t.dtype), Shape(t.shape, t.shape + t.rank), t.data};
}

LoadOptions load_options(const lathe_load_options *given) {
  lathe_load_options o;
  lathe_load_options_init(&o);
  overlay(o, given);
  LoadOptions options{.batch = o.batch, .largest_file = o.largest_file};
  for (size_t i = 0; i < o.shape_count; ++i)
    options.shapes[text_or_empty(o.shapes[i].name)] = view(o.shapes[i]).shape;
  for (size_t i = 0; i < o.value_count; ++i)
    options.values[text_or_empty(o.values[i].name)] = view(o.values[i]);
  for (size_t i = 0; i < o.parameter_count; ++i)
    options.parameters[text_or_empty(o.parameters[i].name)] = o.parameters[i].value;
  return options;
}

Options compile_options(const lathe_options *given) {
  lathe_options o;
  lathe_options_init(&o);
  overlay(o, given);
  Options options{.numerics = o.strict ? Numerics::strict : Numerics::fast,
                  .weight_budget = o.weight_budget,
                  .memory_limit = o.memory_limit,
                  .batch = o.batch,
                  .time_limit = o.time_limit,
                  .tune = o.tune != 0,
                  .cache_directory = text_or_empty(o.cache_directory),
                  .cache_bytes = o.cache_bytes};
  if (o.threads) options.threads = o.threads->threads;
  if (o.target) options.target = o.target;
  options.disabled_passes.assign(o.disabled_passes, o.disabled_passes + o.disabled_pass_count);
  return options;
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

void lathe_load_options_fill(lathe_load_options *options, size_t struct_size) {
  const LoadOptions standard;
  lathe_load_options all{};
  all.struct_size = struct_size;
  all.batch = standard.batch;
  all.largest_file = standard.largest_file;
  std::memcpy(options, &all, std::min(struct_size, sizeof all));
}
void lathe_options_fill(lathe_options *options, size_t struct_size) {
  const Options standard;
  lathe_options all{};
  all.struct_size = struct_size;
  all.weight_budget = standard.weight_budget;
  all.batch = standard.batch;
  all.cache_bytes = standard.cache_bytes;
  std::memcpy(options, &all, std::min(struct_size, sizeof all));
}

lathe_status lathe_model_load(const char *model, const lathe_load_options *options,
                              lathe_model **result, lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model) return null_argument("model");
    auto loaded = Model::load(model, load_options(options));
    if (!loaded) return loaded.error();
    return give(result, *std::move(loaded), std::vector<std::string>());
  });
}
lathe_status lathe_model_parse(const void *bytes, size_t size, const char *format,
                               const lathe_load_options *options, lathe_model **result,
                               lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!bytes) return null_argument("model");
    const std::string_view form = text_or_empty(format);
    if (form != "onnx" && form != "net")
      return Error{.code = ErrorCode::usage,
                   .message = "unknown format",
                   .expected = "\"onnx\" or \"net\"",
                   .found = std::string(form)};
    auto loaded = Model::parse({static_cast<const std::byte *>(bytes), size},
                               form == "net" ? Format::net : Format::onnx, load_options(options));
    if (!loaded) return loaded.error();
    return give(result, *std::move(loaded), std::vector<std::string>());
  });
}
lathe_status lathe_model_bind_weights_file(lathe_model *model, const char *safetensors,
                                           lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model || !safetensors) return null_argument("model, or no file");
    return model->model.bind_weights(std::string(safetensors));
  });
}
lathe_status lathe_model_bind_weights(lathe_model *model, const lathe_tensor *weights, size_t count,
                                      lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model || (!weights && count > 0)) return null_argument("model, or no weights");
    std::map<std::string, TensorView> views;
    for (size_t i = 0; i < count; ++i) views[text_or_empty(weights[i].name)] = view(weights[i]);
    return model->model.bind_weights(views);
  });
}
lathe_status lathe_model_randomise_weights(lathe_model *model, uint64_t seed, lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model) return null_argument("model");
    return model->model.randomise_weights(seed);
  });
}
lathe_status lathe_model_set_outputs(lathe_model *model, const char *const *names, size_t count,
                                     lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!model || !names) return null_argument("model, or no names");
    model->layers.clear(); // some may go
    return model->model.set_outputs(std::vector<std::string>(names, names + count));
  });
}
size_t lathe_model_layer_count(const lathe_model *model) { return model->model.layers().size(); }
const char *lathe_model_layer(lathe_model *model, size_t index) {
  const char *name = nullptr;
  call(nullptr, [&]() -> Result<void> {
    if (model->layers.empty()) model->layers = model->model.layers();
    if (index < model->layers.size()) name = model->layers[index].c_str();
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
    if (!model) return null_argument("model");
    auto executable = compile(model->model, compile_options(options));
    if (!executable) return executable.error();
    auto kernels = executable->kernels();
    return give(result, *std::move(executable), std::move(kernels));
  });
}

size_t lathe_network_input_count(const lathe_network *n) { return n->executable.inputs().size(); }
size_t lathe_network_output_count(const lathe_network *n) { return n->executable.outputs().size(); }
lathe_status lathe_network_input(const lathe_network *n, size_t index, lathe_tensor *info) {
  return describe(n->executable.inputs(), index, info);
}
lathe_status lathe_network_output(const lathe_network *n, size_t index, lathe_tensor *info) {
  return describe(n->executable.outputs(), index, info);
}
int lathe_network_batched(const lathe_network *n) { return n->executable.batched(); }
void lathe_network_memory(const lathe_network *n, int64_t images, int threads,
                          lathe_memory *memory) {
  const MemoryUse use = n->executable.memory(images, threads);
  const lathe_memory all{memory->struct_size, use.weights, use.arena, use.scratch, use.tensors};
  std::memcpy(memory, &all, std::min(memory->struct_size, sizeof all));
}
const char *lathe_network_target(const lathe_network *n) { return n->executable.target().c_str(); }
size_t lathe_network_kernel_count(const lathe_network *n) { return n->kernels.size(); }
const char *lathe_network_kernel(const lathe_network *n, size_t index) {
  return index < n->kernels.size() ? n->kernels[index].name.c_str() : nullptr;
}
void lathe_network_free(lathe_network *network) { delete network; }

lathe_status lathe_read_picture(const char *file, const char *preset, const int64_t shape[4],
                                float *to, size_t count, lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!file || !shape || !to) return null_argument("file, shape, or memory");
    return read_picture(file, text_or_empty(preset), Shape(shape, shape + 4), {to, count});
  });
}

lathe_status lathe_request_create(const lathe_network *network, int64_t images,
                                  const lathe_threads *threads, lathe_request **result,
                                  lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!network) return null_argument("network");
    const Executable &executable = network->executable;
    auto request =
        threads ? executable.request(images, threads->threads) : executable.request(images);
    if (!request) return request.error();
    return give(result, *std::move(request));
  });
}

void *lathe_request_input(lathe_request *r, size_t index, size_t *bytes) {
  const std::span<std::byte> memory = r->request.input_bytes(index);
  if (bytes) *bytes = memory.size();
  return memory.data();
}
const void *lathe_request_output(const lathe_request *r, size_t index, size_t *bytes) {
  const std::span<const std::byte> memory = r->request.output_bytes(index);
  if (bytes) *bytes = memory.size();
  return memory.data();
}
lathe_status lathe_request_bind_input(lathe_request *r, size_t index, const void *memory,
                                      size_t bytes, lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!r) return null_argument("request");
    return r->request.bind_input(index, {static_cast<const std::byte *>(memory), bytes});
  });
}
lathe_status lathe_request_bind_output(lathe_request *r, size_t index, void *memory, size_t bytes,
                                       lathe_error **error) {
  return call(error, [&]() -> Result<void> {
    if (!r) return null_argument("request");
    return r->request.bind_output(index, {static_cast<std::byte *>(memory), bytes});
  });
}
void lathe_request_run(lathe_request *r) { r->request.run(); }
void lathe_request_run_timed(lathe_request *r, double *milliseconds, size_t count) {
  r->request.run_timed({milliseconds, count});
}
void lathe_request_free(lathe_request *request) { delete request; }
