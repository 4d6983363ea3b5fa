#include "runtime/cache_content.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <fmt/format.h>

namespace lathe::core {

std::string encode(const CodeImage &image) {
  std::string text;
  auto number = [&](int64_t value) {
    text.append(reinterpret_cast<const char *>(&value), sizeof value);
  };
  number(int64_t(image.symbols.size()));
  for (const CodeImage::Symbol &symbol : image.symbols) {
    for (int64_t value : {symbol.offset, symbol.size, int64_t(symbol.name.size())}) number(value);
    text += symbol.name;
  }
  text.append(reinterpret_cast<const char *>(image.bytes.data()), image.bytes.size());
  return text;
}

std::optional<CodeImage> decode_image(std::span<const std::byte> content) {
  bool good = true;
  auto number = [&]() -> int64_t {
    int64_t value = 0;
    good = good && content.size() >= sizeof value;
    if (!good) return 0;
    std::memcpy(&value, content.data(), sizeof value);
    content = content.subspan(sizeof value);
    return value;
  };
  CodeImage image;
  for (int64_t count = number(); good && count > 0; --count) {
    CodeImage::Symbol symbol;
    symbol.offset = number();
    symbol.size = number();
    const auto length = size_t(number());
    good = good && length <= content.size();
    if (!good) break;
    symbol.name.assign(reinterpret_cast<const char *>(content.data()), length);
    content = content.subspan(length);
    image.symbols.push_back(std::move(symbol));
  }
  image.bytes.assign(content.begin(), content.end());
  for (const CodeImage::Symbol &symbol : image.symbols)
    good = good && symbol.offset >= 0 && symbol.offset < int64_t(image.bytes.size()) &&
           symbol.size >= 0 && symbol.size <= int64_t(image.bytes.size()) - symbol.offset;
  return good ? std::optional(std::move(image)) : std::nullopt;
}

// Lines of layer, algorithm and seconds.
std::string encode(const MeasuredCosts &costs) {
  std::string text;
  for (const auto &[layer, algorithms] : costs)
    for (const auto &[algorithm, seconds] : algorithms)
      text += fmt::format("{}\t{}\t{}\n", layer, algorithm, seconds);
  return text;
}

std::optional<MeasuredCosts> decode_costs(std::string_view text) {
  MeasuredCosts costs;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const size_t first = line.find('\t');
    const size_t second = first == line.npos ? first : line.find('\t', first + 1);
    if (second == line.npos) return std::nullopt;
    double seconds = 0;
    const char *const end = line.data() + line.size();
    const auto [stop, status] = std::from_chars(line.data() + second + 1, end, seconds);
    if (status != std::errc{} || stop != end || !(seconds >= 0 && std::isfinite(seconds)))
      return std::nullopt;
    costs[std::string(line.substr(0, first))]
         [std::string(line.substr(first + 1, second - first - 1))] = seconds;
  }
  return costs;
}

} // namespace lathe::core
