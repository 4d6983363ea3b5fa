// Every pass on its textbook case, and on one where it must keep its hands off: graphs in, text
// out.
#include "ir/evaluate.h"
#include "passes/pipeline.h"

#include <doctest/doctest.h>

using namespace lathe;

namespace {

// A graph under construction.
struct Builder {
  Graph graph;
  ValueId x = graph.add_input("x", {DType::f32, {1, 4, 6, 6}});
  ValueId constant(const std::string &name, Shape shape, float value = 0.5f) {
    return graph.add_constant(name, bound_constant(name, Tensor::splat(value, std::move(shape))));
  }
  ValueId node(const std::string &name, Op op, std::vector<ValueId> inputs) {
    auto id = graph.add_node(name, std::move(op), std::move(inputs));
    REQUIRE_MESSAGE(id, to_string(id.error()));
    return *id;
  }
  ValueId conv(const std::string &name, ValueId input, bool bias = false) {
    Conv op;
    op.kernel = {1, 1};
    op.bias = bias;
    std::vector<ValueId> inputs{input, constant(name + ".weight", {4, 4, 1, 1})};
    if (bias) inputs.push_back(constant(name + ".bias", {4}));
    return node(name, op, inputs);
  }
  ValueId batch_norm(const std::string &name, ValueId input) {
    return node(name, BatchNorm{},
                {input, constant(name + ".weight", {4}), constant(name + ".bias", {4}),
                 constant(name + ".mean", {4}), constant(name + ".var", {4})});
  }
  // What is left after the pass: names and ops in order, with post steps.
  std::string after(bool (*pass)(Graph &), ValueId output) {
    graph.outputs = {output};
    Tensor input = Tensor::splat(0.75f, {1, 4, 6, 6});
    auto before = evaluate(graph, std::vector<Tensor>{input});
    REQUIRE_MESSAGE(before, to_string(before.error()));
    pass(graph);
    remove_dead_code(graph);
    auto whole = verify(graph);
    REQUIRE_MESSAGE(whole, to_string(whole.error()));
    auto result = evaluate(graph, std::vector<Tensor>{input});
    REQUIRE_MESSAGE(result, to_string(result.error()));
    for (size_t i = 0; i < size_t((*before)[0].size()); ++i)
      REQUIRE((*result)[0].f32()[i] == doctest::Approx((*before)[0].f32()[i]).epsilon(1e-5));
    std::string text;
    for (const Node &n : graph.nodes) {
      text += (text.empty() ? "" : "; ") + n.name + ": " + op_name(n.op);
      const std::vector<PostOp> *post = nullptr;
      if (auto *c = std::get_if<Conv>(&n.op)) post = &c->post;
      if (auto *d = std::get_if<Dense>(&n.op)) post = &d->post;
      if (auto *c = std::get_if<Conv>(&n.op); c && c->bias) text += " bias";
      for (size_t i = 0; post && i < post->size(); ++i)
        text += std::visit([](const auto &o) { return " " + op_name(Op(o)); }, (*post)[i].op);
    }
    return text;
  }
};

} // namespace

TEST_CASE("drop_identities") {
  Builder b;
  ValueId y = b.node("drop", Dropout{}, {b.node("r", Unary{UnaryKind::relu}, {b.x})});
  y = b.node("slice", Slice{{1}, {0}, {99}, {1}}, {b.node("same", Reshape{{0, 4, 6, 6}}, {y})});
  CHECK(b.after(drop_identities, b.node("half", Slice{{1}, {0}, {2}, {1}}, {y})) ==
        "r: relu; half: slice");
}

TEST_CASE("fold_constants composes recipes without touching data") {
  Builder b;
  ValueId c =
      b.node("twice", Binary{BinaryKind::mul}, {b.constant("a", {4, 1, 1}), b.constant("b", {1})});
  CHECK(b.after(fold_constants, b.node("y", Binary{BinaryKind::add}, {b.x, c})) == "y: add");
  const ConstantRef &folded = b.graph.constant(b.graph.nodes[0].inputs[1]);
  REQUIRE(folded);
  CHECK(folded->op);
  CHECK_FALSE(folded->data.defined());
}

