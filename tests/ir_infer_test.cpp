// Shape rules: what every op makes of its inputs, and that no attributes or shapes, however
// hostile, pass or crash.
#include "ir/op_table.h"

#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <utility>

using namespace lathe::core;

namespace {

constexpr int64_t huge = std::numeric_limits<int64_t>::max();
constexpr int64_t tiny = std::numeric_limits<int64_t>::min();

std::vector<Type> f32(const std::vector<Shape> &shapes) {
  std::vector<Type> types;
  for (const Shape &shape : shapes) types.push_back({DType::f32, shape});
  return types;
}
std::vector<Shape> shapes(const Op &op, const std::vector<Shape> &inputs) {
  auto types = infer_types(op, f32(inputs));
  REQUIRE_MESSAGE(types, to_string(types.error()));
  std::vector<Shape> result;
  for (const Type &type : *types) result.push_back(type.shape);
  return result;
}
Shape shape(const Op &op, const std::vector<Shape> &inputs) {
  std::vector<Shape> all = shapes(op, inputs);
  REQUIRE(all.size() == 1);
  return all[0];
}
// Refused with a message that says what was expected and what stood there.
bool refused(const Op &op, const std::vector<Shape> &inputs) {
  auto types = infer_types(op, f32(inputs));
  return !types && !types.error().message.empty() && !types.error().found.empty() &&
         !types.error().expected.empty();
}

Conv conv(Size2 kernel, Size2 stride = {}, Pads pad = {}, Size2 dilation = {}, int64_t groups = 1) {
  return {kernel, stride, dilation, pad, groups, false, {}};
}
Pool max_pool(Size2 kernel, Size2 stride = {}, Pads pad = {}, Size2 dilation = {},
              bool ceil_mode = false) {
  return {PoolKind::max, kernel, stride, dilation, pad, ceil_mode, false};
}

} // namespace

TEST_CASE("convolutions") {
  CHECK(shape(conv({7, 7}, {2, 2}, {3, 3, 3, 3}), {{1, 3, 224, 224}, {64, 3, 7, 7}}) ==
        Shape{1, 64, 112, 112});
  CHECK(shape(conv({1, 7}, {}, {0, 3, 0, 3}), {{2, 8, 17, 17}, {4, 8, 1, 7}}) ==
        Shape{2, 4, 17, 17});
  CHECK(shape(conv({3, 3}, {}, {2, 0, 1, 4}, {2, 1}), {{1, 1, 9, 9}, {1, 1, 3, 3}}) ==
        Shape{1, 1, 8, 11});
  CHECK(shape(conv({3, 3}, {}, {}, {}, 4), {{1, 8, 5, 5}, {12, 2, 3, 3}}) == Shape{1, 12, 3, 3});
  Conv fused = conv({1, 1});
  fused.bias = true;
  fused.post = {FusedOp{Unary{}}, FusedOp{Binary{}}, FusedOp{Binary{BinaryKind::mul}}};
  const Shape y{1, 2, 4, 4};
  CHECK(shape(fused, {{1, 3, 4, 4}, {2, 3, 1, 1}, {2}, y, y}) == y);
  CHECK(refused(fused, {{1, 3, 4, 4}, {2, 3, 1, 1}, {2}, y}));
  CHECK(refused(fused, {{1, 3, 4, 4}, {2, 3, 1, 1}, {2}, y, {1, 2, 1, 1}}));
  fused.post[0] = FusedOp{Unary{UnaryKind::clip, NAN, 6}};
  CHECK(refused(fused, {{1, 3, 4, 4}, {2, 3, 1, 1}, {2}, y, y}));
}

