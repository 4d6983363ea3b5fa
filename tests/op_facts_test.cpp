// The rows of the op table are what the evaluator does.
#include "ir/evaluate.h"
#include "ir/op_facts.h"
#include "tests/tensors.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <set>

using namespace lathe::core;

namespace {

struct Case {
  Op op;
  std::vector<Shape> inputs;
};

// Every op, some in more than one way.
std::vector<Case> cases() {
  const Size2 one{1, 1}, three{3, 3};
  const Pads padded{1, 1, 1, 1};
  std::vector<Case> all{
      {Conv{.kernel = three, .stride = one, .dilation = one, .pad = padded},
       {{2, 3, 5, 4}, {4, 3, 3, 3}}},
      {Dense{}, {{2, 5}, {3, 5}}},
      {Pool{.kind = PoolKind::max, .kernel = three, .stride = one, .dilation = one, .pad = {}},
       {{2, 3, 5, 4}}},
      {GlobalPool{}, {{2, 3, 5, 4}}},
      {Lrn{}, {{2, 6, 3, 2}}},
      {BatchNorm{}, {{2, 3, 2, 2}, {3}, {3}, {3}, {3}}},
      {Softmax{}, {{2, 5}}},
      {Hardmax{}, {{2, 5}}},
      {Concat{1}, {{2, 3, 2}, {2, 1, 2}}},
      {Slice{{1}, {-1}, {-9}, {-2}}, {{2, 5}}},
      {Split{1, {2, 3}}, {{2, 5}}},
      {Pad{{0, 1}, {0, 2}}, {{2, 3}}},
      {Reshape{{3, -1}}, {{2, 6}}},
      {Flatten{}, {{2, 3, 4}}},
      {Transpose{{1, 0, 2}}, {{2, 3, 4}}},
      {Expand{{2, 4, 3}}, {{2, 1, 3}}},
      {Gather{1}, {{2, 5, 2}, {3}}},
      {Reduce{ReduceKind::max, {1}}, {{2, 5}}},
      {ArgReduce{ArgKind::max, 1}, {{2, 5}}},
      {Cast{DType::f32}, {{2, 5}}},
      {Dropout{}, {{2, 5}}},
  };
  for (const UnaryFacts &row : unary_rows) all.push_back({Unary{row.kind, 0.5f, 2}, {{2, 5}}});
  for (const BinaryFacts &row : binary_rows) all.push_back({Binary{row.kind}, {{2, 5}, {2, 5}}});
  return all;
}

// Numbers of which no two are the same, and, where an op looks them up, places.
std::vector<Tensor> inputs_of(const Case &c, DType type, int64_t first = 1) {
  std::vector<Tensor> inputs;
  for (const Shape &shape : c.inputs) {
    const bool places = facts_of(c.op).effect == Effect::looks_up && !inputs.empty();
    Tensor tensor(places ? DType::i64 : type, shape);
    for (int64_t i = 0; i < tensor.size(); ++i) {
      if (places)
        tensor.as_mutable<int64_t>()[size_t(i)] = (i * 3 + 1) % 4;
      else if (type == DType::i64)
        tensor.as_mutable<int64_t>()[size_t(i)] = first++;
      else
        tensor.f32_mutable()[size_t(i)] = float((first++ * 7) % 1009) / 16;
    }
    inputs.push_back(std::move(tensor));
  }
  return inputs;
}
std::vector<Tensor> run(const Case &c, const std::vector<Tensor> &inputs) {
  CAPTURE(op_name(c.op));
  auto results = evaluate(c.op, inputs);
  REQUIRE_MESSAGE(results, to_string(results.error()));
  return *results;
}

TEST_CASE("there is a case for every op") {
  std::set<size_t> seen;
  for (const Case &c : cases()) seen.insert(c.op.index());
  CHECK(seen.size() == std::variant_size_v<Op>);
}

TEST_CASE("what moves elements makes none") {
  for (const Case &c : cases()) {
    CAPTURE(op_name(c.op));
    const OpFacts &facts = facts_of(c.op);
    const bool moves = facts.effect != Effect::computes && facts.effect != Effect::elementwise;
    if (!moves) continue;
    const DType type = facts.any_type ? DType::i64 : DType::f32;
    const std::vector<Tensor> inputs = inputs_of(c, type);
    std::set<double> known;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (i > 0 && facts.effect != Effect::moves) break; // of the first operand alone
      for (int64_t e = 0; e < inputs[i].size(); ++e)
        known.insert(to_f32(inputs[i]).f32()[size_t(e)]);
    }
    if (auto *pad = std::get_if<Pad>(&c.op)) known.insert(pad->value);
    for (const Tensor &result : run(c, inputs)) {
      CHECK(result.dtype() == type);
      const Tensor numbers = to_f32(result);
      CHECK(std::ranges::all_of(numbers.f32(), [&](float v) { return known.contains(v); }));
    }
    const Tensor first = to_f32(run(c, inputs)[0]), x = to_f32(inputs[0]);
    CHECK(std::ranges::equal(first.f32(), x.f32()) == facts.keeps_order);
  }
}

