// What compiling made, on disk, for the next process: see docs/cache.md.
#pragma once

#include "ir/error.h"
#include "ir/system/memory.h"

#include <array>
#include <ctime>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace lathe::core {

struct CacheOptions {
  std::string directory = {};             // none: no cache
  int64_t limit_bytes = int64_t{4} << 30; // of all entries; the least recently used go first
};

// A checksum against accidents, the same for any number of threads.
Result<std::array<uint64_t, 2>> content_hash(std::span<const std::byte> content, int threads = 1);

// Everything that an entry depends on, part by part, this build of Lathe first.
class CacheKey {
public:
  explicit CacheKey(std::string kind); // "code", ...: part of the entry's name
  void add(std::string_view part);
  void add(int64_t number);
  std::string entry() const; // the name of the entry's file

private:
  std::string kind_, parts_;
};

class Cache {
public:
  // Makes the directory, if need be, for this user alone. Errors: io, for one that cannot be made
  // or that others may write to; usage, for a program without a build identifier, which could not
  // tell its entries from those of an older one.
  static Result<Cache> open(const CacheOptions &options);
  Cache(Cache &&other) noexcept;
  ~Cache();

  struct Content {
    Memory memory{nullptr, nullptr};
    size_t size = 0;
    std::span<const std::byte> bytes() const { return {memory.get(), size}; }
  };
  // A copy of what was stored, verified after it was copied: nobody can change it any more. Empty,
  // if nothing was stored. Errors: io or invalid, for an entry that is damaged, which is removed,
  // or is not this user's own file.
  Result<std::optional<Content>> find(const CacheKey &key, int threads = 1) const;
  // In place of whatever has the key. `description`: for people. Does nothing where another process
  // is just storing the same. Errors: io; limit, for what is larger than all of the cache may be.
  Result<void> store(const CacheKey &key, std::string_view description,
                     std::span<const std::byte> content, int threads = 1) const;

  struct Entry {
    std::string name, description; // the latter only of good ones
    int64_t bytes = 0;
    timespec used = {};
    std::string problem; // of those that `find` would refuse
  };
  // The most recently used first. `verify`: reads all of them, else only their heads.
  Result<std::vector<Entry>> entries(bool verify = false, int threads = 1) const;
  // Removes every entry, and what writers that were killed left behind.
  Result<void> clear() const;

private:
  explicit Cache(CacheOptions options) : options_(std::move(options)) {}
  std::unexpected<Error> refuse(const std::string &entry, std::string message) const;
  std::vector<std::string> names(bool partial) const;
  Result<Content> read(const std::string &entry, bool whole, std::string *description,
                       int threads) const;
  int begin_entry(const std::string &partial, int64_t bytes) const;
  void remove_leftovers() const;
  void make_room(int64_t bytes) const;

  CacheOptions options_;
  int folder_ = -1; // a descriptor
};

} // namespace lathe::core
