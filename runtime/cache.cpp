// An entry is a file of this head and the content. It is written under another name, locked by its
// writer, and renamed: a process that is killed leaves no half entry, and its lock goes with it.
#include "runtime/cache.h"

#include "ir/system/fork.h"
#include "ir/system/mapping.h"
#include "ir/system/output_file.h"
#include "ir/system/threads.h"
#include "runtime/build_id.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace lathe::core {
namespace {

constexpr std::string_view kinds[] = {"code", "weights", "costs"};
constexpr std::string_view partial_suffix = ".part";
constexpr size_t chunk = 1 << 20; // of content: hashed as one piece, by one thread

struct Head {
  std::array<char, 8> magic = {'l', 'a', 't', 'h', 'e', 'c', '0', '1'};
  uint64_t bytes = 0;                     // of the content
  std::array<uint64_t, 2> content = {};   // its hash
  std::array<char, 64> entry = {};        // its name: no entry passes for another
  std::array<char, 128> description = {}; // for people
  uint64_t head = 0;                      // the hash of all before it

  uint64_t own_hash() const { return XXH3_64bits(this, offsetof(Head, head)); }
};
static_assert(sizeof(Head) == 8 + 8 + 16 + 64 + 128 + 8); // no padding

std::string reason() { return std::strerror(errno); }

// What a file must be before it is used or written: empty, or why it is not.
std::string not_private(const struct stat &status, bool folder) {
  if (folder ? !S_ISDIR(status.st_mode) : !S_ISREG(status.st_mode))
    return folder ? "not a directory" : "not a regular file";
  if (status.st_uid != geteuid()) return "belongs to another user";
  if (status.st_mode & (S_IWGRP | S_IWOTH)) return "others may write to it";
  return {};
}

// Of chunks, so that threads share the work.
class ContentHash {
public:
  explicit ContentHash(size_t bytes) : chunks_((bytes + chunk - 1) / chunk) {}
  size_t chunks() const { return chunks_.size(); }
  void add(size_t index, std::span<const std::byte> bytes) {
    chunks_[index] = XXH3_128bits(bytes.data(), bytes.size());
  }
  std::array<uint64_t, 2> all() const {
    const auto hash = XXH3_128bits(chunks_.data(), chunks_.size() * sizeof(XXH128_hash_t));
    return {hash.high64, hash.low64};
  }

private:
  std::vector<XXH128_hash_t> chunks_;
};

size_t chunk_size(size_t index, size_t bytes) { return std::min(chunk, bytes - index * chunk); }

bool has_name(int file) {
  struct stat status{};
  return fstat(file, &status) == 0 && status.st_nlink > 0;
}

// Locks a file that is being written, for its writer or to remove what a dead one left: only one
// holds it, and only while it has its name.
bool lock(int file) { return flock(file, LOCK_EX | LOCK_NB) == 0 && has_name(file); }

// A new file, locked; none (-1) where another process is writing it.
int create_partial(int folder, const std::string &name) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    const int file =
        openat(folder, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file >= 0) {
      if (lock(file)) return file;
      close(file);
      errno = EWOULDBLOCK;
      return -1;
    }
    if (errno != EEXIST) return -1;
    const Descriptor old(
        openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (old.number() < 0 && errno == ENOENT) continue; // just finished
    if (old.number() >= 0 && !lock(old.number())) {
      errno = EWOULDBLOCK;
      return -1;
    }
    unlinkat(folder, name.c_str(), 0); // what a dead writer left, or no file of ours
  }
  errno = EEXIST;
  return -1;
}

} // namespace

Result<std::array<uint64_t, 2>> content_hash(std::span<const std::byte> content, int threads) {
  ContentHash hash(content.size());
  std::vector<Result<void>> read(hash.chunks());
  const bool of_file = is_mapped(content);
  parallel_each(hash.chunks(), threads, [&](size_t i, int) {
    std::span<const std::byte> part = content.subspan(i * chunk, chunk_size(i, content.size()));
    Memory copy = allocate(of_file ? part.size() : 0);
    if (!copy) return void(read[i] = fail(ErrorCode::limit, "not enough memory"));
    if (of_file) {
      read[i] = copy_bytes(part, copy.get());
      part = {copy.get(), part.size()};
    }
    hash.add(i, part);
  });
  for (const Result<void> &each : read) LATHE_CHECK(each);
  return hash.all();
}

