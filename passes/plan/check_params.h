// The part of the Plan's checker that looks at the parameters of all kernels but convolutions, as
// machine code reads them. Private to passes/plan.
#pragma once

#include "passes/plan.h"

namespace lathe::core {

// An operand as its View has it, for all images.
struct CheckedView {
  Shape dims;
  std::vector<int64_t> strides; // elements
  int64_t element_bytes;
};

// What is wrong with the parameters, by the Views of the operands and by the op whose result the
// kernel makes (null for a copy); empty, if nothing is.
std::string fault_of_params(const Kernel &kernel, const std::vector<CheckedView> &operands,
                            const Op *op, int64_t images);

} // namespace lathe::core
