// The reference evaluator: one op, a constant's recipe, a whole graph.
#include "ir/evaluate.h"
#include "ir/evaluate_ops.h"
#include "ir/op_facts.h"
#include "ir/system/mapping.h"

#include <algorithm>
#include <fmt/format.h>
#include <new>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace lathe::core {
namespace {

// No op of a sane network makes more; beyond it the system might kill us instead of refusing.
constexpr int64_t most_bytes = int64_t{8} << 30;

std::unexpected<Error> too_large(const Shape &shape) {
  return fail(Error{.code = ErrorCode::limit,
                    .message = "a tensor is too large to evaluate",
                    .expected = fmt::format("at most {} bytes, and memory for them", most_bytes),
                    .found = to_string(shape)});
}

constexpr std::string_view computing = "computing a tensor";

// Runs body, which makes tensors of the given types and works in so many bytes besides, if there is
// memory and time for it.
template <typename Body>
Result<Tensors> within(const Budget &budget, std::span<const Type> types, int64_t besides,
                       const Body &body) {
  int64_t bytes = 0;
  for (const Type &type : types) {
    if (element_count(type.shape) > most_bytes / int64_t(size_of(type.dtype)))
      return too_large(type.shape);
    bytes += element_count(type.shape) * int64_t(size_of(type.dtype));
  }
  LATHE_CHECK(budget.check(computing));
  LATHE_TRY(const Grant grant, budget.take(bytes, computing));
  LATHE_TRY(const Grant work, budget.take(besides, computing));
  try {
    Tensors results = body();
    for (Tensor &result : results) result.keep(grant);
    return results;
  } catch (const std::bad_alloc &) {
    return too_large(types.empty() ? Shape{} : types[0].shape);
  } catch (const OutOfTime &) {
    return std::unexpected(budget.check(computing).error());
  }
}

// Of a file only a copy: while an op reads it, the file may be cut.
Result<Tensor> leaf(const Constant &c, const Budget &budget) {
  const bool settled =
      c.data.defined() && c.data.aligned() && !is_mapped({c.data.raw(), c.data.bytes()});
  if (settled) return c.data;
  if (c.splat || c.data.defined()) {
    Result<void> copied;
    LATHE_TRY(Tensors made, within(budget, {&c.type, 1}, 0, [&] {
                if (c.splat) return Tensors{Tensor::splat(*c.splat, c.type.shape)};
                Tensor copy(c.type.dtype, c.type.shape);
                copied = copy_bytes({c.data.raw(), c.data.bytes()}, copy.raw_mutable());
                return Tensors{copy};
              }));
    if (!copied) copied.error().node = c.name;
    LATHE_CHECK(copied);
    return std::move(made[0]);
  }
  return fail(Error{.code = ErrorCode::invalid,
                    .message = "a weight has no data",
                    .node = c.name,
                    .expected = to_string(c.type.shape)});
}

// Ops whose result is their operand, at most under another shape.
bool shares_data(const Op &op) {
  const auto *unary = std::get_if<Unary>(&op);
  return facts_of(op).keeps_order || (unary && unary->kind == UnaryKind::identity);
}
// What an op works in besides its results.
int64_t work_bytes(const Op &op, std::span<const Tensor> inputs, std::span<const Type> results) {
  const bool prepares_input = std::visit(
      []<typename T>(const T &layer) {
        if constexpr (LayerOp<T>) return !pre_of(layer).empty();
        return false;
      },
      op);
  if (prepares_input) return int64_t(inputs[0].bytes());
  if (std::holds_alternative<Reduce>(op)) return 8 * element_count(results[0].shape);
  return 0;
}

// The graph's type but for the batch, which is dimension 0.
Result<void> check_input(const Value &declared, const Tensor &given) {
  const Shape &expected = declared.type.shape, &found = given.shape();
  const bool same =
      given.defined() && given.dtype() == declared.type.dtype && found.size() == expected.size() &&
      std::equal(found.begin() + !found.empty(), found.end(), expected.begin() + !expected.empty());
  if (same) return {};
  return fail(
      Error{.code = ErrorCode::invalid,
            .message = "an input tensor does not fit the model",
            .node = declared.name,
            .expected = fmt::format("{} {}", to_string(declared.type.dtype), to_string(expected)),
            .found = fmt::format("{} {}", to_string(given.dtype()), to_string(found))});
}

// The batch that a graph was written for, and the one that it is given.
struct Batch {
  int64_t written = 1, given = 1;
  bool scales(const Shape &from, const Shape &to) const {
    return !from.empty() && !to.empty() && from[0] * given == to[0] * written;
  }
};

Batch find_batch(const Graph &graph, std::span<const Tensor> inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Shape &written = graph.shape(graph.inputs[i]), &given = inputs[i].shape();
    if (written != given) return {written[0], given[0]};
  }
  return {};
}

// A target written for one batch, such as the 1 of [1, -1], would mix the pictures of another.
Result<void> check_batch(const Graph &graph, const Node &node, const Batch &batch,
                         const Tensor &operand, const Tensor &result) {
  if (batch.written == batch.given) return {};
  if (!facts_of(node.op).keeps_order) return {};
  const bool depends = operand.shape() != graph.shape(node.inputs[0]);
  if (!depends || !batch.scales(graph.shape(node.inputs[0]), operand.shape()) ||
      batch.scales(graph.shape(node.outputs[0]), result.shape()))
    return {};
  return fail(Error{.code = ErrorCode::invalid,
                    .message = "the layer fixes the batch size",
                    .expected = fmt::format("a batch of {}", batch.written),
                    .found = fmt::format("{}", batch.given)});
}

