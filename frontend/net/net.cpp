// From text to graph: parse the file and what it includes, then run the description.
#include "frontend/net.h"

#include "frontend/net/lower.h"
#include "frontend/text_file.h"

#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace lathe {
namespace {

constexpr size_t most_bytes = 16 << 20;

// The first error, with the others in its detail.
Error joined(std::vector<Error> errors) {
  std::ranges::stable_sort(errors, {}, &Error::line);
  Error first = errors.front();
  for (size_t i = 1; i < errors.size() && i < 20; ++i) first.detail += "\n" + to_string(errors[i]);
  if (errors.size() > 1) first.detail += fmt::format("\n{} errors", errors.size());
  return first;
}

} // namespace

Result<Graph> parse_net(std::string_view text, std::string_view file_name,
                        const NetOptions &options) {
  net::Program program;
  std::vector<Error> errors;
  std::set<std::string> seen;
  auto add = [&](std::string name, std::string content) {
    program.files.push_back(
        std::make_unique<net::SourceFile>(net::SourceFile{std::move(name), std::move(content)}));
    std::vector<net::Include> includes;
    net::parse(*program.files.back(), program, includes, errors);
    return includes;
  };
  if (text.size() > most_bytes)
    return fail(Error{.code = ErrorCode::limit,
                      .message = "the description is too large",
                      .file = std::string(file_name),
                      .expected = fmt::format("at most {} bytes", most_bytes),
                      .found = fmt::format("{}", text.size())});
  std::vector<net::Include> waiting = add(std::string(file_name), std::string(text));
  // Included definitions go in front, so that the including file's network is the last one.
  while (!waiting.empty()) {
    net::Include include = waiting.back();
    waiting.pop_back();
    if (!seen.insert(include.name).second) continue;
    if (include.name.find('/') != std::string::npos || include.name.starts_with(".") ||
        seen.size() > 100) {
      errors.push_back(net::error_at(include.place, "bad include",
                                     "the plain name of a file beside this one",
                                     fmt::format("\"{}\"", include.name)));
      continue;
    }
    auto content =
        options.include
            ? options.include(include.name)
            : Result<std::string>(fail(ErrorCode::io, "includes are not available here"));
    if (!content) {
      errors.push_back(
          net::error_at(include.place, fmt::format("cannot include \"{}\": {}", include.name,
                                                   content.error().message)));
      continue;
    }
    std::vector<net::Definition> own = std::move(program.definitions);
    program.definitions.clear();
    for (net::Include &next : add(include.name, std::move(*content))) waiting.push_back(next);
    for (net::Definition &definition : own) program.definitions.push_back(std::move(definition));
  }
  if (!errors.empty()) return fail(joined(std::move(errors)));
  std::set<std::pair<bool, std::string>> names;
  for (const net::Definition &d : program.definitions)
    if (!names.insert({d.network, d.name}).second)
      return fail(net::error_at(d.place, fmt::format("'{}' is defined twice", d.name)));
  return net::lower(program, options);
}

Result<Graph> load_net(const std::string &path, const NetOptions &options) {
  LATHE_TRY(std::string text, read_text_file(path, most_bytes));
  NetOptions with_includes = options;
  size_t slash = path.rfind('/');
  std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  with_includes.include = [folder](const std::string &name) {
    return read_text_file(folder + name, most_bytes);
  };
  return parse_net(text, path, with_includes);
}

} // namespace lathe
