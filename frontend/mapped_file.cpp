#include "frontend/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace lathe {

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::string &path) {
  auto refuse = [&](std::string message) {
    return fail(Error{.code = ErrorCode::io, .message = std::move(message), .file = path});
  };
  // Without blocking, so that a FIFO does not hang us before it is refused.
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return refuse(std::string("cannot open: ") + std::strerror(errno));
  struct stat status{};
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(file);
    return refuse("not a regular file");
  }
  auto size = static_cast<size_t>(status.st_size);
  void *address = nullptr;
  if (size > 0) {
    address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (address == MAP_FAILED) {
      int reason = errno;
      close(file);
      return refuse(std::string("cannot map: ") + std::strerror(reason));
    }
  }
  close(file);
  return std::shared_ptr<const MappedFile>(
      new MappedFile({static_cast<const std::byte *>(address), size}));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte *>(bytes_.data()), bytes_.size());
}

Result<std::string> read_text_file(const std::string &path, size_t most_bytes) {
  LATHE_TRY(auto file, MappedFile::open(path));
  if (file->bytes().size() > most_bytes)
    return fail(Error{.code = ErrorCode::limit, .message = "the file is too large", .file = path});
  return std::string(file->text());
}

} // namespace lathe