CacheKey::CacheKey(std::string kind) : kind_(std::move(kind)) { add(build_id()); }
void CacheKey::add(int64_t number) {
  parts_.append(reinterpret_cast<const char *>(&number), sizeof number);
}
void CacheKey::add(std::string_view part) {
  add(int64_t(part.size())); // so that no two lists of parts run into the same bytes
  parts_ += part;
}
std::string CacheKey::entry() const {
  const XXH128_hash_t hash = XXH3_128bits(parts_.data(), parts_.size());
  return fmt::format("{}-{:016x}{:016x}", kind_, hash.high64, hash.low64);
}

Result<Cache> Cache::open(const CacheOptions &options) {
  auto refuse = [&](ErrorCode code, std::string message) {
    return fail(Error{.code = code, .message = std::move(message), .file = options.directory});
  };
  if (build_id().empty())
    return refuse(ErrorCode::usage, "no cache: this program was linked without a build identifier");
  std::error_code ignored;
  const auto parent = std::filesystem::path(options.directory).parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, ignored);
  if (mkdir(options.directory.c_str(), 0700) != 0 && errno != EEXIST)
    return refuse(ErrorCode::io, "cannot make the cache's directory: " + reason());
  Cache cache(options);
  const int folder = ::open(options.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  cache.folder_ = folder;
  if (folder < 0) return refuse(ErrorCode::io, "cannot open the cache: " + reason());
  struct stat status{};
  const std::string problem = fstat(folder, &status) != 0 ? reason() : not_private(status, true);
  if (!problem.empty()) return refuse(ErrorCode::io, "not used as a cache: " + problem);
  return cache;
}
Cache::Cache(Cache &&other) noexcept
    : options_(std::move(other.options_)), folder_(std::exchange(other.folder_, -1)) {}
Cache::~Cache() {
  if (folder_ >= 0) close(folder_);
}

std::unexpected<Error> Cache::refuse(const std::string &entry, std::string message) const {
  return fail(Error{.code = ErrorCode::io,
                    .message = std::move(message),
                    .file = options_.directory + "/" + entry});
}

