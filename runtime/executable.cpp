#include "runtime/executable.h"

#include "ir/evaluate.h"
#include "ir/system/mapping.h"
#include "ir/system/threads.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <map>

namespace lathe::core {
namespace {

class Stopwatch {
public:
  double lap() { // milliseconds since the last lap
    auto now = std::chrono::steady_clock::now();
    double took = std::chrono::duration<double, std::milli>(now - last_).count();
    last_ = now;
    return took;
  }

private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// The sizes of a run, if they keep the limit (0: none) and this machine has so much.
Result<PlanSizes> sizes_within(const Plan &plan, int64_t limit, int64_t images, int threads) {
  LATHE_TRY(const PlanSizes sizes, plan.sized(images, threads));
  const int64_t most = limit > 0 ? std::min(limit, machine_memory()) : machine_memory();
  if (sizes.total <= most) return sizes;
  return fail(
      Error{.code = ErrorCode::limit,
            .message = most == limit ? "the network needs more memory than allowed"
                                     : "the network needs more memory than this machine has",
            .file = plan.name,
            .expected = fmt::format("at most {} bytes", most),
            .found = fmt::format("{} for {} images on {} threads", sizes.total, images, threads)});
}

} // namespace

CompileOptions::CompileOptions() : target(host_target()) {}

namespace {

// The options' cache, if there is one that can be used.
std::optional<Cache> open_cache(const CacheOptions &options, CacheLookup &lookup) {
  if (options.directory.empty()) return std::nullopt;
  auto cache = Cache::open(options);
  lookup.found = cache.has_value();
  if (cache) return std::move(*cache);
  lookup.note = to_string(cache.error());
  return std::nullopt;
}

// Everything that the graph's weights are made from.
std::vector<Tensor> data_of(const Graph &graph) {
  std::vector<Tensor> all;
  for (const Value &value : graph.values) {
    if (!value.constant) continue;
    for (const Constant *part : recipe_parts(value.constant))
      if (part->data.defined()) all.push_back(part->data);
  }
  return all;
}

} // namespace

Result<PlanOptions> plan_options(const Graph &graph, const CompileOptions &options, CacheUse *use) {
  PlanOptions plan = options.plan;
  if (!options.tune) return plan;
  TuneOptions tuning = options.tuning;
  tuning.budget = options.budget;
  CacheUse unseen;
  if (!use) use = &unseen;
  const std::optional<Cache> cache = open_cache(options.cache, use->directory);
  LATHE_TRY(plan.measured, cached_costs(cache ? &*cache : nullptr, graph, options.target, plan,
                                        tuning, use->costs));
  return plan;
}

Result<void> Executable::make_code(const Cache *cache, int threads, const Budget &budget) {
  Stopwatch watch;
  std::map<std::string, size_t> distinct;
  std::vector<KernelSpec> specs;
  std::vector<std::string> names;
  for (const Kernel &kernel : plan_.kernels) {
    names.push_back(kernel_symbol(kernel.spec, plan_.target));
    if (distinct.emplace(names.back(), specs.size()).second) specs.push_back(kernel.spec);
  }
  LATHE_TRY(const CodeImage image,
            cached_image(cache, specs, plan_.target, threads, budget, cache_use_.code));
  times_.codegen = watch.lap();
  LATHE_TRY(code_, LoadedCode::load(image));
  for (const std::string &name : names) {
    LATHE_TRY(KernelFunction function, code_->find(name));
    functions_.push_back(function);
  }
  times_.link = watch.lap();
  return {};
}

Result<std::shared_ptr<const Executable>> Executable::compile(Graph graph,
                                                              const CompileOptions &options) {
  LATHE_CHECK(require_host(options.target));
  auto executable = std::make_shared<Executable>();
  Executable &e = *executable;
  Stopwatch watch, whole;
  const Budget &budget = options.budget;
  LATHE_CHECK(verify(graph));
  const std::vector<Tensor> sources = data_of(graph);
  PipelineOptions passes = options.passes;
  passes.budget = budget;
  LATHE_TRY(e.times_.each_pass, run_passes(graph, passes));
  e.graph_ = std::move(graph);
  e.times_.passes = watch.lap();
  LATHE_TRY(const PlanOptions plan, plan_options(e.graph_, options, &e.cache_use_));
  e.times_.tune = watch.lap();
  LATHE_TRY(e.plan_, make_plan_within(e.graph_, options.target, options.memory, plan, budget));
  e.times_.plan = watch.lap();
  const int64_t images = e.plan_.batched ? options.memory.images : 1;
  LATHE_CHECK(sizes_within(e.plan_, options.memory.bytes, images, options.memory.threads));
  e.memory_limit_ = options.memory.bytes;

  const std::optional<Cache> opened = open_cache(options.cache, e.cache_use_.directory);
  const Cache *const cache = opened ? &*opened : nullptr;
  const int threads = options.threads > 0 ? options.threads : usable_cpus();
  // Code needs no weights, and they need no code.
  std::array<Result<void>, 2> made;
  parallel_each(made.size(), threads, [&](size_t i, int) {
    if (i == 0) {
      made[i] = e.make_code(cache, threads, budget);
      return;
    }
    Stopwatch packing;
    auto weights = cached_weights(cache, e.plan_, threads, budget, e.cache_use_.weights);
    if (weights && options.copy_weights) made[i] = weights->copy_files(threads);
    e.times_.pack = packing.lap();
    if (weights)
      e.weights_ = std::move(*weights);
    else
      made[i] = std::unexpected(std::move(weights).error());
  });
  for (const Result<void> &each : made) LATHE_CHECK(each);
  for (const Tensor &data : sources) LATHE_CHECK(check_unchanged({data.raw(), data.bytes()}));
  e.times_.total = whole.lap();
  return std::shared_ptr<const Executable>(std::move(executable));
}

Shape with_images(const Plan &plan, const Shape &shape, int64_t images) {
  Shape result = shape;
  if (plan.batched) result[0] = images;
  return result;
}

Result<std::unique_ptr<Request>> Request::create(std::shared_ptr<const Executable> executable,
                                                 int64_t images, std::shared_ptr<Workers> pool) {
  const Plan &plan = executable->plan();
  LATHE_TRY(const PlanSizes sizes,
            sizes_within(plan, executable->memory_limit(), images, pool ? pool->threads() : 1));
  std::unique_ptr<Request> r(new Request());
  r->executable_ = std::move(executable);
  r->pool_ = std::move(pool);
  r->images_ = images;
  auto tensor = [&](const Type &type) {
    Tensor t(type.dtype, with_images(plan, type.shape, images));
    std::memset(t.raw_mutable(), 0, t.bytes());
    return t;
  };
  for (const Type &type : plan.inputs) r->inputs_.push_back(tensor(type));
  for (const Type &type : plan.outputs) r->outputs_.push_back(tensor(type));
  r->arena_ = allocate(size_t(sizes.arena));
  r->scratch_per_thread_ = sizes.scratch_per_thread;
  r->scratch_ = allocate(size_t(sizes.scratch));
  if (!r->arena_ || !r->scratch_)
    return fail(Error{.code = ErrorCode::limit,
                      .message = "not enough memory for the arena",
                      .found = fmt::format("{} bytes", sizes.arena + sizes.scratch)});
  r->bound_inputs_.resize(r->inputs_.size());
  r->make_calls();
  r->bind();
  return r;
}

Result<void> Request::set_input(size_t i, const Tensor &tensor) {
  Tensor &own = inputs_[i];
  if (tensor.dtype() != own.dtype() || tensor.shape() != own.shape())
    return fail(
        Error{.code = ErrorCode::invalid,
              .message = "a tensor does not fit the input",
              .node = executable_->plan().input_names[i],
              .expected = fmt::format("{} {}", to_string(own.dtype()), to_string(own.shape())),
              .found = fmt::format("{} {}", to_string(tensor.dtype()), to_string(tensor.shape()))});
  if (bound_inputs_[i]) { // the caller's memory is not ours to write
    own = Tensor(own.dtype(), own.shape());
    bound_inputs_[i] = false;
    bind();
  }
  std::memcpy(own.raw_mutable(), tensor.raw(), tensor.bytes());
  return {};
}

namespace {

// The memory as a tensor like `own`.
Result<Tensor> as_tensor(const Tensor &own, const std::string &name,
                         std::span<const std::byte> memory) {
  const size_t alignment = size_of(own.dtype());
  const bool aligned = reinterpret_cast<uintptr_t>(memory.data()) % alignment == 0;
  if (memory.size() == own.bytes() && aligned)
    return Tensor(own.dtype(), own.shape(), nullptr, memory.data());
  return fail(
      Error{.code = ErrorCode::invalid,
            .message = "memory does not fit a tensor",
            .node = name,
            .expected = fmt::format("{} bytes, aligned to {}", own.bytes(), alignment),
            .found = fmt::format("{} bytes{}", memory.size(), aligned ? "" : ", not aligned")});
}

} // namespace

Result<void> Request::bind_input(size_t i, std::span<const std::byte> memory) {
  LATHE_TRY(inputs_[i], as_tensor(inputs_[i], executable_->plan().input_names[i], memory));
  bound_inputs_[i] = true;
  bind();
  return {};
}
Result<void> Request::bind_output(size_t j, std::span<std::byte> memory) {
  LATHE_TRY(outputs_[j], as_tensor(outputs_[j], executable_->plan().output_names[j], memory));
  bind();
  return {};
}

void Request::make_calls() {
  const int threads = pool_ ? pool_->threads() : 1;
  const Plan &plan = executable_->plan();
  for (size_t k = 0; k < plan.kernels.size(); ++k) {
    const Kernel &kernel = plan.kernels[k];
    Call call{executable_->function(k), std::vector<int64_t>(kernel.operands.size()),
              kernel.tasks.at(images_), 1, false};
    for (const Affine &param : kernel.params) call.args.push_back(param.at(images_));
    call.parallel = threads > 1 && call.tasks > kernel.grain;
    call.grain = kernel.grain;
    calls_.push_back(std::move(call));
  }
}

void Request::bind() {
  const Plan &plan = executable_->plan();
  auto address = [&](const View &view) {
    const std::byte *base = nullptr;
    switch (view.space) {
    case Space::weights:
      base = executable_->weights().address(view.index);
      break;
    case Space::arena:
      base = arena_.get();
      break;
    case Space::input:
      base = inputs_[size_t(view.index)].raw();
      break;
    case Space::output:
      base = outputs_[size_t(view.index)].raw();
      break;
    }
    return reinterpret_cast<int64_t>(base + view.offset.at(images_));
  };
  for (size_t k = 0; k < plan.kernels.size(); ++k)
    std::ranges::transform(plan.kernels[k].operands, calls_[k].args.begin(), address);
}

void Request::run_call(const Call &call) {
  if (!call.parallel) return call.function(call.args.data(), 0, call.tasks, scratch_.get());
  struct Context {
    const Call &call;
    std::byte *scratch;
    int64_t per_thread;
  } context{call, scratch_.get(), scratch_per_thread_};
  pool_->parallel_for(
      call.tasks, call.grain,
      [](void *data, int64_t begin, int64_t end, int thread) {
        auto &c = *static_cast<Context *>(data);
        c.call.function(c.call.args.data(), begin, end, c.scratch + c.per_thread * thread);
      },
      &context);
}

void Request::run() {
  FlushSubnormals mode;
  for (const Call &call : calls_) run_call(call);
}

void Request::run_timed(std::span<double> milliseconds) {
  FlushSubnormals mode;
  Stopwatch watch;
  for (size_t k = 0; k < calls_.size(); ++k) {
    run_call(calls_[k]);
    if (const double took = watch.lap(); k < milliseconds.size()) milliseconds[k] = took;
  }
}

} // namespace lathe::core
