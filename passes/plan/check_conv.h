// The checker's word on what convolutions multiply. Private to it.
#pragma once

#include "passes/plan.h"

#include <span>

namespace lathe::core {

constexpr int64_t nothing = -1, filler = -2; // identities of fresh memory, and of padding

// A convolution of a kernel, as the graph has it, with the types of one image.
struct CheckedConv {
  Conv op;
  Shape x, y;
};
// Where the input of a kernel lies, for all images, and the identities of its elements in row-major
// order.
struct CheckedInput {
  Shape dims;
  std::vector<int64_t> strides;
  std::span<const int64_t> identities;
};

// Follows the parameters of a kernel as its code does: brings the rows of every block into scratch,
// and looks at each element that a product takes from there or from the input. `convolutions`: the
// last one of the chain first. Empty, or what is wrong: an element beside the input or in scratch
// that nobody wrote, or another one than the graph says.
std::string fault_of_products(const Kernel &kernel, std::span<const CheckedConv> convolutions,
                              const CheckedInput &input);

} // namespace lathe::core
