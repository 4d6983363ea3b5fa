// Plans of many random graphs, proved sound by the checker; and the checker's own eyesight.
#include "frontend/bundled.h"
#include "passes/pipeline.h"
#include "passes/plan.h"
#include "tests/random_graph.h"
#include "tests/reduce_graph.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace lathe::core;

namespace {

// Passes, plan, and the checker's word on it for one image and for several.
Result<void> plan_soundly(Graph graph, const Target &target, const PipelineOptions &passes) {
  LATHE_CHECK(run_passes(graph, passes));
  LATHE_TRY(const Plan plan, make_plan(graph, target));
  if (!plan.batched) return fail(ErrorCode::unsupported, "the plan mixes images");
  if (plan.arena_bytes.at(1) < plan.arena_lower_bound_bytes.at(1))
    return fail(ErrorCode::internal, "the arena is smaller than its lower bound");
  for (int64_t images : {1, 2}) LATHE_CHECK(check_plan(plan, graph, images));
  return {};
}

} // namespace

TEST_CASE("plans of 1,000 random graphs are sound, for one image and for several") {
  const std::vector<Target> &targets = known_targets();
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    const Graph graph = random_graph(10'000 + seed);
    const Target &target = targets[seed % targets.size()];
    PipelineOptions passes;
    if (seed % 2 == 0) // also without fusion: other aliases, other lifetimes
      passes.disabled = {"drop_identities", "fold_batch_norm", "fuse_bias", "fuse_post_ops"};
    auto sound = plan_soundly(graph, target, passes);
    if (sound) continue;
    const Graph small = reduce_graph(graph, [&](const Graph &g) {
      auto still = plan_soundly(g, target, passes);
      return !still && still.error().code == sound.error().code;
    });
    FAIL_CHECK(fmt::format("seed {}, {}: {}\n{}", seed, target.name, to_string(sound.error()),
                           print(small)));
  }
}

TEST_CASE("the checker sees a plan that is wrong") {
  int shrunk_caught = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    CAPTURE(seed);
    Graph graph = random_graph(seed);
    REQUIRE(run_passes(graph));
    auto plan = make_plan(graph, known_targets()[0]);
    REQUIRE(plan);
    REQUIRE(check_plan(*plan, graph, 2));
    int caught = 0, tried = 0;
    for (size_t k = 0; k < plan->kernels.size(); ++k)
      for (size_t o = 0; o < plan->kernels[k].operands.size(); ++o) {
        Plan broken = *plan;
        View &view = broken.kernels[k].operands[o];
        if (view.space == Space::weights) continue;
        view.offset.fixed += 4; // one element too far
        ++tried;
        caught += !check_plan(broken, graph, 2);
      }
    CHECK(caught == tried);
    Plan shrunk = *plan; // buffers on top of each other
    for (Kernel &kernel : shrunk.kernels)
      for (View &view : kernel.operands)
        if (view.space == Space::arena) view.offset.per_image = 0;
    shrunk_caught += !check_plan(shrunk, graph, 1);
  }
  CHECK(shrunk_caught >= 6); // where one buffer at most is alive at a time, nothing is wrong
}

namespace {

// A convolution of some channels of a value that is computed.
Graph of_part(const Conv &conv, int64_t whole, int64_t begin, int64_t end, int64_t channels) {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::f32, {1, whole, 9, 11}});
  const ValueId all = graph.add_node("all", Unary{UnaryKind::tanh}, {x}).value();
  const ValueId part = graph.add_node("part", Slice{{1}, {begin}, {end}, {1}}, {all}).value();
  const Shape shape{channels, (end - begin) / conv.groups, conv.kernel.h, conv.kernel.w};
  const ValueId w = graph.add_constant("w", named_constant("w", {DType::f32, shape}));
  graph.outputs = {graph.add_node("conv", conv, {part, w}).value()};
  return graph;
}
Conv window(Size2 kernel, int64_t stride, int64_t pad, int64_t groups) {
  Conv conv;
  conv.kernel = kernel, conv.stride = {stride, stride}, conv.groups = groups;
  conv.pad = {pad, pad, pad, pad};
  return conv;
}
Kernel &convolution_of(Plan &plan) {
  return *std::ranges::find_if(plan.kernels, [](const Kernel &kernel) {
    return std::holds_alternative<ConvSpec>(kernel.spec);
  });
}

} // namespace

