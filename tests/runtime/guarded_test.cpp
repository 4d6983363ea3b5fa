// Every kernel beside pages that fault, task by task: random graphs and narrow networks; and that
// such a run sees kernels which are told something wrong.
#include "frontend/bundled.h"
#include "frontend/weights.h"
#include "ir/compare.h"
#include "ir/evaluate.h"
#include "runtime/guarded.h"
#include "tests/random_graph.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <map>
#include <sys/wait.h>
#include <unistd.h>

using namespace lathe::core;

namespace {

const std::vector<std::string> fusion = {"drop_identities", "fold_batch_norm", "fuse_bias",
                                         "fuse_post_ops"};

std::shared_ptr<const Executable> compile(const Graph &graph, const Target &target,
                                          std::vector<std::string> disabled = {},
                                          const PlanOptions &plan = {}) {
  CompileOptions options;
  options.target = target;
  options.plan = plan;
  options.passes.disabled = std::move(disabled);
  auto executable = Executable::compile(graph, options);
  REQUIRE_MESSAGE(executable, to_string(executable.error()));
  return *executable;
}

// While alive, says on stderr which task touched a guard page; the process then dies of it.
class FaultNote {
public:
  FaultNote() {
    struct sigaction action = {};
    action.sa_handler = tell;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before_);
  }
  ~FaultNote() { sigaction(SIGSEGV, &before_, nullptr); }
  static void set(const std::string &kernel, int64_t task) {
    *fmt::format_to_n(text_, sizeof text_ - 1, "task {} of {} left its operands\n", task, kernel)
         .out = 0;
  }

private:
  static void tell(int) {
    [[maybe_unused]] auto written = write(STDERR_FILENO, text_, std::strlen(text_));
    sigaction(SIGSEGV, &before_, nullptr); // and the access faults again
  }
  static inline char text_[500] = "";
  static inline struct sigaction before_ = {};
};

Result<std::vector<Tensor>> run_noted(const Executable &executable,
                                      const std::vector<Tensor> &inputs, int64_t images,
                                      Guard guard) {
  FaultNote note;
  std::string kernel;
  auto before_task = [&](size_t k, int64_t task) {
    const Kernel &now = executable.plan().kernels[k];
    if (task == 0)
      kernel = fmt::format("{}, {} images, guard {}, kernel {} ({}: {})", executable.plan().name,
                           images, guard == Guard::behind ? "behind" : "before", k,
                           kernel_name(now.spec, executable.plan().target),
                           fmt::join(now.sources, " + "));
    FaultNote::set(kernel, task);
  };
  return run_guarded(executable, inputs, images,
                     {.guard = guard, .plan = nullptr, .before_task = before_task});
}

bool same_bits(const Tensor &a, const Tensor &b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

void check(const std::shared_ptr<const Executable> &executable, const Graph &graph,
           const std::vector<Tensor> &inputs, int64_t images) {
  CAPTURE(images);
  auto references = evaluate(graph, inputs);
  REQUIRE_MESSAGE(references, to_string(references.error()));
  auto request = Request::create(executable, images).value();
  for (size_t i = 0; i < inputs.size(); ++i) REQUIRE(request->set_input(i, inputs[i]));
  request->run();
  for (Guard guard : {Guard::behind, Guard::before}) {
    auto outputs = run_noted(*executable, inputs, images, guard);
    REQUIRE_MESSAGE(outputs, to_string(outputs.error()));
    for (size_t j = 0; j < outputs->size(); ++j) {
      CAPTURE(j);
      CHECK(same_bits((*outputs)[j], request->output(j)));
      if ((*outputs)[j].dtype() == DType::f32)
        CHECK(compare((*outputs)[j], (*references)[j]).within(1e-4));
      else
        CHECK(same_bits((*outputs)[j], (*references)[j]));
    }
  }
}

// On every target of this machine: with fusion and without; with all that can be chained, row by
// row; with odd pitches and offsets everywhere; by any algorithms; for each number of images.
void check_everywhere(const Graph &graph, const std::map<int64_t, std::vector<Tensor>> &inputs) {
  struct Way {
    std::vector<std::string> disabled;
    PlanOptions plan;
  };
  const Way ways[] = {{{}, {}},
                      {fusion, {}},
                      {{}, {.chained = std::vector<bool>(1000, true), .smallest_blocks = true}},
                      {{}, {.any_algorithm = 0, .jitter = graph.nodes.size()}},
                      {{}, {.any_algorithm = graph.nodes.size()}}};
  for (const Target &target : known_targets()) {
    if (!host_supports(target)) continue;
    CAPTURE(target.name);
    for (const Way &way : ways) {
      CAPTURE(&way - ways);
      auto executable = compile(graph, target, way.disabled, way.plan);
      for (const auto &[images, tensors] : inputs) check(executable, graph, tensors, images);
    }
  }
}

} // namespace

