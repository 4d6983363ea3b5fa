#include "ir/system/output_file.h"

#include "ir/system/descriptor.h"

#include <array>
#include <charconv>
#include <climits>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace lathe::core {
namespace {

std::unexpected<Error> refuse(const std::string &path, std::string message) {
  return fail(Error{.code = ErrorCode::io, .message = std::move(message), .file = path});
}
std::unexpected<Error> refuse_errno(const std::string &path, const char *what = "cannot write") {
  return refuse(path, fmt::format("{}: {}", what, std::strerror(errno)));
}

// The descriptor of this process that a path means.
std::optional<int> own_descriptor(std::string_view path) {
  if (path == "/dev/stdout") return STDOUT_FILENO;
  if (path == "/dev/stderr") return STDERR_FILENO;
  for (std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!path.starts_with(folder)) continue;
    const char *const end = path.data() + path.size();
    int number = 0;
    const auto [stop, status] = std::from_chars(path.data() + folder.size(), end, number);
    if (status == std::errc{} && stop == end && number >= 0) return number;
  }
  return std::nullopt;
}

// Where a file is to lie: a name in an open folder, which nobody can swap any more.
struct Place {
  Descriptor folder;
  std::string name;
  std::optional<struct stat> there = {}; // what stands there now
  std::optional<int> descriptor = {};    // instead of all that
};

bool is_trusted(const struct stat &status) {
  return status.st_uid == geteuid() || status.st_uid == 0;
}

