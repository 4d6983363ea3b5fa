// How an archive lies in memory: of every function three counts (bytes of its name and object, and
// how many functions it calls), the texts behind a length each, the object at a multiple of 8.
#include "codegen/archive.h"

#include <cstring>
#include <utility>

namespace lathe::core {

CodeArchive::CodeArchive(std::span<const std::byte> archives) {
  const char *at = reinterpret_cast<const char *>(archives.data()), *const begin = at;
  const char *const end = begin + archives.size();
  auto number = [&] {
    uint32_t value = 0;
    std::memcpy(&value, at, sizeof value);
    at += sizeof value;
    return value;
  };
  auto text = [&] {
    const uint32_t bytes = number();
    return std::string_view(std::exchange(at, at + bytes), bytes);
  };
  while (at < end) {
    Function function;
    const uint32_t object = number();
    function.calls.resize(number());
    function.name = text();
    for (std::string_view &name : function.calls) name = text();
    at += -(at - begin) & 7;
    function.object = {std::exchange(at, at + object), size_t(object)};
    at += -(at - begin) & 7;
    functions_.emplace(function.name, std::move(function));
  }
}

const CodeArchive::Function *CodeArchive::find(std::string_view name) const {
  const auto found = functions_.find(name);
  return found == functions_.end() ? nullptr : &found->second;
}

std::string encode(const CodeArchive::Function &function) {
  std::string bytes;
  auto number = [&](size_t value) {
    const auto word = uint32_t(value);
    bytes.append(reinterpret_cast<const char *>(&word), sizeof word);
  };
  auto text = [&](std::string_view characters) {
    number(characters.size());
    bytes.append(characters);
  };
  auto align = [&] { bytes.resize((bytes.size() + 7) / 8 * 8); };
  number(function.object.size());
  number(function.calls.size());
  text(function.name);
  for (std::string_view name : function.calls) text(name);
  align();
  bytes.append(function.object.data(), function.object.size());
  align();
  return bytes;
}

} // namespace lathe::core
