// Whether the CPU that runs the code has what a target needs: what host.cpp asks of this machine,
// as code for another.
#include "codegen/emitter.h"

#include <algorithm>
#include <map>

namespace lathe::core {
namespace {

enum Register : uint8_t { eax, ebx, ecx, edx }; // in the order of cpuid's results

// Intel's and AMD's manuals, under CPUID.
struct Feature {
  std::string_view name; // as LLVM spells it
  uint32_t leaf;
  Register in;
  int bit;
};
constexpr uint32_t extended = 0x80000000;
constexpr Feature features[] = {
    {"sse2", 1, edx, 26},
    {"sse3", 1, ecx, 0},
    {"ssse3", 1, ecx, 9},
    {"fma", 1, ecx, 12},
    {"cx16", 1, ecx, 13},
    {"sse4.1", 1, ecx, 19},
    {"sse4.2", 1, ecx, 20},
    {"movbe", 1, ecx, 22},
    {"popcnt", 1, ecx, 23},
    {"osxsave", 1, ecx, 27},
    {"avx", 1, ecx, 28},
    {"f16c", 1, ecx, 29},
    {"bmi", 7, ebx, 3},
    {"avx2", 7, ebx, 5},
    {"bmi2", 7, ebx, 8},
    {"avx512f", 7, ebx, 16},
    {"avx512dq", 7, ebx, 17},
    {"avx512cd", 7, ebx, 28},
    {"avx512bw", 7, ebx, 30},
    {"avx512vl", 7, ebx, 31},
    {"sahf", extended + 1, ecx, 0},
    {"lzcnt", extended + 1, ecx, 5},
};

// The levels of the x86-64 psABI; each has those before it as well.
struct Level {
  std::string_view cpu;
  std::vector<std::string_view> adds;
};
const std::vector<Level> &levels() {
  static const std::vector<Level> all = {
      {"x86-64", {"sse2"}},
      {"x86-64-v2", {"cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"}},
      {"x86-64-v3", {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "osxsave"}},
      {"x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}},
  };
  return all;
}

// The names of all features that code for the target may use.
Result<std::vector<std::string_view>> needed(const Target &target) {
  std::vector<std::string_view> names;
  const auto level = std::ranges::find(levels(), target.cpu, &Level::cpu);
  if (level == levels().end())
    return fail(ErrorCode::internal, "no test for the CPU " + target.cpu);
  for (auto l = levels().begin(); l <= level; ++l)
    names.insert(names.end(), l->adds.begin(), l->adds.end());
  std::string_view rest = target.features; // "+avx2,+fma"
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    if (rest.starts_with('+')) names.push_back(rest.substr(1, comma - 1));
    rest = comma == std::string_view::npos ? "" : rest.substr(comma + 1);
  }
  return names;
}

std::vector<IrValue> cpuid(Emitter &e, uint32_t leaf) {
  llvm::Type *word = e.ir.getInt32Ty();
  auto *type =
      llvm::FunctionType::get(llvm::StructType::get(word, word, word, word), {word, word}, false);
  auto *code = llvm::InlineAsm::get(type, "cpuid", "={ax},={bx},={cx},={dx},0,2", true);
  IrValue all = e.ir.CreateCall(type, code, {e.ir.getInt32(leaf), e.ir.getInt32(0)});
  std::vector<IrValue> registers;
  for (unsigned i = 0; i < 4; ++i) registers.push_back(e.ir.CreateExtractValue(all, i));
  return registers;
}

// The lower half of the register that says which state the operating system keeps.
IrValue kept_state(Emitter &e) {
  llvm::Type *word = e.ir.getInt32Ty();
  auto *type = llvm::FunctionType::get(llvm::StructType::get(word, word), {word}, false);
  auto *code = llvm::InlineAsm::get(type, "xgetbv", "={ax},={dx},{cx}", true);
  return e.ir.CreateExtractValue(e.ir.CreateCall(type, code, {e.ir.getInt32(0)}), 0);
}

} // namespace

Result<llvm::Function *> emit_cpu_check(const Target &target, llvm::Module &module) {
  auto *type = llvm::FunctionType::get(llvm::Type::getInt1Ty(module.getContext()), false);
  auto *function = llvm::Function::Create(type, llvm::Function::InternalLinkage,
                                          "cpu_has." + target.name, module);
  Emitter e(module, baseline(target.arch), function);
  if (target.arch == Arch::aarch64) {
    if (target.features != baseline(target.arch).features)
      return fail(ErrorCode::internal, "no test for the features " + target.features);
    e.ir.CreateRet(e.ir.getTrue());
    return function;
  }
  LATHE_TRY(const auto names, needed(target));
  std::map<uint32_t, std::array<uint32_t, 4>> masks; // by leaf
  for (std::string_view name : names) {
    const auto feature = std::ranges::find(features, name, &Feature::name);
    if (feature == std::end(features))
      return fail(ErrorCode::internal, "no test for the feature " + std::string(name));
    masks[feature->leaf][feature->in] |= uint32_t{1} << feature->bit;
  }
  auto require_bits = [&](IrValue word, uint32_t mask) {
    IrValue bits = e.ir.CreateAnd(word, e.ir.getInt32(mask));
    e.return_if(e.ir.CreateICmpNE(bits, e.ir.getInt32(mask)), e.ir.getFalse());
  };
  for (const auto &[leaf, mask] : masks) {
    IrValue last = cpuid(e, leaf & extended)[eax];
    e.return_if(e.ir.CreateICmpULT(last, e.ir.getInt32(leaf)), e.ir.getFalse());
    const std::vector<IrValue> registers = cpuid(e, leaf);
    for (unsigned r = eax; r <= edx; ++r)
      if (mask[r]) require_bits(registers[r], mask[r]);
  }
  // XMM and YMM; with AVX-512 also masks, and both parts of ZMM. Leaf 1 said that one may ask.
  const bool avx = std::ranges::count(names, "avx"), avx512 = std::ranges::count(names, "avx512f");
  if (avx) require_bits(kept_state(e), avx512 ? 0xe6 : 0x06);
  e.ir.CreateRet(e.ir.getTrue());
  return function;
}

} // namespace lathe::core
