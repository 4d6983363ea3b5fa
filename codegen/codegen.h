// From kernel specs to machine code: a pure function of (specs, target); it chooses nothing.
#pragma once

#include "ir/budget.h"
#include "passes/plan.h"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace lathe::core {

class CodeArchive;

// The signature of every kernel. `args` holds the operands' addresses, then the spec's parameters;
// tasks [begin, end) are computed; `scratch` is this thread's, 64-byte aligned.
using KernelFunction = void (*)(const int64_t *args, int64_t begin, int64_t end, void *scratch);

// A relocatable ELF object with one global function per spec, named by `kernel_symbol`.
struct ObjectCode {
  std::vector<char> bytes;
};
// Specs must be distinct. The code uses position-independent addressing and calls nothing.
Result<ObjectCode> compile_kernels(std::span<const KernelSpec> specs, const Target &target);

// The same as text, for people.
enum class CodeText { llvm, assembly };
Result<std::string> print_kernels(std::span<const KernelSpec> specs, const Target &target,
                                  CodeText form);

// --- Ahead of time

// The weights of a library lie in one file or section: this header, then every weight at a multiple
// of 64 bytes.
struct WeightsHeader {
  char magic[8] = {'l', 'a', 't', 'h', 'e', 'w', '0', '1'};
  uint64_t bytes = 0;      // of all, with this header
  uint64_t plans = 0;      // from what plans they follow
  uint64_t identifier = 0; // as weights_identifier has it
  uint64_t unused[4] = {};
};
// A checksum of what follows the header: whole 8-byte words.
uint64_t weights_identifier(uint64_t plans, std::span<const std::byte> content);

// A network as a library of plain C functions, for one number of images. They keep nothing between
// calls and need no other library; `runtime/c_header.h` writes their declarations and contract.
struct NetworkLibrary {
  struct Variant { // of the code, for one target
    const Plan *plan = nullptr;
    std::vector<int64_t> weights; // of the plan, each one's place behind the start of the header
  };
  std::string name; // a C identifier, which the functions' names begin with
  int64_t images = 1;
  std::vector<Variant> variants; // best first; of one architecture, with equal inputs and outputs
  WeightsHeader weights;
  std::span<const std::byte> own_weights = {}; // to be part of the code, header and all; or none

  const Plan &interface() const { return *variants.front().plan; } // for inputs and outputs
  int64_t input_bytes(size_t i) const;
  int64_t output_bytes(size_t j) const;
  // What the caller provides: so much, and so much more for every thread.
  int64_t arena_bytes() const;
  int64_t scratch_per_thread() const;
};

// What the library's functions return.
enum class LibraryStatus : uint8_t {
  ok,
  null_argument,
  misaligned,
  small_arena,
  bad_parallel,
  wrong_weights,
  unsupported_cpu,
  uninitialised
};
struct LibraryStatusText {
  std::string_view name; // behind the library's name, in capitals
  std::string_view meaning;
};
std::span<const LibraryStatusText> library_statuses(); // by number

// A relocatable object with position-independent code, or the same as text. Public symbols are the
// functions of the C header alone. Errors: as Plan::sized for the library's images; limit;
// internal.
Result<ObjectCode> compile_library(const NetworkLibrary &library, const Budget &budget = {});
Result<std::string> print_library(const NetworkLibrary &library, CodeText form,
                                  const Budget &budget = {});

// --- This machine

// The widest known target that this CPU and its operating system support, with its cache sizes.
Target host_target();
// The target on each kind of machine that Lathe was measured on: with its caches and its speed.
std::vector<Target> measured_machines(const Target &target);
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
  size_t compiled = 0;         // functions that were in no archive
};
// Of relocatable ELF objects. Errors: internal, for code that refers to an address or to anything
// outside.
Result<CodeImage> link_image(std::span<const std::span<const char>> objects);
// Compiles and links, on so many threads at most; the image does not depend on how many. What the
// archive has is taken from there. Specs must be distinct. Errors: limit, if the budget's time is
// over before the last spec is begun, or its memory.
Result<CodeImage> compile_image(std::span<const KernelSpec> specs, const Target &target,
                                int threads = 1, const Budget &budget = {},
                                const CodeArchive *archive = nullptr);

} // namespace lathe::core
