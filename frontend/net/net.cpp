// From text to graph: parse the file and what it includes, then run the description.
#include "frontend/net.h"

#include "frontend/net/lower.h"
#include "ir/system/mapped_file.h"

#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace lathe::core {
namespace {

constexpr size_t most_bytes = 16 << 20; // of a file and all that it includes
constexpr size_t most_files = 100;

// The first error, with the others in its detail: the file's own in order, then those of others.
Error joined(std::vector<Error> errors, std::string_view file) {
  std::ranges::stable_sort(errors, {}, [&](const Error &e) {
    return std::tuple(e.file != file, e.file, e.line, e.column);
  });
  Error first = errors.front();
  for (size_t i = 1; i < errors.size(); ++i) first.detail += "\n" + to_string(errors[i]);
  if (errors.size() > 1) first.detail += fmt::format("\n{} errors", errors.size());
  if (errors.size() >= net::most_errors) first.detail += ", perhaps more";
  return first;
}

class Reader {
public:
  Reader(const NetOptions &options, std::vector<Error> &errors)
      : options_(options), errors_(errors) {}

  net::Program read(std::string_view name, std::string_view text) {
    folder_ = name.substr(0, name.rfind('/') + 1); // npos + 1 is 0
    std::vector<net::Include> waiting = add(std::string(name), std::string(text));
    while (!waiting.empty() && errors_.size() < net::most_errors) {
      net::Include include = std::move(waiting.back());
      waiting.pop_back();
      if (!seen_.insert(include.name).second) continue;
      auto content = included(include);
      if (!content) {
        errors_.push_back(net::error_at(
            include.place,
            fmt::format("cannot include \"{}\": {}", include.name, content.error().message),
            content.error().expected, content.error().found));
        continue;
      }
      std::ranges::move(add(folder_ + include.name, std::move(*content)),
                        std::back_inserter(waiting));
    }
    reject_doubles();
    return std::move(program_);
  }

private:
  // Definitions of included files come before those of the file: its network is the last one.
  std::vector<net::Include> add(std::string name, std::string text) {
    bytes_ += text.size();
    program_.files.push_back(std::make_unique<net::SourceFile>(std::move(name), std::move(text)));
    std::vector<net::Definition> own = std::move(program_.definitions);
    program_.definitions.clear();
    std::vector<net::Include> includes;
    net::parse(*program_.files.back(), program_, includes, errors_);
    std::ranges::move(own, std::back_inserter(program_.definitions));
    return includes;
  }

  Result<std::string> included(const net::Include &include) const {
    if (include.name.empty() || include.name.starts_with(".") ||
        include.name.find_first_of("/\\") != std::string::npos)
      return fail(Error{.code = ErrorCode::invalid,
                        .message = "that is no plain name",
                        .expected = "the name of a file beside this one"});
    if (!options_.include) return fail(ErrorCode::io, "there are no files to include here");
    if (seen_.size() > most_files) return fail(ErrorCode::limit, "too many files");
    LATHE_TRY(std::string text, options_.include(include.name));
    if (bytes_ + text.size() > most_bytes) return fail(ErrorCode::limit, "the files are too large");
    return text;
  }

  void reject_doubles() {
    std::set<std::pair<bool, std::string_view>> names;
    for (const net::Definition &d : program_.definitions)
      if (!names.insert({d.network, d.name}).second && errors_.size() < net::most_errors)
        errors_.push_back(net::error_at(d.place, fmt::format("'{}' is defined twice", d.name)));
  }

  const NetOptions &options_;
  std::vector<Error> &errors_;
  net::Program program_;
  std::string folder_;
  std::set<std::string> seen_;
  size_t bytes_ = 0;
};

} // namespace

Result<Graph> parse_net(std::string_view text, std::string_view file_name,
                        const NetOptions &options) {
  if (text.size() > most_bytes)
    return fail(Error{.code = ErrorCode::limit,
                      .message = "the description is too large",
                      .file = std::string(file_name),
                      .expected = fmt::format("at most {} bytes", most_bytes),
                      .found = fmt::format("{}", text.size())});
  std::vector<Error> errors;
  net::Program program = Reader(options, errors).read(file_name, text);
  if (!errors.empty()) return fail(joined(std::move(errors), file_name));
  std::vector<std::string> warnings;
  NetOptions observed = options;
  observed.warnings = &warnings;
  Graph graph = net::lower(program, observed, errors);
  if (!errors.empty()) { // what looked wrong may be why
    Error error = joined(std::move(errors), file_name);
    for (const std::string &warning : warnings) error.detail += "\n" + warning;
    return fail(std::move(error));
  }
  if (options.warnings) std::ranges::move(warnings, std::back_inserter(*options.warnings));
  return graph;
}

Result<Graph> load_net(const std::string &path, const NetOptions &options) {
  LATHE_TRY(std::string text, read_text_file(path, most_bytes));
  NetOptions with_includes = options;
  std::string folder = path.substr(0, path.rfind('/') + 1); // npos + 1 is 0
  with_includes.include = [folder](const std::string &name) {
    return read_text_file_beneath(folder, name, most_bytes);
  };
  return parse_net(text, path, with_includes);
}

} // namespace lathe::core
