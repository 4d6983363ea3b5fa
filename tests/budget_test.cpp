// What a small file may not take: memory that its numbers make large, and time. Time is counted in
// questions whether it is over, never measured.
#include "frontend/net.h"
#include "frontend/onnx.h"
#include "frontend/weights.h"
#include "passes/pipeline.h"
#include "passes/plan.h"
#include "tests/onnx_builder.h"
#include "tests/tensors.h"

#include <atomic>
#include <cmath>
#include <fmt/format.h>
#include <thread>

using namespace lathe::core;
using namespace lathe::core::test;

namespace {

constexpr int64_t megabyte = 1 << 20;

// A budget whose time is over from the n-th question on, and how often it was asked.
struct Countdown {
  explicit Countdown(int64_t n)
      : budget(Budget::until([asked = asked, n] { return asked->fetch_add(1) >= n; })) {}
  std::shared_ptr<std::atomic<int64_t>> asked = std::make_shared<std::atomic<int64_t>>(0);
  Budget budget;
};

Result<Graph> import(const OnnxBuilder &builder, const Budget &budget) {
  auto owner = std::make_shared<std::string>(builder.model());
  LATHE_TRY(
      OnnxModel model,
      OnnxModel::parse(std::as_bytes(std::span(owner->data(), owner->size())), owner, "m.onnx"));
  OnnxOptions options;
  options.budget = budget;
  return model.graph(options);
}

// Everything that needs no code: import, passes, plan, weights.
Result<void> compile(const OnnxBuilder &builder, const Budget &budget) {
  LATHE_TRY(Graph graph, import(builder, budget));
  PipelineOptions passes;
  passes.budget = budget;
  LATHE_CHECK(run_passes(graph, passes));
  LATHE_TRY(const Plan plan, make_plan(graph, known_targets()[0], {}, budget));
  for (const Weight &weight : plan.weights) LATHE_CHECK(materialise(weight.constant, budget));
  return {};
}

Tensor ints(std::vector<int64_t> values) {
  const auto n = int64_t(values.size());
  return Tensor::of(std::move(values), {n});
}

// x + the sum over a constant of so many elements, which stands in the file as two numbers and goes
// through an op.
OnnxBuilder expanded(int64_t elements, const char *op = "Exp") {
  OnnxBuilder b;
  b.input("x", {1, 3, 8, 8});
  b.weight("seed", floats({2, 1}, {1, 2}));
  b.weight("shape", ints({2, elements / 2}));
  b.weight("axes", ints({0, 1}));
  b.node("Expand", {"seed", "shape"}, {"wide"});
  b.node(op, {"wide"}, {"e"});
  b.node("ReduceSum", {"e", "axes"}, {"sum"}, {attribute("keepdims", int64_t{0})});
  b.node("Add", {"x", "sum"}, {"y"});
  b.output("y");
  return b;
}

} // namespace

TEST_CASE("a budget grants so much, and has it back when the last copy of a grant is gone") {
  const Budget budget(1000, 0);
  {
    Grant first = budget.take(600, "counting").value();
    const auto refused = budget.take(500, "counting");
    REQUIRE(!refused);
    CHECK(refused.error().code == ErrorCode::limit);
    CHECK(refused.error().message.contains("counting"));
    CHECK(refused.error().expected.contains("at most 1000 bytes"));
    CHECK(refused.error().expected.contains("--compile-memory"));
    CHECK(refused.error().found == "500 more beside 600");
    const Grant copy = first;
    first.reset();
    CHECK(budget.taken() == 600);
    CHECK(budget.take(400, "counting"));
    CHECK(budget.taken() == 600);
  }
  CHECK(budget.taken() == 0);
  CHECK(!budget.take(INT64_MAX, "counting"));
  CHECK(budget.taken() == 0);

  const Budget part = budget.part(100);
  const Grant some = part.take(90, "counting").value();
  CHECK(budget.taken() == 90);
  CHECK(part.take(20, "counting").error().expected == "at most 100 bytes");
  const Grant rest = budget.take(905, "counting").value();
  CHECK(part.take(10, "counting").error().expected.contains("at most 1000 bytes"));
  CHECK(budget.taken() == 995);
}

TEST_CASE("a budget without limits allows everything, and one of a second is over after it") {
  CHECK(Budget().take(INT64_MAX, "counting"));
  CHECK(Budget(0, 0).take(INT64_MAX, "counting"));
  CHECK(Budget().check("counting"));
  CHECK(Budget(0, 1e9).check("counting"));
  const Budget over(0, 1e-9);
  const auto late = over.part(10).check("counting");
  REQUIRE(!late);
  CHECK(late.error().code == ErrorCode::limit);
  CHECK(late.error().message == "counting takes longer than allowed");
  CHECK(late.error().expected.contains("1e-09 seconds"));
  CHECK(default_compile_memory(0) > 256 * megabyte);
  CHECK(default_compile_memory(100 * megabyte) <= 456 * megabyte);
  CHECK(default_compile_memory(INT64_MAX) == default_compile_memory(0));
}

