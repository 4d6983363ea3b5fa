// Compiled code against the reference evaluator: random graphs and narrow networks, over batches,
// threads, targets and passes; and the same bits wherever the design promises them.
#include "frontend/bundled.h"
#include "frontend/weights.h"
#include "tests/reduce_graph.h"
#include "tests/runtime/compiled.h"

#include <fmt/format.h>
#include <map>

using namespace lathe::core;

namespace {

// One way of compiling.
struct Way {
  const Target &target;
  std::vector<std::string> disabled = {};
  PlanOptions plan = {};
};
constexpr std::string_view mixes = "the plan is not for any number of images";

// What goes wrong with a graph, from compiling it to its results.
Result<std::string> fault(const Graph &graph, const Way &way, const std::vector<Tensor> &inputs,
                          const std::vector<Tensor> &references) {
  LATHE_TRY(auto executable, try_compile(graph, way.target, way.disabled, way.plan));
  if (!executable->plan().batched) return std::string(mixes);
  for (int64_t images : {1, 3})
    LATHE_CHECK(check_plan(executable->plan(), executable->graph(), images));
  return fault(executable, inputs, references);
}
std::string fault_or_error(const Graph &graph, const Way &way, const std::vector<Tensor> &inputs,
                           const std::vector<Tensor> &references) {
  auto wrong = fault(graph, way, inputs, references);
  return wrong ? *wrong : to_string(wrong.error());
}

// Random graph number `seed`, compiled in one way; where it goes wrong, a small graph that does.
void check_random(uint64_t seed, const Way &way) {
  const Graph graph = random_graph(seed);
  auto inputs = random_inputs(graph, seed, 3);
  auto references = finite_results(graph, inputs);
  REQUIRE_MESSAGE(references, seed);
  const std::string wrong = fault_or_error(graph, way, inputs, *references);
  if (wrong.empty()) return;
  auto fails_too = [&](const Graph &g) { // and for no reason that only reduced graphs have
    inputs = random_inputs(g, seed, 3);
    references = finite_results(g, inputs);
    if (!references || !jumps_alike(g)) return false;
    const std::string still = fault_or_error(g, way, inputs, *references);
    return !still.empty() && still != mixes;
  };
  FAIL_CHECK(fmt::format("seed {}, {} without [{}]: {}\n{}", seed, way.target.name,
                         fmt::join(way.disabled, ", "), wrong,
                         print(wrong == mixes ? graph : reduce_graph(graph, fails_too))));
}

} // namespace

TEST_CASE("random graphs compute what the evaluator computes, on every target of this machine") {
  for (uint64_t seed = 0; seed < 80; ++seed)
    for (const Target &target : runnable_targets()) {
      check_random(seed, {target});
      if (seed % 3 == 0) check_random(seed, {target, {}, {.any_algorithm = picks(seed)}});
    }
}

TEST_CASE("inputs and outputs in the caller's memory") {
  Graph graph = random_graph(3);
  auto executable = compile(graph, host_target());
  auto inputs = random_inputs(graph, 3, 2);
  auto expected = run(executable, inputs, 2, nullptr);
  auto request = Request::create(executable, 2).value();
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < inputs.size(); ++i)
    REQUIRE(request->bind_input(i, {inputs[i].raw(), inputs[i].bytes()}));
  for (size_t j = 0; j < expected.size(); ++j) {
    outputs.emplace_back(expected[j].dtype(), expected[j].shape());
    REQUIRE(request->bind_output(j, {outputs[j].raw_mutable(), outputs[j].bytes()}));
    CHECK(request->output(j).raw() == outputs[j].raw());
  }
  request->run();
  for (size_t j = 0; j < expected.size(); ++j) CHECK(same_bits(outputs[j], expected[j]));
  inputs[0].f32_mutable()[0] += 1; // read anew by every run
  request->run();
  auto changed = run(executable, inputs, 2, nullptr);
  for (size_t j = 0; j < changed.size(); ++j) CHECK(same_bits(outputs[j], changed[j]));

  const std::vector<float> kept(inputs[0].f32().begin(), inputs[0].f32().end());
  REQUIRE(request->set_input(0, random_inputs(graph, 4, 2)[0])); // into the request's own again
  CHECK(std::ranges::equal(inputs[0].f32(), kept));

  auto small = request->bind_output(0, {outputs[0].raw_mutable(), outputs[0].bytes() - 4});
  REQUIRE(!small);
  CHECK(small.error().code == ErrorCode::invalid);
  CHECK_FALSE(request->bind_input(0, {inputs[0].raw() + 1, inputs[0].bytes()}));
}

