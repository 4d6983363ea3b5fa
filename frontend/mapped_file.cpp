#include "frontend/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace lathe::core {

namespace {

std::unexpected<Error> refuse(ErrorCode code, const std::string &path, std::string message) {
  return fail(Error{.code = code, .message = std::move(message), .file = path});
}

// A descriptor that closes itself.
struct Descriptor {
  int number;
  explicit Descriptor(int n) : number(n) {}
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;
  ~Descriptor() {
    if (number >= 0) close(number);
  }
  void replace(int n) { close(std::exchange(number, n)); }
};

// Without blocking, so that a FIFO does not hang us before it is refused.
constexpr int reading = O_RDONLY | O_CLOEXEC | O_NONBLOCK;

} // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::string &path) {
  Descriptor file(::open(path.c_str(), reading));
  return map(file.number, path, true);
}

Result<std::shared_ptr<const MappedFile>> MappedFile::open_beneath(const std::string &folder,
                                                                   const std::string &path) {
  const std::string shown = folder + "/" + path;
  auto leaves = [&](std::string_view part) { return part.empty() || part == "." || part == ".."; };
  std::vector<std::string> parts;
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    parts.push_back(path.substr(at, end - at));
    at = end + 1;
    if (leaves(parts.back()) || parts.back().find('\0') != std::string::npos)
      return refuse(ErrorCode::invalid, shown, "a path that may leave the model's folder");
  }
  // One step at a time, each from a folder that is open already: nothing can be swapped on the way.
  Descriptor at(::open(folder.empty() ? "." : folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (size_t i = 0; at.number >= 0 && i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    at.replace(openat(at.number, parts[i].c_str(),
                      O_NOFOLLOW | (last ? reading : O_PATH | O_DIRECTORY | O_CLOEXEC)));
  }
  return map(at.number, shown, false);
}

Result<std::shared_ptr<const MappedFile>> MappedFile::map(int file, const std::string &path,
                                                          bool may_have_links) {
  if (file < 0)
    return refuse(ErrorCode::io, path,
                  errno == ELOOP ? "a symbolic link, which may lead anywhere"
                                 : std::string("cannot open: ") + std::strerror(errno));
  struct stat status{};
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode))
    return refuse(ErrorCode::io, path, "not a regular file");
  if (!may_have_links && status.st_nlink > 1)
    return refuse(ErrorCode::io, path, "a file with several hard links, which may lead anywhere");
  const auto size = static_cast<size_t>(status.st_size);
  void *address = nullptr;
  if (size > 0) {
    address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (address == MAP_FAILED)
      return refuse(ErrorCode::io, path, std::string("cannot map: ") + std::strerror(errno));
  }
  return std::shared_ptr<const MappedFile>(
      new MappedFile({static_cast<const std::byte *>(address), size}));
}

namespace {

// Where the files that are mapped now lie, by their ends.
struct Mappings {
  std::mutex mutex;
  std::map<const std::byte *, const std::byte *> begin_of;
};
Mappings &mappings() {
  static Mappings all;
  return all;
}

} // namespace

MappedFile::MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {
  if (bytes_.empty()) return;
  const std::lock_guard lock(mappings().mutex);
  mappings().begin_of.emplace(bytes_.data() + bytes_.size(), bytes_.data());
}

MappedFile::~MappedFile() {
  if (bytes_.empty()) return;
  {
    const std::lock_guard lock(mappings().mutex);
    mappings().begin_of.erase(bytes_.data() + bytes_.size());
  }
  munmap(const_cast<std::byte *>(bytes_.data()), bytes_.size());
}

void release_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::byte *const end = bytes.data() + bytes.size();
  const std::lock_guard lock(mappings().mutex);
  const auto file = mappings().begin_of.lower_bound(end);
  if (bytes.empty() || file == mappings().begin_of.end() || file->second > bytes.data()) return;
  // Whole pages; what lies beside the bytes on the outer ones is read anew as well.
  const auto first = reinterpret_cast<uintptr_t>(bytes.data()) / page * page;
  const auto last = (reinterpret_cast<uintptr_t>(end) + page - 1) / page * page;
  madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
}

Result<std::string> read_text_file(const std::string &path, size_t most_bytes) {
  LATHE_TRY(auto file, MappedFile::open(path));
  if (file->bytes().size() > most_bytes)
    return fail(Error{.code = ErrorCode::limit, .message = "the file is too large", .file = path});
  return std::string(file->text());
}

} // namespace lathe::core
