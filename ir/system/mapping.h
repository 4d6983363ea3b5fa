// Files as memory. Anybody may cut or overwrite a file at any time: what was cut off is no memory
// any more, and who touches it dies of SIGBUS. So only compiled kernels read a mapping as memory,
// where they use weights in place; everything else reads it through `copy_bytes`, which fails
// instead.
#pragma once

#include "ir/error.h"
#include "ir/system/descriptor.h"

#include <cstddef>
#include <ctime>
#include <memory>
#include <span>
#include <string>

namespace lathe::core {

class Mapping {
public:
  // Of a regular file that is not empty. `path` names it in errors. Errors: io.
  static Result<std::shared_ptr<const Mapping>> map(Descriptor file, std::string path);
  Mapping(const Mapping &) = delete;
  Mapping &operator=(const Mapping &) = delete;
  ~Mapping();
  std::span<const std::byte> bytes() const { return bytes_; }

private:
  friend Result<void> copy_bytes(std::span<const std::byte> from, std::byte *to);
  friend Result<void> check_unchanged(std::span<const std::byte> bytes);
  Mapping(Descriptor file, std::string path, std::span<const std::byte> bytes, timespec modified);
  std::unexpected<Error> changed() const;
  Descriptor file_;
  std::string path_;
  std::span<const std::byte> bytes_;
  timespec modified_;
};

// Whether bytes are a mapping's. In this and the following, whoever asks keeps the mapping alive.
bool is_mapped(std::span<const std::byte> bytes);
// Bytes of any kind. Errors: io, where they are a mapping's and its file has been cut or fails.
Result<void> copy_bytes(std::span<const std::byte> from, std::byte *to);
// Errors: io, where the bytes are a mapping's and its file has been cut or written to since.
Result<void> check_unchanged(std::span<const std::byte> bytes);

} // namespace lathe::core