TEST_CASE("LRN's power from the smallest to the largest number") {
  const Tensor ones = [] {
    Tensor tensor(DType::f32, {1, 21, 1, 7});
    std::ranges::fill(tensor.f32_mutable(), 1.f);
    return tensor;
  }();
  for (float beta : {0.25f, 0.5f, 0.75f})
    for (float k : {0x1p-126f, 1e-30f, 0.7f, 1.f, 3.f, 1e10f, 0x1p126f, 0x1p127f, 3.4e38f}) {
      Graph graph;
      ValueId x = graph.add_input("x", {DType::f32, ones.shape()});
      graph.outputs = {graph.add_node("lrn", Lrn{5, 0, beta, k}, {x}).value()};
      const double expected = std::pow(double(k), -double(beta));
      for (const Target &target : runnable_targets()) {
        CAPTURE(target.name);
        CAPTURE(beta);
        CAPTURE(k);
        const Tensor output = run(compile(graph, target), {ones}, 1, nullptr)[0];
        for (float y : output.f32()) CHECK(std::abs(y - expected) <= 5e-7 * expected);
      }
    }
}

TEST_CASE("every optional pass can be left out") {
  for (uint64_t seed = 1000; seed < 1020; ++seed)
    for (const Target &target : runnable_targets())
      for (const Pass &pass : pipeline())
        if (pass.optional) check_random(seed, {target, {std::string(pass.name)}});
}

TEST_CASE("integers and masks arrive as they left") {
  for (DType dtype : {DType::i64, DType::i32, DType::boolean}) {
    CAPTURE(to_string(dtype));
    Graph graph;
    ValueId x = graph.add_input("x", {dtype, {1, 6, 5, 4}});
    ValueId turned = graph.add_node("turn", Transpose{{0, 3, 1, 2}}, {x}).value();
    ValueId flat = graph.add_node("flat", Flatten{1}, {turned}).value();
    ValueId part = graph.add_node("part", Slice{{1}, {3}, {100}, {7}}, {flat}).value();
    graph.outputs = {graph.add_node("all", Concat{1}, {flat, part, flat}).value(), part};
    Tensor input(dtype, {3, 6, 5, 4});
    for (size_t i = 0; i < input.bytes(); ++i)
      input.raw_mutable()[i] = std::byte(dtype == DType::boolean ? i % 3 == 0 : i * 37 % 251);
    std::vector<Tensor> inputs{input};
    auto references = evaluate(graph, inputs);
    REQUIRE_MESSAGE(references, to_string(references.error()));
    for (const Target &target : runnable_targets()) {
      auto outputs = run(compile(graph, target), inputs, 3, nullptr);
      for (size_t j = 0; j < outputs.size(); ++j) CHECK(same_bits(outputs[j], (*references)[j]));
    }
  }
}

