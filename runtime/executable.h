// Compiling a graph, and running what came out.
#pragma once

#include "codegen/codegen.h"
#include "ir/budget.h"
#include "ir/system/memory.h"
#include "passes/pipeline.h"
#include "runtime/cached.h"
#include "runtime/loaded_code.h"
#include "runtime/thread_pool.h"
#include "runtime/tune.h"
#include "runtime/weights.h"

#include <memory>
#include <optional>

namespace lathe::core {

struct CompileOptions {
  Target target; // host_target() by default; must be one that this machine can run
  PipelineOptions passes;
  MemoryLimit memory; // of everything that `Plan::sized` counts
  PlanOptions plan;   // where the search for a plan that keeps it begins
  bool tune = false;  // measure what the cost model estimates
  TuneOptions tuning;
  int threads = 0;           // to compile with; 0: as many as this process may use
  CacheOptions cache;        // of code, packed weights and measurements
  bool copy_weights = false; // of files into memory: see Options of lathe/lathe.h
  Budget budget;             // of memory and time to compile
  CompileOptions();
};

struct CompileTimes { // milliseconds
  // Codegen and, beside it, pack: to make or to find in the cache.
  double passes = 0, tune = 0, plan = 0, codegen = 0, link = 0, pack = 0, total = 0;
  std::vector<PassReport> each_pass;
};

// What came from the cache; nothing without one.
struct CacheUse {
  CacheLookup directory, costs, code, weights;
};

// options.plan, with measured costs where tuning is asked for, from the cache if it has them.
// `graph`: after the passes. Errors: as measure_algorithms.
Result<PlanOptions> plan_options(const Graph &graph, const CompileOptions &options,
                                 CacheUse *use = nullptr);

// Immutable and shared by any number of threads.
class Executable {
public:
  // The graph's weights must be bound. Errors: invalid (weights without data, a broken graph),
  // unsupported (an op no kernel covers, a target this machine lacks), usage (unknown passes),
  // limit (no plan keeps the memory limit, or fits this machine; the budget is used up), io (a
  // weights file that was cut or written to since it was opened).
  static Result<std::shared_ptr<const Executable>> compile(Graph graph,
                                                           const CompileOptions &options = {});
  const Plan &plan() const { return plan_; }
  const Graph &graph() const { return graph_; } // after the passes
  const CompileTimes &times() const { return times_; }
  const CacheUse &cache_use() const { return cache_use_; }
  int64_t memory_limit() const { return memory_limit_; }
  KernelFunction function(size_t kernel) const { return functions_[kernel]; }
  const PackedWeights &weights() const { return *weights_; }

private:
  Result<void> make_code(const Cache *cache, int threads, const Budget &budget);

  Graph graph_;
  Plan plan_;
  std::optional<PackedWeights> weights_;
  std::unique_ptr<const LoadedCode> code_;
  std::vector<KernelFunction> functions_; // one per kernel of the plan
  CompileTimes times_;
  CacheUse cache_use_;
  int64_t memory_limit_ = 0;
};

// One run at a time: the arena, scratch, inputs and outputs for a number of images.
class Request {
public:
  // `images` must be the graph's own unless the plan is batched. The pool may be shared by
  // any number of requests; null: this thread only. Errors: usage, limit.
  static Result<std::unique_ptr<Request>> create(std::shared_ptr<const Executable> executable,
                                                 int64_t images = 1,
                                                 std::shared_ptr<Workers> pool = nullptr);
  int64_t images() const { return images_; }
  // Shapes as the model declares them (NCHW), dimension 0 being `images` if batched. The tensors
  // are the request's own; write inputs before run, read outputs after.
  Tensor &input(size_t i) { return inputs_[i]; }
  // Copies a tensor of just the input's type and shape into the request's own memory. Errors:
  // invalid, for another.
  Result<void> set_input(size_t i, const Tensor &tensor);
  const Tensor &output(size_t j) const { return outputs_[j]; }
  // Instead of the request's own memory, which is freed: the caller's, read and written in place by
  // every run until another is bound. Dense and row-major, aligned for its elements; it must
  // outlive the runs, and may not overlap another input or output that the same run uses. Not
  // during a run. Errors: invalid, for another size or alignment.
  Result<void> bind_input(size_t i, std::span<const std::byte> memory);
  Result<void> bind_output(size_t j, std::span<std::byte> memory);

  // Allocates nothing, throws nothing.
  void run();
  // The same, with the milliseconds of every kernel, as far as there is room.
  void run_timed(std::span<double> milliseconds);

private:
  Request() = default;
  struct Call {
    KernelFunction function;
    std::vector<int64_t> args; // addresses, then parameters
    int64_t tasks, grain;
    bool parallel;
  };
  void make_calls();
  void bind(); // the addresses of all operands
  void run_call(const Call &call);

  std::shared_ptr<const Executable> executable_;
  std::shared_ptr<Workers> pool_;
  int64_t images_ = 1;
  std::vector<Tensor> inputs_, outputs_;
  std::vector<bool> bound_inputs_; // to the caller's memory
  Memory arena_{nullptr, nullptr}, scratch_{nullptr, nullptr};
  int64_t scratch_per_thread_ = 0;
  std::vector<Call> calls_;
};

// Shape of a plan's input or output for a number of images.
Shape with_images(const Plan &plan, const Shape &shape, int64_t images);

} // namespace lathe::core