TEST_CASE("convolutions that cannot be") {
  const std::vector<Shape> in{{1, 4, 8, 8}, {6, 4, 3, 3}};
  CHECK(shape(conv({3, 3}), in) == Shape{1, 6, 6, 6});
  for (int64_t bad : {int64_t{0}, int64_t{-1}, huge, tiny}) {
    CAPTURE(bad);
    CHECK(refused(conv({bad, 3}), in));
    CHECK(refused(conv({3, bad}), in));
    CHECK(refused(conv({3, 3}, {bad, 1}), in));
    CHECK(refused(conv({3, 3}, {1, bad}), in));
    CHECK(refused(conv({3, 3}, {}, {}, {bad, 1}), in));
    CHECK(refused(conv({3, 3}, {}, {}, {1, bad}), in));
    CHECK(refused(conv({3, 3}, {}, {}, {}, bad), in));
    if (bad != 0) {
      CHECK(refused(conv({3, 3}, {}, {bad, 0, 0, 0}), in));
      CHECK(refused(conv({3, 3}, {}, {0, 0, 0, bad}), in));
    }
  }
  CHECK(refused(conv({3, 3}, {}, {}, {}, 3), in));               // channels do not divide
  CHECK(refused(conv({3, 3}, {}, {}, {}, 2), in));               // nor does the weight fit
  CHECK(refused(conv({5, 5}), in));                              // another kernel than the weight
  CHECK(refused(conv({3, 3}, {}, {}, {4, 4}), in));              // larger than the picture
  CHECK(refused(conv({3, 3}), {{1, 4, 8, 8}}));                  // no weight
  CHECK(refused(conv({3, 3}), {{1, 4, 8}, {6, 4, 3, 3}}));       // no picture
  CHECK(refused(conv({3, 3}), {{1, 0, 8, 8}, {6, 0, 3, 3}}));    // no channels
  CHECK(refused(conv({3, 3}), {{1, 4, 0, 8}, {6, 4, 3, 3}}));    // no rows
  CHECK(refused(conv({3, 3}), {{-1, 4, 8, 8}, {6, 4, 3, 3}}));   // a negative batch
  CHECK(refused(conv({3, 3}), {{huge, 4, 8, 8}, {6, 4, 3, 3}})); // more than any memory
  auto integers = infer_types(
      conv({3, 3}), std::vector<Type>{{DType::i64, {1, 4, 8, 8}}, {DType::i64, {6, 4, 3, 3}}});
  CHECK_FALSE(integers);
}

TEST_CASE("dense layers") {
  Dense dense;
  CHECK(shape(dense, {{5, 400}, {120, 400}}) == Shape{5, 120});
  dense.bias = true;
  CHECK(shape(dense, {{5, 400}, {120, 400}, {120}}) == Shape{5, 120});
  CHECK(refused(dense, {{5, 400}, {120, 400}, {400}}));
  CHECK(refused(dense, {{5, 401}, {120, 400}, {120}}));
  CHECK(refused(dense, {{5, 20, 20}, {120, 400}, {120}}));
  CHECK(refused(dense, {{5, 400}, {0, 400}, {0}}));
}

TEST_CASE("pools") {
  CHECK(shape(max_pool({3, 3}, {2, 2}), {{1, 96, 55, 55}}) == Shape{1, 96, 27, 27});
  CHECK(shape(max_pool({3, 3}, {2, 2}, {1, 1, 1, 1}), {{1, 64, 112, 112}}) == Shape{1, 64, 56, 56});
  // ceil_mode adds a window that hangs over, but none that starts beyond the picture.
  CHECK(shape(max_pool({3, 3}, {2, 2}, {}, {}, true), {{1, 1, 6, 7}}) == Shape{1, 1, 3, 3});
  CHECK(shape(max_pool({2, 2}, {3, 3}, {1, 1, 1, 1}, {}, true), {{1, 1, 5, 6}}) ==
        Shape{1, 1, 2, 3});
  CHECK(shape(max_pool({3, 3}, {2, 2}, {}, {}, true), {{1, 1, 2, 2}}) == Shape{1, 1, 1, 1});
  CHECK(refused(max_pool({3, 3}, {2, 2}), {{1, 1, 2, 2}}));
  CHECK(refused(max_pool({4, 4}, {3, 3}, {}, {}, true), {{1, 1, 1, 1}}));
  CHECK(shape(GlobalPool{}, {{2, 9, 7, 5}}) == Shape{2, 9, 1, 1});
  CHECK(refused(GlobalPool{}, {{2, 9, 0, 5}}));
}