// Runs a graph's nodes in order and keeps each value until its last reader has had it.
class Run {
public:
  Run(const Graph &graph, std::span<const Tensor> inputs, const Budget &budget)
      : graph_(graph), budget_(budget), batch_(find_batch(graph, inputs)),
        values_(graph.values.size()), readers_(graph.values.size(), 0) {
    for (const Node &node : graph.nodes)
      for (ValueId id : node.inputs) ++readers_[id];
    for (ValueId id : graph.outputs) ++readers_[id];
    for (size_t i = 0; i < inputs.size(); ++i) values_[graph.inputs[i]] = inputs[i];
  }

  // A value for one of its readers; dropped behind the last.
  Result<Tensor> take(ValueId id) {
    Tensor &value = values_[id];
    if (!value.defined() && graph_.constant(id)) {
      LATHE_TRY(value, materialise(graph_.constant(id), budget_));
    }
    if (!value.defined())
      return fail(Error{.code = ErrorCode::invalid,
                        .message = "a value is used before it is made",
                        .node = graph_.values[id].name});
    return --readers_[id] == 0 ? std::exchange(value, {}) : value;
  }

  Result<void> step(const Node &node, const Observer &observe) {
    Tensors operands;
    for (ValueId id : node.inputs) {
      LATHE_TRY(Tensor operand, take(id));
      operands.push_back(std::move(operand));
    }
    auto results = evaluate(node.op, operands, budget_);
    auto fits = results ? check_batch(graph_, node, batch_, operands[0], (*results)[0])
                        : Result<void>(std::unexpected(results.error()));
    if (!fits) {
      Error error = fits.error();
      error.node = node.name;
      error.op = op_name(node.op);
      if (batch_.written != batch_.given && error.detail.empty())
        error.detail = fmt::format("the model was written for a batch of {} and is given {}",
                                   batch_.written, batch_.given);
      return fail(std::move(error));
    }
    if (observe) observe(node, *results);
    for (size_t i = 0; i < results->size(); ++i)
      if (readers_[node.outputs[i]] > 0) values_[node.outputs[i]] = std::move((*results)[i]);
    return {};
  }

private:
  const Graph &graph_;
  const Budget &budget_;
  Batch batch_;
  std::vector<Tensor> values_;
  std::vector<size_t> readers_; // still to come
};

} // namespace

Result<Tensors> evaluate(const Op &op, std::span<const Tensor> inputs, const Budget &budget) {
  std::vector<Type> types;
  for (const Tensor &input : inputs) types.push_back({input.dtype(), input.shape()});
  LATHE_TRY(auto results, infer_types(op, types));
  return within(budget, shares_data(op) ? std::span<const Type>() : results,
                work_bytes(op, inputs, results), [&] {
                  return std::visit(
                      [&](const auto &o) { return compute(o, {inputs, results, budget}); }, op);
                });
}

std::vector<const Constant *> recipe_parts(const ConstantRef &constant) {
  std::vector<const Constant *> order, stack{constant.get()};
  std::unordered_set<const Constant *> entered, done;
  while (!stack.empty()) {
    const Constant *c = stack.back();
    if (entered.insert(c).second) {
      for (const ConstantRef &input : c->inputs)
        if (!entered.contains(input.get())) stack.push_back(input.get());
    } else {
      stack.pop_back();
      if (done.insert(c).second) order.push_back(c);
    }
  }
  return order;
}

Result<Tensor> materialise(const ConstantRef &constant, const Budget &budget) {
  const std::vector<const Constant *> order = recipe_parts(constant);
  std::unordered_map<const Constant *, size_t> readers; // still to come
  for (const Constant *c : order)
    for (const ConstantRef &input : c->inputs) ++readers[input.get()];
  std::unordered_map<const Constant *, Tensor> done;
  for (const Constant *c : order) {
    if (!c->op) {
      LATHE_TRY(done[c], leaf(*c, budget));
      continue;
    }
    Tensors operands;
    for (const ConstantRef &input : c->inputs) operands.push_back(done.at(input.get()));
    LATHE_TRY(Tensors results, evaluate(*c->op, operands, budget));
    operands.clear();
    done[c] = std::move(results[0]);
    for (const ConstantRef &input : c->inputs)
      if (--readers[input.get()] == 0) done.erase(input.get());
  }
  return done.at(constant.get());
}

Result<Tensors> evaluate(const Graph &graph, std::span<const Tensor> inputs,
                         const Observer &observe, const Budget &budget) {
  if (inputs.size() != graph.inputs.size())
    return fail(Error{.code = ErrorCode::invalid,
                      .message = "wrong number of input tensors",
                      .expected = fmt::format("{}", graph.inputs.size()),
                      .found = fmt::format("{}", inputs.size())});
  for (size_t i = 0; i < inputs.size(); ++i)
    LATHE_CHECK(check_input(graph.values[graph.inputs[i]], inputs[i]));
  Run run(graph, inputs, budget);
  for (const Node &node : graph.nodes) LATHE_CHECK(run.step(node, observe));
  Tensors outputs;
  for (ValueId id : graph.outputs) {
    LATHE_TRY(Tensor output, run.take(id));
    outputs.push_back(std::move(output));
  }
  return outputs;
}

} // namespace lathe::core
