// Names of ops and kinds.
#include "ir/op_facts.h"
#include "ir/op_table.h"
#include "ir/system/fork.h"

#include <algorithm>
#include <utility>

namespace lathe::core {
namespace {

constexpr std::string_view pool_names[] = {"max", "average", "sum"};
constexpr std::string_view reduce_names[] = {"mean", "sum", "max", "min", "prod"};
constexpr std::string_view arg_names[] = {"max", "min"};

template <typename> constexpr bool all_listed = false;
template <typename... Ops>
constexpr bool all_listed<std::variant<Ops...>> = (lists_all_fields<Ops> && ...);
static_assert(all_listed<Op>, "a member of an op is missing in its fields()");

template <typename Kind, size_t n>
std::optional<Kind> find_kind(const std::string_view (&names)[n], std::string_view name) {
  auto found = std::ranges::find(names, name);
  if (found == std::end(names)) return std::nullopt;
  return static_cast<Kind>(found - std::begin(names));
}
template <typename Rows> auto find_row(const Rows &rows, std::string_view name) {
  auto found = std::ranges::find(rows, name, &Rows::value_type::name);
  return found == rows.end() ? std::nullopt : std::optional(found->kind);
}

struct Namer {
  std::string operator()(const Unary &o) { return std::string(to_string(o.kind)); }
  std::string operator()(const Binary &o) { return std::string(to_string(o.kind)); }
  std::string operator()(const Pool &o) { return std::string(to_string(o.kind)) + "_pool"; }
  std::string operator()(const GlobalPool &o) {
    return "global_" + std::string(to_string(o.kind)) + "_pool";
  }
  std::string operator()(const Reduce &o) { return "reduce_" + std::string(to_string(o.kind)); }
  std::string operator()(const ArgReduce &o) { return "arg_" + std::string(to_string(o.kind)); }
  std::string operator()(const Softmax &o) { return o.log ? "log_softmax" : "softmax"; }
  template <typename T> std::string operator()(const T &) { return std::string(T::name); }
};

} // namespace

std::string_view to_string(UnaryKind kind) { return facts_of(kind).name; }
std::string_view to_string(BinaryKind kind) { return facts_of(kind).name; }
std::string_view to_string(PoolKind kind) { return pool_names[static_cast<size_t>(kind)]; }
std::string_view to_string(ReduceKind kind) { return reduce_names[static_cast<size_t>(kind)]; }
std::string_view to_string(ArgKind kind) { return arg_names[static_cast<size_t>(kind)]; }
std::optional<UnaryKind> unary_kind(std::string_view name) { return find_row(unary_rows, name); }
std::optional<BinaryKind> binary_kind(std::string_view name) { return find_row(binary_rows, name); }
std::optional<PoolKind> pool_kind(std::string_view name) {
  return find_kind<PoolKind>(pool_names, name);
}
std::optional<ReduceKind> reduce_kind(std::string_view name) {
  return find_kind<ReduceKind>(reduce_names, name);
}
std::optional<ArgKind> arg_kind(std::string_view name) {
  return find_kind<ArgKind>(arg_names, name);
}

std::string op_name(const Op &op) { return std::visit(Namer{}, op); }

size_t operands_of(const std::vector<FusedOp> &steps) {
  return size_t(std::ranges::count_if(
      steps, [](const FusedOp &step) { return std::holds_alternative<Binary>(step.op); }));
}

const std::map<std::string, Op, std::less<>> &op_table() {
  return made_once<[] {
    std::vector<Op> ops;
    [&]<size_t... i>(std::index_sequence<i...>) {
      (ops.emplace_back(std::in_place_index<i>), ...);
    }(std::make_index_sequence<std::variant_size_v<Op>>{});
    for (const UnaryFacts &row : unary_rows) ops.push_back(Unary{row.kind});
    for (const BinaryFacts &row : binary_rows) ops.push_back(Binary{row.kind});
    for (size_t kind = 0; kind < std::size(pool_names); ++kind)
      ops.push_back(Pool{.kind = static_cast<PoolKind>(kind),
                         .kernel = {},
                         .stride = {},
                         .dilation = {},
                         .pad = {}});
    for (PoolKind kind : {PoolKind::max, PoolKind::average}) ops.push_back(GlobalPool{kind});
    for (size_t kind = 0; kind < std::size(reduce_names); ++kind)
      ops.push_back(Reduce{static_cast<ReduceKind>(kind), {}});
    for (size_t kind = 0; kind < std::size(arg_names); ++kind)
      ops.push_back(ArgReduce{static_cast<ArgKind>(kind)});
    ops.push_back(Softmax{-1, true});
    std::map<std::string, Op, std::less<>> by_name;
    for (Op &op : ops) by_name.emplace(op_name(op), std::move(op));
    return by_name;
  }>();
}

} // namespace lathe::core
