// What is to be cold is there many times, in more copies than the last-level cache holds; runs take
// them in turn, in an order that no prefetcher guesses. All else lies as the plan has it.
#include "runtime/kernel_bench.h"

#include "runtime/median.h"
#include "runtime/thread_pool.h"
#include "runtime/views.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <random>

namespace lathe::core {

struct KernelBench::Operand {
  std::pair<Space, int> block; // of memory, within which the plan places it
  ByteRange range;             // of its elements there
  int64_t first = 0;           // the byte that the kernel is given the address of
  DType dtype = DType::f32;
  bool rotates = false;
};

namespace {

// Numbers around 0 where there may be floats; where there are none, zeros: good indices.
void fill(std::byte *memory, int64_t bytes, DType dtype) {
  if (dtype != DType::f32) {
    std::memset(memory, 0, size_t(bytes));
    return;
  }
  uint32_t state = 1;
  for (int64_t i = 0; i + 4 <= bytes; i += 4) {
    state = state * 1664525 + 1013904223;
    const float value = float(int32_t(state)) * 0x1p-31f;
    std::memcpy(memory + i, &value, 4);
  }
}

} // namespace

Result<KernelBench> KernelBench::create(const Plan &plan, const Graph &graph, size_t number,
                                        Caches caches, int64_t images, size_t in_turns) {
  LATHE_CHECK(plan.sized(images, 1));
  const Kernel &kernel = plan.kernels[number];
  KernelBench bench;
  LATHE_TRY(const CodeImage image, compile_image({&kernel.spec, 1}, plan.target));
  LATHE_TRY(bench.code_, LoadedCode::load(image));
  LATHE_TRY(bench.function_, bench.code_->find(kernel_symbol(kernel.spec, plan.target)));
  bench.tasks_ = kernel.tasks.at(images);

  std::vector<Operand> operands;
  bool weights = false;
  for (const View &view : kernel.operands) {
    operands.push_back({.block = {view.space, view.space == Space::arena ? 0 : view.index},
                        .range = bytes_spanned(plan, graph, view, images),
                        .first = view.offset.at(images),
                        .dtype = element_type(plan, graph, view)});
    weights |= view.space == Space::weights;
  }
  const Operand &output = operands[size_t(kernel.output)];
  for (Operand &o : operands)
    o.rotates = weights ? o.block.first == Space::weights
                        : o.block != output.block || !o.range.overlaps(output.range);
  const int64_t cold_bytes =
      caches == Caches::cold ? 2 * host_target().l3_bytes / int64_t(in_turns) : 0;
  LATHE_CHECK(bench.place(std::move(operands), cold_bytes));
  for (std::vector<int64_t> &call : bench.calls_)
    for (const Affine &param : kernel.params) call.push_back(param.at(images));
  bench.memory_.push_back(allocate(size_t(whole_lines(kernel.scratch_bytes))));
  bench.scratch_ = bench.memory_.back().get();
  if (!bench.scratch_) return fail(ErrorCode::limit, "not enough memory for a kernel's scratch");
  return bench;
}

Result<void> KernelBench::place(std::vector<Operand> operands, int64_t cold_bytes) {
  // Each operand's address is that of a block's first byte and an offset.
  std::map<std::pair<Space, int>, int64_t> block_bytes;
  int64_t set_bytes = 0; // of all that rotates
  for (const Operand &o : operands) {
    if (o.rotates)
      set_bytes += whole_lines(o.range.end - o.range.begin);
    else
      block_bytes[o.block] = std::max(block_bytes[o.block], o.range.end);
  }
  const int64_t copies =
      cold_bytes == 0 || set_bytes == 0 ? 1 : (cold_bytes + set_bytes - 1) / set_bytes;
  std::map<std::pair<Space, int>, std::byte *> blocks;
  auto take = [&](int64_t bytes) {
    memory_.push_back(allocate(size_t(bytes)));
    return memory_.back().get();
  };
  std::byte *const sets = take(copies * set_bytes);
  bool enough = sets;
  for (auto [block, bytes] : block_bytes) enough &= (blocks[block] = take(bytes)) != nullptr;
  if (!enough) return fail(ErrorCode::limit, "not enough memory to run a kernel alone");

  for (auto [block, memory] : blocks) fill(memory, block_bytes[block], DType::f32);
  std::vector<int64_t> call;
  std::byte *set = sets;
  for (const Operand &o : operands) {
    const int64_t bytes = o.range.end - o.range.begin;
    std::byte *const lowest = o.rotates ? set : blocks[o.block] + o.range.begin;
    if (o.rotates) set += whole_lines(bytes);
    if (o.rotates || o.dtype != DType::f32) fill(lowest, bytes, o.dtype);
    call.push_back(reinterpret_cast<int64_t>(lowest + (o.first - o.range.begin)));
  }
  calls_.push_back(call);
  for (int64_t c = 1; c < copies; ++c) {
    std::memcpy(sets + c * set_bytes, sets, size_t(set_bytes));
    for (size_t o = 0; o < operands.size(); ++o)
      if (operands[o].rotates) call[o] += set_bytes;
    calls_.push_back(call);
  }
  std::ranges::shuffle(calls_, std::mt19937(1));
  return {};
}

double KernelBench::run() {
  FlushSubnormals mode;
  const std::vector<int64_t> &call = calls_[next_];
  next_ = (next_ + 1) % calls_.size();
  const auto start = std::chrono::steady_clock::now();
  function_(call.data(), 0, tasks_, scratch_);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

} // namespace lathe::core
