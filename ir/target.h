// A machine as plain data: what code generation and the cost model need to know of a CPU.
#pragma once

#include "ir/error.h"
#include "ir/fields.h"

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::core {

enum class Arch : uint8_t { x86_64, aarch64 };

struct Target {
  std::string name; // "avx512", "avx2", "neon", "plain": part of kernel names
  Arch arch = Arch::x86_64;
  std::string triple, cpu; // as LLVM spells them
  std::string features;    // "+avx2,+fma,..." as LLVM spells them
  int vector_bytes = 16;
  int vector_registers = 16;
  bool fma = false; // without it kernels multiply, round, and add
  int64_t l1_bytes = 32 << 10, l2_bytes = 1 << 20, l3_bytes = 16 << 20;

  // What one core does and reads in a nanosecond: fp32 operations at the FMA peak, bytes from the
  // L3 cache and from memory, with streaming loads.
  double gflops = 118, l3_gbs = 52, memory_gbs = 23;

  // What code depends on, and what only plans do.
  static constexpr auto code_fields() {
    return std::make_tuple(
        field("name", &Target::name), field("arch", &Target::arch),
        field("triple", &Target::triple), field("cpu", &Target::cpu),
        field("features", &Target::features), field("vector_bytes", &Target::vector_bytes),
        field("vector_registers", &Target::vector_registers), field("fma", &Target::fma));
  }
  static constexpr auto plan_fields() {
    return std::make_tuple(
        field("l1_bytes", &Target::l1_bytes), field("l2_bytes", &Target::l2_bytes),
        field("l3_bytes", &Target::l3_bytes), field("gflops", &Target::gflops),
        field("l3_gbs", &Target::l3_gbs), field("memory_gbs", &Target::memory_gbs));
  }
  static constexpr auto fields() { return std::tuple_cat(code_fields(), plan_fields()); }

  int lanes() const { return vector_bytes / 4; } // f32 per vector
};

// As append_identity, of what code depends on.
inline void append_code_identity(std::string &bytes, const Target &target) {
  std::apply([&](const auto &...f) { (append_identity(bytes, target.*(f.member)), ...); },
             Target::code_fields());
}

// The targets that Lathe has names for, widest first: avx512, avx2, plain, neon, plain-aarch64.
// Accepted synonyms: x86-64-v4, x86-64-v3, x86-64.
const std::vector<Target> &known_targets();
Result<Target> find_target(const std::string &name);

} // namespace lathe::core
