#include "frontend/output_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

namespace lathe::core {
namespace {

namespace fs = std::filesystem;

// What went wrong, or null. A full disk may only show when the buffer is flushed.
const char *write_parts(const std::string &path,
                        std::initializer_list<std::span<const std::byte>> parts) {
  std::FILE *file = std::fopen(path.c_str(), "wbe");
  if (!file) return "cannot open for writing";
  bool good = true;
  for (std::span<const std::byte> part : parts)
    good = good && std::fwrite(part.data(), 1, part.size(), file) == part.size();
  int reason = errno;
  bool closed = std::fclose(file) == 0;
  if (!good) errno = reason;
  return good && closed ? nullptr : "cannot write";
}

} // namespace

Result<void> write_file(const std::string &path,
                        std::initializer_list<std::span<const std::byte>> parts) {
  auto refuse = [&](const char *what) {
    return fail(Error{.code = ErrorCode::io,
                      .message = std::string(what) + ": " + std::strerror(errno),
                      .file = path});
  };
  // Beside the target and then renamed, so that what stood there is lost only to a whole file.
  // Devices and pipes are written to as they are; a link keeps pointing where it points.
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    if (const char *problem = write_parts(path, parts)) return refuse(problem);
    return {};
  }
  fs::path target = fs::exists(status) ? fs::canonical(path, ignored) : fs::path(path);
  if (target.empty()) target = path;
  const std::string partial = fmt::format("{}.part-{}", target.string(), getpid());
  const char *problem = write_parts(partial, parts);
  if (!problem && std::rename(partial.c_str(), target.c_str()) != 0) problem = "cannot write";
  if (!problem) return {};
  auto error = refuse(problem);
  std::remove(partial.c_str());
  return error;
}

} // namespace lathe::core
