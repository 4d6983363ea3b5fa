// From kernel specs to machine code: a pure function of (specs, target); it chooses nothing.
#pragma once

#include "ir/deadline.h"
#include "passes/plan.h"

#include <cstddef>
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

// Machine code and its read-only data, to be put at any page and executed as it is: everything in
// it is addressed relative to itself, and it calls nothing.
struct CodeImage {
  struct Symbol {
    std::string name;
    int64_t offset = 0, size = 0; // bytes
  };
  std::vector<std::byte> bytes;
  std::vector<Symbol> symbols; // functions, local ones too, as they lie
};
// Errors: internal, for code that refers to an address or to anything outside.
Result<CodeImage> link_image(std::span<const ObjectCode> objects);
// Compiles and links, on so many threads at most; the image does not depend on how many. Specs must
// be distinct. Errors: limit, if the deadline passes before the last spec is begun.
Result<CodeImage> compile_image(std::span<const KernelSpec> specs, const Target &target,
                                int threads = 1, const Deadline &deadline = {});

} // namespace lathe::core
