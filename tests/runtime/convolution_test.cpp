// Convolutions and dense layers by every algorithm, for every kind of tile, on odd sizes, against
// the reference; and the same bits however their rows are cut into blocks and wherever they lie.
#include "frontend/bundled.h"
#include "frontend/weights.h"
#include "tests/runtime/compiled.h"

#include <fmt/format.h>

using namespace lathe::core;

namespace {

// The direct algorithm for a convolution, at three places: by itself, from an NCHW input; behind a
// map, with a sum behind it; with a pool. `seen` is called with each of its specs.
void check_direct(const Conv &conv, int64_t in, int64_t out, Size2 size,
                  const std::function<void(const ConvSpec &)> &seen) {
  CAPTURE(conv.groups);
  CAPTURE(conv.kernel.h);
  CAPTURE(conv.stride.w);
  CAPTURE(in);
  CAPTURE(size.w);
  Graph graph;
  ValueId x = graph.add_input("x", {DType::f32, {1, in, size.h, size.w}});
  auto name = [&](const char *of) { return fmt::format("{}{}", of, graph.nodes.size()); };
  auto convolve = [&](Conv op, ValueId from) {
    const std::string w = name("w"), b = name("b");
    std::vector<ValueId> inputs{
        from, graph.add_constant(w, named_constant(w, {DType::f32,
                                                       {out, graph.shape(from)[1] / op.groups,
                                                        op.kernel.h, op.kernel.w}}))};
    op.bias = true;
    inputs.push_back(graph.add_constant(b, named_constant(b, {DType::f32, {out}})));
    return graph.add_node(name("conv"), op, inputs).value();
  };
  const ValueId plain = convolve(conv, x);
  const ValueId first = graph.add_node("tanh", Unary{UnaryKind::tanh}, {x}).value();
  const ValueId sum =
      graph.add_node("sum", Binary{BinaryKind::add}, {convolve(conv, first), plain}).value();
  Pool pool;
  pool.kind = PoolKind::average;
  pool.kernel = {2, 3}, pool.stride = {2, 1}, pool.pad = {1, 1, 1, 1};
  const ValueId pooled =
      graph
          .add_node("pool", pool,
                    {graph.add_node("relu", Unary{UnaryKind::relu}, {convolve(conv, x)}).value()})
          .value();
  graph.outputs = {plain, sum, pooled};
  REQUIRE(randomise_weights(graph, 1));
  auto inputs = random_inputs(graph, 1, 3);
  auto references = evaluate(graph, inputs);
  REQUIRE_MESSAGE(references, to_string(references.error()));
  for (const Target &target : runnable_targets())
    for (bool odd : {false, true}) {
      auto executable =
          compile(graph, target, {},
                  {.smallest_blocks = odd, .strict = true, .jitter = odd ? uint64_t(in) : 0});
      for (int64_t images : {1, 3})
        CHECK(check_plan(executable->plan(), executable->graph(), images));
      for (const Kernel &kernel : executable->plan().kernels)
        if (auto *spec = std::get_if<ConvSpec>(&kernel.spec)) seen(*spec);
      check(executable, inputs, *references);
    }
}

} // namespace

TEST_CASE("chains of convolutions, small blocks and odd pitches change no bit") {
  int odd = 0; // plans that the options changed
  for (uint64_t seed = 200; seed < 260; ++seed) {
    CAPTURE(seed);
    Graph graph = random_graph(seed);
    auto inputs = random_inputs(graph, seed, 3);
    for (const Target &target : runnable_targets()) {
      auto strict = compile(graph, target, {}, {.strict = true});
      auto usual = run(strict, inputs, 3, nullptr);
      for (bool smallest_blocks : {false, true}) {
        auto chained = compile(graph, target, {},
                               {.chained = std::vector<bool>(100, true),
                                .smallest_blocks = smallest_blocks,
                                .strict = true,
                                .jitter = smallest_blocks ? seed : 0});
        if (smallest_blocks) odd += print(chained->plan()) != print(strict->plan());
        auto outputs = run(chained, inputs, 3, nullptr);
        for (size_t j = 0; j < outputs.size(); ++j) CHECK(same_bits(outputs[j], usual[j]));
      }
    }
  }
  CHECK(odd > 60);
  for (const char *name : {"resnet18", "vgg11", "inception_v3"}) {
    CAPTURE(name);
    Graph graph = load_bundled(name).value();
    REQUIRE(randomise_weights(graph, 1));
    auto inputs = random_inputs(graph, 1, 1);
    const Target target = host_target();
    auto usual = run(compile(graph, target, {}, {.strict = true}), inputs, 1, nullptr);
    auto chained =
        compile(graph, target, {}, {.chained = std::vector<bool>(1000, true), .strict = true});
    CHECK(chained->plan().kernels.size() < compile(graph, target)->plan().kernels.size());
    CHECK(same_bits(run(chained, inputs, 1, nullptr)[0], usual[0]));
  }
}

