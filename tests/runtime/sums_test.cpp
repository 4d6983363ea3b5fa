// Sums over very many elements, against float64: they are summed in blocks, so that the error does
// not grow with their number. Offsets make sums large against what their terms differ by.
#include "tests/runtime/compiled.h"

#include <cmath>
#include <fmt/format.h>
#include <random>

using namespace lathe::core;

namespace {

// What rounding within blocks comes to at worst, of the sum of magnitudes; usually it is far less.
constexpr double bound = double(block_terms) * 0x1p-24;

// Normally distributed.
Tensor noise(Shape shape, double mean, double deviation, uint64_t seed) {
  Tensor tensor(DType::f32, std::move(shape));
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(mean, deviation);
  for (float &x : tensor.f32_mutable()) x = float(normal(random));
  return tensor;
}

struct Builder {
  Graph graph = {};
  ValueId x = no_value;
  explicit Builder(const Shape &shape) { x = graph.add_input("x", {DType::f32, shape}); }
  ValueId add(Op op, std::vector<ValueId> inputs) {
    auto id = graph.add_node(fmt::format("n{}", graph.nodes.size()), std::move(op), inputs);
    REQUIRE_MESSAGE(id, to_string(id.error()));
    return *id;
  }
  void show(ValueId id) { graph.outputs.push_back(id); }
};

// Every target; `error` of the largest magnitude.
void check_sums(const Graph &graph, const Tensor &input, double error) {
  const auto references = evaluate(graph, {&input, 1});
  REQUIRE_MESSAGE(references, to_string(references.error()));
  for (const Target &target : runnable_targets()) {
    const auto executable = compile(graph, target);
    const auto outputs = run(executable, {input}, 1, nullptr);
    static auto two_threads = std::make_shared<ThreadPool>(2);
    const auto threaded = run(executable, {input}, 1, two_threads);
    for (size_t j = 0; j < outputs.size(); ++j) {
      const Comparison c = compare(outputs[j], (*references)[j]);
      CHECK_MESSAGE(c.within(error), fmt::format("{}, output {}: {} of {}", target.name, j,
                                                 c.largest_error, c.largest_reference));
      CHECK(same_bits(outputs[j], threaded[j]));
    }
  }
}

} // namespace

TEST_CASE("means and sums of up to two million elements, in every layout") {
  for (const Shape &shape : {Shape{1, 1, 1351, 1349},
                             {1, 3, 301, 997},
                             {1, 17, 211, 83},
                             {1, 2, 1, 300001},
                             {1, 2, 70001, 1},
                             {1, 8, 40, 41}}) {
    CAPTURE(to_string(shape));
    Builder b(shape);
    const ValueId part = b.add(Slice{{2, 3}, {0, 1}, {INT64_MAX, INT64_MAX}, {1, 1}}, {b.x});
    for (ValueId of : {b.x, part})
      if (element_count(b.graph.shape(of)) > 0) {
        for (ReduceKind kind : {ReduceKind::mean, ReduceKind::sum})
          for (const std::vector<int64_t> &axes :
               {std::vector<int64_t>{2, 3}, {1, 2, 3}, {3}, {1}, {2}})
            b.show(b.add(Reduce{kind, axes, true}, {of}));
        b.show(b.add(GlobalPool{PoolKind::average}, {of}));
      }
    check_sums(b.graph, noise(shape, 100.3, 1, 5), bound / 4);
    check_sums(b.graph, noise(shape, 100.3, 0, 5), bound); // errors of one sign
  }
}

TEST_CASE("an instance norm over 1.8 million elements of mean 100") {
  const Shape shape{1, 1, 1344, 1340};
  const Tensor input = noise(shape, 100, 1, 3);
  Builder b(shape); // as ONNX's InstanceNormalization is read
  auto mean = [&](ValueId v) { return b.add(Reduce{ReduceKind::mean, {2, 3}, true}, {v}); };
  const ValueId centre = mean(b.x), centred = b.add(Binary{BinaryKind::sub}, {b.x, centre});
  const ValueId variance = mean(b.add(Binary{BinaryKind::mul}, {centred, centred}));
  const ValueId root = b.add(Unary{UnaryKind::sqrt}, {variance});
  b.show(b.add(Binary{BinaryKind::div}, {centred, root}));
  double sum = 0, squares = 0;
  for (float x : input.f32()) sum += double(x);
  const double exact = sum / double(input.size());
  for (float x : input.f32()) squares += (double(x) - exact) * (double(x) - exact);
  const double deviation = std::sqrt(squares / double(input.size()));
  for (const Target &target : runnable_targets()) {
    CAPTURE(target.name);
    const Tensor result = run(compile(b.graph, target), {input}, 1, nullptr)[0];
    double worst = 0;
    for (size_t i = 0; i < size_t(input.size()); ++i)
      worst = std::max(worst, std::abs(result.f32()[i] - (input.f32()[i] - exact) / deviation));
    CHECK(worst < 1e-5); // the mean itself is rounded, by up to 3.8e-6
  }
}

TEST_CASE("softmax over a million elements") {
  for (const Shape &shape : {Shape{1, 1, 1000003}, {1, 500001, 3}}) {
    Builder b(shape);
    const int64_t axis = shape[2] == 3 ? 1 : 2;
    for (bool log : {false, true}) b.show(b.add(Softmax{axis, log}, {b.x}));
    check_sums(b.graph, noise(shape, -3, 0.5, 11), 3e-6);
  }
}