TEST_CASE("fold_batch_norm") {
  SUBCASE("into a convolution") {
    Builder b;
    CHECK(b.after(fold_batch_norm, b.batch_norm("bn", b.conv("c", b.x))) == "c: conv bias");
  }
  SUBCASE("into one with a bias") {
    Builder b;
    CHECK(b.after(fold_batch_norm, b.batch_norm("bn", b.conv("c", b.x, true))) == "c: conv bias");
  }
  SUBCASE("not where the convolution has another reader") {
    Builder b;
    ValueId c = b.conv("c", b.x);
    CHECK(b.after(fold_batch_norm,
                  b.node("sum", Binary{BinaryKind::add}, {b.batch_norm("bn", c), c})) ==
          "c: conv; bn: batch_norm; sum: add");
  }
  SUBCASE("not behind an activation") {
    Builder b;
    CHECK(b.after(fold_batch_norm,
                  b.batch_norm("bn", b.node("r", Unary{UnaryKind::relu}, {b.conv("c", b.x)}))) ==
          "c: conv; r: relu; bn: batch_norm");
  }
}

TEST_CASE("fold_scale") {
  SUBCASE("a factor per channel, and the bias along") {
    Builder b;
    CHECK(b.after(fold_scale, b.node("y", Binary{BinaryKind::mul},
                                     {b.constant("k", {4, 1, 1}), b.conv("c", b.x, true)})) ==
          "c: conv bias");
  }
  SUBCASE("a divisor") {
    Builder b;
    CHECK(b.after(fold_scale, b.node("y", Binary{BinaryKind::div},
                                     {b.conv("c", b.x), b.constant("k", {1})})) == "c: conv");
  }
  SUBCASE("not as a divisor's dividend, nor per column, nor behind an activation") {
    Builder b;
    ValueId y = b.node("by", Binary{BinaryKind::div}, {b.constant("k", {1}, 2), b.conv("c", b.x)});
    y = b.node("col", Binary{BinaryKind::mul}, {b.conv("d", y), b.constant("l", {6})});
    y = b.node("r", Unary{UnaryKind::relu}, {b.conv("e", y)});
    CHECK(b.after(fold_scale, b.node("m", Binary{BinaryKind::mul}, {y, b.constant("n", {1})})) ==
          "c: conv; by: div; d: conv; col: mul; e: conv; r: relu; m: mul");
  }
}

TEST_CASE("simplify_windows") {
  Builder b;
  auto pool = [](PoolKind kind, int64_t kernel) {
    Pool op;
    op.kind = kind;
    op.kernel = {kernel, kernel};
    return op;
  };
  const Pad around{{0, 0, 1, 0}, {0, 0, 1, 2}};
  SUBCASE("zeros before a convolution and an average pool become their padding") {
    ValueId y = b.conv("c", b.node("p", around, {b.x}));
    y = b.node("a", pool(PoolKind::average, 3), {b.node("q", around, {y})});
    CHECK(b.after(simplify_windows, y) == "c: conv; a: average_pool");
    CHECK(std::get<Pool>(b.graph.nodes[1].op).count_include_pad);
    CHECK(b.graph.nodes[0].fused == std::vector<std::string>{"p"});
  }
  SUBCASE("not before a max pool, nor in channels, nor other numbers, nor wider than a pool") {
    ValueId y = b.node("m", pool(PoolKind::max, 3), {b.node("p", around, {b.x})});
    y = b.node("a", pool(PoolKind::average, 2), {b.node("q", around, {y})});
    y = b.node("c", pool(PoolKind::average, 2),
               {b.node("s", Pad{{0, 0, 1, 0}, {0, 0, 0, 0}, 0.5f}, {y})});
    CHECK(b.after(simplify_windows, y) ==
          "p: pad; m: max_pool; q: pad; a: average_pool; s: pad; c: average_pool");
  }
  SUBCASE("pools and means of the whole picture") {
    ValueId y = b.node("p", pool(PoolKind::average, 6), {b.x});
    ValueId z = b.node("m", Reduce{ReduceKind::max, {-1, 2}}, {b.x});
    CHECK(b.after(simplify_windows, b.node("s", Binary{BinaryKind::add}, {y, z})) ==
          "p: global_average_pool; m: global_max_pool; s: add");
  }
  SUBCASE("not of a part, and not without the dimensions") {
    ValueId y = b.node("p", pool(PoolKind::average, 5), {b.x});
    ValueId z = b.node("m", Reduce{ReduceKind::mean, {2, 3}, false}, {y});
    CHECK(b.after(simplify_windows, z) == "p: average_pool; m: reduce_mean");
  }
}

