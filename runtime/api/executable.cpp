// lathe::compile, Executable and Request: the house's own behind handles.
#include "runtime/executable.h"

#include "frontend/constants.h"
#include "runtime/api/convert.h"
#include "runtime/kernel_facts.h"

#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace lathe {

struct Threads::Impl {
  std::shared_ptr<core::Workers> workers; // null: the calling thread alone
};

namespace {

// Without memory for it, or threads, the calling thread works alone.
std::shared_ptr<core::Workers> workers(const Threads &threads) {
  return threads.impl() ? threads.impl()->workers : nullptr;
}

} // namespace

Threads Threads::pool(int count) try {
  count = std::min(count > 0 ? count : core::usable_cpus(), 1024);
  return Threads(
      std::make_shared<Impl>(count > 1 ? std::make_shared<core::ThreadPool>(count) : nullptr));
} catch (...) {
  return Threads(nullptr);
}
Threads Threads::host(ParallelFor parallel_for, void *host, int jobs) try {
  return Threads(std::make_shared<Impl>(
      std::make_shared<core::HostThreads>(parallel_for, host, std::clamp(jobs, 1, 1024))));
} catch (...) {
  return Threads(nullptr);
}
int Threads::count() const { return impl_ && impl_->workers ? impl_->workers->threads() : 1; }

struct Executable::Impl {
  std::shared_ptr<const core::Executable> executable;
  Threads threads;
  std::vector<TensorInfo> inputs, outputs;
};

namespace {

std::vector<TensorInfo> infos(const std::vector<std::string> &names,
                              const std::vector<core::Type> &types) {
  std::vector<TensorInfo> result;
  for (size_t i = 0; i < names.size(); ++i) result.push_back(tensor_info(names[i], types[i]));
  return result;
}

std::optional<size_t> find_name(const std::vector<TensorInfo> &tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, name, &TensorInfo::name);
  if (found == tensors.end()) return std::nullopt;
  return size_t(found - tensors.begin());
}

core::Result<core::CompileOptions> house_options(const Options &options, int threads) {
  core::CompileOptions compile;
  if (options.target != "native") {
    LATHE_TRY(compile.target, core::find_target(options.target));
  }
  compile.passes.disabled = options.disabled_passes;
  if (options.batch < 1 || options.batch > core::most_images)
    return core::fail(core::Error{.code = core::ErrorCode::usage,
                                  .message = "bad number of images",
                                  .expected = fmt::format("1 to {}", core::most_images),
                                  .found = fmt::format("{}", options.batch)});
  compile.memory = {options.memory_limit, options.batch, threads};
  compile.passes.strict = compile.plan.strict = options.numerics == Numerics::strict;
  compile.plan.weight_budget = options.weight_budget;
  compile.tune = options.tune;
  compile.cache = {options.cache_directory, options.cache_bytes};
  compile.budget = budget_of(options.compile_memory, options.time_limit, options.memory_limit);
  compile.copy_weights = options.copy_weights;
  return compile;
}

Result<void> check_weights(const core::Graph &graph) {
  std::set<std::string> without, all;
  for (const core::Value &value : graph.values)
    if (value.constant)
      core::for_each_part(value.constant, [&](const core::Constant &part) {
        if (core::is_named(part)) all.insert(part.name);
        if (core::unbound(part)) without.insert(part.name);
      });
  if (without.empty()) return {};
  return Error{
      .code = ErrorCode::invalid,
      .message = without.size() == all.size()
                     ? "the model has no weights yet"
                     : fmt::format("{} of the model's {} weights have no numbers yet",
                                   without.size(), all.size()),
      .node = *without.begin(),
      .expected =
          "those of a checkpoint (bind_weights; in Python weights=\"FILE.safetensors\"), or "
          "random ones (randomise_weights; seed=0)"};
}

} // namespace

Result<Executable> compile(const Model &model, const Options &options) {
  return guarded_deep([&]() -> Result<Executable> {
    if (auto whole = check_weights(model.impl().graph); !whole) return whole.error();
    Threads threads = options.threads ? *options.threads : Threads::pool();
    LATHE_PUBLIC_TRY(const core::CompileOptions house, house_options(options, threads.count()));
    LATHE_PUBLIC_TRY(auto executable, core::Executable::compile(model.impl().graph, house));
    const core::Plan &plan = executable->plan();
    auto inputs = infos(plan.input_names, plan.inputs);
    auto outputs = infos(plan.output_names, plan.outputs);
    return Executable(std::make_shared<Executable::Impl>(std::move(executable), std::move(threads),
                                                         std::move(inputs), std::move(outputs)));
  });
}

