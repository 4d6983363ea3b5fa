#include "frontend/formats.h"

#include "frontend/bundled.h"
#include "frontend/net.h"
#include "frontend/onnx.h"
#include "frontend/suggest.h"
#include "ir/system/mapped_file.h"
#include "ir/system/mapping.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lathe::core {
namespace {

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

// --- The `.net` language

NetOptions net_options(const LoadOptions &options) {
  return {options.parameters, {}, options.notes, options.budget};
}
// A statement of the language stands first, behind comments.
bool is_net(std::span<const std::byte> beginning) {
  std::string_view text = as_text(beginning);
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    if (!text.starts_with('#')) break;
    text.remove_prefix(std::min(text.find('\n'), text.size()));
  }
  const std::string_view word = text.substr(0, text.find_first_of(" \t\r\n"));
  return word == "network" || word == "block" || word == "include";
}
Result<Graph> load_net_file(const std::string &path, const LoadOptions &options) {
  return load_net(path, net_options(options));
}
Result<Graph> parse_net_text(std::span<const std::byte> bytes, const LoadOptions &options) {
  return parse_net(as_text(bytes), "<memory>", net_options(options));
}
Result<std::vector<std::string>> inputs_of_net(const std::string &model,
                                               const LoadOptions &options) {
  LATHE_TRY(const Graph graph, load_model(model, options));
  std::vector<std::string> names;
  for (ValueId id : graph.inputs) names.push_back(graph.values[id].name);
  return names;
}

// --- ONNX

OnnxOptions onnx_options(const LoadOptions &options) {
  return {.batch = options.batch,
          .shapes = options.shapes,
          .values = options.values,
          .unbind_weights = options.unbind_weights,
          .notes = options.notes,
          .budget = options.budget};
}
// A ModelProto begins with its first field, the IR version.
bool is_onnx(std::span<const std::byte> beginning) {
  return beginning.size() > 2 && beginning[0] == std::byte{1 << 3} &&
         beginning[1] < std::byte{32} && beginning[2] != std::byte{'\n'};
}
Result<Graph> load_onnx_file(const std::string &path, const LoadOptions &options) {
  LATHE_TRY(const OnnxModel file, OnnxModel::open(path));
  return file.graph(onnx_options(options));
}
Result<Graph> parse_onnx(std::span<const std::byte> bytes, const LoadOptions &options) {
  const auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
  LATHE_TRY(const OnnxModel file, OnnxModel::parse(*copy, copy, "<memory>"));
  return file.graph(onnx_options(options));
}
Result<std::vector<std::string>> inputs_of_onnx(const std::string &path, const LoadOptions &) {
  LATHE_TRY(const OnnxModel file, OnnxModel::open(path));
  return file.inputs();
}

// In the order of the public lathe::Format.
constexpr Format table[] = {
    {.name = "net",
     .ending = ".net",
     .has_parameters = true,
     .has_shapes = false,
     .has_weights = false,
     .recognises = is_net,
     .load = load_net_file,
     .parse = parse_net_text,
     .inputs = inputs_of_net},
    {.name = "onnx",
     .ending = ".onnx",
     .has_parameters = false,
     .has_shapes = true,
     .has_weights = true,
     .recognises = is_onnx,
     .load = load_onnx_file,
     .parse = parse_onnx,
     .inputs = inputs_of_onnx},
};

std::string listed(std::string_view Format::*member, std::string_view around = "") {
  std::string text;
  for (size_t i = 0; i < std::size(table); ++i)
    text += fmt::format("{}{}{}{}",
                        i == 0                     ? ""
                        : i + 1 < std::size(table) ? ", "
                                                   : " or ",
                        around, table[i].*member, around);
  return text;
}

// What is given and would be ignored.
Result<void> check_options(const Format &format, const LoadOptions &options) {
  auto refuse = [&](std::string_view what, const std::string &name) {
    return fail(Error{.code = ErrorCode::usage,
                      .message = fmt::format("models in this format take no {}", what),
                      .expected = fmt::format("none for {} files", format.ending),
                      .found = fmt::format("'{}'", name)});
  };
  if (!format.has_parameters && !options.parameters.empty())
    return refuse("parameters", options.parameters.begin()->first);
  if (!format.has_shapes && !options.shapes.empty())
    return refuse("shapes of inputs", options.shapes.begin()->first);
  return {};
}

} // namespace

std::span<const Format> formats() { return table; }

Result<const Format *> find_format(std::string_view name) {
  const auto found = std::ranges::find(table, name, &Format::name);
  if (found != std::end(table)) return &*found;
  return fail(Error{.code = ErrorCode::usage,
                    .message = "unknown format",
                    .expected = listed(&Format::name, "\""),
                    .found = fmt::format("\"{}\"", name)});
}

Result<const Format *> format_of(const std::string &model) {
  if (is_bundled(model)) return &table[0];
  const std::string ending = std::filesystem::path(model).extension().string();
  if (const auto known = std::ranges::find(table, ending, &Format::ending);
      known != std::end(table))
    return &*known;
  std::error_code ignored;
  if (!std::filesystem::exists(model, ignored)) {
    const std::string near = nearest(model, bundled_models());
    return fail(Error{
        .code = ErrorCode::io,
        .message = "no such file, and no bundled network of this name",
        .file = model,
        .expected = near.empty() ? fmt::format("a {} file, or a name that `lathe inspect` lists",
                                               listed(&Format::ending))
                                 : fmt::format("perhaps '{}'", near)});
  }
  LATHE_TRY(const auto file, MappedFile::open(model));
  std::array<std::byte, 1024> beginning{};
  const auto bytes = file->bytes().first(std::min(beginning.size(), file->bytes().size()));
  LATHE_CHECK(copy_bytes(bytes, beginning.data()));
  for (const Format &format : table)
    if (format.recognises(std::span(beginning).first(bytes.size()))) return &format;
  return fail(Error{.code = ErrorCode::unsupported,
                    .message = "Lathe does not read models in this format",
                    .file = model,
                    .expected = fmt::format("a {} file", listed(&Format::ending)),
                    .found = ending.empty() ? "a file without an extension" : ending});
}

Result<Graph> load_model(const std::string &model, const LoadOptions &options) {
  LATHE_TRY(const Format *format, format_of(model));
  LATHE_CHECK(check_options(*format, options));
  if (is_bundled(model)) return load_bundled(model, net_options(options));
  return format->load(model, options);
}

Result<Graph> parse_model(std::span<const std::byte> bytes, const Format &format,
                          const LoadOptions &options) {
  LATHE_CHECK(check_options(format, options));
  return format.parse(bytes, options);
}

Result<std::vector<std::string>> model_inputs(const std::string &model,
                                              const LoadOptions &options) {
  LATHE_TRY(const Format *format, format_of(model));
  return format->inputs(model, options);
}

} // namespace lathe::core