TEST_CASE("every window of a pool has a tap inside the picture") {
  CHECK(refused(max_pool({2, 2}, {}, {2, 0, 0, 0}), {{1, 1, 8, 8}}));
  CHECK(refused(max_pool({2, 2}, {}, {0, 0, 0, 3}), {{1, 1, 8, 8}}));
  CHECK(shape(max_pool({2, 2}, {}, {2, 2, 2, 2}, {2, 2}), {{1, 1, 8, 8}}) == Shape{1, 1, 10, 10});
  CHECK(refused(max_pool({2, 2}, {}, {4, 4, 4, 4}, {4, 4}), {{1, 1, 2, 2}})); // steps over it
  // All small pools that are accepted, by brute force.
  for (int64_t code = 0; code < 5 * 4 * 3 * 4 * 5 * 5 * 2; ++code) {
    int64_t rest = code;
    auto digit = [&](int64_t n) { return std::exchange(rest, rest / n) % n; };
    int64_t input = 1 + digit(5), kernel = 1 + digit(4), stride = 1 + digit(3),
            dilation = 1 + digit(4), before = digit(5), after = digit(5);
    Pool pool = max_pool({kernel, 1}, {stride, 1}, {before, 0, after, 0}, {dilation, 1}, digit(2));
    auto types = infer_types(pool, f32({{1, 1, input, 1}}));
    if (!types) continue;
    CAPTURE(code);
    for (int64_t y = 0; y < (*types)[0].shape[2]; ++y) {
      int64_t inside = 0;
      for (int64_t tap = 0; tap < kernel; ++tap) {
        int64_t row = y * stride - before + tap * dilation;
        inside += row >= 0 && row < input;
      }
      REQUIRE(inside > 0);
    }
  }
}

TEST_CASE("a window's extent checks what it is given") {
  CHECK(window_extent(224, 7, 2, 1, 3, 3, false) == 112);
  for (int64_t bad : {int64_t{0}, int64_t{-3}, huge, tiny}) {
    CHECK_FALSE(window_extent(8, bad, 1, 1, 0, 0, false));
    CHECK_FALSE(window_extent(8, 2, bad, 1, 0, 0, true));
    CHECK_FALSE(window_extent(8, 2, 1, bad, 0, 0, false));
    CHECK_FALSE(window_extent(bad, 2, 1, 1, 1, 1, true));
    if (bad != 0) CHECK_FALSE(window_extent(8, 2, 1, 1, bad, 0, false));
    if (bad != 0) CHECK_FALSE(window_extent(8, 2, 1, 1, 0, bad, true));
  }
}

TEST_CASE("normalisation and activations keep the shape") {
  const Shape x{2, 3, 5, 5};
  CHECK(shape(Lrn{}, {x}) == x);
  CHECK(refused(Lrn{0}, {x}));
  CHECK(refused(Lrn{-5}, {x}));
  CHECK(refused(Lrn{5, 1e-4f, 0.75f, 0}, {x})); // may divide by zero
  CHECK(refused(Lrn{5, NAN, 0.75f, 1}, {x}));
  CHECK(refused(Lrn{5, 1e-4f, INFINITY, 1}, {x}));
  CHECK(shape(BatchNorm{}, {x, {3}, {3}, {3}, {3}}) == x);
  CHECK(refused(BatchNorm{}, {x, {3}, {3}, {3}, {5}}));
  CHECK(refused(BatchNorm{}, {x, {3}, {3}, {3}}));
  CHECK(refused(BatchNorm{-1}, {x, {3}, {3}, {3}, {3}}));
  CHECK(shape(Unary{UnaryKind::clip, -INFINITY, 6}, {x}) == x);
  CHECK(refused(Unary{UnaryKind::clip, 0, NAN}, {x}));
  CHECK(refused(Unary{}, {x, x}));
  CHECK(shape(Softmax{-1}, {x}) == x);
  for (int64_t axis : {int64_t{4}, int64_t{-5}, huge, tiny}) CHECK(refused(Softmax{axis}, {x}));
  CHECK(refused(Softmax{}, {{}})); // a scalar has no axis
  CHECK(shape(Dropout{}, {x}) == x);
  CHECK(refused(Dropout{NAN}, {x}));
}

TEST_CASE("two operands broadcast as in NumPy") {
  CHECK(shape(Binary{}, {{2, 3, 4, 5}, {3, 1, 1}}) == Shape{2, 3, 4, 5});
  CHECK(shape(Binary{}, {{5}, {2, 1}}) == Shape{2, 5});
  CHECK(shape(Binary{}, {{}, {}}) == Shape{});
  CHECK(shape(Binary{}, {{1}, {0}}) == Shape{0});
  CHECK(refused(Binary{}, {{2, 3}, {2}}));
  CHECK(refused(Binary{}, {{2}, {0}}));
  CHECK(refused(Binary{}, {{1 << 30, 1}, {1, 1 << 30}})); // the product is too large
  CHECK_FALSE(infer_types(Binary{}, std::vector<Type>{{DType::f32, {2}}, {DType::i64, {2}}}));
}

