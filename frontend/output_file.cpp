#include "frontend/output_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <unistd.h>

namespace lathe::core {
namespace {

namespace fs = std::filesystem;

// What went wrong, or null. A full disk may only show when the buffer is flushed.
const char *write_parts(const std::string &path, std::span<const FilePart> parts) {
  std::FILE *file = std::fopen(path.c_str(), "wbe");
  if (!file) return "cannot open for writing";
  bool good = true;
  for (FilePart part : parts)
    good = good && std::fwrite(part.data(), 1, part.size(), file) == part.size();
  int reason = errno;
  bool closed = std::fclose(file) == 0;
  if (!good) errno = reason;
  return good && closed ? nullptr : "cannot write";
}

std::unexpected<Error> refuse(const char *what, const std::string &path) {
  return fail(Error{.code = ErrorCode::io,
                    .message = std::string(what) + ": " + std::strerror(errno),
                    .file = path});
}

// Whole, beside its target, until it takes its place; else it goes.
class Pending {
public:
  // Devices and pipes are written to as they are; a link keeps pointing where it points.
  static Result<std::unique_ptr<Pending>> write(const OutputFile &file) {
    std::error_code ignored;
    const fs::file_status status = fs::status(file.path, ignored);
    const bool as_it_is = fs::exists(status) && !fs::is_regular_file(status);
    fs::path target = fs::exists(status) ? fs::canonical(file.path, ignored) : fs::path(file.path);
    if (target.empty()) target = file.path;
    auto pending = std::make_unique<Pending>();
    pending->path_ = file.path;
    pending->target_ = target.string();
    if (!as_it_is) pending->partial_ = fmt::format("{}.part-{}", target.string(), getpid());
    if (const char *problem = write_parts(as_it_is ? file.path : pending->partial_, file.parts))
      return refuse(problem, file.path);
    return pending;
  }
  Result<void> take_place() {
    if (partial_.empty()) return {};
    if (std::rename(partial_.c_str(), target_.c_str()) != 0) return refuse("cannot write", path_);
    partial_.clear();
    return {};
  }
  Pending() = default;
  Pending(const Pending &) = delete;
  ~Pending() {
    const int reason = errno;
    if (!partial_.empty()) std::remove(partial_.c_str());
    errno = reason;
  }

private:
  std::string path_, target_, partial_;
};

} // namespace

Result<void> write_files(std::span<const OutputFile> files) {
  std::vector<std::unique_ptr<Pending>> pending;
  for (const OutputFile &file : files) {
    LATHE_TRY(pending.emplace_back(), Pending::write(file));
  }
  for (const auto &each : pending) LATHE_CHECK(each->take_place());
  return {};
}

Result<void> write_file(const std::string &path, std::vector<FilePart> parts) {
  const OutputFile file{path, std::move(parts)};
  return write_files({&file, 1});
}

} // namespace lathe::core
