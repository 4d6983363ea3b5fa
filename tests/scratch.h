// A folder for a test's files, and damage done to them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <stdlib.h>
#include <string>

class Scratch {
public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "lathe-test-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  Scratch(const Scratch &) = delete;
  ~Scratch() { std::filesystem::remove_all(folder_); }
  std::string path(const std::string &name) const { return (folder_ / name).string(); }
  std::string write(const std::string &name, const std::string &bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }

private:
  std::filesystem::path folder_;
};

inline std::string contents(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::span<const std::byte> as_bytes(const std::string &text) {
  return std::as_bytes(std::span(text));
}

// Calls `use` with every kind of damage: cut short, bytes changed, removed and repeated. It passes
// by coming back (and under the sanitizers).
template <typename Use> void for_each_damage(const std::string &bytes, int rounds, const Use &use) {
  std::mt19937 random(7);
  auto below = [&](size_t n) { return n ? random() % n : 0; };
  for (int round = 0; round < rounds; ++round) {
    std::string damaged = bytes;
    for (size_t changes = 1 + below(4); changes > 0 && !damaged.empty(); --changes) {
      const size_t at = below(below(2) ? damaged.size() : std::min<size_t>(damaged.size(), 200));
      switch (below(5)) {
      case 0:
        damaged.resize(at);
        break;
      case 1:
        damaged[at] = static_cast<char>(random());
        break;
      case 2:
        damaged[at] = static_cast<char>(damaged[at] ^ 1 << below(8));
        break;
      case 3:
        damaged.erase(at, below(8));
        break;
      case 4:
        damaged.insert(at, damaged.substr(at, below(16)));
        break;
      }
    }
    use(damaged);
  }
}
