#include "ir/system/mapping.h"
#include "ir/system/fork.h"

#include <cstring>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <sys/stat.h>

namespace lathe::core {
namespace {

// Those that there are now, by their ends. Never destroyed: mappings may outlive every other
// object.
struct Mappings {
  ForkMutex mutex;
  std::map<const std::byte *, const Mapping *> by_end;
};
Mappings &mappings() {
  return *made_once<[] { return new Mappings; }>();
}

const Mapping *mapping_of(std::span<const std::byte> bytes) {
  if (bytes.empty()) return nullptr;
  const std::lock_guard lock(mappings().mutex);
  const auto found = mappings().by_end.lower_bound(bytes.data() + bytes.size());
  const bool inside =
      found != mappings().by_end.end() && found->second->bytes().data() <= bytes.data();
  return inside ? found->second : nullptr;
}

std::unexpected<Error> refuse(const std::string &path, std::string message) {
  return fail(Error{.code = ErrorCode::io, .message = std::move(message), .file = path});
}

} // namespace

Result<std::shared_ptr<const Mapping>> Mapping::map(Descriptor file, std::string path) {
  struct stat status{};
  if (fstat(file.number(), &status) != 0)
    return refuse(path, std::string("cannot map: ") + std::strerror(errno));
  const auto size = size_t(status.st_size);
  void *address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number(), 0);
  if (address == MAP_FAILED)
    return refuse(path, std::string("cannot map: ") + std::strerror(errno));
  std::unique_ptr<const Mapping> made;
  try {
    made.reset(new Mapping(std::move(file), std::move(path),
                           {static_cast<const std::byte *>(address), size}, status.st_mtim));
  } catch (...) { // who is not made gives nothing back
    munmap(address, size);
    throw;
  }
  return std::shared_ptr<const Mapping>(std::move(made));
}

Mapping::Mapping(Descriptor file, std::string path, std::span<const std::byte> bytes,
                 timespec modified)
    : file_(std::move(file)), path_(std::move(path)), bytes_(bytes), modified_(modified) {
  const std::lock_guard lock(mappings().mutex);
  mappings().by_end.emplace(bytes_.data() + bytes_.size(), this);
}

Mapping::~Mapping() {
  {
    const std::lock_guard lock(mappings().mutex);
    mappings().by_end.erase(bytes_.data() + bytes_.size());
  }
  munmap(const_cast<std::byte *>(bytes_.data()), bytes_.size());
}

std::unexpected<Error> Mapping::changed() const {
  Error error = refuse(path_, "the file was changed while it was in use").error();
  error.expected = "a file that stays as it is: write another, and rename it";
  return fail(std::move(error));
}

bool is_mapped(std::span<const std::byte> bytes) { return mapping_of(bytes) != nullptr; }

Result<void> copy_bytes(std::span<const std::byte> from, std::byte *to) {
  const Mapping *mapping = mapping_of(from);
  if (!mapping) {
    if (!from.empty()) std::memcpy(to, from.data(), from.size());
    return {};
  }
  const auto offset = size_t(from.data() - mapping->bytes().data());
  if (read_fully(mapping->file_.number(), to, from.size(), offset)) return {};
  if (errno == 0) return mapping->changed(); // it ends before
  return refuse(mapping->path_, std::string("cannot read: ") + std::strerror(errno));
}

Result<void> check_unchanged(std::span<const std::byte> bytes) {
  const Mapping *mapping = mapping_of(bytes);
  if (!mapping) return {};
  struct stat status{};
  const bool same = fstat(mapping->file_.number(), &status) == 0 &&
                    size_t(status.st_size) == mapping->bytes_.size() &&
                    status.st_mtim.tv_sec == mapping->modified_.tv_sec &&
                    status.st_mtim.tv_nsec == mapping->modified_.tv_nsec;
  if (!same) return mapping->changed();
  return {};
}

} // namespace lathe::core
