// A regular file, mapped read-only.
#pragma once

#include "ir/error.h"

#include <cstddef>
#include <memory>
#include <span>

namespace lathe::core {

class MappedFile {
public:
  // Errors: io, for what does not exist, cannot be read, or is no regular file.
  static Result<std::shared_ptr<const MappedFile>> open(const std::string &path);
  // A file that lies in `folder` or below. Errors: invalid for a path that leaves it or is none;
  // io as above, and for links of any kind, soft or hard, on the way: they may lead anywhere.
  static Result<std::shared_ptr<const MappedFile>> open_beneath(const std::string &folder,
                                                                const std::string &path);
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char *>(bytes_.data()), bytes_.size()};
  }

private:
  explicit MappedFile(std::span<const std::byte> bytes);
  static Result<std::shared_ptr<const MappedFile>> map(int file, const std::string &path,
                                                       bool may_have_links);
  std::span<const std::byte> bytes_;
};

// Gives back the memory of bytes that lie in a MappedFile, and of no others: whoever reads them
// again gets them from the file.
void release_pages(std::span<const std::byte> bytes);

// A whole text file. Errors: io as above, limit if it is larger.
Result<std::string> read_text_file(const std::string &path, size_t most_bytes);

} // namespace lathe::core