TEST_CASE("the checker sees a convolution that reads a part as if it were the whole") {
  int copied = 0, in_place = 0;
  for (const Target &target : known_targets())
    for (int64_t whole : {4, 8, 16, 24, 32})
      for (int64_t channels : {whole - 1, whole - 2, whole / 2})
        for (int64_t pad : {0, 1}) {
          CAPTURE(target.name);
          CAPTURE(whole);
          CAPTURE(channels);
          const Graph graph =
              of_part(window({3, 3}, 1, pad, channels), whole, whole - channels, whole, channels);
          Plan plan = make_plan(graph, target).value();
          auto sound = check_plan(plan, graph, 2);
          REQUIRE_MESSAGE(sound, to_string(sound.error()));
          Kernel &kernel = convolution_of(plan);
          ConvSpec &spec = std::get<ConvSpec>(kernel.spec);
          if (spec.prologue == Prologue::copy) {
            kernel.params[leaves<ConvSpec::Params>() + leaf(&ConvSpec::StageParams::rows_run_on)] =
                fixed(1);
            ++copied;
          } else { // whole vectors; and now more of them
            CHECK(channels % spec.lanes == 0);
            ++(spec.last ? spec.last->vectors : spec.tile_vectors);
            ++in_place;
          }
          CHECK_FALSE(check_plan(plan, graph, 2));
        }
  CHECK(copied > 50);
  CHECK(in_place > 10);
}

TEST_CASE("the checker sees a convolution that is told something wrong") {
  using C = ConvSpec;
  using S = C::StageParams;
  const std::vector<size_t> any{leaf(&S::pad_top),      leaf(&S::pad_left),
                                leaf(&S::in_rows),      leaf(&S::in_cols),
                                leaf(&S::scratch_rows), leaf(&S::in, &Pitches::row),
                                leaf(&S::scratch_cols), leaf(&S::in, &Pitches::pixel)};
  const std::vector<size_t> direct{leaf(&S::tiles),
                                   leaf(&S::src_pixel_step),
                                   leaf(&S::tap_rows),
                                   leaf(&S::tap_row_pitch),
                                   leaf(&S::depth),
                                   leaf(&S::tap_cols),
                                   leaf(&S::in, &Pitches::image)};
  int caught = 0, transformed = 0;
  for (const Target &target : known_targets())
    for (const Conv &conv :
         {window({3, 3}, 2, 1, 1), window({3, 2}, 1, 0, 1), window({3, 3}, 2, 1, 2),
          window({3, 3}, 1, 0, 40), window({2, 3}, 2, 1, 20), window({3, 3}, 1, 1, 4)})
      for (uint64_t algorithm : {0, 1, 2}) {
        const Graph graph = of_part(conv, 48, 8, 48, 40);
        Plan plan =
            make_plan(graph, target, {.smallest_blocks = true, .any_algorithm = algorithm}).value();
        REQUIRE(check_plan(plan, graph, 2));
        Kernel &kernel = convolution_of(plan);
        const C &spec = std::get<C>(kernel.spec);
        std::vector<size_t> params;
        if (spec.prologue != Prologue::none) params = any;
        if (!spec.winograd) params.insert(params.end(), direct.begin(), direct.end());
        if (!spec.winograd)
          params.push_back(spec.prologue == Prologue::none ? leaf(&S::src_row_step)
                                                           : leaf(&S::row_stride));
        if (kernel.params[leaf(&C::Params::groups)].fixed > 1) params.push_back(leaf(&S::in_group));
        transformed += spec.winograd.has_value();
        for (size_t param : params) {
          CAPTURE(target.name);
          CAPTURE(param);
          CAPTURE(kernel_name(spec, target));
          Affine &value = kernel.params[leaves<C::Params>() + param];
          const Affine right = value;
          const bool in_bytes = (param >= leaf(&S::in) && param <= leaf(&S::in_group)) ||
                                param == leaf(&S::src_row_step) ||
                                param == leaf(&S::src_pixel_step) ||
                                param == leaf(&S::tap_row_pitch);
          value.fixed += in_bytes ? 4 : -1;
          CHECK_FALSE(check_plan(plan, graph, 2));
          value = right;
          ++caught;
        }
      }
  CHECK(caught > 500);
  CHECK(transformed > 5);
}

