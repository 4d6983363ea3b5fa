#include "frontend/output_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace lathe {

Result<void> write_file(const std::string &path,
                        std::initializer_list<std::span<const std::byte>> parts) {
  auto refuse = [&](const char *what) {
    return fail(Error{.code = ErrorCode::io,
                      .message = std::string(what) + ": " + std::strerror(errno),
                      .file = path});
  };
  std::FILE *file = std::fopen(path.c_str(), "wbe");
  if (!file) return refuse("cannot open for writing");
  bool good = true;
  for (std::span<const std::byte> part : parts)
    good = good && std::fwrite(part.data(), 1, part.size(), file) == part.size();
  // A full disk may only show when the buffer is flushed.
  if (!good) {
    auto error = refuse("cannot write");
    std::fclose(file);
    return error;
  }
  if (std::fclose(file) != 0) return refuse("cannot write");
  return {};
}

} // namespace lathe