Result<Place> find_place(const std::string &shown) {
  std::string path = shown;
  Place place;
  Descriptor &folder = place.folder;
  for (int links = 0; links < 40; ++links) {
    if ((place.descriptor = own_descriptor(path))) return place;
    const size_t name_at = path.rfind('/') + 1; // npos + 1 is 0
    place.name = path.substr(name_at);
    const std::string parent = name_at == 0 ? "." : path.substr(0, name_at);
    folder.reset(openat(folder ? folder.number() : AT_FDCWD, parent.c_str(),
                        O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!folder) return refuse_errno(shown, "cannot open for writing");
    const Descriptor here(
        openat(folder.number(), place.name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!here && errno == ENOENT && !place.name.empty()) return place;
    struct stat status{};
    if (!here || fstat(here.number(), &status) != 0)
      return refuse_errno(shown, "cannot open for writing");
    place.there = status;
    if (!S_ISLNK(status.st_mode)) return place;
    if (!is_trusted(status)) return refuse(shown, "a symbolic link of another user");
    std::array<char, PATH_MAX> target;
    const ssize_t length = readlinkat(here.number(), "", target.data(), target.size());
    if (length < 0) return refuse_errno(shown);
    path.assign(target.data(), size_t(length));
    place.there.reset();
  }
  errno = ELOOP;
  return refuse_errno(shown, "cannot open for writing");
}

bool write_parts(int file, std::span<const FilePart> parts) {
  for (FilePart part : parts)
    if (!write_fully(file, part)) return false;
  return true;
}

// Devices, pipes and open descriptors.
Result<void> write_as_it_is(const Place &place, const OutputFile &file) {
  std::fflush(stdout); // what was printed comes before
  Descriptor opened;
  if (!place.descriptor) {
    if (S_ISFIFO(place.there->st_mode) && !is_trusted(*place.there))
      return refuse(file.path, "a pipe of another user");
    opened.reset(openat(place.folder.number(), place.name.c_str(),
                        O_WRONLY | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC));
    struct stat status{};
    if (!opened || fstat(opened.number(), &status) != 0)
      return refuse_errno(file.path, "cannot open for writing");
    if (S_ISREG(status.st_mode)) return refuse(file.path, "it was replaced meanwhile");
  }
  if (!write_parts(place.descriptor.value_or(opened.number()), file.parts))
    return refuse_errno(file.path);
  return {};
}

// Whole, beside its place, until it takes it; else it goes.
class Pending {
public:
  static Result<std::unique_ptr<Pending>> write(const OutputFile &file) {
    auto pending = std::make_unique<Pending>();
    pending->path_ = file.path;
    LATHE_TRY(pending->place_, find_place(file.path));
    const Place &place = pending->place_;
    if (place.descriptor || (place.there && !S_ISREG(place.there->st_mode))) {
      LATHE_CHECK(write_as_it_is(place, file));
      return pending;
    }
    size_t bytes = 0;
    for (FilePart part : file.parts) bytes += part.size();
    if (exceeds_file_size_limit(bytes)) return refuse(file.path, "larger than files may be");
    Descriptor partial = pending->create();
    if (!partial) return refuse_errno(file.path, "cannot open for writing");
    // A full disk may only show when the file is closed.
    if (!write_parts(partial.number(), file.parts) || close(partial.release()) != 0)
      return refuse_errno(file.path);
    return pending;
  }
  // `undoable`: so that what stood there comes back if this is not kept, where the file system can
  // do that.
  Result<void> take_place(bool undoable) {
    if (partial_.empty()) return {};
    const int folder = place_.folder.number();
    const char *const from = partial_.c_str(), *const to = place_.name.c_str();
    if (undoable && place_.there && renameat2(folder, from, folder, to, RENAME_EXCHANGE) == 0) {
      exchanged_ = true;
      return {};
    }
    if (renameat(folder, from, folder, to) != 0) return refuse_errno(path_);
    made_ = undoable && !place_.there;
    partial_.clear();
    return {};
  }
  void keep() { exchanged_ = made_ = false; }

  Pending() = default;
  Pending(const Pending &) = delete;
  ~Pending() {
    const int folder = place_.folder.number();
    if (exchanged_)
      renameat2(folder, partial_.c_str(), folder, place_.name.c_str(), RENAME_EXCHANGE);
    if (made_) unlinkat(folder, place_.name.c_str(), 0);
    if (!partial_.empty()) unlinkat(folder, partial_.c_str(), 0);
  }

private:
  // A new file of a name that nobody can foresee.
  Descriptor create() {
    for (int attempt = 0; attempt < 100; ++attempt) {
      uint64_t random = 0;
      if (getrandom(&random, sizeof random, 0) != sizeof random) return Descriptor();
      partial_ = fmt::format(".lathe-{:016x}", random);
      Descriptor file(openat(place_.folder.number(), partial_.c_str(),
                             O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                             place_.there ? 0600 : 0666));
      if (file) {
        take_over_rights(file);
        return file;
      }
      partial_.clear();
      if (errno != EEXIST) return file;
    }
    return Descriptor();
  }
  void take_over_rights(const Descriptor &file) const {
    if (!place_.there) return;
    struct stat own{};
    const bool same = fstat(file.number(), &own) == 0 && own.st_uid == place_.there->st_uid &&
                      own.st_gid == place_.there->st_gid;
    // Only root may give a file away.
    if (!same && fchown(file.number(), place_.there->st_uid, place_.there->st_gid) != 0) errno = 0;
    if (fchmod(file.number(), place_.there->st_mode & 0777) != 0) errno = 0;
  }

  std::string path_, partial_; // the latter in the place's folder
  Place place_;
  bool exchanged_ = false; // the partial file is what stood there
  bool made_ = false;      // nothing stood there
};

} // namespace

Result<void> write_files(std::span<const OutputFile> files) {
  std::vector<std::unique_ptr<Pending>> pending;
  for (const OutputFile &file : files) {
    LATHE_TRY(pending.emplace_back(), Pending::write(file));
  }
  for (const auto &each : pending) LATHE_CHECK(each->take_place(files.size() > 1));
  for (const auto &each : pending) each->keep();
  return {};
}

Result<void> write_file(const std::string &path, std::vector<FilePart> parts) {
  const OutputFile file{path, std::move(parts)};
  return write_files({&file, 1});
}

bool is_device(const std::string &path) {
  if (own_descriptor(path)) return true;
  struct stat status{};
  return stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

bool exceeds_file_size_limit(size_t bytes) {
  rlimit limit{};
  return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
         bytes > limit.rlim_cur;
}

} // namespace lathe::core
