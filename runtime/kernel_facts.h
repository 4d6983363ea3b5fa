// What a kernel of a plan is, computes and moves, in the words of those who measure it.
#pragma once

#include "passes/plan.h"

namespace lathe::core {

struct KernelFacts {
  std::string algorithm; // "direct 3x3", "dense rows", "max pool 2x2"
  std::string shape;     // "64x56x56 to 128x28x28": one image, channels first
  double flops = 0;      // multiplies and adds of its layers, as written; 0 where none are counted
  double product_flops = 0; // of them, what its matrix products do: less by Winograd
  // What it must read and write at least: every operand once. Weights as they are packed.
  int64_t input_bytes = 0, weight_bytes = 0, output_bytes = 0;

  int64_t bytes() const { return input_bytes + weight_bytes + output_bytes; }
};
// `graph`: the one that the plan was made from.
KernelFacts kernel_facts(const Plan &plan, const Graph &graph, size_t kernel, int64_t images = 1);

} // namespace lathe::core