TEST_CASE("in random graphs every task writes its share of the output, and touches only operands") {
  for (uint64_t seed = 5000; seed < 5060; ++seed) {
    CAPTURE(seed);
    Graph graph = random_graph(seed);
    check_everywhere(graph,
                     {{1, random_inputs(graph, seed, 1)}, {3, random_inputs(graph, seed, 3)}});
  }
}

TEST_CASE("and so in narrow networks") {
  const std::map<std::string, std::map<std::string, double>> narrow = {
      {"alexnet", {{"width", 6}, {"classes", 10}}},
      {"densenet121", {{"growth", 2}, {"classes", 10}, {"size", 32}}},
      {"inception_module", {{"size", 7}}},
      {"lenet5", {}},
      {"resnet18", {{"width", 4}, {"classes", 10}, {"size", 32}}},
      {"squeezenet1_1", {{"width", 8}, {"classes", 10}, {"size", 64}}},
  };
  for (const auto &[name, parameters] : narrow) {
    CAPTURE(name);
    Graph graph = load_bundled(name, {.parameters = parameters, .include = {}}).value();
    REQUIRE(randomise_weights(graph, 7));
    graph = before_softmax(std::move(graph));
    check_everywhere(graph, {{1, random_inputs(graph, 1, 1)}, {2, random_inputs(graph, 2, 2)}});
  }
}

TEST_CASE("and with elements of every type, and weights that are computed at run time") {
  Graph graph;
  auto add = [&](const Op &op, std::vector<ValueId> inputs) {
    graph.outputs.push_back(
        graph.add_node(fmt::format("n{}", graph.nodes.size()), op, std::move(inputs)).value());
    return graph.outputs.back();
  };
  const ValueId x = graph.add_input("x", {DType::f32, {2, 6, 5, 37}});
  const ValueId w = graph.add_input("w", {DType::f32, {34, 3, 3, 2}});
  Conv conv;
  conv.kernel = {3, 2};
  conv.pad = {1, 0, 1, 1};
  conv.groups = 2;
  add(conv, {x, w});
  const ValueId whole = add(Cast{DType::i32}, {x}), set = add(Cast{DType::boolean}, {whole});
  const ValueId indices = graph.add_constant(
      "indices", literal_constant(Tensor::of(std::vector<int64_t>{2, -1, 0, 2}, {2, 2})));
  for (int64_t axis = 1; axis < 4; ++axis) {
    add(Hardmax{axis}, {x});
    add(ArgReduce{ArgKind::max, axis, true, false}, {x});
    add(Cast{DType::f32}, {add(ArgReduce{ArgKind::min, axis, false, true}, {x})});
    for (ValueId id : {x, whole, set}) add(Gather{axis}, {id, indices});
  }
  add(Slice{{1, 3}, {-1, 30}, {INT64_MIN, 2}, {-2, -3}}, {set});
  add(Unary{UnaryKind::abs}, {add(Transpose{{0, 3, 1, 2}}, {whole})});
  check_everywhere(graph, {{1, {random_inputs(graph, 1, 2)[0], random_inputs(graph, 1, 34)[1]}}});
}

namespace {

// A padded convolution (with scratch), a pool, and tanh, in kernels of their own since all three
// results are wanted.
Graph small_graph() {
  Graph graph;
  graph.name = "small";
  Conv conv;
  conv.kernel = {3, 3};
  conv.pad = {1, 1, 1, 1};
  Pool pool;
  pool.kernel = {2, 2};
  const ValueId x = graph.add_input("x", {DType::f32, {1, 5, 9, 10}});
  const ValueId w = graph.add_constant("w", splat_constant(0.01f, {7, 5, 3, 3}));
  const ValueId y = graph.add_node("conv", conv, {x, w}).value();
  const ValueId z = graph.add_node("pool", pool, {y}).value();
  graph.outputs = {graph.add_node("tanh", Unary{UnaryKind::tanh}, {z}).value(), y, z};
  return graph;
}

struct Damage {
  std::string what; // in the error's text; empty: SIGSEGV
  Guard guard;
  std::function<void(Plan &)> apply;
};

Kernel &layer(Plan &plan, const std::string &name) {
  auto found = std::ranges::find_if(plan.kernels, [&](const Kernel &kernel) {
    return !kernel.sources.empty() && kernel.sources[0] == name;
  });
  REQUIRE(found != plan.kernels.end());
  return *found;
}

// Whether `run` ends in a SIGSEGV; in a process of its own.
bool faults(const std::function<void()> &run) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    run();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

} // namespace

