// lathe::Model: what is loaded, and the weights it gets.
#include "frontend/bundled.h"
#include "frontend/formats.h"
#include "frontend/suggest.h"
#include "frontend/weights.h"
#include "runtime/api/convert.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>

namespace lathe {
namespace {

core::Tensor copy_of(const core::Tensor &tensor) {
  core::Tensor copy(tensor.dtype(), tensor.shape());
  std::copy_n(tensor.raw(), tensor.bytes(), copy.raw_mutable());
  return copy;
}

core::Result<core::LoadOptions> load_options(const LoadOptions &options,
                                             std::vector<std::string> &warnings) {
  core::LoadOptions load{.batch = options.batch,
                         .shapes = {options.shapes.begin(), options.shapes.end()},
                         .parameters = options.parameters,
                         .notes = &warnings,
                         .budget = budget_of(options.compile_memory, options.time_limit)};
  for (const auto &[name, view] : options.values) {
    LATHE_TRY(const core::Tensor tensor, as_tensor(name, view));
    load.values[name] = copy_of(tensor);
  }
  return load;
}

core::Result<void> check_size(const std::string &file, uint64_t size, uint64_t largest) {
  if (size <= largest) return {};
  return core::fail(core::Error{.code = core::ErrorCode::limit,
                                .message = "the model's file is too large",
                                .file = file,
                                .expected = fmt::format("at most {} bytes", largest),
                                .found = fmt::format("{} bytes", size)});
}

core::Result<Model::Impl> load_graph(const std::string &model, const LoadOptions &options) {
  std::error_code no_file;
  if (const auto size = std::filesystem::file_size(model, no_file);
      !no_file && !core::is_bundled(model))
    LATHE_CHECK(check_size(model, size, options.largest_file));
  std::vector<std::string> warnings;
  LATHE_TRY(const core::LoadOptions load, load_options(options, warnings));
  LATHE_TRY(core::Graph graph, core::load_model(model, load));
  LATHE_CHECK(core::bind_bundled_weights(graph, model, options.parameters));
  return Model::Impl{std::move(graph), std::move(warnings)};
}

core::Result<Model::Impl> parse_graph(std::span<const std::byte> bytes, Format format,
                                      const LoadOptions &options) {
  LATHE_CHECK(check_size("<memory>", bytes.size(), options.largest_file));
  std::vector<std::string> warnings;
  LATHE_TRY(const core::LoadOptions load, load_options(options, warnings));
  LATHE_TRY(core::Graph graph, core::parse_model(bytes, core::formats()[size_t(format)], load));
  return Model::Impl{std::move(graph), std::move(warnings)};
}

// The value that a layer or value is called by.
core::Result<core::ValueId> find_value(const core::Graph &graph, const std::string &name) {
  std::vector<std::string> names;
  for (const core::Node &node : graph.nodes) {
    if (node.name == name) return node.outputs[0];
    for (core::ValueId id : node.outputs) {
      if (graph.values[id].name == name) return id;
      names.push_back(graph.values[id].name);
    }
    names.push_back(node.name);
  }
  const std::string near = core::nearest(name, names);
  return core::fail(core::Error{.code = core::ErrorCode::usage,
                                .message = "no layer or value has this name",
                                .node = name,
                                .expected = near.empty() ? "one of Model::layers()"
                                                         : fmt::format("perhaps '{}'", near)});
}

std::vector<TensorInfo> infos(const core::Graph &graph, const std::vector<core::ValueId> &ids) {
  std::vector<TensorInfo> result;
  for (core::ValueId id : ids) result.push_back(tensor_info(graph.values[id].name, graph.type(id)));
  return result;
}

Result<Model> as_model(core::Result<Model::Impl> made, const LoadOptions &options) {
  if (!made) return public_error(made.error());
  made->compile_memory = options.compile_memory;
  made->time_limit = options.time_limit;
  return Model(std::make_unique<Model::Impl>(std::move(*made)));
}

// What `change` makes of a model's graph: all of it, or after an error nothing.
template <typename F> auto changed(Model::Impl &impl, F &&change) {
  using Done = decltype(change(impl.graph));
  return guarded_deep([&]() -> Done {
    core::Graph graph = impl.graph;
    Done done = change(graph);
    if (done) impl.graph = std::move(graph);
    return done;
  });
}

Result<BindReport> bind(core::Graph &graph, const core::WeightsFile &file,
                        const BindOptions &options) {
  LATHE_PUBLIC_TRY(core::BindReport report,
                   core::bind_weights(graph, file, {options.partial, options.ignore_unused}));
  return BindReport{std::move(report.unused), std::move(report.kept), std::move(report.missing)};
}

} // namespace

Result<Format> find_format(const std::string &name) {
  return guarded([&]() -> Result<Format> {
    LATHE_PUBLIC_TRY(const core::Format *format, core::find_format(name));
    return Format(format - core::formats().data());
  });
}

Result<Model> Model::load(const std::string &model, const LoadOptions &options) {
  return guarded_deep([&] { return as_model(load_graph(model, options), options); });
}
Result<Model> Model::parse(std::span<const std::byte> bytes, Format format,
                           const LoadOptions &options) {
  return guarded_deep([&] { return as_model(parse_graph(bytes, format, options), options); });
}

Result<BindReport> Model::bind_weights(const std::string &safetensors, const BindOptions &options) {
  return changed(*impl_, [&](core::Graph &graph) -> Result<BindReport> {
    LATHE_PUBLIC_TRY(const core::WeightsFile file, core::WeightsFile::open(safetensors));
    return bind(graph, file, options);
  });
}
Result<BindReport> Model::bind_weights(const std::map<std::string, TensorView> &weights,
                                       const BindOptions &options) {
  return changed(*impl_, [&](core::Graph &graph) -> Result<BindReport> {
    std::map<std::string, core::Tensor> tensors;
    for (const auto &[name, view] : weights) {
      LATHE_PUBLIC_TRY(tensors[name], as_tensor(name, view));
    }
    auto bytes = std::make_shared<std::string>(core::encode_safetensors(tensors));
    LATHE_PUBLIC_TRY(const core::WeightsFile file,
                     core::WeightsFile::parse(std::as_bytes(std::span(*bytes)), bytes, "<memory>"));
    return bind(graph, file, options);
  });
}
Result<void> Model::randomise_weights(std::uint64_t seed) {
  return changed(*impl_, [&](core::Graph &graph) -> Result<void> {
    LATHE_PUBLIC_CHECK(
        core::randomise_weights(graph, seed, budget_of(impl_->compile_memory, impl_->time_limit)));
    return {};
  });
}

Result<void> Model::set_outputs(std::span<const std::string> names) {
  return changed(*impl_, [&](core::Graph &graph) -> Result<void> {
    if (names.empty()) return Error{.code = ErrorCode::usage, .message = "a model needs an output"};
    std::vector<core::ValueId> outputs;
    for (const std::string &name : names) {
      LATHE_PUBLIC_TRY(outputs.emplace_back(), find_value(graph, name));
    }
    graph.outputs = std::move(outputs);
    core::remove_dead_code(graph);
    return {};
  });
}

const std::string &Model::name() const { return impl_->graph.name; }
std::vector<TensorInfo> Model::inputs() const { return infos(impl_->graph, impl_->graph.inputs); }
std::vector<TensorInfo> Model::outputs() const { return infos(impl_->graph, impl_->graph.outputs); }
std::vector<std::string> Model::layers() const {
  std::vector<std::string> names;
  for (const core::Node &node : impl_->graph.nodes) names.push_back(node.name);
  return names;
}

const std::vector<std::string> &Model::warnings() const { return impl_->warnings; }

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::Model(const Model &other) : impl_(std::make_unique<Impl>(*other.impl_)) {}
Model::Model(Model &&) noexcept = default;
Model &Model::operator=(Model other) noexcept {
  impl_ = std::move(other.impl_);
  return *this;
}
Model::~Model() = default;

std::vector<std::string> bundled_models() { return core::bundled_models(); }

} // namespace lathe
