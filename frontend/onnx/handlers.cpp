// The ops that Lathe reads, and which attributes each of them has.
#include "frontend/onnx/import.h"

#include "ir/system/fork.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <unordered_map>

namespace lathe::core::onnx {

std::span<const HandlerEntry> all_handlers() {
  return made_once<[] {
    std::vector<HandlerEntry> rows;
    for (auto part : {elementwise_handlers(), move_handlers(), window_handlers(), matrix_handlers(),
                      reduce_handlers(), resize_handlers(), known_handlers(), index_handlers(),
                      control_handlers()})
      rows.insert(rows.end(), part.begin(), part.end());
    return rows;
  }>();
}

const HandlerEntry *find_handler(Bytes op_type) {
  const auto &table = made_once<[] {
    std::unordered_map<Bytes, const HandlerEntry *> rows;
    for (const HandlerEntry &entry : all_handlers()) rows.emplace(entry.op, &entry);
    return rows;
  }>();
  auto found = table.find(op_type);
  return found == table.end() ? nullptr : found->second;
}

std::vector<Bytes> attributes_at(const HandlerEntry &entry, int64_t opset) {
  std::vector<Bytes> names;
  for (Bytes rest = entry.attributes; !rest.empty();) {
    Bytes word = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    if (word.starts_with('~')) word.remove_prefix(1);
    const size_t at = word.find('@');
    uint64_t since = 1, last = UINT64_MAX; // without a sign: "-5" has no first number
    if (at != Bytes::npos) {
      const Bytes range = word.substr(at + 1);
      const char *end = range.data() + range.size();
      const char *dash = std::from_chars(range.data(), end, since).ptr; // or neither moves
      if (dash != end) std::from_chars(dash + 1, end, last);
    }
    if (uint64_t(opset) >= since && uint64_t(opset) <= last) names.push_back(word.substr(0, at));
  }
  return names;
}

void check_attributes(const HandlerEntry &entry, const NodeProto &node, int64_t opset) {
  if (node.attributes.empty()) return;
  auto invalid = [](std::string message, std::string expected) {
    throw Failure{Error{.code = ErrorCode::invalid,
                        .message = std::move(message),
                        .expected = std::move(expected)}};
  };
  const std::vector<Bytes> known = attributes_at(entry, opset);
  std::vector<Bytes> given;
  for (const AttributeProto &a : node.attributes) given.push_back(a.name);
  for (Bytes name : given)
    if (!std::ranges::count(known, name))
      invalid(fmt::format("attribute {} is none of this op's", clean(name)),
              known.empty() ? "no attributes" : fmt::format("{}", fmt::join(known, ", ")));
  std::ranges::sort(given);
  auto twice = std::ranges::adjacent_find(given);
  if (twice != given.end()) invalid(fmt::format("attribute {} stands twice", clean(*twice)), "");
}

} // namespace lathe::core::onnx