namespace {
// All targets of this machine, with all passes and with each optional one left out in turn.
void check_everywhere(const Graph &graph, const std::vector<Tensor> &inputs) {
  auto references = evaluate(graph, inputs);
  REQUIRE_MESSAGE(references, to_string(references.error()));
  for (const Target &target : runnable_targets()) {
    CAPTURE(target.name);
    check(compile(graph, target), inputs, *references);
    for (const Pass &pass : pipeline()) {
      if (!pass.optional) continue;
      CAPTURE(pass.name);
      check(compile(graph, target, {std::string(pass.name)}), inputs, *references);
    }
  }
}
// Parameters that make a network small enough to run in milliseconds.
const std::map<std::string, std::map<std::string, double>> narrow = {
    {"alexnet", {{"width", 6}, {"classes", 10}}},
    {"alexnet_one_tower", {{"width", 6}, {"classes", 10}}},
    {"alexnet_torchvision", {{"width", 4}, {"classes", 10}}},
    {"densenet121", {{"growth", 2}, {"classes", 10}, {"size", 64}}},
    {"googlenet", {{"width", 8}, {"classes", 10}, {"aux", 1}}},
    {"googlenet_torchvision", {{"width", 8}, {"classes", 10}}},
    {"inception_module", {{"size", 7}}},
    {"inception_module_naive", {{"size", 7}}},
    {"inception_v3", {{"width", 4}, {"classes", 10}, {"size", 107}}},
    {"lenet5", {}},
    {"nin", {{"width", 6}, {"classes", 10}}},
    {"resnet18", {{"width", 4}, {"classes", 10}, {"size", 64}}},
    {"resnet34", {{"width", 4}, {"classes", 10}, {"size", 64}}},
    {"resnet50", {{"width", 4}, {"classes", 10}, {"size", 64}}},
    {"resnet50_v1", {{"width", 4}, {"classes", 10}, {"size", 64}}},
    {"resnet101", {{"width", 4}, {"classes", 10}, {"size", 64}}},
    {"resnet152", {{"width", 4}, {"classes", 10}, {"size", 64}}},
    {"resnet20_cifar", {{"width", 4}, {"blocks", 2}}},
    {"squeezenet1_0", {{"width", 8}, {"classes", 10}, {"size", 96}}},
    {"squeezenet1_1", {{"width", 8}, {"classes", 10}, {"size", 96}}},
    {"vgg11", {{"width", 4}, {"classes", 10}, {"size", 32}}},
    {"vgg13", {{"width", 4}, {"classes", 10}, {"size", 32}}},
    {"vgg16", {{"width", 4}, {"classes", 10}, {"size", 32}}},
    {"vgg19", {{"width", 4}, {"classes", 10}, {"size", 32}}},
};

Graph network(const std::string &name, const std::map<std::string, double> &parameters) {
  auto graph = load_bundled(name, {.parameters = parameters, .include = {}});
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  auto done = randomise_weights(*graph, 7);
  REQUIRE_MESSAGE(done, to_string(done.error()));
  return before_softmax(std::move(*graph));
}
} // namespace

TEST_CASE(
    "narrow versions of every bundled network, on every target and with every pass left out") {
  for (const std::string &name : bundled_models()) {
    CAPTURE(name);
    REQUIRE_MESSAGE(narrow.contains(name), "add the network to the table above");
    Graph graph = network(name, narrow.at(name));
    check_everywhere(graph, random_inputs(graph, 3, 3));
  }
}

