// Sizes times images: whatever does not fit an address is an error, before anything is made of it.
#include "passes/pipeline.h"
#include "passes/plan.h"
#include "tests/random_graph.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace lathe::core;

namespace {

__extension__ using Wide = __int128;

Plan plan_of(Graph graph) {
  REQUIRE(verify(graph));
  REQUIRE(run_passes(graph));
  auto plan = make_plan(graph, known_targets()[0]);
  REQUIRE_MESSAGE(plan, to_string(plan.error()));
  return std::move(*plan);
}

Wide at(const Affine &a, int64_t images) { return Wide(a.per_image) * images + a.fixed; }

Wide total(const Plan &plan, int64_t images, int threads) {
  Wide sum = Wide(plan.weight_bytes()) + at(plan.arena_bytes, images) +
             Wide(plan.scratch_per_thread()) * threads;
  for (auto *types : {&plan.inputs, &plan.outputs})
    for (const Type &type : *types)
      sum +=
          Wide(element_count(type.shape)) * Wide(size_of(type.dtype)) * (plan.batched ? images : 1);
  return sum;
}

// `count` values of side * side elements, all alive at once, from an input of one element.
Graph large(int count, int64_t side) {
  Graph graph;
  graph.name = "large";
  const ValueId x = graph.add_input("x", {DType::f32, {1, 1, 1, 1}});
  auto node = [&](std::string name, int i, Op op, std::vector<ValueId> inputs) {
    return graph.add_node(fmt::format("{}{}", name, i), std::move(op), std::move(inputs)).value();
  };
  Pool pool;
  pool.kernel = {2, 2};
  pool.pad = {.bottom = 1, .right = 1};
  std::vector<ValueId> made;
  for (int i = 0; i < count; ++i)
    made.push_back(node("pool", i, pool, {node("wide", i, Expand{{1, 1, side, side}}, {x})}));
  for (int i = 0; i < count; ++i)
    made[size_t(i)] = node("most", i, Reduce{ReduceKind::max, {1, 2, 3}, true}, {made[size_t(i)]});
  ValueId sum = made[0];
  for (int i = 1; i < count; ++i)
    sum = node("sum", i, Binary{BinaryKind::add}, {sum, made[size_t(i)]});
  graph.outputs = {sum};
  return graph;
}

} // namespace

TEST_CASE("sizes are those of exact arithmetic, or an error") {
  constexpr Wide most = Wide(1) << 47;
  int64_t given = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    Graph graph = random_graph(90'000 + seed);
    REQUIRE(run_passes(graph));
    const auto plan = make_plan(graph, known_targets()[0]);
    if (!plan) continue;
    for (int64_t images : {int64_t{1}, int64_t{3}, most_images})
      for (int threads : {1, 2, most_threads}) {
        const auto sizes = plan->sized(images, threads);
        const bool may = plan->batched || images == 1;
        CHECK(sizes.has_value() == (may && total(*plan, images, threads) <= most));
        if (!sizes) continue;
        ++given;
        CHECK(Wide(sizes->total) == total(*plan, images, threads));
        CHECK(sizes->total == sizes->weights + sizes->arena + sizes->scratch + sizes->tensors);
        CHECK(sizes->scratch == threads * sizes->scratch_per_thread);
      }
  }
  CHECK(given > 1000);
}

TEST_CASE("numbers of images and threads that there are not are errors of usage") {
  const Plan plan = plan_of(large(1, 4));
  REQUIRE(plan.batched);
  for (int64_t images : {INT64_MIN, int64_t{-1}, int64_t{0}, most_images + 1, INT64_MAX}) {
    const auto sizes = plan.sized(images, 1);
    REQUIRE(!sizes);
    CHECK(sizes.error().code == ErrorCode::usage);
  }
  for (int threads : {INT32_MIN, -1, 0, most_threads + 1, INT32_MAX})
    CHECK(plan.sized(1, threads).error().code == ErrorCode::usage);
}

TEST_CASE("values that wrap around for many images are refused for just those") {
  for (int count : {1, 2, 3, 5, 8, 16}) // of 4 * 2^36 bytes: 2^20 images of eight of them are 2^61
    for (int64_t side : {int64_t{1} << 18, (int64_t{1} << 18) + 3, int64_t{3} << 17}) {
      CAPTURE(count);
      CAPTURE(side);
      const Plan plan = plan_of(large(count, side));
      REQUIRE(plan.batched);
      for (int64_t images = 1; images <= most_images; images *= 2) {
        CAPTURE(images);
        const auto sizes = plan.sized(images, 2);
        const Wide exact = total(plan, images, 2);
        CHECK(sizes.has_value() == (exact <= (Wide(1) << 47)));
        if (sizes) CHECK(Wide(sizes->total) == exact);
        if (!sizes) CHECK(sizes.error().code == ErrorCode::limit);
      }
    }
}

TEST_CASE("a memory limit is not deceived by sizes that wrap around") {
  Graph graph = large(4, int64_t{1} << 19); // 4 * 4 * 2^38 bytes, times 2^20: 2^62
  REQUIRE(run_passes(graph));
  for (int64_t images : {int64_t{1}, int64_t{1} << 10, most_images})
    for (int64_t limit : {int64_t{0}, int64_t{300'000'000}, int64_t{1} << 46, INT64_MAX}) {
      CAPTURE(images);
      CAPTURE(limit);
      const auto plan = make_plan_within(graph, known_targets()[0], {limit, images, 2});
      const bool fits = images == 1 && (limit == 0 || limit >= int64_t{1} << 46);
      CHECK(plan.has_value() == fits);
      if (!plan) CHECK(plan.error().code == ErrorCode::limit);
    }
}

TEST_CASE("a network of which not even one image can be addressed has no plan") {
  Graph graph = large(300, int64_t{1} << 20); // of 2^42 bytes each
  REQUIRE(run_passes(graph));
  const auto plan = make_plan(graph, known_targets()[0]);
  REQUIRE(!plan);
  CHECK(plan.error().code == ErrorCode::limit);
  CHECK(plan.error().message.contains("addressed"));
}