TEST_CASE("threads share a budget") {
  const Budget budget(1000, 0);
  std::atomic<int64_t> most = 0;
  auto work = [&] {
    for (int i = 0; i < 2000; ++i) {
      const auto grant = budget.take(300, "counting");
      if (!grant) continue;
      const int64_t now = budget.taken();
      for (int64_t seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
      }
    }
  };
  {
    std::jthread other(work);
    work();
  }
  CHECK(budget.taken() == 0);
  CHECK(most >= 300);
}

TEST_CASE("tensors count as long as they live, and recipes keep no more than they need") {
  const Budget budget(4 * megabyte, 0);
  // 50 steps of a megabyte each, of which two are alive at a time.
  Tensor data(DType::f32, {megabyte / 4});
  std::ranges::fill(data.f32_mutable(), 0.5f);
  ConstantRef recipe = literal_constant(data);
  for (int i = 0; i < 50; ++i) recipe = computed_constant(Unary{UnaryKind::neg}, {recipe}).value();
  {
    const Tensor made = materialise(recipe, budget).value();
    CHECK(budget.taken() == megabyte);
    const Tensor shared = evaluate(Reshape{{2, -1}}, std::vector{made}, budget).value()[0];
    CHECK(budget.taken() == megabyte);
  }
  CHECK(budget.taken() == 0);
  // Five of them are too much.
  ConstantRef wide = computed_constant(Concat{0}, std::vector(5, recipe)).value();
  const auto refused = materialise(wide, budget);
  REQUIRE(!refused);
  CHECK(refused.error().code == ErrorCode::limit);
  CHECK(budget.taken() == 0);
}

TEST_CASE("what an op makes of constants of one number is what it makes of every element") {
  const std::vector<float> numbers{0, -0.f, 1, -2.5f, 3e38f, 1e-40f, INFINITY, NAN};
  const std::vector<Op> ops{Unary{UnaryKind::exp},
                            Unary{UnaryKind::leaky_relu, 0.1f},
                            Unary{UnaryKind::clip, -1, 1},
                            Reshape{{2, 12}},
                            Flatten{1},
                            Transpose{{2, 0, 1}},
                            Expand{{5, 2, 3, 4}},
                            Slice{{1}, {0}, {2}, {1}},
                            Pad{{0, 1, 0}, {0, 0, 2}, 1},
                            Reduce{ReduceKind::sum, {1, 2}, false},
                            Reduce{ReduceKind::mean, {0}, true},
                            Reduce{ReduceKind::max, {0, 2}, true},
                            Reduce{ReduceKind::prod, {1}, true},
                            Softmax{1}};
  size_t folded = 0;
  for (float number : numbers)
    for (const Op &op : ops) {
      CAPTURE(number);
      CAPTURE(print(op));
      const ConstantRef made = computed_constant(op, {splat_constant(number, {2, 3, 4})}).value();
      const Tensor slow = one(op, {Tensor::splat(number, {2, 3, 4})});
      const Tensor quick = materialise(made).value();
      if (std::isnan(number))
        CHECK(quick.shape() == slow.shape());
      else
        CHECK(same_bits(quick, slow));
      folded += made->splat.has_value();
    }
  CHECK(folded > 70);
  for (BinaryKind kind : {BinaryKind::add, BinaryKind::mul, BinaryKind::div, BinaryKind::pow}) {
    const ConstantRef a = splat_constant(3, {4, 1}), b = splat_constant(7, {1, 5});
    const ConstantRef made = computed_constant(Binary{kind}, {a, b}).value();
    CHECK(made->splat);
    CHECK(same_bits(materialise(made).value(),
                    one(Binary{kind}, {Tensor::splat(3, {4, 1}), Tensor::splat(7, {1, 5})})));
  }
  const ConstantRef zero = splat_constant(0, {3}), minus = splat_constant(-0.f, {3});
  CHECK(!computed_constant(Concat{0}, {zero, minus}).value()->splat);
  CHECK(computed_constant(Concat{0}, {zero, zero}).value()->splat);
}

TEST_CASE("constants of one number cost nothing, however large") {
  OnnxBuilder b;
  b.input("x", {1, 3, 8, 8});
  b.weight("s", ints({int64_t{3} << 28}));
  b.weight("axes", ints({0}));
  b.node("ConstantOfShape", {"s"}, {"c0"}, {attribute("value", floats({1}, {0.5f}))});
  for (int i = 0; i < 200; ++i)
    b.node("Mul", {fmt::format("c{}", i), fmt::format("c{}", i)}, {fmt::format("c{}", i + 1)});
  b.node("Concat", {"c0", "c0"}, {"d"}, {attribute("axis", int64_t{0})});
  b.node("ReduceSum", {"d", "axes"}, {"sum"}, {attribute("keepdims", int64_t{0})});
  b.node("ReduceMax", {"c200"}, {"most"}, {attribute("keepdims", int64_t{0})});
  b.node("Add", {"x", "sum"}, {"y"});
  b.node("Add", {"y", "most"}, {"z"});
  b.output("z");
  const auto done = compile(b, Budget(4 * megabyte, 0));
  CHECK_MESSAGE(done, to_string(done.error()));
}