TEST_CASE("what is elementwise looks at one place") {
  for (const Case &c : cases()) {
    if (facts_of(c.op).effect != Effect::elementwise) continue;
    CAPTURE(op_name(c.op));
    std::vector<Tensor> inputs = inputs_of(c, DType::f32);
    const Tensor before = to_f32(run(c, inputs)[0]);
    for (Tensor &input : inputs) input.f32_mutable()[3] = -0.25f;
    const Tensor after = to_f32(run(c, inputs)[0]);
    REQUIRE(before.shape() == inputs[0].shape());
    for (size_t i = 0; i < before.f32().size(); ++i)
      if (i != 3) CHECK(before.f32()[i] == after.f32()[i]);
  }
}

TEST_CASE("what is linear is") {
  for (const Case &c : cases()) {
    if (!facts_of(c.op).linear) continue;
    CAPTURE(op_name(c.op));
    std::vector<Tensor> x = inputs_of(c, DType::f32), y = inputs_of(c, DType::f32, 500), sum = x;
    sum[0] = Tensor(DType::f32, x[0].shape());
    for (size_t i = 1; i < x.size(); ++i) y[i] = x[i];
    for (size_t i = 0; i < sum[0].f32().size(); ++i)
      sum[0].f32_mutable()[i] = 2 * x[0].f32()[i] - 3 * y[0].f32()[i];
    const Tensor fx = run(c, x)[0], fy = run(c, y)[0], fsum = run(c, sum)[0];
    for (size_t i = 0; i < fsum.f32().size(); ++i)
      CHECK(std::abs(fsum.f32()[i] - (2 * fx.f32()[i] - 3 * fy.f32()[i])) <=
            1e-4f * (1 + std::abs(fsum.f32()[i])));
  }
}

TEST_CASE("another number of operands is refused") {
  for (const Case &c : cases()) {
    CAPTURE(op_name(c.op));
    const auto [least, most] = arity(c.op);
    CHECK(least <= c.inputs.size());
    CHECK(c.inputs.size() <= most);
    std::vector<Type> types;
    for (const Tensor &input : inputs_of(c, DType::f32))
      types.push_back({input.dtype(), input.shape()});
    CHECK(infer_types(c.op, types));
    CHECK(!infer_types(c.op, std::span(types).first(least - 1)));
    types.resize(std::min<size_t>(most, 20) + 1, types[0]);
    if (most < 20) CHECK(!infer_types(c.op, types));
  }
}

TEST_CASE("weights are summed with elements of the first operand") {
  for (const Case &c : cases()) {
    const auto weights = weights_of(c.op);
    if (!weights) continue;
    CAPTURE(op_name(c.op));
    std::vector<Tensor> inputs = inputs_of(c, DType::f32);
    const Tensor before = run(c, inputs)[0];
    for (float &w : inputs[*weights].f32_mutable()) w *= 2;
    const Tensor after = run(c, inputs)[0];
    for (size_t i = 0; i < before.f32().size(); ++i)
      CHECK(after.f32()[i] == doctest::Approx(2 * before.f32()[i]));
  }
}

} // namespace
