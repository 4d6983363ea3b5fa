// Graphs of every op, and inputs with NaN, infinities, zeros of both signs and subnormal numbers:
// what strict numerics promise is tested on them, as they come and on every target.
#pragma once

#include "ir/graph.h"

#include <string>
#include <vector>

namespace lathe::core {

struct SpecialCase {
  std::string name;
  Graph graph;
  bool sums = true; // results are sums, perhaps of many terms; else of one element each
  // Zeros have signs: not in sums, which begin with one, nor where both may be the larger one.
  bool signs = false;
  bool images = true; // dimension 0 carries them
  // Results are products of many elements: no normal number is so small that one underflows on the
  // way, which f32 then keeps as zero, and float64 does not.
  bool multiplies = false;
};
// Together they hold every op, of every kind.
std::vector<SpecialCase> special_cases();

enum class Specials : uint8_t { nan, infinities, tiny, all };
inline constexpr Specials all_specials[] = {Specials::nan, Specials::infinities, Specials::tiny,
                                            Specials::all};
// Numbers near 1 of which one in so many is special. Of the inputs' written types, but for
// dimension 0, if there are to be so many images.
std::vector<Tensor> special_inputs(const SpecialCase &of, Specials specials, uint64_t seed,
                                   int64_t images = 0);

// With zeros for subnormal numbers, as kernels read them.
Tensor flushed(const Tensor &tensor);

// What is wrong with a result; empty if it is near the reference, and NaN and infinities stand
// where they stand there.
std::string special_fault(const SpecialCase &of, const Tensor &result, const Tensor &reference);

} // namespace lathe::core