TEST_CASE("a guarded run sees what a kernel does wrong") {
  auto pool_output = [](Plan &plan) -> View & {
    return layer(plan, "pool").operands[PoolSpec::output];
  };
  const std::vector<Damage> damages = {
      {"no task writes byte", Guard::behind,
       [](Plan &plan) { layer(plan, "pool").tasks.per_image -= 1; }},
      {"tasks 0 and 1 both write byte 0 ", Guard::behind,
       [](Plan &plan) {
         layer(plan, "pool").params[leaf(&PoolSpec::Params::out, &Pitches::row)] = {};
       }},
      {"no element's", Guard::before, [&](Plan &plan) { pool_output(plan).dims[1] -= 1; }},
      {"no element's", Guard::before, [&](Plan &plan) { pool_output(plan).strides[3] -= 1; }},
      {"leave its memory", Guard::behind,
       [&](Plan &plan) { pool_output(plan).offset = plan.arena_bytes; }},
      {"it should only read", Guard::behind, // what the pool reads and writes, exchanged
       [](Plan &plan) { layer(plan, "pool").output = PoolSpec::input; }},
      {"bytes of scratch", Guard::behind,
       [](Plan &plan) { layer(plan, "conv").scratch_bytes -= 4; }},
      {"", Guard::behind, [](Plan &plan) { layer(plan, "conv").scratch_bytes -= 256; }},
      {"", Guard::behind, [&](Plan &plan) { pool_output(plan).dims[2] -= 1; }},
      {"", Guard::behind,
       [](Plan &plan) { layer(plan, "pool").operands[PoolSpec::input].dims[2] -= 1; }},
      {"", Guard::before, // a second row, which begins before the first one
       [](Plan &plan) {
         auto &params = layer(plan, "tanh").params;
         using P = MapSpec::Params;
         params[leaf(&P::extents, loop_count - 2)] = params[leaf(&P::rows_per_task)] = fixed(2);
         params[leaves<P>() + loop_count - 2] = fixed(-4);
       }},
  };
  for (const Target &target : known_targets()) {
    if (!host_supports(target)) continue;
    CAPTURE(target.name);
    auto executable = compile(small_graph(), target);
    auto inputs = random_inputs(small_graph(), 1, 1);
    for (size_t d = 0; d < damages.size(); ++d) {
      CAPTURE(d);
      Plan broken = executable->plan();
      damages[d].apply(broken);
      const GuardedOptions options{
          .guard = damages[d].guard, .plan = &broken, .before_task = nullptr};
      auto run = [&] { return run_guarded(*executable, inputs, 1, options); };
      if (damages[d].what.empty()) {
        CHECK(faults([&] { (void)run(); }));
        continue;
      }
      auto outputs = run();
      REQUIRE(!outputs);
      const std::string text = to_string(outputs.error());
      CAPTURE(text);
      CHECK(text.contains(damages[d].what));
      CHECK(text.contains(damages[d].what == "bytes of scratch" ? "conv" : "pool"));
    }
    CHECK(!faults([&] { (void)run_guarded(*executable, inputs, 1); }));
  }
}

TEST_CASE("a guarded run sees rows copied as one run though other channels lie between") {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::f32, {1, 16, 5, 6}});
  const ValueId all = graph.add_node("all", Unary{UnaryKind::tanh}, {x}).value();
  const ValueId part = graph.add_node("part", Slice{{1}, {1}, {14}, {1}}, {all}).value();
  const ValueId w = graph.add_constant("w", splat_constant(0.1f, {13, 1, 3, 3}));
  Conv conv;
  conv.kernel = {3, 3}, conv.pad = {1, 1, 1, 1}, conv.groups = 13;
  graph.outputs = {graph.add_node("conv", conv, {part, w}).value()};
  const auto inputs = random_inputs(graph, 1, 1);
  for (const Target &target : known_targets()) {
    if (!host_supports(target)) continue;
    CAPTURE(target.name);
    const auto executable = compile(graph, target);
    const auto right = run_guarded(*executable, inputs, 1);
    REQUIRE_MESSAGE(right, to_string(right.error()));
    Plan broken = executable->plan();
    Affine &flag =
        layer(broken, "conv")
            .params[leaves<ConvSpec::Params>() + leaf(&ConvSpec::StageParams::rows_run_on)];
    CHECK(flag == Affine{});
    flag = {0, 1};
    CHECK_FALSE(check_plan(broken, executable->graph(), 1));
    const auto wrong = run_guarded(*executable, inputs, 1, {.plan = &broken, .before_task = {}});
    REQUIRE_MESSAGE(wrong, to_string(wrong.error()));
    // Of NaN that nobody wrote over.
    CHECK(std::isinf(compare((*wrong)[0], (*right)[0]).largest_error));
  }
}
