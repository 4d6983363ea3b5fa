// What stands in the way of a model, told so that somebody can read it.
#include "frontend/onnx/import.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <tuple>

namespace lathe::core::onnx {
namespace {

constexpr size_t most_lines = 100, most_names = 3;

ErrorCode worse(ErrorCode a, ErrorCode b) {
  auto rank = [](ErrorCode code) {
    return code == ErrorCode::unsupported ? 0 : code == ErrorCode::io ? 1 : 2;
  };
  return rank(a) >= rank(b) ? a : b;
}

// The first few different ones.
std::string first_of(const std::vector<std::string> &texts, Bytes separator) {
  std::vector<std::string> shown;
  size_t told = 0;
  for (const std::string &text : texts) {
    const bool known = std::ranges::count(shown, text) > 0;
    if (!known && shown.size() < most_names) shown.push_back(text);
    told += known || shown.back() == text;
  }
  const size_t more = texts.size() - told;
  return fmt::format("{}{}", fmt::join(shown, separator),
                     more > 0 ? fmt::format(" and {} more", more) : "");
}

// How often, what, which op, where, what was expected and found there; then what helps.
std::string line_of(const std::vector<const Error *> &group) {
  if (group.size() == 1) return to_string(*group[0]);
  std::vector<std::string> places, reasons;
  for (const Error *error : group) {
    places.push_back(fmt::format("'{}'", error->node));
    const bool both = !error->expected.empty() && !error->found.empty();
    reasons.push_back(fmt::format("{}{}{}{}{}", error->expected.empty() ? "" : "expected ",
                                  error->expected, both ? ", " : "",
                                  error->found.empty() ? "" : "found ", error->found));
  }
  const Error &first = *group[0];
  const std::string op = first.op.empty() ? "" : fmt::format("op {}, ", first.op);
  const std::string reason = first_of(reasons, "; ");
  const std::string file = first.file.empty() ? "" : first.file + ": ";
  return fmt::format("{} times: {}{} ({}at {}){}{}{}{}", group.size(), file, first.message, op,
                     first_of(places, ", "), reason.empty() ? "" : ": ", reason,
                     first.detail.empty() ? "" : "\n", first.detail);
}

} // namespace

Error summary_of(std::vector<Error> problems, const std::string &file) {
  if (problems.size() == 1) {
    if (problems[0].file.empty()) problems[0].file = file; // or external data's
    return problems[0];
  }
  Error all{.code = problems[0].code,
            .message = fmt::format("{} things are in the way of this model", problems.size()),
            .file = file};
  std::vector<std::vector<const Error *>> groups; // by the first of each
  std::map<std::tuple<std::string, std::string, std::string>, size_t> place;
  for (Error &problem : problems) {
    all.code = worse(all.code, problem.code);
    if (problem.file == file) problem.file.clear();
    auto [at, fresh] =
        place.emplace(std::tuple(problem.op, problem.message, problem.file), groups.size());
    if (fresh) groups.emplace_back();
    groups[at->second].push_back(&problem);
  }
  std::ranges::stable_sort(groups, std::greater<>(), [](const auto &g) { return g.size(); });
  for (size_t i = 0; i < groups.size() && i < most_lines; ++i)
    all.detail += fmt::format("{}  {}", i == 0 ? "" : "\n", line_of(groups[i]));
  size_t untold = 0;
  for (size_t i = most_lines; i < groups.size(); ++i) untold += groups[i].size();
  if (untold > 0) all.detail += fmt::format("\n  and {} more", untold);
  return all;
}

} // namespace lathe::core::onnx