TEST_CASE("a graph that mixes images gets a plan of fixed shapes") {
  Graph graph;
  ValueId x = graph.add_input("x", {DType::f32, {1, 4, 6, 6}});
  ValueId y = graph.add_node("turn", Transpose{{1, 0, 2, 3}}, {x}).value();
  graph.outputs = {graph.add_node("relu", Unary{UnaryKind::relu}, {y}).value()};
  auto plan = make_plan(graph, known_targets()[0]);
  REQUIRE_MESSAGE(plan, to_string(plan.error()));
  CHECK_FALSE(plan->batched);
  CHECK(check_plan(*plan, graph, 1));
}

TEST_CASE("integers and masks move through memory of their own size") {
  for (DType dtype : {DType::i64, DType::i32, DType::boolean}) {
    CAPTURE(to_string(dtype));
    Graph graph;
    ValueId x = graph.add_input("x", {dtype, {1, 6, 5, 4}});
    ValueId turned = graph.add_node("turn", Transpose{{0, 3, 1, 2}}, {x}).value();
    ValueId flat = graph.add_node("flat", Flatten{1}, {turned}).value(); // no view can say this
    ValueId part = graph.add_node("part", Slice{{1}, {3}, {100}, {7}}, {flat}).value();
    ValueId all = graph.add_node("all", Concat{1}, {flat, part, flat}).value();
    graph.outputs = {all, part};
    for (const Target &target : known_targets()) {
      auto plan = make_plan(graph, target);
      REQUIRE_MESSAGE(plan, to_string(plan.error()));
      for (int64_t images : {1, 3}) {
        auto sound = check_plan(*plan, graph, images);
        CHECK_MESSAGE(sound, to_string(sound.error()));
      }
    }
  }
}

namespace {

struct Planned {
  Graph graph;
  Plan plan;
};
Planned planned(const std::string &name) {
  Graph graph = load_bundled(name).value();
  REQUIRE(run_passes(graph));
  auto plan = make_plan(graph, known_targets()[0]);
  REQUIRE_MESSAGE(plan, to_string(plan.error()));
  return {std::move(graph), std::move(*plan)};
}
template <typename Spec> int64_t kernels_of(const Plan &plan) {
  return std::ranges::count_if(
      plan.kernels, [](const Kernel &kernel) { return std::holds_alternative<Spec>(kernel.spec); });
}
template <typename T> int64_t nodes_of(const Graph &graph) {
  return std::ranges::count_if(graph.nodes,
                               [](const Node &node) { return std::holds_alternative<T>(node.op); });
}

} // namespace