TEST_CASE("small blocks and odd pitches change no bit of Winograd's either") {
  auto transformed_in = [](const Plan &plan) {
    int kernels = 0;
    for (const Kernel &kernel : plan.kernels)
      if (auto *conv = std::get_if<ConvSpec>(&kernel.spec)) kernels += bool(conv->winograd);
    return kernels;
  };
  int transformed = 0; // kernels
  for (uint64_t seed = 300; seed < 700; ++seed) {
    CAPTURE(seed);
    Graph graph = random_graph(seed);
    Graph lowered = graph;
    REQUIRE(run_passes(lowered));
    auto plan = make_plan(lowered, host_target(), {.any_algorithm = picks(seed)});
    REQUIRE(plan);
    if (transformed_in(*plan) == 0) continue;
    auto inputs = random_inputs(graph, seed, 3);
    for (const Target &target : runnable_targets()) {
      auto usual = compile(graph, target, {}, {.any_algorithm = picks(seed)});
      auto other = compile(graph, target, {},
                           {.smallest_blocks = true, .any_algorithm = picks(seed), .jitter = seed});
      transformed += transformed_in(usual->plan());
      auto expected = run(usual, inputs, 3, nullptr), outputs = run(other, inputs, 3, nullptr);
      for (size_t j = 0; j < outputs.size(); ++j) CHECK(same_bits(outputs[j], expected[j]));
    }
  }
  CHECK(transformed > 30);
}

TEST_CASE("every algorithm of a convolution agrees with the reference on odd sizes") {
  int transformed = 0; // kernels
  for (Size2 kernel : {Size2{3, 3}, {5, 5}, {1, 7}, {7, 1}, {1, 3}, {5, 1}, {3, 5}})
    for (int64_t groups : {1, 2})
      for (int64_t size : {groups == 1 ? 13 : 7, 10, 1}) {
        CAPTURE(kernel.h);
        CAPTURE(kernel.w);
        CAPTURE(size);
        Graph graph;
        ValueId x = graph.add_input("x", {DType::f32, {1, 10 * groups, size, size + 2}});
        Conv conv;
        conv.kernel = kernel;
        conv.pad = {kernel.h / 2, kernel.w / 2, kernel.h / 2, kernel.w / 2};
        conv.groups = groups;
        ValueId w = graph.add_constant(
            "w", named_constant("w", {DType::f32, {37 * groups, 10, kernel.h, kernel.w}}));
        ValueId y = graph.add_node("conv", conv, {x, w}).value();
        Pool pool;
        pool.kernel = {3, 3}, pool.stride = {2, 2}, pool.pad = {1, 1, 1, 1};
        auto pooled = [&](const Pool &op, const std::string &name) {
          const ValueId before = graph.add_node("conv_" + name, conv, {x, w}).value();
          return graph.add_node(name, op, {before}).value();
        };
        graph.outputs = {y, graph.add_node("pool", pool, {y}).value(), pooled(pool, "overlapping")};
        pool.kernel.h = 2; // may be computed block by block with the convolution
        graph.outputs.push_back(pooled(pool, "apart"));
        REQUIRE(randomise_weights(graph, 1));
        auto inputs = random_inputs(graph, 1, 3);
        auto references = evaluate(graph, inputs);
        REQUIRE_MESSAGE(references, to_string(references.error()));
        for (const Target &target : runnable_targets())
          for (uint64_t pick = 0; pick < 9; ++pick) {
            auto executable = compile(graph, target, {}, {.any_algorithm = pick});
            for (const Kernel &kernel : executable->plan().kernels)
              if (auto *spec = std::get_if<ConvSpec>(&kernel.spec))
                transformed += bool(spec->winograd);
            check(executable, inputs, *references);
          }
      }
  CHECK(transformed > 400);
}