TEST_CASE("concat, split, slice, pad") {
  CHECK(shape(Concat{}, {{1, 64, 28, 28}, {1, 128, 28, 28}, {1, 32, 28, 28}, {1, 32, 28, 28}}) ==
        Shape{1, 256, 28, 28});
  CHECK(shape(Concat{-1}, {{2, 3}, {2, 0}}) == Shape{2, 3});
  CHECK(refused(Concat{}, {{1, 2, 3}, {1, 2, 4}}));
  CHECK(refused(Concat{}, {{1, 2, 3}, {1, 2}}));
  CHECK(refused(Concat{3}, {{1, 2, 3}}));
  CHECK(refused(Concat{}, {}));
  CHECK(refused(Concat{0}, std::vector<Shape>(3, Shape{int64_t{1} << 40})));

  CHECK(shapes(Split{1, {1, 0, 4}}, {{2, 5}}) == std::vector<Shape>{{2, 1}, {2, 0}, {2, 4}});
  CHECK(refused(Split{1, {2, 2}}, {{2, 5}}));
  CHECK(refused(Split{1, {6, -1}}, {{2, 5}}));
  CHECK(refused(Split{1, {huge, huge, 7}}, {{2, 5}}));
  CHECK(refused(Split{1, {}}, {{2, 0}}));
  CHECK(refused(Split{2, {5}}, {{2, 5}}));

  CHECK(shape(Slice{{2, 3}, {0, 1}, {huge, -1}, {2, 2}}, {{1, 3, 9, 8}}) == Shape{1, 3, 5, 3});
  CHECK(shape(Slice{{0}, {tiny}, {huge}, {huge >> 24}}, {{9}}) == Shape{1});
  CHECK(shape(Slice{{0}, {7}, {3}, {1}}, {{9}}) == Shape{0});
  CHECK(refused(Slice{{0}, {0}, {9}, {0}}, {{9}}));
  CHECK(shape(Slice{{0}, {0}, {9}, {-1}}, {{9}}) == Shape{0});
  CHECK(shape(Slice{{0}, {-1}, {tiny}, {-2}}, {{9}}) == Shape{5});
  CHECK(shape(Slice{{0}, {huge}, {-9}, {-1}}, {{9}}) == Shape{8});
  CHECK(shape(Slice{{0}, {huge}, {tiny}, {-huge >> 24}}, {{9}}) == Shape{1});
  CHECK(shape(Slice{{0}, {0}, {tiny}, {-1}}, {{0}}) == Shape{0});
  CHECK(refused(Slice{{0}, {0}, {9}, {tiny}}, {{9}}));
  CHECK(refused(Slice{{1}, {0}, {9}, {1}}, {{9}}));
  CHECK(refused(Slice{{0, -1}, {0, 0}, {9, 9}, {1, 1}}, {{9}})); // one axis twice
  CHECK(refused(Slice{{0}, {0}, {}, {1}}, {{9}}));

  CHECK(shape(Pad{{0, 1}, {0, 2}}, {{4, 4}}) == Shape{4, 7});
  CHECK(refused(Pad{{0}, {0}}, {{4, 4}}));
  CHECK(refused(Pad{{0, -1}, {0, 2}}, {{4, 4}}));
  CHECK(refused(Pad{{0, huge}, {0, huge}}, {{4, 4}}));
}