TEST_CASE("a constant that its file does not hold is made within the budget, or not at all") {
  const auto fine = compile(expanded(4 * megabyte / 4), Budget(12 * megabyte, 0));
  CHECK_MESSAGE(fine, to_string(fine.error()));
  for (int64_t elements : {int64_t{1} << 24, int64_t{1} << 28, int64_t{1} << 31, int64_t{1} << 39})
    for (const char *op : {"Exp", "Neg", "Softmax", "Floor"}) {
      CAPTURE(elements);
      CAPTURE(op);
      const auto refused = compile(expanded(elements, op), Budget(24 * megabyte, 0));
      REQUIRE(!refused);
      CHECK(refused.error().code == ErrorCode::limit);
      CHECK(refused.error().expected.contains("bytes"));
    }
}

TEST_CASE("random weights are drawn, and networks calibrated, within the budget") {
  auto calibrate = [](const char *text, const Budget &budget) -> Result<void> {
    LATHE_TRY(Graph graph, parse_net(text, "n.net"));
    return randomise_weights(graph, 1, budget);
  };
  const char *many_pixels = "network n { input x 3x700x700; conv 64 3x3 pad 1; relu }";
  const char *many_weights = "network n { input x 3x1x1; flatten; dense 4000; dense 5000 }";
  for (const char *text : {many_pixels, many_weights}) {
    CAPTURE(text);
    const auto refused = calibrate(text, Budget(60 * megabyte, 0));
    REQUIRE(!refused);
    CHECK(refused.error().code == ErrorCode::limit);
    CHECK(!refused.error().node.empty());
  }
  CHECK(calibrate("network n { input x 3x70x70; conv 64 3x3 pad 1; relu }",
                  Budget(60 * megabyte, 0)));
}

TEST_CASE("nodes count: a description may repeat a layer, but not without end") {
  const char *text = "network n { input x 3x8x8; repeat 9000 { relu } }";
  CHECK(parse_net(text, "n.net"));
  NetOptions options;
  options.budget = Budget(10 * megabyte, 0);
  const auto refused = parse_net(text, "n.net", options);
  REQUIRE(!refused);
  CHECK(refused.error().code == ErrorCode::limit);
}

TEST_CASE("the names in a chain of layers are moved, not copied for each of them") {
  OnnxBuilder b;
  constexpr int64_t layers = 3000;
  b.input("v0", {1, 2, 4, 4}).weight("w", floats({2, 2, 1, 1}, {1, 0, 0, 1}));
  for (int64_t i = 0; i < layers; ++i)
    b.node("Conv", {fmt::format("v{}", i), "w"}, {fmt::format("v{}", i + 1)});
  b.output(fmt::format("v{}", layers));
  Graph graph = import(b, {}).value();
  REQUIRE(run_passes(graph));
  REQUIRE(graph.nodes.size() == 1);
  const std::vector<std::string> &names = graph.nodes[0].fused;
  REQUIRE(names.size() == layers - 1);
  // Each in front of what it took along.
  for (size_t i = 0; i < names.size(); ++i) CHECK(names[i] == fmt::format("v{}", layers - 1 - i));
}

TEST_CASE("whenever the time is over, everything stops with an error that says so") {
  OnnxBuilder b = expanded(1 << 16);
  b.weight("w", counting({4, 3, 3, 3})).weight("v", counting({4, 4, 1, 1}));
  b.node("Conv", {"y", "w"}, {"c"}).node("Conv", {"c", "v"}, {"d"}).node("Relu", {"d"}, {"r"});
  b.output("r");
  int64_t stopped = 0;
  for (int64_t n = 0;; ++n) {
    CAPTURE(n);
    REQUIRE(n < 10'000);
    const Countdown time(n);
    const auto done = compile(b, time.budget);
    if (done) break;
    ++stopped;
    CHECK(done.error().code == ErrorCode::limit);
    CHECK(done.error().message.contains("takes longer than allowed"));
    CHECK(*time.asked <= n + 5); // and nobody goes on for long
  }
  CHECK(stopped > 20);
}

TEST_CASE("an op that takes long asks for the time while it works") {
  const Tensor x = Tensor::splat(1, {1, 16, 96, 96}), w = Tensor::splat(1, {16, 16, 9, 9});
  const Tensor wide = Tensor::splat(1, {1, 5000, 2, 2});
  Conv conv;
  conv.kernel = {9, 9};
  Pool pool;
  pool.kernel = {60, 60};
  const std::vector<std::pair<Op, std::vector<Tensor>>> cases{
      {conv, {x, w}}, {pool, {x}}, {Lrn{.size = 5000}, {wide}}};
  for (const auto &[op, inputs] : cases) {
    CAPTURE(print(op));
    const Countdown all(INT64_MAX);
    REQUIRE(evaluate(op, inputs, all.budget));
    CHECK(*all.asked > 5);
    const Countdown half(*all.asked / 2);
    const auto stopped = evaluate(op, inputs, half.budget);
    REQUIRE(!stopped);
    CHECK(stopped.error().code == ErrorCode::limit);
    CHECK(*half.asked <= *all.asked / 2 + 6); // two threads, and who asks for them
  }
}
