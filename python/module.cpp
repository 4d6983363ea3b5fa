// Python's view of lathe/lathe.h: handles, tensors without copies, errors as data. The GIL is
// released where work is done.
#include <lathe/lathe.h>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using InArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using OutArray = nb::ndarray<nb::c_contig, nb::device::cpu>;

nb::object error_class; // lathe.Error

[[noreturn]] void raise(const lathe::Error &e) {
  const char *fields[] = {"mismatch", "usage", "invalid", "unsupported", "io", "limit"};
  const int code = int(e.code);
  nb::object error = error_class(lathe::to_string(e));
  error.attr("code") = code >= 1 && code <= 6 ? fields[code - 1] : "internal";
  error.attr("message") = e.message;
  error.attr("file") = e.file;
  error.attr("line") = e.line;
  error.attr("column") = e.column;
  error.attr("node") = e.node;
  error.attr("op") = e.op;
  error.attr("expected") = e.expected;
  error.attr("found") = e.found;
  error.attr("detail") = e.detail;
  PyErr_SetObject(error_class.ptr(), error.ptr());
  throw nb::python_error();
}
template <typename T> T get(lathe::Result<T> result) {
  if (!result) raise(result.error());
  return *std::move(result);
}
void get(const lathe::Result<void> &result) {
  if (!result) raise(result.error());
}
// Calls f without the GIL.
template <typename F> auto unlocked(F &&f) {
  nb::gil_scoped_release release;
  return f();
}

const char *numpy_name(lathe::DType dtype) {
  switch (dtype) {
  case lathe::DType::f32:
    return "float32";
  case lathe::DType::i64:
    return "int64";
  case lathe::DType::i32:
    return "int32";
  case lathe::DType::boolean:
    return "bool";
  case lathe::DType::f16:
    return "float16";
  case lathe::DType::bf16:
    return "bfloat16"; // a type that the package ml_dtypes gives NumPy
  case lathe::DType::f64:
    break;
  }
  return "float64";
}

lathe::DType dtype_of(const InArray &array) {
  const nb::dlpack::dtype type = array.dtype();
  if (type == nb::dtype<float>()) return lathe::DType::f32;
  if (type == nb::dtype<int64_t>()) return lathe::DType::i64;
  if (type == nb::dtype<int32_t>()) return lathe::DType::i32;
  if (type == nb::dtype<bool>()) return lathe::DType::boolean;
  if (type == nb::dtype<double>()) return lathe::DType::f64;
  if (type.code == uint8_t(nb::dlpack::dtype_code::Float) && type.bits == 16 && type.lanes == 1)
    return lathe::DType::f16;
  throw nb::type_error("tensors hold float32, int64, int32, bool, float16 or float64");
}
lathe::TensorView view(const InArray &array) {
  lathe::TensorView result{dtype_of(array), {}, array.data()};
  for (size_t i = 0; i < array.ndim(); ++i) result.shape.push_back(int64_t(array.shape(i)));
  return result;
}
std::map<std::string, lathe::TensorView> views(const std::map<std::string, InArray> &arrays) {
  std::map<std::string, lathe::TensorView> result;
  for (const auto &[name, array] : arrays) result[name] = view(array);
  return result;
}

lathe::LoadOptions load_options(int64_t batch, const std::map<std::string, lathe::Shape> &shapes,
                                const std::map<std::string, InArray> &values,
                                const std::map<std::string, double> &parameters,
                                int64_t compile_memory, double time_limit) {
  return {.batch = batch,
          .shapes = shapes,
          .values = views(values),
          .parameters = parameters,
          .compile_memory = compile_memory,
          .time_limit = time_limit};
}

} // namespace

