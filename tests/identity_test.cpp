// What decides whether two kernels share code: every field of their specs and of their target.
#include "passes/plan.h"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <doctest/doctest.h>
#include <map>

using namespace lathe::core;

namespace {

// Values that differ from the one given in one field each, however deep, with the field's name.
template <typename T> struct Changes;
template <typename T> using Changed = std::vector<std::pair<std::string, T>>;
template <typename T> Changed<T> changes(const T &value) { return Changes<T>::of(value); }

template <typename T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
struct Changes<T> {
  static Changed<T> of(T value) {
    if constexpr (std::same_as<T, bool>)
      return {{"", !value}};
    else if constexpr (std::floating_point<T>)
      return {
          {"", value + T(1)}, {"'s sign", -value}, {"'s last bit", std::nextafter(value, T(9))}};
    else
      return {{"", T(int64_t(value) + 1)}};
  }
};
template <> struct Changes<std::string> {
  static Changed<std::string> of(const std::string &text) { return {{"", text + "x"}}; }
};
template <HasFields T> struct Changes<T> {
  static Changed<T> of(const T &value) {
    Changed<T> all;
    auto add = [&](const auto &f) {
      for (const auto &[name, changed] : changes(value.*(f.member))) {
        all.emplace_back("." + std::string(f.name) + name, value);
        all.back().second.*(f.member) = changed;
      }
    };
    std::apply([&](const auto &...f) { (add(f), ...); }, T::fields());
    return all;
  }
};
template <typename T> struct Changes<std::vector<T>> {
  static Changed<std::vector<T>> of(const std::vector<T> &values) {
    Changed<std::vector<T>> all{{"[added]", values}};
    all.back().second.emplace_back();
    for (size_t i = 0; i < values.size(); ++i)
      for (const auto &[name, changed] : changes(values[i])) {
        all.emplace_back("[" + std::to_string(i) + "]" + name, values);
        all.back().second[i] = changed;
      }
    return all;
  }
};
template <typename T> struct Changes<std::optional<T>> {
  static Changed<std::optional<T>> of(const std::optional<T> &value) {
    if (!value) return {{" set", T{}}};
    Changed<std::optional<T>> all{{" unset", std::nullopt}};
    for (const auto &[name, changed] : changes(*value)) all.emplace_back(name, changed);
    return all;
  }
};
template <typename... Ts> struct Changes<std::variant<Ts...>> {
  static Changed<std::variant<Ts...>> of(const std::variant<Ts...> &value) {
    Changed<std::variant<Ts...>> all;
    std::visit(
        [&](const auto &held) {
          for (const auto &[name, changed] : changes(held)) all.emplace_back(name, changed);
        },
        value);
    auto other = [&]<typename T>(T held) {
      if (!std::holds_alternative<T>(value)) all.emplace_back(" of another kind", held);
    };
    (other(Ts{}), ...);
    return all;
  }
};

// A spec of every kind: as it is made, and one with something in every list and option.
std::vector<KernelSpec> specs_of_every_kind() {
  const FusedOp bounded{Unary{UnaryKind::clip, 0, 6}}, added{Binary{}};
  const std::vector<FusedOp> steps{bounded, added};
  PoolSpec pool;
  pool.pre = pool.post = steps;
  ConvSpec conv;
  conv.last = ConvSpec::LastPanel{1, true};
  conv.winograd = Winograd{.outputs = {4, 4}, .kernel = {3, 3}};
  conv.pre = conv.post = steps;
  conv.source = {ConvSpec{}};
  conv.pool = pool;
  const MapSpec map{.steps = {{Unary{}, false}, {Binary{}, true}},
                    .operands = {Inner::contiguous, Inner::broadcast}};
  std::vector<KernelSpec> all{conv, DenseSpec{.bias = true, .post = steps}, map, pool};
  [&]<size_t... i>(std::index_sequence<i...>) {
    (all.emplace_back(std::in_place_index<i>), ...);
  }(std::make_index_sequence<std::variant_size_v<KernelSpec>>{});
  return all;
}

TEST_CASE("specs that differ in one field have code of their own") {
  const Target &target = known_targets().front();
  std::map<std::string, std::string> seen; // by symbol
  size_t count = 0;
  for (const KernelSpec &spec : specs_of_every_kind()) {
    const std::string symbol = kernel_symbol(spec, target);
    CHECK(symbol == kernel_symbol(KernelSpec(spec), target));
    for (const auto &[name, changed] : changes(spec)) {
      if (changed == spec) continue; // a zero's sign is a change of bits only
      CAPTURE(symbol);
      CAPTURE(name);
      CHECK(kernel_symbol(changed, target) != symbol);
      ++count;
    }
  }
  CHECK(count > 300);
}

TEST_CASE("zeros of either sign have code of their own") {
  const MapSpec zero{.steps = {{Unary{UnaryKind::clip, 0.0f, 6}, false}}, .operands = {}};
  const MapSpec negative{.steps = {{Unary{UnaryKind::clip, -0.0f, 6}, false}}, .operands = {}};
  const Target &target = known_targets().front();
  CHECK(kernel_symbol(zero, target) != kernel_symbol(negative, target));
}

TEST_CASE("code is a target's own, whatever its caches and its speed") {
  const Target &target = known_targets().front();
  const KernelSpec spec = ConvSpec{};
  const std::string symbol = kernel_symbol(spec, target);
  std::vector<std::string> of_plans;
  std::apply([&](const auto &...f) { (of_plans.push_back("." + std::string(f.name)), ...); },
             Target::plan_fields());
  for (const auto &[name, changed] : changes(target)) {
    CAPTURE(name);
    const bool plans_alone = std::ranges::any_of(
        of_plans, [&](const std::string &field) { return name.starts_with(field); });
    CHECK((kernel_symbol(spec, changed) == symbol) == plans_alone);
  }
  Target other = target;
  other.l2_bytes *= 2;
  other.gflops *= 2;
  CHECK(kernel_symbol(spec, other) == symbol);
  other.features += ",+avx512vnni";
  CHECK(kernel_symbol(spec, other) != symbol);
}

} // namespace