TEST_CASE("simplify_bounds") {
  Builder b;
  auto bound = [&](const std::string &name, BinaryKind kind, ValueId x, float number) {
    ValueId limit = b.graph.add_constant(name + ".k", splat_constant(number, {}));
    return b.node(name, Binary{kind}, {x, limit});
  };
  SUBCASE("max and min with numbers are one clip, or a ReLU") {
    ValueId y = bound("min", BinaryKind::min, bound("max", BinaryKind::max, b.x, 0), 6);
    CHECK(b.after(simplify_bounds, y) == "max: clip");
    CHECK(print(b.graph.nodes[0].op) == "clip {beta = 6}");
  }
  SUBCASE("a ReLU of a clip") {
    ValueId y = bound("m", BinaryKind::max, b.x, 0);
    CHECK(b.after(simplify_bounds, b.node("r", Unary{UnaryKind::relu}, {y})) == "m: relu");
  }
  SUBCASE("not with a vector, nor where the first has another reader") {
    ValueId y = b.node("v", Binary{BinaryKind::max}, {b.x, b.constant("k", {6})});
    ValueId z = bound("m", BinaryKind::max, y, 0.25f);
    ValueId w = bound("n", BinaryKind::min, z, 0.5f);
    CHECK(b.after(simplify_bounds, b.node("s", Binary{BinaryKind::add}, {z, w})) ==
          "v: max; m: clip; n: clip; s: add");
  }
}

TEST_CASE("merge_siblings") {
  Builder b;
  auto relu = [&](ValueId x) {
    return b.node("r" + std::to_string(x), Unary{UnaryKind::relu}, {x});
  };
  auto mean = [&](const std::string &name, ValueId x) { return b.node(name, GlobalPool{}, {x}); };
  SUBCASE("1x1 convolutions of one input become one, also with and without bias") {
    ValueId y = b.node("s", Binary{BinaryKind::mul}, {b.conv("c", b.x, true), b.conv("d", b.x)});
    CHECK(b.after(merge_siblings, y) == "c: conv bias; c.parts: split; s: mul");
    CHECK(b.graph.nodes[0].fused == std::vector<std::string>{"d"});
  }
  SUBCASE("behind fusion, if they end alike") {
    ValueId y = b.node("s", Binary{BinaryKind::mul},
                       {mean("m", relu(b.conv("c", b.x))), mean("n", relu(b.conv("d", b.x)))});
    y = b.node("t", Binary{BinaryKind::sub}, {y, mean("o", b.conv("e", b.x))});
    b.graph.outputs = {y};
    fuse_post_ops(b.graph);
    CHECK(b.after(merge_siblings, y) ==
          "c: conv relu; c.parts: split; m: global_average_pool; n: global_average_pool; s: mul; "
          "e: conv; o: global_average_pool; t: sub");
  }
  SUBCASE("not where a part goes into a concat") {
    ValueId y = b.node("all", Concat{1}, {b.conv("c", b.x), relu(b.conv("d", b.x))});
    CHECK(b.after(merge_siblings, y).starts_with("c: conv; d: conv"));
  }
}