NB_MODULE(_lathe, m) {
  m.doc() = "Compiled networks; `import lathe` is the interface for people.";
  m.def("set_error_class", [](nb::object c) { error_class = std::move(c); });
  m.def("version", [] { return std::string(lathe::version()); });
  m.def("usable_cpus", &lathe::usable_cpus);
  m.def("bundled_models", &lathe::bundled_models);
  m.def(
      "read_picture",
      [](const std::string &file, const std::string &preset,
         nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu> to) {
        const lathe::Shape shape{int64_t(to.shape(0)), int64_t(to.shape(1)), int64_t(to.shape(2)),
                                 int64_t(to.shape(3))};
        get(lathe::read_picture(file, preset, shape, {to.data(), to.size()}));
      },
      "file"_a, "preset"_a, "to"_a.noconvert());

  nb::class_<lathe::TensorInfo>(m, "TensorInfo")
      .def_ro("name", &lathe::TensorInfo::name)
      .def_prop_ro("shape", [](const lathe::TensorInfo &t) { return nb::tuple(nb::cast(t.shape)); })
      .def_prop_ro("dtype", [](const lathe::TensorInfo &t) { return numpy_name(t.dtype); })
      .def_ro("bytes", &lathe::TensorInfo::bytes)
      .def("__repr__", [](const lathe::TensorInfo &t) {
        std::string text = t.name + ": " + numpy_name(t.dtype) + " ";
        for (size_t i = 0; i < t.shape.size(); ++i)
          text += (i ? "x" : "") + std::to_string(t.shape[i]);
        return text;
      });
  nb::class_<lathe::MemoryUse>(m, "MemoryUse")
      .def_ro("weights", &lathe::MemoryUse::weights)
      .def_ro("arena", &lathe::MemoryUse::arena)
      .def_ro("scratch", &lathe::MemoryUse::scratch)
      .def_ro("tensors", &lathe::MemoryUse::tensors)
      .def_prop_ro("total", &lathe::MemoryUse::total)
      .def("__repr__", [](const lathe::MemoryUse &u) {
        return "MemoryUse(weights=" + std::to_string(u.weights) +
               ", arena=" + std::to_string(u.arena) + ", scratch=" + std::to_string(u.scratch) +
               ", tensors=" + std::to_string(u.tensors) + ")";
      });
  nb::class_<lathe::KernelInfo>(m, "KernelInfo")
      .def_ro("name", &lathe::KernelInfo::name)
      .def_ro("algorithm", &lathe::KernelInfo::algorithm)
      .def_ro("shapes", &lathe::KernelInfo::shapes)
      .def_ro("layers", &lathe::KernelInfo::layers)
      .def_ro("flops", &lathe::KernelInfo::flops);

  nb::class_<lathe::BindReport>(m, "BindReport")
      .def_ro("unused", &lathe::BindReport::unused)
      .def_ro("kept", &lathe::BindReport::kept)
      .def_ro("missing", &lathe::BindReport::missing)
      .def("__repr__", [](const lathe::BindReport &r) {
        return "BindReport(unused=" + std::to_string(r.unused.size()) +
               ", kept=" + std::to_string(r.kept.size()) +
               ", missing=" + std::to_string(r.missing.size()) + ")";
      });
  nb::class_<lathe::Model>(m, "Model")
      .def_static(
          "load",
          [](const std::string &model, int64_t batch,
             const std::map<std::string, lathe::Shape> &shapes,
             const std::map<std::string, InArray> &values,
             const std::map<std::string, double> &parameters, int64_t compile_memory,
             double time_limit) {
            const auto options =
                load_options(batch, shapes, values, parameters, compile_memory, time_limit);
            return get(unlocked([&] { return lathe::Model::load(model, options); }));
          },
          "model"_a, "batch"_a, "shapes"_a, "values"_a, "parameters"_a, "compile_memory"_a,
          "time_limit"_a)
      .def_static(
          "parse",
          [](nb::bytes bytes, const std::string &format, int64_t batch,
             const std::map<std::string, lathe::Shape> &shapes,
             const std::map<std::string, InArray> &values,
             const std::map<std::string, double> &parameters, int64_t compile_memory,
             double time_limit) {
            const auto options =
                load_options(batch, shapes, values, parameters, compile_memory, time_limit);
            const auto *data = static_cast<const std::byte *>(bytes.data());
            return get(lathe::Model::parse({data, bytes.size()}, get(lathe::find_format(format)),
                                           options));
          },
          "bytes"_a, "format"_a, "batch"_a, "shapes"_a, "values"_a, "parameters"_a,
          "compile_memory"_a, "time_limit"_a)
      .def("bind_weights_file",
           [](lathe::Model &model, const std::string &file, bool partial, bool ignore_unused) {
             return get(model.bind_weights(file, {partial, ignore_unused}));
           })
      .def("bind_weights",
           [](lathe::Model &model, const std::map<std::string, InArray> &weights, bool partial,
              bool ignore_unused) {
             return get(model.bind_weights(views(weights), {partial, ignore_unused}));
           })
      .def("randomise_weights",
           [](lathe::Model &model, uint64_t seed) {
             get(unlocked([&] { return model.randomise_weights(seed); }));
           })
      .def("set_outputs",
           [](lathe::Model &model, const std::vector<std::string> &names) {
             get(model.set_outputs(names));
           })
      .def("copy", [](const lathe::Model &model) { return model; })
      .def_prop_ro("name", &lathe::Model::name)
      .def_prop_ro("inputs", &lathe::Model::inputs)
      .def_prop_ro("outputs", &lathe::Model::outputs)
      .def_prop_ro("layers", &lathe::Model::layers)
      .def_prop_ro("warnings", &lathe::Model::warnings);

  // What is bound stays in use after the call, so it must be the caller's array, and no copy of it.
  nb::class_<lathe::Request>(m, "Request")
      .def(
          "bind_input",
          [](lathe::Request &request, size_t i, const InArray &array) {
            get(request.bind_input(i,
                                   {static_cast<const std::byte *>(array.data()), array.nbytes()}));
          },
          "index"_a, "array"_a.noconvert())
      .def(
          "bind_output",
          [](lathe::Request &request, size_t j, const OutArray &array) {
            get(request.bind_output(j, {static_cast<std::byte *>(array.data()), array.nbytes()}));
          },
          "index"_a, "array"_a.noconvert())
      .def("run", &lathe::Request::run, nb::call_guard<nb::gil_scoped_release>())
      .def("run_timed",
           [](lathe::Request &request, size_t kernels) {
             std::vector<double> milliseconds(kernels);
             unlocked([&] { request.run_timed(milliseconds); });
             return milliseconds;
           })
      .def_prop_ro("images", &lathe::Request::images);

  nb::class_<lathe::Executable>(m, "Executable")
      .def_prop_ro("inputs", &lathe::Executable::inputs)
      .def_prop_ro("outputs", &lathe::Executable::outputs)
      .def_prop_ro("batched", &lathe::Executable::batched)
      .def_prop_ro("target", &lathe::Executable::target)
      .def_prop_ro("kernels", &lathe::Executable::kernels)
      .def_prop_ro("compile_ms", [](const lathe::Executable &e) { return e.times().total; })
      .def_prop_ro("cached", &lathe::Executable::cached)
      .def("memory", &lathe::Executable::memory, "images"_a = 1, "threads"_a = 0)
      .def(
          "request",
          [](const lathe::Executable &e, int64_t images) { return get(e.request(images)); },
          "images"_a = 1);

  m.def(
      "compile",
      [](const lathe::Model &model, int threads, const std::string &target,
         const std::string &numerics, double weight_budget, int64_t memory_limit, int64_t batch,
         int64_t compile_memory, double time_limit, bool tune, const std::string &cache_directory,
         int64_t cache_bytes, const std::vector<std::string> &disabled_passes, bool copy_weights) {
        if (numerics != "fast" && numerics != "strict")
          raise({.code = lathe::ErrorCode::usage,
                 .message = "unknown numerics",
                 .expected = "'fast' or 'strict'",
                 .found = numerics});
        const lathe::Options options{.threads = lathe::Threads::pool(threads),
                                     .target = target,
                                     .numerics = numerics == "strict" ? lathe::Numerics::strict
                                                                      : lathe::Numerics::fast,
                                     .weight_budget = weight_budget,
                                     .memory_limit = memory_limit,
                                     .batch = batch,
                                     .compile_memory = compile_memory,
                                     .time_limit = time_limit,
                                     .tune = tune,
                                     .cache_directory = cache_directory,
                                     .cache_bytes = cache_bytes,
                                     .disabled_passes = disabled_passes,
                                     .copy_weights = copy_weights};
        return get(unlocked([&] { return lathe::compile(model, options); }));
      },
      "model"_a, "threads"_a, "target"_a, "numerics"_a, "weight_budget"_a, "memory_limit"_a,
      "batch"_a, "compile_memory"_a, "time_limit"_a, "tune"_a, "cache_directory"_a, "cache_bytes"_a,
      "disabled_passes"_a, "copy_weights"_a);
}
