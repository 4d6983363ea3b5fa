// lathe compile: a network as an object, a shared library or text, with a C header beside it.
#include "cli/shared_library.h"
#include "cli/verbs.h"
#include "ir/system/output_file.h"
#include "runtime/c_header.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>

namespace lathe::core::cli {
namespace {

namespace fs = std::filesystem;

struct CompileVerbOptions : ModelOptions {
  std::string output, emit = "obj", name, weights_in = "auto";
};

// Weights of at most so many bytes go into the object by default; and at most so many at all, since
// code reaches them by 32-bit offsets.
constexpr size_t small_weights = 64 << 20, most_weights_in_object = 1 << 30;

// What C can begin names with: the one that is asked for, or the model's.
Result<std::string> library_name(const CompileVerbOptions &o) {
  auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  auto plain = [&](char c) { return letter(c) || (c >= '0' && c <= '9') || c == '_'; };
  if (!o.name.empty()) {
    if (letter(o.name[0]) && std::ranges::all_of(o.name, plain) && o.name.size() <= 64)
      return o.name;
    return fail(Error{.code = ErrorCode::usage,
                      .message = "bad name for the functions",
                      .expected = "a letter, then letters, digits and _, at most 64 in all",
                      .found = fmt::format("'{}'", o.name)});
  }
  std::string name = fs::path(o.model).stem().string().substr(0, 60);
  for (char &c : name)
    if (!plain(c)) c = '_';
  return name.empty() || !letter(name[0]) ? "net" + name : name;
}

// The options for each target, the best first, as known_targets has them.
Result<std::vector<CompileOptions>> variant_options(const CompileVerbOptions &o) {
  std::vector<CompileOptions> variants;
  ModelOptions one = o;
  one.threads = std::max(1, o.threads);
  for (size_t at = 0; at <= o.target_cpu.size();) {
    const size_t comma = std::min(o.target_cpu.find(',', at), o.target_cpu.size());
    one.target_cpu = o.target_cpu.substr(at, comma - at);
    at = comma + 1;
    LATHE_TRY(variants.emplace_back(), compile_options(one));
    const Target &target = variants.back().target, &first = variants.front().target;
    if (target.arch != first.arch)
      return fail(Error{.code = ErrorCode::usage,
                        .message = "targets of one library have one architecture",
                        .expected = "targets like " + first.name,
                        .found = target.name});
  }
  auto place = [](const CompileOptions &options) {
    return std::ranges::find(known_targets(), options.target.name, &Target::name);
  };
  std::ranges::stable_sort(variants, {}, place);
  const auto again = std::ranges::adjacent_find(variants, {}, place);
  if (again == variants.end()) return variants;
  return fail(Error{.code = ErrorCode::usage,
                    .message = "a target is named twice",
                    .expected = "each target once",
                    .found = again->target.name});
}

// A file beside the output, of the same name but for the ending.
std::string beside(const std::string &output, const char *ending) {
  return fs::path(output).replace_extension(ending).string();
}

// In the form that is asked for; `file` is where it will lie.
Result<std::vector<char>> code_of(const NetworkLibrary &library, const std::string &emit,
                                  const std::string &file, const Budget &budget) {
  if (emit == "llvm" || emit == "asm") {
    LATHE_TRY(const std::string text,
              print_library(library, emit == "llvm" ? CodeText::llvm : CodeText::assembly, budget));
    return std::vector<char>(text.begin(), text.end());
  }
  LATHE_TRY(ObjectCode object, compile_library(library, budget));
  if (emit == "obj") return std::move(object.bytes);
  return link_shared(object.bytes, library.interface().target.arch,
                     fs::path(file).filename().string());
}

Result<void> compile_ahead(const CompileVerbOptions &o) {
  const std::string header = beside(o.output, ".h"), weights_file = beside(o.output, ".weights");
  if (o.output == header || o.output == weights_file)
    return fail(Error{.code = ErrorCode::usage,
                      .message = "-o names the code; header and weights go beside it",
                      .expected = "another ending than .h and .weights",
                      .found = o.output});
  NetworkLibrary library;
  LATHE_TRY(library.name, library_name(o));
  LATHE_TRY(const auto variants, variant_options(o));
  LATHE_TRY(Graph graph, load_with_weights(o));
  LATHE_CHECK(verify(graph));
  LATHE_TRY(const auto reports, run_passes(graph, variants.front().passes));
  if (o.verbose) print_reports(reports);

  std::vector<Plan> plans;
  for (const CompileOptions &options : variants) {
    LATHE_TRY(plans.emplace_back(), plan_for(graph, options));
  }
  LATHE_TRY(const LibraryWeights weights, pack_for_library(plans, o.budget));
  library.images = images_of(plans.front(), o.batch);
  library.weights = weights.header;
  for (size_t v = 0; v < plans.size(); ++v)
    library.variants.push_back({&plans[v], weights.places[v]});
  const bool own =
      o.weights_in == "object" || (o.weights_in == "auto" && weights.bytes.size() <= small_weights);
  if (own && weights.bytes.size() > most_weights_in_object)
    return fail(Error{.code = ErrorCode::limit,
                      .message = "too many weights for an object: use --weights-in file",
                      .expected = fmt::format("at most {} bytes", most_weights_in_object),
                      .found = fmt::format("{}", weights.bytes.size())});
  if (own) library.own_weights = weights.bytes;

  LATHE_TRY(const std::vector<char> code, code_of(library, o.emit, o.output, o.budget));
  const std::string text =
      c_header(library, fs::path(o.model).filename().string(), "Lathe " LATHE_VERSION,
               fs::path(weights_file).filename().string());
  // The code last: whoever sees it has the rest.
  std::vector<OutputFile> files;
  if (!own) files.push_back({weights_file, {weights.bytes}});
  files.push_back({header, {std::as_bytes(std::span(text))}});
  files.push_back({o.output, {std::as_bytes(std::span(code))}});
  return write_files(files);
}

} // namespace

void add_compile(CLI::App &app, Action &action) {
  auto *verb = app.add_subcommand(
      "compile", "write a network as an object file with a C header, to be linked into a program");
  auto o = std::make_shared<CompileVerbOptions>();
  add_model_options(*verb, *o);
  verb->get_option("--target-cpu")
      ->description(
          "one or several of native, avx512, avx2, plain, neon (or x86-64-v4, ...), as in "
          "avx512,avx2: the program takes the best that its CPU has");
  verb->add_option("-o,--output", o->output,
                   "the file for the code; the header goes beside it, and the weights if in a file")
      ->required();
  verb->add_option("--emit", o->emit, "obj, shared (linked by cc), llvm, asm")
      ->check(CLI::IsMember({"obj", "shared", "llvm", "asm"}))
      ->capture_default_str();
  verb->add_option("--name", o->name,
                   "what the functions' names begin with; without it: the model's name");
  verb->add_option("--weights-in", o->weights_in,
                   "object, file, or auto: in the object up to 64 MiB")
      ->check(CLI::IsMember({"auto", "object", "file"}))
      ->capture_default_str();
  verb->add_option("--batch", o->batch, "number of images of every run")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  verb->add_option("--threads", o->threads, "that the memory limit is for (1)")
      ->check(CLI::Range(0, 1024));
  verb->callback([o, &action] { action = [o] { return compile_ahead(*o); }; });
}

} // namespace lathe::core::cli
