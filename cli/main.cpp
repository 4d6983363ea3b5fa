// The command line: parse, run the chosen verb, report its error and exit with its code.
#include "cli/verbs.h"
#include "ir/system/threads.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <new>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace lathe::core::cli {

void add_model_options(CLI::App &verb, ModelOptions &o, bool needs_model) {
  auto *model =
      verb.add_option("MODEL", o.model, "a .net or .onnx file, or the name of a bundled network");
  if (needs_model) model->required();
  verb.add_option(
      "-w,--weights", o.weights,
      "safetensors file, in place of the model's own; without it: these, trained ones that "
      "come with it, or seeded random ones");
  verb.add_flag("--partial-weights", o.binding.partial,
                "with -w: weights that the file lacks stay as they are, or are random");
  verb.add_flag("--ignore-unused-weights", o.binding.ignore_unused,
                "with -w: tensors that no weight is named after are no errors");
  verb.add_flag("--random-weights", o.random_weights, "also where the model's file has weights");
  verb.add_option("--shape", o.shapes,
                  "NAME=1x3x224x224: of an ONNX model's input, where its file leaves it open");
  verb.add_option("--seed", o.seed, "of random weights and inputs")->capture_default_str();
  verb.add_option("--set", o.settings, "NAME=NUMBER: a parameter of the network, e.g. classes=10");
  verb.add_option("--target-cpu", o.target_cpu, "native, avx512, avx2, plain (or x86-64-v4, ...)")
      ->capture_default_str();
  verb.add_option("--memory-limit", o.memory_limit,
                  "bytes for weights, arena, scratch, inputs and outputs; more is an error (6)")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--compile-memory", o.compile_memory,
                  "bytes to read and compile the model in; more is an error (6). Without it: what "
                  "any real network needs; with --memory-limit twice that and 256 MiB at most")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--time-limit", o.time_limit,
                  "seconds to read and compile the model in; more is an error (6); 0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.parse_complete_callback([&o] {
    const int64_t standard = default_compile_memory(o.memory_limit);
    o.budget = Budget(o.compile_memory > 0 ? o.compile_memory : standard, o.time_limit);
  });
  verb.add_option("--numerics", o.numerics,
                  "strict: no algorithm that sums in another order (no Winograd); NaN goes "
                  "through every op, as in NumPy")
      ->check(CLI::IsMember({"fast", "strict"}))
      ->capture_default_str();
  verb.add_option("--weight-budget", o.weight_budget,
                  "what transformed weights may add, as a multiple of the model's, or of 2 MiB if "
                  "it has fewer")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_flag("--tune", o.tune,
                "choose the algorithms by what they take on this machine, measured now");
  verb.add_option("--cache-dir", o.cache_dir,
                  "a directory that keeps code, packed weights and measurements for the next time")
      ->envname("LATHE_CACHE_DIR");
  verb.add_flag("--copy-weights", o.copy_weights,
                "copy all weights to memory, so that their file may change while the network runs");
  verb.add_option("--disable-pass", o.disabled_passes, "leave out an optional pass");
  verb.add_flag("-v,--verbose", o.verbose, "say what each step costs");
}

// `lathe help` and `lathe help VERB`, beside --help.
static void add_help(CLI::App &app, Action &action) {
  auto *verb = app.add_subcommand("help", "this text, or that of a verb");
  auto name = std::make_shared<std::string>();
  verb->add_option("VERB", *name, "run, inspect, ...");
  verb->callback([&app, name, &action] {
    action = [&app, name]() -> Result<void> {
      std::vector<std::string> verbs;
      for (const CLI::App *about : app.get_subcommands({})) {
        verbs.push_back(about->get_name());
        if (*name != verbs.back()) continue;
        fmt::print("{}", about->help("lathe"));
        return {};
      }
      if (!name->empty())
        return fail(Error{.code = ErrorCode::usage,
                          .message = "no such verb",
                          .expected = fmt::format("one of {}", fmt::join(verbs, ", ")),
                          .found = *name});
      // Not app.help(), which is now that of this verb.
      fmt::print("{}", app.get_formatter()->make_help(&app, "lathe", CLI::AppFormatMode::Normal));
      return {};
    };
  });
}