TEST_CASE("what is left of the classics: layers, and nothing that only moves or activates") {
  for (const char *name :
       {"vgg16", "resnet50", "resnet152", "googlenet", "googlenet_torchvision", "inception_v3",
        "squeezenet1_0", "squeezenet1_1", "nin", "densenet121"}) {
    CAPTURE(name);
    const Planned p = planned(name);
    CHECK(nodes_of<BatchNorm>(p.graph) == 0);
    CHECK(nodes_of<Unary>(p.graph) == 0); // all went into layers
    CHECK(nodes_of<Binary>(p.graph) == 0);
    CHECK(nodes_of<Dropout>(p.graph) == 0);
    // A flatten of several pixels has to bring the channels to the front.
    CHECK(kernels_of<MapSpec>(p.plan) == (std::string_view(name) == "vgg16" ? 1 : 0));
  }
  // Pools that stand behind a convolution are part of its kernel.
  CHECK(kernels_of<PoolSpec>(planned("vgg16").plan) == 0);
  CHECK(kernels_of<PoolSpec>(planned("resnet50").plan) == 0);
  // Two per dense layer, one per transition and its pool, the first, the last pool, classifier,
  // softmax.
  CHECK(planned("densenet121").plan.kernels.size() == 2 * 58 + 2 * 3 + 4);
}

TEST_CASE("GoogLeNet's reductions are one convolution in each of its nine modules") {
  CHECK(nodes_of<Split>(planned("googlenet").graph) == 9);
}

TEST_CASE("the arena of every bundled network is as small as what must live at once") {
  for (const std::string &name : bundled_models()) {
    CAPTURE(name);
    const Plan plan = planned(name).plan;
    const auto bytes = double(plan.arena_bytes.at(1));
    CHECK(bytes <= 1.05 * double(plan.arena_lower_bound_bytes.at(1)));
    for (auto [network, limit] :
         {std::pair("vgg16", 17e6), {"resnet50", 5.6e6}, {"googlenet", 4.3e6}})
      if (name == network) CHECK(bytes <= limit);
  }
}

TEST_CASE("a memory limit finds the plan that keeps it, or says what would do") {
  for (const char *name : {"vgg16", "resnet50", "inception_v3", "densenet121"}) {
    CAPTURE(name);
    Graph graph = load_bundled(name).value();
    REQUIRE(run_passes(graph));
    const Target &target = known_targets()[0];
    // Without transformed weights only chains and small blocks save anything.
    for (const PlanOptions &options : {PlanOptions{}, PlanOptions{.weight_budget = 0}}) {
      CAPTURE(options.weight_budget);
      const int64_t usual = make_plan(graph, target, options)->sized(2, 2)->total;
      auto within = [&](int64_t bytes) {
        return make_plan_within(graph, target, {bytes, 2, 2}, options);
      };
      auto same = within(usual);
      REQUIRE(same);
      CHECK(print(*same) == print(*make_plan(graph, target, options)));
      auto less = within(usual - usual / 500); // weights are most of it
      REQUIRE_MESSAGE(less, to_string(less.error()));
      CHECK(less->sized(2, 2)->total <= usual - usual / 500);
      auto impossible = within(less->weight_bytes());
      REQUIRE(!impossible);
      CHECK(impossible.error().code == ErrorCode::limit);
      CHECK(impossible.error().found.contains("for 2 images on 2 threads"));
    }
  }
}

TEST_CASE("plans with chains of convolutions, and with odd pitches everywhere, are sound") {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    Graph graph = random_graph(70'000 + seed);
    REQUIRE(run_passes(graph));
    const PlanOptions options{.chained = std::vector<bool>(graph.nodes.size(), seed % 3 > 0),
                              .smallest_blocks = seed % 2 == 0,
                              .any_algorithm = seed,
                              .jitter = seed % 3 < 2 ? seed + 1 : 0};
    auto plan = make_plan(graph, known_targets()[seed % known_targets().size()], options);
    REQUIRE_MESSAGE(plan, to_string(plan.error()));
    for (int64_t images : {1, 2}) {
      auto sound = check_plan(*plan, graph, images);
      CHECK_MESSAGE(sound, to_string(sound.error()));
    }
  }
}

