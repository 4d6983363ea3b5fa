// libFuzzer's target for the cache: no entry passes but the one that was stored, byte for byte; and
// what entries hold is decoded to what encodes to the same, or to nothing. The first byte of the
// input says which.
#include "runtime/cache.h"
#include "runtime/cache_content.h"
#include "tests/fuzz/fuzz.h"
#include "tests/scratch.h"

#include <algorithm>
#include <cstring>

using namespace lathe::core;

namespace {

// A cache with one entry, and the bytes of its file.
struct Stored {
  Scratch folder;
  CacheKey key{"costs"};
  std::string content, file;
  Cache cache;

  Stored() : cache(Cache::open({.directory = folder.path("cache")}).value()) {
    for (int i = 0; i < 300; ++i) content += char(i * i);
    require(cache.store(key, "for people", std::as_bytes(std::span(content))).has_value());
    file = contents(path());
    require(file.size() > content.size());
  }
  std::string path() const { return folder.path("cache/" + key.entry()); }

  void try_file(const std::string &bytes) {
    std::ofstream(path(), std::ios::binary) << bytes;
    std::filesystem::permissions(path(), std::filesystem::perms::owner_read |
                                             std::filesystem::perms::owner_write);
    const auto found = cache.find(key);
    const bool accepted = found && *found;
    require(accepted == (bytes == file));
    require(!accepted || std::ranges::equal((*found)->bytes(), std::as_bytes(std::span(content))));
  }
};

// The entry with some bytes changed: triples of place, place, value; then cut to the last of them.
std::string damaged(std::string file, std::string_view changes) {
  size_t at = 0;
  for (; changes.size() >= 3; changes.remove_prefix(3)) {
    at = (size_t(uint8_t(changes[0])) << 8 | uint8_t(changes[1])) % file.size();
    file[at] = char(file[at] ^ changes[2]);
  }
  if (changes.size() == 1) file.resize(at);
  return file;
}

void try_image(Bytes bytes) {
  const auto image = decode_image(bytes);
  if (!image) return;
  const std::string text = encode(*image);
  const auto again = decode_image(std::as_bytes(std::span(text)));
  require(again && again->bytes == image->bytes && encode(*again) == text);
}

void try_costs(std::string_view text) {
  const auto costs = decode_costs(text);
  if (costs) require(decode_costs(encode(*costs)) == costs);
}

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static Stored stored;
  if (size == 0) return 0;
  const std::string_view rest = text_of(data, size).substr(1);
  switch (data[0] % 4) {
  case 0:
    try_image(bytes_of(data + 1, size - 1));
    break;
  case 1:
    try_costs(rest);
    break;
  case 2:
    stored.try_file(std::string(rest));
    break;
  case 3:
    stored.try_file(damaged(stored.file, rest));
    break;
  }
  return 0;
}
