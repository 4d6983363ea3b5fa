// Regular files, and the door to those that a stranger's file names.
#pragma once

#include "ir/error.h"

#include <cstddef>
#include <memory>
#include <span>

namespace lathe::core {

class MappedFile {
public:
  // A file with weights, which are used where they lie: mapped (see ir/system/mapping.h), or, if it
  // is small, in memory. Errors: io, for what does not exist, cannot be read, or is no regular
  // file; limit, where there is no memory for it.
  static Result<std::shared_ptr<const MappedFile>> open(const std::string &path);
  // The same for a file that `path`, taken from another file, names in `folder` or below. Links of
  // any kind may lead anywhere and are refused, but for those that Hugging Face's cache is made of:
  //   STORE/snapshots/REVISION/.../NAME -> ../../.../blobs/HASH, which lies in STORE/blobs
  // Errors: as above; invalid for a path that leaves the folder or is none.
  static Result<std::shared_ptr<const MappedFile>> open_beneath(const std::string &folder,
                                                                const std::string &path);
  // Of any other file: all of it in memory, as it was.
  static Result<std::shared_ptr<const MappedFile>> read(const std::string &path);

  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char *>(bytes_.data()), bytes_.size()};
  }
  MappedFile(std::span<const std::byte> bytes, std::shared_ptr<const void> owner)
      : bytes_(bytes), owner_(std::move(owner)) {}

private:
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
};

// A whole text file. Errors: io as above, limit if it is larger.
Result<std::string> read_text_file(const std::string &path, size_t most_bytes);
// As open_beneath.
Result<std::string> read_text_file_beneath(const std::string &folder, const std::string &path,
                                           size_t most_bytes);

} // namespace lathe::core
