// Functions of kernels that are already compiled. A function's name holds the hash of all that its
// code depends on, so it serves whatever network asks for it.
#pragma once

#include "codegen/codegen.h"

#include <string_view>
#include <unordered_map>

namespace lathe::core {

class CodeArchive {
public:
  struct Function {
    std::string_view name;
    std::vector<std::string_view> calls; // and takes the addresses of: functions of the archive
    std::span<const char> object;        // a relocatable ELF object that defines it
  };

  CodeArchive() = default; // without functions
  // Archives as `compile_archive` wrote them, one behind the other; they must outlive this.
  explicit CodeArchive(std::span<const std::byte> archives);

  const Function *find(std::string_view name) const; // or null
  size_t size() const { return functions_.size(); }

private:
  std::unordered_map<std::string_view, Function> functions_;
};

// A part of an archive.
std::string encode(const CodeArchive::Function &function);

// Compiles what the specs' kernels consist of, and their register tiles for fewer pixels too: the
// same layers on pictures of other sizes need those. Errors: internal.
Result<std::string> compile_archive(std::span<const KernelSpec> specs, const Target &target,
                                    int threads);

} // namespace lathe::core
