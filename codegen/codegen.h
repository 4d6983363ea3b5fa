// From kernel specs to machine code: a pure function of (specs, target); it chooses nothing.
#pragma once

#include "passes/plan.h"

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace lathe::core {

// The signature of every kernel. `args` holds the operands' addresses, then the spec's parameters;
// tasks [begin, end) are computed; `scratch` is this thread's, 64-byte aligned.
using KernelFunction = void (*)(const int64_t *args, int64_t begin, int64_t end, void *scratch);

// A relocatable ELF object with one global function per spec, named by `kernel_name`.
struct ObjectCode {
  std::vector<char> bytes;
};
// Specs must be distinct. The code uses position-independent addressing and calls nothing.
Result<ObjectCode> compile_kernels(std::span<const KernelSpec> specs, const Target &target);

// The same as text, for people.
enum class CodeText { llvm, assembly };
Result<std::string> print_kernels(std::span<const KernelSpec> specs, const Target &target,
                                  CodeText form);

// The widest known target that this CPU and its operating system support, with its cache sizes.
Target host_target();
// Whether this machine can execute the target's code.
bool host_supports(const Target &target);
// Errors: unsupported, where it cannot.
Result<void> require_host(const Target &target);

// Object code, linked into this process. Pages are never writable and executable at once.
class JitCode {
public:
  static Result<std::unique_ptr<JitCode>> link(std::vector<ObjectCode> objects);
  ~JitCode();
  Result<KernelFunction> find(const std::string &name) const;

private:
  struct Impl;
  explicit JitCode(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

} // namespace lathe::core
