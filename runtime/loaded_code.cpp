#include "runtime/loaded_code.h"

#include "ir/system/descriptor.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
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
    return fail(Error{.code = errno == ENOMEM ? ErrorCode::limit : ErrorCode::unsupported,
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
// Everybody knows the name and may write beside it, so that only a file of our own is written to.
void LoadedCode::write_perf_map() const {
  const std::string path = "/tmp/perf-" + std::to_string(getpid()) + ".map";
  Descriptor file(open(path.c_str(),
                       O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  struct stat status{};
  const bool own = file && fstat(file.number(), &status) == 0 && S_ISREG(status.st_mode) &&
                   status.st_uid == geteuid() && status.st_nlink == 1;
  std::FILE *const map = own ? fdopen(file.number(), "a") : nullptr;
  if (!map) return; // nobody will look
  file.release();
  for (const CodeImage::Symbol &symbol : symbols_)
    std::fprintf(map, "%llx %llx %s\n",
                 static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(memory_)) +
                     static_cast<unsigned long long>(symbol.offset),
                 static_cast<unsigned long long>(symbol.size), symbol.name.c_str());
  std::fclose(map);
}

} // namespace lathe::core