TEST_CASE("convolutions whose vectors hold several groups, or several pixels") {
  int grouped = 0, shared = 0; // kernels
  auto check_convolution = [&](const Conv &conv, int64_t in, int64_t out, Size2 size) {
    check_direct(conv, in, out, size, [&](const ConvSpec &spec) {
      grouped += spec.group_channels > 0;
      shared += spec.vector_pixels > 1;
    });
  };
  for (int64_t kernel : {1, 3, 4})
    for (auto [stride, pad] : {std::pair<int64_t, int64_t>{1, 0}, {1, 1}, {2, 1}}) {
      Conv conv;
      conv.kernel = {kernel, kernel == 4 ? 2 : kernel};
      conv.stride = {1, stride};
      conv.pad = {pad, pad, 0, pad};
      if (kernel == 3) conv.dilation = {2, 1};
      for (int64_t channels : {1, 2, 4, 8}) // of a group
        for (int64_t groups : {5, 35}) {
          conv.groups = groups;
          check_convolution(conv, groups * channels, groups * channels, {5, 17});
        }
      conv.groups = 1;
      for (int64_t out : {1, 3, 6, 8})
        for (int64_t width : {12, 33}) check_convolution(conv, 1, out, {6, width});
    }
  CHECK(grouped > 150);
  CHECK(shared > 50);
}

// Between the pixels of a part lie other channels; where its vectors are padded to as many as the
// whole has, pixels are as far apart as in scratch, and yet no run.
TEST_CASE("convolutions of few channels in a group read parts of a wider value") {
  int alike = 0; // kernels that bring pixels into scratch which are as far apart as there
  for (int64_t whole : {8, 16, 24, 32, 48}) {
    CAPTURE(whole);
    Graph graph;
    auto add = [&](const Op &op, std::vector<ValueId> inputs) {
      return graph.add_node(fmt::format("n{}", graph.nodes.size()), op, std::move(inputs)).value();
    };
    auto convolve = [&](Conv conv, ValueId from, int64_t channels) {
      conv.bias = true;
      const std::string w = fmt::format("w{}", graph.nodes.size()), b = "b" + w;
      const Shape shape{channels, graph.shape(from)[1] / conv.groups, conv.kernel.h, conv.kernel.w};
      return add(conv, {from, graph.add_constant(w, named_constant(w, {DType::f32, shape})),
                        graph.add_constant(b, named_constant(b, {DType::f32, {channels}}))});
    };
    auto few_in_group = [&](ValueId part) { // by every window and stride
      const int64_t channels = graph.shape(part)[1];
      for (int64_t group : {1, 2, 3, 4})
        for (Size2 kernel : {Size2{1, 1}, {3, 3}, {2, 1}})
          for (int64_t stride : {1, 2}) {
            if (channels % group || (group > 1 && kernel.w == 1)) continue;
            Conv conv;
            conv.kernel = kernel, conv.stride = {1, stride}, conv.groups = channels / group;
            if (kernel.h == 3) conv.pad = {1, 1, 0, 1};
            graph.outputs.push_back(convolve(conv, part, channels));
          }
    };
    const ValueId x = graph.add_input("x", {DType::f32, {1, 3, 5, 9}});
    const ValueId all = convolve({}, x, whole);
    for (int64_t less : {1, 2, 4}) {
      few_in_group(add(Slice{{1}, {0}, {whole - less}, {1}}, {all}));
      few_in_group(add(Slice{{1}, {less}, {INT64_MAX}, {1}}, {all}));
    }
    if (whole % 3 == 0) {
      add(Split{1, {whole / 3, whole / 3, whole / 3}}, {all});
      for (ValueId part : std::vector(graph.nodes.back().outputs)) few_in_group(part);
    }
    Conv sibling; // of another stride, so that these two alone become one
    sibling.stride = {1, 2};
    for (int64_t channels : {whole - 2, int64_t{2}}) few_in_group(convolve(sibling, x, channels));
    REQUIRE(randomise_weights(graph, 1));
    const auto inputs = random_inputs(graph, uint64_t(whole), 3);
    const auto references = evaluate(graph, inputs);
    REQUIRE_MESSAGE(references, to_string(references.error()));
    for (const Target &target : runnable_targets()) {
      CAPTURE(target.name);
      const auto executable = compile(graph, target);
      auto sound = check_plan(executable->plan(), executable->graph(), 2);
      CHECK_MESSAGE(sound, to_string(sound.error()));
      for (const Kernel &kernel : executable->plan().kernels) {
        auto *spec = std::get_if<ConvSpec>(&kernel.spec);
        if (!spec || spec->prologue != Prologue::copy || !spec->pre.empty()) continue;
        using S = ConvSpec::StageParams;
        auto of_stage = [&](auto... path) {
          return kernel.params[leaves<ConvSpec::Params>() + leaf(path...)].fixed;
        };
        alike += of_stage(&S::in, &Pitches::pixel) == 4 * of_stage(&S::in_channels) &&
                 of_stage(&S::all_in_channels) != of_stage(&S::in_channels);
      }
      check(executable, inputs, *references);
    }
  }
  CHECK(alike > 50);
}