TEST_CASE("what compares numbers gives exactly what the reference gives, in every type") {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::f32, {1, 5, 6, 37}});
  auto add = [&](const Op &op, std::vector<ValueId> inputs) {
    auto id = graph.add_node(fmt::format("n{}", graph.nodes.size()), op, std::move(inputs));
    REQUIRE_MESSAGE(id, to_string(id.error()));
    graph.outputs.push_back(*id);
    return *id;
  };
  const ValueId three = graph.add_constant("three", splat_constant(3, {1}));
  const ValueId tripled = add(Binary{BinaryKind::mul}, {x, three});
  add(Unary{UnaryKind::floor}, {tripled});
  add(Unary{UnaryKind::ceil}, {tripled});
  add(Unary{UnaryKind::thresholded_relu, 0.5f}, {x});
  const ValueId whole = add(Cast{DType::i32}, {tripled});
  const ValueId two = graph.add_constant(
      "two", computed_constant(Cast{DType::i32}, {splat_constant(2, {1})}).value());
  for (BinaryKind kind : {BinaryKind::add, BinaryKind::sub, BinaryKind::mul, BinaryKind::div,
                          BinaryKind::min, BinaryKind::max})
    add(Binary{kind}, {whole, add(Unary{UnaryKind::abs}, {add(Binary{kind}, {two, whole})})});
  add(Unary{UnaryKind::neg}, {whole});
  const ValueId set = add(Cast{DType::boolean}, {whole});
  add(Cast{DType::f32}, {set});
  add(Cast{DType::i64}, {set});
  for (int64_t axis = 1; axis < 4; ++axis) {
    add(Hardmax{axis}, {x});
    add(ArgReduce{ArgKind::max, axis, true, false}, {tripled});
    const ValueId least = add(ArgReduce{ArgKind::min, axis, false, true}, {x});
    add(Cast{DType::f32}, {least});
  }
  add(Slice{{1, 3}, {-1, 30}, {INT64_MIN, 2}, {-2, -3}}, {whole}); // any type moves
  const ValueId indices = graph.add_constant(
      "indices", literal_constant(Tensor::of(std::vector<int64_t>{2, -1, 0, 2}, {2, 2})));
  add(Gather{2}, {set, indices});
  add(Gather{3}, {x, indices});
  const std::vector<Tensor> inputs = random_inputs(graph, 1, 3);
  const std::vector<Tensor> expected = evaluate(graph, inputs).value();
  for (const Target &target : runnable_targets()) {
    CAPTURE(target.name);
    auto executable = compile(graph, target);
    CHECK(executable->plan().batched);
    CHECK(check_plan(executable->plan(), executable->graph(), 3));
    auto outputs = run(executable, inputs, 3, nullptr);
    for (size_t j = 0; j < outputs.size(); ++j) {
      CAPTURE(j);
      CHECK(outputs[j].dtype() == expected[j].dtype());
      CHECK(same_bits(outputs[j], expected[j]));
    }
  }
}

TEST_CASE("weights may be computed at run time") {
  Graph graph;
  auto input = [&](const char *name, Shape shape) {
    return graph.add_input(name, {DType::f32, std::move(shape)});
  };
  auto add = [&](const Op &op, std::vector<ValueId> inputs) {
    return graph.add_node(fmt::format("n{}", graph.nodes.size()), op, std::move(inputs)).value();
  };
  const ValueId x = input("x", {2, 6, 9, 7});
  for (int64_t channels : {2, 34, 64, 98, 130}) { // parts of panels, whole and narrower ones
    Conv conv;
    conv.kernel = {3, 2};
    conv.pad = {1, 0, 1, 1};
    conv.groups = 2;
    conv.bias = true;
    const ValueId w = input("w", {channels, 3, 3, 2}), b = input("b", {channels});
    const ValueId y = add(conv, {x, w, b});
    graph.outputs.push_back(add(Unary{UnaryKind::relu}, {y}));
  }
  const ValueId transposed = input("t", {13, 21}), m = input("m", {3, 13}), c = input("c", {21});
  const ValueId rows = add(Transpose{{1, 0}}, {transposed});
  graph.outputs.push_back(add(Dense{.bias = true, .post = {}}, {m, rows, c}));
  for (size_t i = 0; i < graph.inputs.size(); ++i)
    graph.values[graph.inputs[i]].name += fmt::format("{}", i);
  std::vector<Tensor> inputs;
  for (ValueId id : graph.inputs)
    inputs.push_back(random_inputs(graph, id, graph.shape(id)[0])[inputs.size()]);
  const std::vector<Tensor> expected = evaluate(graph, inputs).value();
  for (const Target &target : runnable_targets()) {
    CAPTURE(target.name);
    auto executable = compile(graph, target);
    auto right = check_plan(executable->plan(), executable->graph(), 1);
    CHECK_MESSAGE(right, to_string(right.error()));
    auto outputs = run(executable, inputs, 1, nullptr);
    for (size_t j = 0; j < outputs.size(); ++j) {
      CAPTURE(j);
      CHECK(compare(outputs[j], expected[j]).within(1e-5));
    }
  }
}
