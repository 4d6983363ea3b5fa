// How an error reads.
#include "ir/error.h"

#include <fmt/format.h>

namespace lathe::core {

std::string to_string(const Error &error) {
  std::string text;
  if (!error.file.empty()) {
    text += error.file;
    if (error.line > 0) text += fmt::format(":{}", error.line);
    if (error.line > 0 && error.column > 0) text += fmt::format(":{}", error.column);
    text += ": ";
  }
  text += "error: " + error.message;
  if (!error.node.empty() || !error.op.empty()) {
    text += " (";
    if (!error.node.empty()) text += "at '" + error.node + "'";
    if (!error.op.empty()) text += (error.node.empty() ? "" : ", ") + ("op " + error.op);
    text += ")";
  }
  if (!error.expected.empty()) text += ": expected " + error.expected;
  if (!error.found.empty())
    text += (error.expected.empty() ? ": found " : ", found ") + error.found;
  if (!error.detail.empty()) text += "\n" + error.detail;
  return text;
}

} // namespace lathe::core
