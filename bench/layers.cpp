// Single convolution layers of the classic networks, one thread, beside the FMA peak measured in
// the same run. Weights are warm: the same layer runs again and again.
#include "runtime/executable.h"
#include "runtime/peak.h"

#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <random>

using namespace lathe;

namespace {

struct Layer {
  const char *network;
  int64_t size, in, out, kernel, stride;
};
constexpr Layer layers[] = {
    {"vgg16", 224, 64, 64, 3, 1},      {"vgg16", 112, 64, 128, 3, 1},
    {"vgg16", 56, 256, 256, 3, 1},     {"vgg16", 28, 512, 512, 3, 1},
    {"vgg16", 14, 512, 512, 3, 1},     {"resnet50", 224, 3, 64, 7, 2},
    {"resnet50", 56, 64, 64, 3, 1},    {"resnet50", 28, 128, 128, 3, 1},
    {"resnet50", 14, 256, 256, 3, 1},  {"resnet50", 7, 512, 512, 3, 1},
    {"resnet50", 56, 64, 256, 1, 1},   {"resnet50", 56, 256, 64, 1, 1},
    {"resnet50", 28, 512, 128, 1, 1},  {"resnet50", 14, 1024, 256, 1, 1},
    {"resnet50", 14, 256, 1024, 1, 1}, {"resnet50", 7, 2048, 512, 1, 1},
    {"resnet50", 56, 256, 512, 1, 2},
};

Tensor random_weights(Shape shape) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  Tensor tensor(DType::f32, std::move(shape));
  for (float &x : tensor.f32_mutable()) x = uniform(random);
  return tensor;
}

// The layer with bias and ReLU, as in its network, behind and before values that stay inside, so
// that neither is converted from or to NCHW: measured by its own kernel's time.
Result<std::shared_ptr<const Executable>> compile_layer(const Layer &l) {
  Graph graph;
  ValueId x = graph.add_input("x", {DType::f32, {1, l.in, l.size, l.size}});
  LATHE_TRY(x, graph.add_node("before", Unary{UnaryKind::relu}, {x}));
  Conv conv;
  conv.kernel = {l.kernel, l.kernel};
  conv.stride = {l.stride, l.stride};
  conv.pad = {l.kernel / 2, l.kernel / 2, l.kernel / 2, l.kernel / 2};
  conv.bias = true;
  conv.post = {FusedOp{Unary{UnaryKind::relu}}};
  ValueId w =
      graph.add_constant("w", literal_constant(random_weights({l.out, l.in, l.kernel, l.kernel})));
  ValueId b = graph.add_constant("b", literal_constant(random_weights({l.out})));
  LATHE_TRY(ValueId y, graph.add_node("conv", conv, {x, w, b}));
  graph.outputs = {y};
  return Executable::compile(std::move(graph));
}

void measure(benchmark::State &state, const Layer &layer, double peak) {
  auto executable = compile_layer(layer);
  if (!executable) return state.SkipWithError(to_string(executable.error()).c_str());
  const Plan &plan = (*executable)->plan();
  auto request = Request::create(*executable);
  if (!request) return state.SkipWithError(to_string(request.error()).c_str());
  for (float &x : (*request)->input(0).f32_mutable()) x = 0.5f;
  std::vector<double> milliseconds(plan.kernels.size());
  size_t conv = 0;
  while (!std::holds_alternative<ConvSpec>(plan.kernels[conv].spec)) ++conv;
  double best = 1e30; // the counters take the best run: the machine is shared
  for (auto _ : state) {
    (*request)->run_timed(milliseconds);
    state.SetIterationTime(milliseconds[conv] / 1000);
    best = std::min(best, milliseconds[conv]);
  }
  double gflops = plan.kernels[conv].flops_per_image / best * 1e-6;
  state.counters["GFLOP/s"] = gflops;
  state.counters["%peak"] = 100 * gflops / peak;
}

} // namespace

int main(int argc, char **argv) {
  benchmark::Initialize(&argc, argv);
  double peak = measure_peak_gflops(host_target());
  fmt::print("FMA peak of one thread: {:.1f} GFLOP/s ({})\n", peak, host_target().name);
  for (const Layer &layer : layers)
    benchmark::RegisterBenchmark(
        fmt::format("{}/{}x{}x{}_to_{}_{}x{}_s{}", layer.network, layer.size, layer.size, layer.in,
                    layer.out, layer.kernel, layer.kernel, layer.stride)
            .c_str(),
        [&layer, peak](benchmark::State &state) { measure(state, layer, peak); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond)
        ->MinTime(0.2);
  benchmark::RunSpecifiedBenchmarks();
  fmt::print("FMA peak again: {:.1f} GFLOP/s\n", measure_peak_gflops(host_target()));
}