Result<Cache::Content> Cache::read(const std::string &entry, bool whole, std::string *description,
                                   int threads) const {
  const Descriptor file(
      openat(folder_, entry.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (file.number() < 0)
    return refuse(entry, errno == ELOOP ? "a symbolic link" : "cannot open: " + reason());
  struct stat status{};
  if (fstat(file.number(), &status) != 0) return refuse(entry, reason());
  if (std::string problem = not_private(status, false); !problem.empty())
    return refuse(entry, std::move(problem));

  const auto damaged = [&] {
    Error error = refuse(entry, "a damaged entry").error();
    error.code = ErrorCode::invalid;
    return fail(std::move(error));
  };
  Head head, expected;
  entry.copy(expected.entry.data(), expected.entry.size() - 1);
  const auto file_bytes = uint64_t(status.st_size);
  if (file_bytes < sizeof head ||
      !read_fully(file.number(), reinterpret_cast<std::byte *>(&head), sizeof head, 0) ||
      head.magic != expected.magic || head.head != head.own_hash() ||
      head.entry != expected.entry || head.bytes != file_bytes - sizeof head)
    return damaged();
  head.description.back() = 0;
  if (description) *description = head.description.data();
  Content content;
  if (!whole) return content;
  content.size = head.bytes;
  content.memory = allocate(content.size);
  if (!content.memory) return refuse(entry, "not enough memory");
  ContentHash hash(content.size);
  std::atomic<bool> good{true};
  parallel_each(hash.chunks(), threads, [&](size_t i, int) {
    const std::span<std::byte> part(content.memory.get() + i * chunk, chunk_size(i, content.size));
    if (!read_fully(file.number(), part.data(), part.size(), sizeof head + i * chunk)) good = false;
    hash.add(i, part);
  });
  if (!good || hash.all() != head.content) return damaged();
  return content;
}

Result<std::optional<Cache::Content>> Cache::find(const CacheKey &key, int threads) const {
  const std::string entry = key.entry();
  struct stat status{};
  if (fstatat(folder_, entry.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT)
    return std::nullopt;
  auto content = read(entry, true, nullptr, threads);
  if (content) {
    utimensat(folder_, entry.c_str(), nullptr, AT_SYMLINK_NOFOLLOW); // used just now
    return std::optional(std::move(*content));
  }
  if (content.error().code == ErrorCode::invalid) unlinkat(folder_, entry.c_str(), 0);
  return std::unexpected(std::move(content).error());
}

Result<void> Cache::store(const CacheKey &key, std::string_view description,
                          std::span<const std::byte> content, int threads) const {
  const std::string entry = key.entry(), partial = entry + std::string(partial_suffix);
  const size_t bytes = sizeof(Head) + content.size();
  if (int64_t(bytes) > options_.limit_bytes)
    return fail(Error{.code = ErrorCode::limit,
                      .message = "too large for the cache",
                      .file = options_.directory,
                      .expected = fmt::format("at most {} bytes", options_.limit_bytes),
                      .found = fmt::format("{} bytes", bytes)});
  if (exceeds_file_size_limit(bytes)) return refuse(entry, "larger than files may be");

  Head head;
  head.bytes = content.size();
  entry.copy(head.entry.data(), head.entry.size() - 1);
  description.copy(head.description.data(), head.description.size() - 1);
  LATHE_TRY(head.content, content_hash(content, threads));
  head.head = head.own_hash();

  const Descriptor file(begin_entry(partial, int64_t(bytes)));
  if (file.number() < 0) {
    if (errno == EWOULDBLOCK) return {};
    return refuse(entry, "cannot write: " + reason());
  }
  const bool written = write_fully(file.number(), std::as_bytes(std::span(&head, 1))) &&
                       write_fully(file.number(), content);
  if (written && !has_name(file.number())) return {}; // cleared away
  if (written && renameat(folder_, partial.c_str(), folder_, entry.c_str()) == 0) return {};
  auto error = refuse(entry, "cannot write: " + reason());
  unlinkat(folder_, partial.c_str(), 0);
  return error;
}

// Room for so many bytes, and the file to write them to; as create_partial. Code and weights are
// often stored at the same moment: between its making and its lock, a file of the other thread
// would look like what a dead writer left.
static ForkMutex one_at_a_time;
int Cache::begin_entry(const std::string &partial, int64_t bytes) const {
  const std::lock_guard guard(one_at_a_time);
  remove_leftovers();
  make_room(bytes);
  return create_partial(folder_, partial);
}

// Ours, by their names; `partial`: those that are being written instead.
std::vector<std::string> Cache::names(bool partial) const {
  std::vector<std::string> found;
  const int again = openat(folder_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, decltype([](DIR *d) { closedir(d); })> listing(
      again >= 0 ? fdopendir(again) : nullptr);
  if (!listing) {
    if (again >= 0) close(again);
    return found;
  }
  while (const dirent *item = readdir(listing.get())) {
    std::string_view name = item->d_name;
    const bool is_partial = name.ends_with(partial_suffix);
    if (is_partial) name.remove_suffix(partial_suffix.size());
    const size_t dash = name.find('-');
    if (is_partial == partial && dash != name.npos && name.size() == dash + 33 &&
        std::ranges::count(kinds, name.substr(0, dash)))
      found.emplace_back(item->d_name);
  }
  return found;
}

Result<std::vector<Cache::Entry>> Cache::entries(bool verify, int threads) const {
  std::vector<Entry> found;
  for (std::string &name : names(false)) {
    struct stat status{};
    if (fstatat(folder_, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue; // gone
    Entry entry;
    entry.bytes = status.st_size;
    entry.used = status.st_mtim;
    if (auto content = read(name, verify, &entry.description, threads); !content)
      entry.problem = content.error().message;
    entry.name = std::move(name);
    found.push_back(std::move(entry));
  }
  std::ranges::sort(found, std::greater(),
                    [](const Entry &e) { return std::pair(e.used.tv_sec, e.used.tv_nsec); });
  return found;
}

void Cache::remove_leftovers() const {
  for (const std::string &name : names(true)) {
    const Descriptor file(
        openat(folder_, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (file.number() >= 0 && lock(file.number())) unlinkat(folder_, name.c_str(), 0);
  }
}

void Cache::make_room(int64_t bytes) const {
  struct Used {
    timespec when;
    int64_t bytes;
    std::string name;
  };
  std::vector<Used> used;
  for (std::string &name : names(false)) {
    struct stat status{};
    if (fstatat(folder_, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    used.push_back({status.st_mtim, status.st_size, std::move(name)});
    bytes += status.st_size;
  }
  std::ranges::sort(used, {},
                    [](const Used &u) { return std::pair(u.when.tv_sec, u.when.tv_nsec); });
  for (const Used &oldest : used) {
    if (bytes <= options_.limit_bytes) return;
    if (unlinkat(folder_, oldest.name.c_str(), 0) == 0) bytes -= oldest.bytes;
  }
}

Result<void> Cache::clear() const {
  remove_leftovers();
  for (const std::string &name : names(false))
    if (unlinkat(folder_, name.c_str(), 0) != 0 && errno != ENOENT)
      return refuse(name, "cannot remove: " + reason());
  return {};
}

} // namespace lathe::core
