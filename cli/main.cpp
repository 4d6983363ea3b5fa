// The command line: parse, run the chosen verb, report its error and exit with its code.
#include "cli/verbs.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <system_error>

namespace lathe::core::cli {

void add_model_options(CLI::App &verb, ModelOptions &o, bool needs_model) {
  auto *model =
      verb.add_option("MODEL", o.model, "a .net or .onnx file, or the name of a bundled network");
  if (needs_model) model->required();
  verb.add_option("-w,--weights", o.weights,
                  "safetensors file; without it: bundled trained weights, or seeded random ones");
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
  verb.add_option("--numerics", o.numerics,
                  "strict: no algorithm that sums in another order (no Winograd)")
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
  verb.add_option("--disable-pass", o.disabled_passes, "leave out an optional pass");
  verb.add_flag("-v,--verbose", o.verbose, "say what each step costs");
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
      "\n"
      "Exit codes: 0 ok, 1 mismatch, 2 usage, 3 invalid model or input, 4 unsupported,\n"
      "5 input or output failed, 6 a limit exceeded, 70 a bug of ours."};
  app.set_version_flag("--version", "lathe " LATHE_VERSION);
  app.require_subcommand(1);
  Action action;
  add_run(app, action);
  add_bench(app, action);
  add_profile(app, action);
  add_compile(app, action);
  add_inspect(app, action);
  add_dump(app, action);
  add_verify(app, action);
  add_check(app, action);
  add_explain(app, action);
  add_cache(app, action);
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

} // namespace lathe::core::cli

int main(int argc, char **argv) {
  try {
    return lathe::core::cli::run(argc, argv);
  } catch (const std::system_error &error) { // fmt's, where standard output refuses
    lathe::core::cli::note("lathe: error: {}\n", error.what());
    return int(lathe::core::ErrorCode::io);
  } catch (const std::bad_alloc &) {
    lathe::core::cli::note("lathe: error: out of memory\n");
    return int(lathe::core::ErrorCode::limit);
  } catch (const std::exception &error) {
    lathe::core::cli::note("lathe: error: {}\nThis is a bug in Lathe. Please report it.\n",
                           error.what());
    return int(lathe::core::ErrorCode::internal);
  }
}
