#include "ir/system/beneath.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <optional>
#include <sys/stat.h>
#include <vector>

namespace lathe::core {
namespace {

constexpr int folder_only = O_PATH | O_DIRECTORY | O_CLOEXEC;

// A stranger's text for a message.
std::string printable(std::string_view text) {
  std::string result(text.substr(0, 200));
  std::ranges::replace_if(
      result, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return result.size() < text.size() ? result + "..." : result;
}

std::vector<std::string> split(const std::string &path) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    parts.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}
bool is_plain(const std::string &part) {
  return !part.empty() && part != "." && part != ".." && part.find('\0') == std::string::npos;
}

// Where a link in the folder points, if the name is a link's.
std::optional<std::string> link_target(const Descriptor &folder, const std::string &name) {
  std::array<char, PATH_MAX> target;
  const ssize_t length = readlinkat(folder.number(), name.c_str(), target.data(), target.size());
  if (length < 0) return std::nullopt;
  return std::string(target.data(), size_t(length));
}

bool same_file(const Descriptor &a, const Descriptor &b) {
  struct stat x{}, y{};
  return a && b && fstat(a.number(), &x) == 0 && fstat(b.number(), &y) == 0 &&
         x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

Descriptor open_in(const Descriptor &folder, const char *name, int flags) {
  return Descriptor(openat(folder.number(), name, flags | O_NOFOLLOW));
}

// The blob behind a link of Hugging Face's cache that lies in `folder`. From one open folder to the
// next, and the link's text is only a name: whatever is swapped meanwhile, the file lies in the
// `blobs` beside the `snapshots` that the folder is below. None, if the link is no such.
Descriptor open_blob(const Descriptor &folder, const std::string &target) {
  const std::vector<std::string> parts = split(target);
  const auto first = std::ranges::find_if(parts, [](const auto &part) { return part != ".."; });
  const bool right = first - parts.begin() >= 2 && parts.end() - first == 2 && *first == "blobs" &&
                     is_plain(parts.back());
  if (!right) return Descriptor();
  // Up to STORE; what was passed last is its `snapshots`.
  Descriptor below, at = open_in(folder, ".", folder_only);
  for (auto up = parts.begin(); at && up != first; ++up) {
    below = std::move(at);
    at = open_in(below, "..", folder_only);
  }
  if (!at || !same_file(below, open_in(at, "snapshots", folder_only))) return Descriptor();
  const Descriptor blobs = open_in(at, "blobs", folder_only);
  return blobs ? open_in(blobs, parts.back().c_str(), reading) : Descriptor();
}

std::unexpected<Error> refuse_link(const std::string &shown, const std::string &target) {
  return fail(Error{.code = ErrorCode::io,
                    .message = "a symbolic link, which may lead anywhere",
                    .file = shown,
                    .expected =
                        "a file in the model's folder, or a link into the blobs/ of its own "
                        "Hugging Face cache",
                    .found = "a link to '" + printable(target) + "'"});
}

} // namespace

std::string path_beneath(const std::string &folder, std::string_view path) {
  return (folder.empty() ? "./" : folder.ends_with('/') ? folder : folder + "/") + printable(path);
}

Result<Descriptor> open_beneath(const std::string &folder, const std::string &path) {
  const std::string shown = path_beneath(folder, path);
  auto refuse = [&](ErrorCode code, std::string message) {
    return fail(Error{.code = code, .message = std::move(message), .file = shown});
  };
  const std::vector<std::string> parts = split(path);
  if (!std::ranges::all_of(parts, is_plain))
    return refuse(ErrorCode::invalid, "a path that may leave the model's folder");
  // One step at a time, each from a folder that is open already: nothing can be swapped on the way.
  Descriptor at(::open(folder.empty() ? "." : folder.c_str(), folder_only));
  for (size_t i = 0; at && i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    Descriptor next = open_in(at, parts[i].c_str(), last ? reading : folder_only);
    if (!next) {
      const int reason = errno;
      if (const auto target = link_target(at, parts[i])) {
        if (last) next = open_blob(at, *target);
        if (!next) return refuse_link(shown, *target);
      }
      errno = reason;
    }
    at = std::move(next);
  }
  if (!at) return refuse(ErrorCode::io, std::string("cannot open: ") + std::strerror(errno));
  struct stat status{};
  if (fstat(at.number(), &status) != 0 || !S_ISREG(status.st_mode))
    return refuse(ErrorCode::io, "not a regular file");
  if (status.st_nlink > 1)
    return refuse(ErrorCode::io, "a file with several hard links, which may lead anywhere");
  return at;
}

} // namespace lathe::core
