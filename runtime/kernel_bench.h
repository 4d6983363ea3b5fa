// One kernel of a plan, alone, on memory of its own: to measure it, and to choose between several.
#pragma once

#include "codegen/codegen.h"
#include "ir/system/memory.h"
#include "runtime/loaded_code.h"

namespace lathe::core {

class KernelBench {
public:
  // Warm: the same bytes in every run. Cold: weights come from memory and not from a cache, as they
  // do in a network; what the kernel before has just written, the inputs, stays warm. Only a kernel
  // without weights reads its inputs from memory then.
  enum class Caches : uint8_t { warm, cold };

  // Compiles the kernel's code. The plan's weights need no data, since all memory holds numbers
  // that are made up; `graph` is the one that the plan was made from. Neither is needed afterwards.
  // Takes memory for the operands, when cold also for two times the last-level cache; kernels that
  // run in turns with others, `in_turns` of them, need only their share of that. Errors: as
  // compile_image and LoadedCode::load; limit, where there is not enough memory.
  static Result<KernelBench> create(const Plan &plan, const Graph &graph, size_t kernel,
                                    Caches caches, int64_t images = 1, size_t in_turns = 1);

  // All tasks of the kernel on this thread, once: seconds.
  double run();

private:
  KernelBench() = default;
  struct Operand;
  Result<void> place(std::vector<Operand> operands, int64_t cold_bytes);

  std::unique_ptr<const LoadedCode> code_;
  KernelFunction function_ = nullptr;
  int64_t tasks_ = 0;
  std::vector<Memory> memory_;
  std::byte *scratch_ = nullptr;
  std::vector<std::vector<int64_t>> calls_; // the same but for where what is cold lies
  size_t next_ = 0;                         // of them
};

} // namespace lathe::core
