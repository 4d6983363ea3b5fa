// The Plan under construction: operands and results of the node that is being lowered, and the
// kernels that come of it. Private to passes/plan.
#pragma once

#include "passes/plan/planner.h"

namespace lathe::core {

class PlanBuilder {
public:
  PlanBuilder(const Graph &graph, const Target &target, const PlanOptions &options);

  const Graph &graph;
  const PlanOptions options;
  const Uses uses;
  const bool batched;
  const Schedule schedule;
  const std::vector<Choice> choices; // per node, of its algorithm
  StorageMap storage;
  Plan plan;
  int current = 0; // the node that is being lowered

  // --- Storage of operands and results

  Storage operand(ValueId id);
  Storage weight(ValueId id, Weight::Packing packing = Weight::Packing::as_is,
                 const Panels &panels = {}, std::optional<Winograd> winograd = {});
  Storage add_weight(Weight weight);
  Storage filler(float value); // one element, to be repeated
  // The storage of a result: placed already, in place of a dying operand, or new.
  Storage result(ValueId id, const std::vector<Storage> &may_replace = {});
  // `result` with channels (of four dimensions) that follow each other, for kernels that need it;
  // `deliver` then brings what they made to where it belongs.
  Storage vector_result(ValueId id, const std::vector<Storage> &may_replace = {});
  Result<void> deliver(const Storage &made, ValueId id, const Node &node);

  // The operand, or a copy of it, with channels that follow each other; with rows (of two
  // dimensions) that do; with all elements one after the other.
  Result<Storage> with_contiguous_channels(ValueId id, const Node &node);
  Result<Storage> with_contiguous_rows(ValueId id, const Node &node);
  Result<Storage> with_row_major(ValueId id, const Node &node);
  // Weights (M,C,kh,kw) or biases (M) in the panels that ConvSpec describes; those that are
  // computed at run time are copied there.
  Result<Storage> in_panels(ValueId id, Weight::Packing packing, const Panels &panels,
                            std::optional<Winograd> winograd, const Node &node);

  // --- Kernels

  // `ids`: the values that the operands hold, or parts of which; no_value for none. `node` is where
  // the kernel comes from, if from one.
  void append(Kernel kernel, const std::vector<Storage> &operands, std::vector<ValueId> ids,
              const Node *node);
  Result<void> map(MapRequest request, std::vector<ValueId> ids, const Node *node);
  Result<void> copy(const Storage &from, const Storage &to, ValueId from_id, ValueId to_id,
                    const Node *node);
};

// Kernels, or a view, for one node; those that its schedule takes along included. lower.cpp.
// Errors: unsupported, where no kernel fits.
Result<void> lower(PlanBuilder &builder, const Node &node);

} // namespace lathe::core
