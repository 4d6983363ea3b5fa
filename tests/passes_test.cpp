// Every pass on its textbook case, and on one where it must keep its hands off: graphs in, text
// out.
#include "ir/evaluate.h"
#include "passes/pipeline.h"
#include "tests/random_graph.h"

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

TEST_CASE("passes keep what random graphs compute") {
  for (uint64_t seed = 300; seed < 360; ++seed) {
    CAPTURE(seed);
    Graph graph = random_graph(seed);
    auto inputs = random_inputs(graph, seed, 2);
    auto before = evaluate(graph, inputs);
    REQUIRE(before);
    REQUIRE(run_passes(graph));
    auto after = evaluate(graph, inputs);
    REQUIRE_MESSAGE(after, to_string(after.error()));
    for (size_t j = 0; j < before->size(); ++j)
      for (size_t i = 0; i < size_t((*before)[j].size()); ++i)
        CHECK((*after)[j].f32()[i] ==
              doctest::Approx((*before)[j].f32()[i]).epsilon(2e-5).scale(1));
  }
}

TEST_CASE("a chain of 100,000 layers is no trouble") {
  Builder b;
  ValueId y = b.x;
  for (int i = 0; i < 100'000; ++i) {
    Op op = i % 2 ? Op(Dropout{}) : Op(Unary{UnaryKind::relu});
    y = b.node("n" + std::to_string(i), op, {y});
  }
  b.graph.outputs = {y};
  CHECK(run_passes(b.graph));
  CHECK(b.graph.nodes.size() == 50'000);
}