TEST_CASE("panels of every width, from channels that follow each other or lie apart") {
  int narrower = 0, apart = 0, gathered = 0; // kernels
  for (int64_t groups : {1, 2})
    for (int64_t in : {5, 37})
      for (int64_t out : {7, 49, 80, 112, 175}) {
        Conv conv;
        conv.groups = groups;
        for (bool pointwise : {true, false}) {
          if (!pointwise) conv.kernel = {3, 2}, conv.pad = {1, 0, 2, 1};
          const Size2 size{3, out % 2 ? 19 : 9};
          check_direct(conv, groups * in, groups * out, size, [&](const ConvSpec &spec) {
            narrower += spec.last.has_value();
            apart += spec.apart;
            gathered += spec.prologue == Prologue::gather;
          });
        }
      }
  CHECK(narrower > 100);
  CHECK(apart > 50);
  CHECK(gathered > 50);
}

TEST_CASE("dense layers over rows and in panels agree with the reference on odd sizes") {
  int panels = 0, rows = 0; // kernels
  for (int64_t depth : {1, 7, 64, 99})
    for (int64_t outputs : {1, 5, 16, 83, 300}) {
      CAPTURE(depth);
      CAPTURE(outputs);
      Graph graph;
      const ValueId x = graph.add_input("x", {DType::f32, {1, depth}});
      auto add = [&](const Op &op, std::vector<ValueId> inputs) {
        return graph.add_node(fmt::format("n{}", graph.nodes.size()), op, std::move(inputs))
            .value();
      };
      auto constant = [&](const std::string &name, Shape shape) {
        return graph.add_constant(name, named_constant(name, {DType::f32, std::move(shape)}));
      };
      const ValueId y = add(Dense{.bias = true, .post = {}},
                            {x, constant("v", {outputs, depth}), constant("b", {outputs})});
      const ValueId t = add(Unary{UnaryKind::tanh}, {y});
      const ValueId z = add(Dense{}, {t, constant("w", {outputs, outputs})});
      graph.outputs = {y, add(Binary{BinaryKind::add}, {z, t})};
      REQUIRE(randomise_weights(graph, 1));
      const auto inputs = random_inputs(graph, 1, 3);
      const auto references = evaluate(graph, inputs);
      REQUIRE_MESSAGE(references, to_string(references.error()));
      for (const Target &target : runnable_targets())
        for (uint64_t pick : {0, 1})
          for (uint64_t jitter : {0, 3}) {
            const auto executable =
                compile(graph, target, {}, {.any_algorithm = pick, .jitter = jitter});
            for (int64_t images : {1, 3})
              CHECK(check_plan(executable->plan(), executable->graph(), images));
            for (const Kernel &kernel : executable->plan().kernels) {
              panels += std::holds_alternative<ConvSpec>(kernel.spec);
              rows += std::holds_alternative<DenseSpec>(kernel.spec);
            }
            check(executable, inputs, *references);
          }
    }
  CHECK(panels > 100);
  CHECK(rows > 100);
}