TEST_CASE("windows that no scratch can hold are an error, and tall pictures are no trouble") {
  Graph graph;
  ValueId x = graph.add_input("x", {DType::f32, {1, 16384, 1, 1}});
  ValueId w = graph.add_constant("w", named_constant("w", {DType::f32, {1, 16384, 2, 2}}));
  Conv conv;
  conv.kernel = {2, 2};
  conv.dilation = {16777215, 16777215};
  conv.pad = {16777215, 16777215, 0, 0};
  graph.outputs = {graph.add_node("c", conv, {x, w}).value()};
  auto plan = make_plan(graph, known_targets()[0]);
  REQUIRE(!plan);
  CHECK(plan.error().code == ErrorCode::limit);
  CHECK(plan.error().node == "c");

  Graph tall;
  x = tall.add_input("x", {DType::f32, {1, 1, int64_t{1} << 38, 1}});
  w = tall.add_constant("w", named_constant("w", {DType::f32, {1, 1, 1, 1}}));
  tall.outputs = {tall.add_node("c", Conv{}, {x, w}).value()};
  CHECK(make_plan(tall, known_targets()[0]));
}

namespace {
// The first convolution of such a shape, as planned for every target.
void check_scratch(const Shape &input, int64_t channels, Size2 kernel, int64_t most_bytes) {
  Graph graph;
  ValueId x = graph.add_input("x", {DType::f32, input});
  ValueId w = graph.add_constant(
      "w", named_constant("w", {DType::f32, {channels, input[1], kernel.h, kernel.w}}));
  Conv conv;
  conv.kernel = kernel;
  conv.pad = {kernel.h / 2, kernel.w / 2, kernel.h / 2, kernel.w / 2};
  graph.outputs = {graph.add_node("c", conv, {x, w}).value()};
  CAPTURE(to_string(input));
  for (const Target &target : known_targets())
    for (const PlanOptions &options :
         {PlanOptions{}, PlanOptions{.strict = true}, PlanOptions{.any_algorithm = 1}}) {
      CAPTURE(target.name);
      auto plan = make_plan(graph, target, options);
      REQUIRE_MESSAGE(plan, to_string(plan.error()));
      CHECK(plan->scratch_bytes <= most_bytes);
      CHECK(plan->kernels[0].tasks.at(1) >= 4); // for threads to share
    }
}
} // namespace

TEST_CASE("large pictures take little scratch, by any algorithm, and threads can share them") {
  constexpr int64_t megabytes = 1 << 20;
  check_scratch({1, 16, 1024, 1024}, 32, {3, 3}, 16 * megabytes);
  check_scratch({1, 16, 2048, 2048}, 16, {3, 3}, 16 * megabytes);
  check_scratch({1, 64, 64, 16384}, 64, {1, 3}, 16 * megabytes);
}

TEST_CASE("sizes near the limits are planned soundly or refused") {
  struct Case {
    int64_t channels, height, width, kernel_w, dilation_w;
  };
  for (const Case &c : {Case{1048576, 1, 1048576, 7, 1}, Case{262144, 1, 4194304, 3, 1},
                        Case{int64_t{1} << 39, 1, 1, 2, 16777215}}) {
    CAPTURE(c.channels);
    Graph graph;
    ValueId x = graph.add_input("x", {DType::f32, {1, c.channels, c.height, c.width}});
    ValueId w =
        graph.add_constant("w", named_constant("w", {DType::f32, {1, c.channels, 1, c.kernel_w}}));
    Conv conv;
    conv.kernel = {1, c.kernel_w};
    conv.dilation = {1, c.dilation_w};
    conv.pad = {0, c.kernel_w / 2 * c.dilation_w, 0, c.kernel_w / 2 * c.dilation_w};
    auto y = graph.add_node("c", conv, {x, w});
    if (!y) continue; // refused already
    graph.outputs = {*y};
    for (const Target &target : known_targets()) {
      auto plan = make_plan(graph, target);
      if (plan)
        CHECK(plan->scratch_bytes <= int64_t{1} << 40);
      else
        CHECK(plan.error().code == ErrorCode::limit);
    }
  }
}
