// File descriptors, and the system's calls on them that may stop half-way.
#pragma once

#include <cerrno>
#include <cstddef>
#include <span>
#include <sys/types.h>
#include <unistd.h>
#include <utility>

namespace lathe::core {

// Closes itself.
class Descriptor {
public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor &&other) noexcept : number_(other.release()) {}
  Descriptor &operator=(Descriptor &&other) noexcept {
    reset(other.release());
    return *this;
  }
  ~Descriptor() { reset(); }
  int number() const { return number_; } // -1: none, and errno says why
  explicit operator bool() const { return number_ >= 0; }
  int release() { return std::exchange(number_, -1); }
  void reset(int number = -1) {
    const int reason = errno; // of the new one, if it is none
    if (number_ >= 0) close(number_);
    number_ = number;
    errno = reason;
  }

private:
  int number_;
};

// False, with errno, on failure; a file that ends before has errno 0.
inline bool read_fully(int file, std::byte *to, size_t bytes, size_t from) {
  while (bytes > 0) {
    errno = 0;
    const ssize_t n = pread(file, to, bytes, off_t(from));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    to += n, from += size_t(n), bytes -= size_t(n);
  }
  return true;
}
inline bool write_fully(int file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(file, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    bytes = bytes.subspan(size_t(n));
  }
  return true;
}

} // namespace lathe::core
