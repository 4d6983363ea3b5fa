#include "frontend/bundled.h"

#include "frontend/embedded.h"
#include "frontend/suggest.h"
#include "frontend/weights.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core {

std::span<const std::byte> bundled_file(std::string_view name) {
  auto found = std::ranges::find(embedded_files, name, &EmbeddedFile::name);
  if (found == embedded_files.end()) return {};
  return {found->begin, found->end};
}

std::vector<std::string> bundled_models() {
  std::vector<std::string> models;
  for (const EmbeddedFile &file : embedded_files)
    if (file.name.ends_with(".net") && !file.name.ends_with(".blocks.net"))
      models.emplace_back(file.name.substr(0, file.name.size() - 4));
  std::ranges::sort(models);
  return models;
}

std::span<const std::byte> bundled_weights(std::string_view model) {
  return bundled_file(fmt::format("{}.safetensors", model));
}

bool is_bundled(std::string_view model) {
  return std::ranges::any_of(bundled_models(), [&](const auto &name) { return name == model; });
}

Result<bool> bind_bundled_weights(Graph &graph, const std::string &model,
                                  const std::map<std::string, double> &parameters) {
  const std::span<const std::byte> bytes = bundled_weights(model);
  if (bytes.empty() || !parameters.empty()) return false;
  LATHE_TRY(WeightsFile file, WeightsFile::parse(bytes, nullptr, model + ".safetensors"));
  LATHE_CHECK(bind_weights(graph, file));
  return true;
}

Result<Graph> load_bundled(std::string_view name, const NetOptions &options) {
  auto text_of = [](std::string_view file) -> Result<std::string> {
    std::span<const std::byte> bytes = bundled_file(file);
    if (bytes.empty())
      return fail(ErrorCode::io, fmt::format("there is no bundled file '{}'", file));
    return std::string(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  };
  std::string file = fmt::format("{}.net", name);
  auto text = text_of(file);
  if (!text) {
    std::string near = nearest(name, bundled_models());
    return fail(Error{.code = ErrorCode::usage,
                      .message = fmt::format("no bundled network is called '{}'", name),
                      .expected = near.empty() ? "" : fmt::format("perhaps '{}'", near)});
  }
  NetOptions with_includes = options;
  with_includes.include = text_of;
  return parse_net(*text, file, with_includes);
}

} // namespace lathe::core