const std::vector<TensorInfo> &Executable::inputs() const { return impl_->inputs; }
const std::vector<TensorInfo> &Executable::outputs() const { return impl_->outputs; }
std::optional<size_t> Executable::find_input(std::string_view name) const {
  return find_name(impl_->inputs, name);
}
std::optional<size_t> Executable::find_output(std::string_view name) const {
  return find_name(impl_->outputs, name);
}
bool Executable::batched() const { return impl_->executable->plan().batched; }
const std::string &Executable::target() const { return impl_->executable->plan().target.name; }

MemoryUse Executable::memory(std::int64_t images, int threads) const {
  if (threads <= 0) threads = impl_->threads.count();
  constexpr std::int64_t too_large = INT64_MAX / 4;
  const auto sizes = impl_->executable->plan().sized(images, threads);
  if (!sizes) return {too_large, too_large, too_large, too_large};
  return {sizes->weights, sizes->arena, sizes->scratch, sizes->tensors};
}

std::vector<KernelInfo> Executable::kernels() const {
  const core::Plan &plan = impl_->executable->plan();
  std::vector<KernelInfo> kernels;
  for (size_t k = 0; k < plan.kernels.size(); ++k) {
    const core::KernelFacts facts = kernel_facts(plan, impl_->executable->graph(), k);
    kernels.push_back({core::kernel_name(plan.kernels[k].spec, plan.target), facts.algorithm,
                       facts.shape, plan.kernels[k].sources, facts.flops});
  }
  return kernels;
}

bool Executable::cached() const {
  const core::CacheUse &use = impl_->executable->cache_use();
  return use.code.found && use.weights.found;
}

CompileTimes Executable::times() const {
  const core::CompileTimes &t = impl_->executable->times();
  return {t.passes, t.tune, t.plan, t.codegen, t.link, t.pack, t.total};
}

struct Request::Impl {
  std::unique_ptr<core::Request> request;
  size_t inputs, outputs;
};

Result<Request> Executable::request(std::int64_t images) const {
  return request(images, impl_->threads);
}
Result<Request> Executable::request(std::int64_t images, const Threads &threads) const {
  return guarded([&]() -> Result<Request> {
    LATHE_PUBLIC_TRY(auto request,
                     core::Request::create(impl_->executable, images, workers(threads)));
    return Request(std::make_unique<Request::Impl>(std::move(request), impl_->inputs.size(),
                                                   impl_->outputs.size()));
  });
}

namespace {
Error no_tensor(std::string_view what, size_t index, size_t count) {
  return {.code = ErrorCode::usage,
          .message = fmt::format("no {} has this number", what),
          .expected = fmt::format("less than {}", count),
          .found = fmt::format("{}", index)};
}
} // namespace

std::int64_t Request::images() const { return impl_->request->images(); }
Shape Request::input_shape(size_t i) const {
  return i < impl_->inputs ? impl_->request->input(i).shape() : Shape{};
}
Shape Request::output_shape(size_t j) const {
  return j < impl_->outputs ? impl_->request->output(j).shape() : Shape{};
}
std::span<std::byte> Request::input_bytes(size_t i) noexcept {
  if (i >= impl_->inputs) return {};
  const core::Tensor &tensor = impl_->request->input(i);
  return {const_cast<std::byte *>(tensor.raw()), tensor.bytes()};
}
std::span<const std::byte> Request::output_bytes(size_t j) const noexcept {
  if (j >= impl_->outputs) return {};
  const core::Tensor &tensor = impl_->request->output(j);
  return {tensor.raw(), tensor.bytes()};
}
std::optional<DType> Request::input_dtype(size_t i) const noexcept {
  if (i >= impl_->inputs) return std::nullopt;
  return DType(impl_->request->input(i).dtype());
}
std::optional<DType> Request::output_dtype(size_t j) const noexcept {
  if (j >= impl_->outputs) return std::nullopt;
  return DType(impl_->request->output(j).dtype());
}

Result<void> Request::bind_input(size_t i, std::span<const std::byte> memory) {
  if (i >= impl_->inputs) return no_tensor("input", i, impl_->inputs);
  return guarded([&]() -> Result<void> {
    LATHE_PUBLIC_CHECK(impl_->request->bind_input(i, memory));
    return {};
  });
}
Result<void> Request::bind_output(size_t j, std::span<std::byte> memory) {
  if (j >= impl_->outputs) return no_tensor("output", j, impl_->outputs);
  return guarded([&]() -> Result<void> {
    LATHE_PUBLIC_CHECK(impl_->request->bind_output(j, memory));
    return {};
  });
}

void Request::run() noexcept { impl_->request->run(); }
void Request::run_timed(std::span<double> milliseconds) noexcept {
  impl_->request->run_timed(milliseconds);
}

Request::Request(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Request::Request(Request &&) noexcept = default;
Request &Request::operator=(Request &&) noexcept = default;
Request::~Request() = default;

int usable_cpus() { return core::usable_cpus(); }
std::string_view version() { return LATHE_VERSION; }

} // namespace lathe