TEST_CASE("fuse_bias") {
  SUBCASE("a constant per channel") {
    Builder b;
    CHECK(b.after(fuse_bias, b.node("y", Binary{BinaryKind::add},
                                    {b.conv("c", b.x), b.constant("k", {4, 1, 1})})) ==
          "c: conv bias");
  }
  SUBCASE("not a constant per column") {
    Builder b;
    CHECK(b.after(fuse_bias,
                  b.node("y", Binary{BinaryKind::add}, {b.conv("c", b.x), b.constant("k", {6})})) ==
          "c: conv; y: add");
  }
}

TEST_CASE("fuse_post_ops") {
  SUBCASE("activation, residual, activation") {
    Builder b;
    ValueId y = b.node("sum", Binary{BinaryKind::add}, {b.x, b.conv("c", b.x)});
    CHECK(b.after(fuse_post_ops, b.node("r", Unary{UnaryKind::relu}, {y})) == "c: conv add relu");
  }
  SUBCASE("the later of two convolutions takes the sum") {
    Builder b;
    ValueId first = b.conv("c1", b.x), second = b.conv("c2", b.x);
    CHECK(b.after(fuse_post_ops, b.node("sum", Binary{BinaryKind::add}, {first, second})) ==
          "c1: conv; c2: conv add");
  }
  SUBCASE("not a difference the wrong way round") {
    Builder b;
    CHECK(b.after(fuse_post_ops, b.node("d", Binary{BinaryKind::sub}, {b.x, b.conv("c", b.x)})) ==
          "c: conv; d: sub");
  }
  SUBCASE("not a result that others need before the activation") {
    Builder b;
    ValueId c = b.conv("c", b.x);
    CHECK(b.after(fuse_post_ops, b.node("sum", Binary{BinaryKind::max},
                                        {b.node("r", Unary{UnaryKind::relu}, {c}), c})) ==
          "c: conv; r: relu; sum: max");
  }
}

TEST_CASE("all passes together turn a residual block into two kernels") {
  Builder b;
  ValueId y = b.node("r1", Unary{UnaryKind::relu}, {b.batch_norm("bn1", b.conv("c1", b.x))});
  y = b.node("sum", Binary{BinaryKind::add}, {b.batch_norm("bn2", b.conv("c2", y)), b.x});
  auto all = [](Graph &graph) { return run_passes(graph).has_value(); };
  CHECK(b.after(all, b.node("r2", Unary{UnaryKind::relu}, {y})) ==
        "c1: conv bias relu; c2: conv bias add relu");
  CHECK(b.graph.nodes[1].fused == std::vector<std::string>{"bn2", "sum", "r2"});
}

TEST_CASE("a chain of 100,000 layers is no trouble") {
  Builder b;
  ValueId y = b.x;
  for (int i = 0; i < 100'000; ++i) {
    Op op = i % 2 ? Op(Dropout{}) : Op(Unary{UnaryKind::sigmoid});
    y = b.node("n" + std::to_string(i), op, {y});
  }
  b.graph.outputs = {y};
  CHECK(run_passes(b.graph));
  CHECK(b.graph.nodes.size() == 50'000);
}

TEST_CASE("10,000 siblings are no trouble") {
  Builder b;
  ValueId sum = b.x;
  for (int i = 0; i < 10'000; ++i)
    sum = b.node(
        "s" + std::to_string(i), Binary{BinaryKind::div},
        {b.node("m" + std::to_string(i), GlobalPool{}, {b.conv("c" + std::to_string(i), b.x)}),
         sum});
  b.graph.outputs = {sum};
  CHECK(run_passes(b.graph));
  CHECK(b.graph.nodes.size() == 20'002); // one convolution, and what takes its parts
}
