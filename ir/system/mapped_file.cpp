#include "ir/system/mapped_file.h"

#include "ir/system/beneath.h"
#include "ir/system/mapping.h"
#include "ir/system/memory.h"

#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

namespace lathe::core {

namespace {

using Whole = std::shared_ptr<const MappedFile>;

// Up to here a copy costs no more than a mapping.
constexpr size_t small_file = 1 << 20;

std::unexpected<Error> refuse(const std::string &path, std::string message,
                              ErrorCode code = ErrorCode::io) {
  return fail(Error{.code = code, .message = std::move(message), .file = path});
}

// The size of a regular file.
Result<size_t> size_of_file(const Descriptor &file, const std::string &path) {
  if (!file) return refuse(path, std::string("cannot open: ") + std::strerror(errno));
  struct stat status{};
  if (fstat(file.number(), &status) != 0 || !S_ISREG(status.st_mode))
    return refuse(path, "not a regular file");
  return size_t(status.st_size);
}

Result<Whole> in_memory(const Descriptor &file, size_t size, const std::string &path) {
  Memory memory = allocate(size);
  if (!memory)
    return refuse(path, fmt::format("not enough memory for {} bytes", size), ErrorCode::limit);
  if (!read_fully(file.number(), memory.get(), size, 0))
    return refuse(path, errno == 0 ? "the file was cut while it was read"
                                   : std::string("cannot read: ") + std::strerror(errno));
  const std::byte *const begin = memory.get();
  return std::make_shared<const MappedFile>(
      std::span(begin, size), std::shared_ptr<std::byte>(memory.release(), memory.get_deleter()));
}

Result<Whole> mapped(Descriptor file, const std::string &path) {
  LATHE_TRY(const size_t size, size_of_file(file, path));
  if (size <= small_file) return in_memory(file, size, path);
  LATHE_TRY(auto mapping, Mapping::map(std::move(file), path));
  const std::span<const std::byte> bytes = mapping->bytes();
  return std::make_shared<const MappedFile>(bytes, std::move(mapping));
}

Descriptor open_any(const std::string &path) { return Descriptor(::open(path.c_str(), reading)); }

Result<std::string> text_of(const Descriptor &file, const std::string &path, size_t most_bytes) {
  LATHE_TRY(const size_t size, size_of_file(file, path));
  if (size > most_bytes) return refuse(path, "the file is too large", ErrorCode::limit);
  LATHE_TRY(const Whole whole, in_memory(file, size, path));
  return std::string(whole->text());
}

} // namespace

Result<Whole> MappedFile::open(const std::string &path) { return mapped(open_any(path), path); }

Result<Whole> MappedFile::open_beneath(const std::string &folder, const std::string &path) {
  LATHE_TRY(Descriptor file, core::open_beneath(folder, path));
  return mapped(std::move(file), path_beneath(folder, path));
}

Result<Whole> MappedFile::read(const std::string &path) {
  const Descriptor file = open_any(path);
  LATHE_TRY(const size_t size, size_of_file(file, path));
  return in_memory(file, size, path);
}

Result<std::string> read_text_file(const std::string &path, size_t most_bytes) {
  return text_of(open_any(path), path, most_bytes);
}
Result<std::string> read_text_file_beneath(const std::string &folder, const std::string &path,
                                           size_t most_bytes) {
  LATHE_TRY(const Descriptor file, open_beneath(folder, path));
  return text_of(file, path_beneath(folder, path), most_bytes);
}

} // namespace lathe::core
