// The machines that Lathe has names for.
#include "ir/target.h"

#include "ir/system/fork.h"

#include <fmt/format.h>

namespace lathe::core {

static std::vector<Target> make_targets() {
  return {
      {.name = "avx512",
       .arch = Arch::x86_64,
       .triple = "x86_64-unknown-linux-gnu",
       .cpu = "x86-64-v4",
       .features = "+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx2,+fma",
       .vector_bytes = 64,
       .vector_registers = 32,
       .fma = true},
      {.name = "avx2",
       .arch = Arch::x86_64,
       .triple = "x86_64-unknown-linux-gnu",
       .cpu = "x86-64-v3",
       .features = "+avx2,+fma",
       .vector_bytes = 32,
       .vector_registers = 16,
       .fma = true},
      {.name = "plain",
       .arch = Arch::x86_64,
       .triple = "x86_64-unknown-linux-gnu",
       .cpu = "x86-64",
       .features = "+sse2"},
      {.name = "neon",
       .arch = Arch::aarch64,
       .triple = "aarch64-unknown-linux-gnu",
       .cpu = "generic",
       .features = "+neon",
       .vector_bytes = 16,
       .vector_registers = 32,
       .fma = true},
      // Multiplies, rounds and adds as `plain` does.
      {.name = "plain-aarch64",
       .arch = Arch::aarch64,
       .triple = "aarch64-unknown-linux-gnu",
       .cpu = "generic",
       .features = "+neon",
       .vector_bytes = 16,
       .vector_registers = 32},
  };
}
const std::vector<Target> &known_targets() { return made_once<make_targets>(); }

Result<Target> find_target(const std::string &name) {
  std::string canonical = name;
  if (name == "x86-64-v4") canonical = "avx512";
  if (name == "x86-64-v3") canonical = "avx2";
  if (name == "x86-64") canonical = "plain";
  std::string known;
  for (const Target &target : known_targets()) {
    if (target.name == canonical) return target;
    known += (known.empty() ? "" : ", ") + target.name;
  }
  return fail(Error{.code = ErrorCode::usage,
                    .message = "unknown target CPU",
                    .expected = "native, " + known + ", x86-64-v4, x86-64-v3 or x86-64",
                    .found = fmt::format("'{}'", name)});
}

} // namespace lathe::core
