#include "runtime/loaded_code.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

namespace lathe::core {

Result<std::unique_ptr<const LoadedCode>> LoadedCode::load(const CodeImage &image) {
  std::unique_ptr<LoadedCode> code(new LoadedCode(std::max<size_t>(image.bytes.size(), 1)));
  void *memory =
      mmap(nullptr, code->bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fail(ErrorCode::limit, "not enough memory for generated code");
  code->memory_ = memory;
  std::ranges::copy(image.bytes, static_cast<std::byte *>(memory));
  if (mprotect(memory, code->bytes_, PROT_READ | PROT_EXEC) != 0)
    return fail(Error{.code = ErrorCode::unsupported,
                      .message = "the system refuses to execute code made at run time",
                      .expected = "a system that allows it, or a model compiled ahead of time",
                      .found = std::strerror(errno)});
  char *const begin = static_cast<char *>(memory);
  __builtin___clear_cache(begin, begin + code->bytes_);
  code->symbols_ = image.symbols;
  if (std::getenv("LATHE_PERF_MAP")) code->write_perf_map();
  return code;
}

LoadedCode::~LoadedCode() {
  if (memory_) munmap(memory_, bytes_);
}

Result<KernelFunction> LoadedCode::find(const std::string &name) const {
  const auto symbol = std::ranges::find(symbols_, name, &CodeImage::Symbol::name);
  if (symbol == symbols_.end()) return fail(ErrorCode::internal, "no code for the kernel " + name);
  return reinterpret_cast<KernelFunction>(static_cast<std::byte *>(memory_) + symbol->offset);
}

// Names of functions for Linux's perf: tools/perf/Documentation/jit-interface.txt of Linux.
void LoadedCode::write_perf_map() const {
  const std::string path = "/tmp/perf-" + std::to_string(getpid()) + ".map";
  std::FILE *map = std::fopen(path.c_str(), "ae");
  if (!map) return; // nobody will look
  for (const CodeImage::Symbol &symbol : symbols_)
    std::fprintf(map, "%llx %llx %s\n",
                 static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(memory_)) +
                     static_cast<unsigned long long>(symbol.offset),
                 static_cast<unsigned long long>(symbol.size), symbol.name.c_str());
  std::fclose(map);
}

} // namespace lathe::core
