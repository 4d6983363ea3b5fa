// Generated code as executable memory of this process.
#pragma once

#include "codegen/codegen.h"

#include <memory>
#include <string>

namespace lathe::core {

class LoadedCode {
public:
  // Copies the image. Its pages are never writable and executable at once. Errors: unsupported,
  // where the system lets no program make code at run time; limit, where there is no memory.
  static Result<std::unique_ptr<const LoadedCode>> load(const CodeImage &image);
  ~LoadedCode();
  LoadedCode(const LoadedCode &) = delete;
  LoadedCode &operator=(const LoadedCode &) = delete;
  // Errors: internal, for a name that the image lacks.
  Result<KernelFunction> find(const std::string &name) const;

private:
  explicit LoadedCode(size_t bytes) : bytes_(bytes) {}
  void write_perf_map() const;

  void *memory_ = nullptr;
  size_t bytes_;
  std::vector<CodeImage::Symbol> symbols_;
};

} // namespace lathe::core