TEST_CASE("reshape, flatten, transpose, mean") {
  const Shape x{2, 3, 4, 5};
  CHECK(shape(Reshape{{0, -1}}, {x}) == Shape{2, 60});
  CHECK(shape(Reshape{{120}}, {x}) == Shape{120});
  CHECK(shape(Reshape{{}}, {{1}}) == Shape{});
  CHECK(refused(Reshape{{7, -1}}, {x}));
  CHECK(refused(Reshape{{-1, -1}}, {x}));
  CHECK(refused(Reshape{{-2, 60}}, {x}));
  CHECK(refused(Reshape{{huge, huge}}, {x}));
  CHECK(refused(Reshape{{1, 0}}, {{0}})); // there is no dimension 1 to copy
  CHECK(shape(Flatten{}, {x}) == Shape{2, 60});
  CHECK(shape(Flatten{0}, {x}) == Shape{1, 120});
  CHECK(shape(Flatten{-1}, {x}) == Shape{24, 5});
  CHECK(refused(Flatten{5}, {x}));
  CHECK(refused(Flatten{tiny}, {x}));
  CHECK(shape(Transpose{{0, 2, 3, 1}}, {x}) == Shape{2, 4, 5, 3});
  CHECK(refused(Transpose{{0, 1, 2}}, {x}));
  CHECK(refused(Transpose{{0, 1, 2, 2}}, {x}));
  CHECK(refused(Transpose{{0, 1, 2, -1}}, {x}));
  CHECK(shape(Reduce{ReduceKind::mean, {2, -1}}, {x}) == Shape{2, 3, 1, 1});
  CHECK(shape(Reduce{ReduceKind::mean, {2, 3}, false}, {x}) == Shape{2, 3});
  CHECK(refused(Reduce{ReduceKind::mean, {2, -2}}, {x}));
  CHECK(refused(Reduce{ReduceKind::mean, {4}}, {x}));
  CHECK(refused(Reduce{ReduceKind::mean, {0}}, {{0, 2}}));
}

TEST_CASE("expand, gather, extremes") {
  const Shape x{2, 1, 4};
  CHECK(shape(Expand{{2, 3, 4}}, {x}) == Shape{2, 3, 4});
  CHECK(shape(Expand{{5, 2, 1, 4}}, {x}) == Shape{5, 2, 1, 4});
  CHECK(shape(Expand{{2, 0, 4}}, {x}) == Shape{2, 0, 4});
  CHECK(shape(Expand{{1, 1, 1}}, {x}) == x);
  CHECK(refused(Expand{{2, 3, 5}}, {x}));
  CHECK(shape(Expand{{6, 1}}, {x}) == Shape{2, 6, 4});
  CHECK(refused(Expand{{huge, huge, 2, 1, 4}}, {x}));

  auto gathered = [](int64_t axis, Shape from, Type indices) {
    return infer_types(Gather{axis}, std::vector<Type>{{DType::f32, from}, indices});
  };
  CHECK(gathered(1, {2, 5, 3}, {DType::i64, {4, 6}}).value()[0].shape == Shape{2, 4, 6, 3});
  CHECK(gathered(-1, {2, 5}, {DType::i32, {}}).value()[0].shape == Shape{2});
  CHECK_FALSE(gathered(2, {2, 5}, {DType::i64, {1}}));
  CHECK_FALSE(gathered(0, {2, 5}, {DType::f32, {1}}));
  CHECK_FALSE(gathered(0, {0, 5}, {DType::i64, {1}})); // nothing to gather from
  CHECK(gathered(0, {0, 5}, {DType::i64, {0}}).value()[0].shape == Shape{0, 5});

  CHECK(infer_types(ArgReduce{ArgKind::max, -1, false}, f32({x})).value()[0] ==
        Type{DType::i64, {2, 1}});
  CHECK(shape(ArgReduce{ArgKind::min, 0}, {x}) == Shape{1, 1, 4});
  CHECK(refused(ArgReduce{ArgKind::max, 3}, {x}));
  CHECK(refused(ArgReduce{ArgKind::max, 0}, {{0, 2}}));
  CHECK(shape(Hardmax{-3}, {x}) == x);
  CHECK(refused(Hardmax{3}, {x}));
  CHECK(shape(Reduce{ReduceKind::sum, {0}, false}, {{0, 2}}) == Shape{2});
  CHECK(infer_types(Cast{DType::boolean}, f32({x})).value()[0] == Type{DType::boolean, x});
}

TEST_CASE("no op accepts a shape that no tensor can have") {
  for (const auto &[name, op] : op_table()) {
    CAPTURE(name);
    for (int64_t bad : {int64_t{-1}, int64_t{1} << 41, huge, tiny})
      for (size_t inputs = 0; inputs < 6; ++inputs)
        CHECK_FALSE(infer_types(op, f32(std::vector<Shape>(inputs, Shape{1, bad, 3, 3}))));
  }
}
