// The reference: every op by its definition, accumulated in float64, one element at a time. The
// oracle for constant folding, tests and `lathe verify`.
#pragma once

#include "ir/budget.h"
#include "ir/graph.h"

#include <functional>

namespace lathe::core {

// Results of one op on concrete tensors whose types `infer_types` accepts. What is computed counts
// in the budget as long as it lives. Errors: limit.
Result<std::vector<Tensor>> evaluate(const Op &op, std::span<const Tensor> inputs,
                                     const Budget &budget = {});

// The number that is every element of an op's first result, where that follows from operands that
// are splats.
std::optional<float> splat_result(const Op &op, std::span<const ConstantRef> inputs,
                                  const Type &result);

// Every part of a recipe once, operands before their users. Without recursion: recipes may be deep.
std::vector<const Constant *> recipe_parts(const ConstantRef &constant);

// The bytes of a constant, aligned. Errors: invalid, if a named tensor in it has no data; limit.
Result<Tensor> materialise(const ConstantRef &constant, const Budget &budget = {});

// Runs a whole graph. `inputs` in the graph's order; dimension 0 may be any batch size if the ops
// allow it. `observe`, if given, sees every node's results as they are made.
using Observer = std::function<void(const Node &, std::span<const Tensor>)>;
Result<std::vector<Tensor>> evaluate(const Graph &graph, std::span<const Tensor> inputs,
                                     const Observer &observe = {}, const Budget &budget = {});

} // namespace lathe::core