// To describe all options of all verbs takes longer than to read a small model: where one verb is
// named, only its own.
static void add_verbs(CLI::App &app, Action &action, std::string_view named) {
  using Verb = std::pair<std::string_view, void (*)(CLI::App &, Action &)>;
  constexpr Verb verbs[] = {
      {"run", add_run},         {"bench", add_bench},     {"profile", add_profile},
      {"compile", add_compile}, {"inspect", add_inspect}, {"dump", add_dump},
      {"verify", add_verify},   {"check", add_check},     {"explain", add_explain},
      {"cache", add_cache},     {"help", add_help},
  };
  const bool known = std::ranges::count(verbs, named, &Verb::first) > 0;
  for (const auto &[name, add] : verbs)
    if (name == named || !known || named == "help") add(app, action);
}

// An option that may stand several times takes one value each time: what follows is not its own.
static void take_one_value_each(CLI::App &app) {
  for (CLI::App *verb : app.get_subcommands({}))
    for (CLI::Option *option : verb->get_options())
      if (!option->get_positional() && option->get_expected_max() > 1)
        option->allow_extra_args(false);
}

static int run(int argc, char **argv) {
  CLI::App app{
      "Lathe compiles convolutional networks to machine code for this CPU, and runs them.\n"
      "\n"
      "  lathe inspect                          the bundled networks\n"
      "  lathe inspect resnet50                 its layers, shapes and counts\n"
      "  lathe run lenet5 -i shoe.png           classify a picture\n"
      "  lathe run my.net -w my.safetensors -i x.npy -o y.npy\n"
      "  lathe bench resnet50 --threads 1,2     how fast it is\n"
      "  lathe profile resnet50 --top 10        where its time goes\n"
      "  lathe verify resnet50                  against the slow reference\n"
      "  lathe check my.onnx                    everything that stands in its way\n"
      "  lathe compile resnet50 -o resnet50.o   code to link into a program, with a C header\n"
      "  lathe explain resnet50 layer1.0.bn1    what became of a layer\n"
      "  lathe dump lenet5 --emit asm           look inside\n"
      "  lathe help run                         all that a verb can do\n"
      "\n"
      "Exit codes: 0 ok, 1 mismatch, 2 usage, 3 invalid model or input, 4 unsupported,\n"
      "5 input or output failed, 6 a limit exceeded, 70 a bug of ours."};
  app.set_version_flag("--version", "lathe " LATHE_VERSION);
  app.require_subcommand(1);
  Action action;
  add_verbs(app, action, argc > 1 ? argv[1] : "");
  take_one_value_each(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error) == 0 ? 0 : int(ErrorCode::usage);
  }
  Result<void> result = action();
  // Output that did not arrive is no success: a full disk shows when the buffer is flushed.
  if (result && (std::fflush(stdout) != 0 || std::ferror(stdout)))
    result = fail(ErrorCode::io,
                  std::string("cannot write to standard output: ") + std::strerror(errno));
  if (result) return 0;
  note("lathe: {}\n", to_string(result.error()));
  if (result.error().code == ErrorCode::internal)
    note("This is a bug in Lathe. Please report it with the command and the model.\n");
  return int(result.error().code);
}

// Kernels read some weights in their mapped file; whoever cuts it meanwhile ends them.
static void end_on_cut_file() {
  struct sigaction action{};
  action.sa_handler = [](int) {
    static constexpr std::string_view text =
        "lathe: error: a file was cut short while its weights were in use; --copy-weights copies "
        "them\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    _exit(int(ErrorCode::io));
  };
  sigaction(SIGBUS, &action, nullptr);
}

} // namespace lathe::core::cli

namespace {

// Plain output: it neither allocates nor throws.
int end(lathe::core::ErrorCode code, const char *problem) {
  std::fprintf(stderr, "lathe: error: %s\n", problem);
  if (code == lathe::core::ErrorCode::internal)
    std::fputs("This is a bug in Lathe. Please report it.\n", stderr);
  return int(code);
}

int guarded_run(int argc, char **argv) noexcept {
  using lathe::core::ErrorCode;
  try {
    return lathe::core::cli::run(argc, argv);
  } catch (const std::system_error &error) { // fmt's, where standard output refuses
    return end(ErrorCode::io, error.what());
  } catch (const std::bad_alloc &) {
    return end(ErrorCode::limit, "out of memory");
  } catch (const std::exception &error) {
    return end(ErrorCode::internal, error.what());
  } catch (...) {
    return end(ErrorCode::internal, "something unknown was thrown");
  }
}

} // namespace

int main(int argc, char **argv) {
  lathe::core::cli::end_on_cut_file();
  int code = 0;
  auto body = [&] { code = guarded_run(argc, argv); };
  if (lathe::core::on_enough_stack(body)) return code;
  return end(lathe::core::ErrorCode::limit,
             "the stack is too small (ulimit -s), and the system gives no thread with another");
}
