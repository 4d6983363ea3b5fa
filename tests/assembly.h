// Machine code as LLVM writes it as text, read by tests that ask what stands in hot loops: which
// instructions, how many, and whether vectors go through the stack.
#pragma once

#include "ir/target.h"

namespace lathe::core {

struct AssemblyFunction {
  std::string name;
  std::vector<std::string> lines; // labels, with their colon, and instructions
};
std::vector<AssemblyFunction> functions_of(const std::string &assembly);

// A loop that multiplies whole vectors, and holds no other one that does.
struct HotLoop {
  std::string text;
  int64_t instructions = 0;
  int64_t multiplies = 0, adds = 0; // of vectors of the asked width; an FMA is one of each
  std::vector<std::string> spills;  // instructions with a vector register and the stack
};
std::vector<HotLoop> hot_loops(const AssemblyFunction &function, const Target &target,
                               int64_t lanes);

} // namespace lathe::core
