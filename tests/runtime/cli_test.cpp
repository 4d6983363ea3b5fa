// The command line as its users meet it: exit codes, messages that name the place, files in and
// out.
#include "frontend/npy.h"
#include "frontend/onnx.h"
#include "frontend/safetensors.h"
#include "ir/system/mapped_file.h"
#include "ir/system/output_file.h"
#include "tests/onnx_builder.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

using namespace lathe::core;
namespace fs = std::filesystem;

namespace {

struct Outcome {
  int code;
  std::string out; // stdout, then stderr
};
Outcome lathe_command(const std::string &arguments) {
  std::string command = fmt::format("{} 2>&1 {}", LATHE_PROGRAM, arguments);
  FILE *pipe = popen(command.c_str(), "r");
  REQUIRE(pipe);
  Outcome outcome{0, ""};
  std::array<char, 4096> buffer;
  while (size_t n = fread(buffer.data(), 1, buffer.size(), pipe))
    outcome.out.append(buffer.data(), n);
  int status = pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  return outcome;
}
// Runs and checks the exit code and that the message holds every one of `parts`.
void expect(const std::string &arguments, int code, std::initializer_list<std::string> parts) {
  Outcome outcome = lathe_command(arguments);
  CAPTURE(arguments);
  CAPTURE(outcome.out);
  CHECK(outcome.code == code);
  for (const std::string &part : parts) {
    CAPTURE(part);
    CHECK(outcome.out.find(part) != std::string::npos);
  }
}

class Folder {
public:
  Folder() : path_(fs::temp_directory_path() / fmt::format("lathe-cli-{}", getpid())) {
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  std::string write(const std::string &name, std::string_view text) const {
    std::string path = (path_ / name).string();
    REQUIRE(write_file(path, {std::as_bytes(std::span(text))}));
    return path;
  }
  std::string path(const std::string &name) const { return (path_ / name).string(); }

private:
  fs::path path_;
};

std::string network(const std::string &body) {
  return fmt::format("network n {{\n  input x 3x8x8\n  {}\n}}\n", body);
}

} // namespace

TEST_CASE("help teaches and succeeds") {
  expect("--help", 0, {"run", "bench", "inspect", "dump", "verify", "Exit codes"});
  expect("run --help", 0, {"--preset", "--labels", "--weights"});
  expect("--version", 0, {"lathe"});
  expect("help", 0, {"run", "bench", "inspect", "dump", "verify", "Exit codes"});
  expect("help run", 0, {"lathe run [OPTIONS] MODEL", "--preset", "--labels", "--weights"});
  expect("help fly", 2, {"fly", "inspect"});
}

TEST_CASE("wrong usage") {
  expect("", 2, {});
  expect("fly", 2, {"subcommand"});
  expect("run", 2, {"MODEL"});
  expect("inspect lenet5 --format pdf", 2, {"pdf"});
  expect("run lenet5 --target-cpu z80", 2, {"z80", "avx512", "plain"});
  expect("run lenet5 --disable-pass nonsense", 2, {"nonsense", "fuse_bias"});
  expect("run lenet5 --preset sepia -i x.png", 2, {"sepia", "torchvision"});
  expect("run lenet5 --set colour=3", 2, {"colour", "classes"});
  expect("run lenet5 --batch 0", 2, {"images"});
  expect("run lenet5 --threads -3", 2, {"--threads"});
}

TEST_CASE("files that are not there, or are something else") {
  Folder folder;
  expect("run nowhere.net", 5, {"nowhere.net"});
  expect("run resnet5O", 5, {"resnet50"});
  expect("run lenet5 -w nowhere.safetensors", 5, {"nowhere.safetensors"});
  expect("run lenet5 -i nowhere.png", 5, {"nowhere.png"});
  expect("run lenet5 -o /nowhere/y.npy", 5, {"/nowhere/y.npy"});
  expect("inspect " + folder.write("model.caffemodel", "x"), 4, {"model.caffemodel", ".net"});
  fs::create_directories(folder.path("folder.net"));
  expect("inspect " + folder.path("folder.net"), 5, {"folder.net"});
}

TEST_CASE("mistakes in a description are named with their place") {
  Folder folder;
  auto with = [&](const std::string &body) {
    return "inspect " + folder.write("bad.net", network(body));
  };
  expect("inspect " + folder.write("bad.net", "network n {\n  input x 3x8x8\n"), 3,
         {"bad.net:", "}"});
  expect(with("convv 8 3x3"), 3, {"bad.net:3:3", "convv", "conv", "^"});
  expect(with("conv 8"), 3, {"bad.net:3:", "kernel"});
  expect(with("conv 8 3x3 stride 0"), 3, {"bad.net:3", "stride", "0"});
  expect(with("conv 8 9x9"), 3, {"bad.net:3", "9"});
  expect(with("dense 10"), 3, {"bad.net:3", "flatten"});
  expect(with("conv 8 3x3 groups 2"), 3, {"bad.net:3", "groups"});
  expect(with("add { { conv 4 3x3 } { conv 5 3x3 } }"), 3, {"bad.net:3", "4"});
  expect(with("conv 8 3x3 strid 2"), 3, {"bad.net:3", "stride"});
  expect(with("block(1)"), 3, {"bad.net:3"});
  expect(with("conv width 3x3"), 3, {"bad.net:3", "width"});
  // Several mistakes in one run.
  Outcome outcome = lathe_command(with("convv 8 3x3\n  reluu\n  maxpol 2x2"));
  for (const char *word : {"convv", "reluu", "maxpol"})
    CHECK(outcome.out.find(word) != std::string::npos);
}

TEST_CASE("weights that do not fit") {
  Folder folder;
  std::string model = folder.write("m.net", network("a: conv 4 3x3; relu; b: conv 2 1x1"));
  std::string weights = folder.path("w.safetensors");
  REQUIRE(write_safetensors(weights, {{"a.weight", Tensor::splat(1, {4, 3, 3, 3})},
                                      {"b.weight", Tensor::splat(1, {2, 5, 1, 1})}}));
  // All that is wrong in one message.
  expect("run " + model + " -w " + weights, 3, {"a.bias", "b.weight", "2x5x1x1", "b.bias"});
  fs::resize_file(weights, fs::file_size(weights) - 8);
  expect("run " + model + " -w " + weights, 3, {"w.safetensors"});
  fs::resize_file(weights, 5);
  expect("run " + model + " -w " + weights, 3, {"w.safetensors"});
}

TEST_CASE("-w replaces the model's own weights, and all of them") {
  Folder folder;
  Tensor x(DType::f32, {1, 1, 32, 32});
  for (size_t i = 0; i < 1024; ++i) x.f32_mutable()[i] = float(i % 13) / 13;
  REQUIRE(write_npy(folder.path("x.npy"), x));
  auto scores = [&](const std::string &arguments, std::initializer_list<std::string> parts) {
    expect(
        fmt::format("run {} -i {}/x.npy -o {}/y.npy", arguments, folder.path(""), folder.path("")),
        0, parts);
    const Tensor y = read_npy(folder.path("y.npy")).value();
    return std::vector<float>(y.f32().begin(), y.f32().end());
  };
  const std::string random = folder.path("random.safetensors"), lenet = folder.path("lenet5.onnx");
  expect("dump lenet5 --emit weights --random-weights --seed 5 2>/dev/null > " + random, 0, {});
  expect("inspect lenet5 --format onnx 2>/dev/null > " + lenet, 0, {});
  const auto own = scores("lenet5", {"trained, bundled"}),
             other = scores("lenet5 -w " + random, {"random.safetensors"});
  CHECK(own != other);
  CHECK(scores("lenet5 --random-weights --seed 5", {"random, seed 5"}) == other);
  // The same network as ONNX, where the weights are initialisers of the same names.
  CHECK(scores(lenet, {"the model's own"}) == own);
  CHECK(scores(lenet + " -w " + random, {"random.safetensors"}) == other);

  // Some of them, only if that is asked for; and names that nothing has.
  const auto tensors = WeightsFile::open(random).value();
  auto write_some = [&](const std::string &name) {
    std::map<std::string, Tensor> some{{"fc3.weight", tensors.tensor("fc3.weight").value()}};
    if (!name.empty()) some[name] = Tensor::splat(1, {3});
    const std::string path = folder.path("some.safetensors");
    REQUIRE(write_safetensors(path, some));
    return path;
  };
  std::string some = write_some("");
  expect("run lenet5 -w " + some, 3, {"9 weights", "fc3.bias"});
  const auto mixed = scores("lenet5 --partial-weights -w " + some,
                            {"note: 9 weights stay as they were, trained, bundled with lenet5"});
  CHECK(mixed != own);
  CHECK(mixed != other);
  CHECK(scores(lenet + " --partial-weights -w " + some, {"9 weights stay"}) == mixed);
  expect("run squeezenet1_1 --partial-weights -w " + some, 3, {"fc3.weight"});
  some = write_some("fc4.weight");
  expect("run lenet5 --partial-weights -w " + some, 3, {"fc4.weight", "perhaps 'fc"});
  expect("run lenet5 --partial-weights --ignore-unused-weights -w " + some, 0, {"1 tensors of"});
  some = write_some("bn1.num_batches_tracked");
  expect("run lenet5 --partial-weights -w " + some, 0, {"1 tensors of", "num_batches_tracked"});
}

TEST_CASE("trained weights come with a name, and not with a file's") {
  Folder folder;
  const std::string copy = folder.write(
      "lenet5.net", read_text_file(LATHE_SOURCE_DIR "/models/lenet5.net", 10'000).value());
  expect("run " + copy, 0, {"weights: random, seed 0"});
  expect("run " + copy + " -i " LATHE_SOURCE_DIR "/docs/examples/boot.png", 3, {"3 channels"});
  fs::create_directories(folder.path("lenet5"));
  expect(fmt::format("verify lenet5; cd {} && {} verify lenet5", folder.path(""),
                     fs::absolute(LATHE_PROGRAM).string()),
         0, {"ok ", "trained"});
}

TEST_CASE("inputs that do not fit") {
  Folder folder;
  std::string npy = folder.path("x.npy");
  REQUIRE(write_npy(npy, Tensor::splat(0, {1, 3, 8, 8})));
  expect("run lenet5 -i " + npy, 3, {"x.npy", "1x1x32x32", "1x3x8x8"});
  expect("run lenet5 -i " + folder.write("torn.png", "\x89PNG\r\n\x1a\nnothing"), 3, {"torn.png"});
  expect("run lenet5 -i " + folder.write("text.png", "hello"), 4, {"text.png"});
  expect("run lenet5 --labels " + folder.write("labels.txt", "one\ntwo\n"), 3,
         {"labels.txt", "10", "2"});
}

TEST_CASE("an option takes one value and leaves the model alone") {
  const std::string boot = LATHE_SOURCE_DIR "/docs/examples/boot.png";
  expect("run -i " + boot + " lenet5 --top 1", 0, {" 9\n"});
  expect("run --set classes=7 lenet5 --top 1", 0, {"random"});
  expect("run --disable-pass fuse_bias lenet5 --top 1", 0, {});
  expect("bench --batch 1,2 lenet5 --duration 0.01", 0, {"median ms"});
  expect("run lenet5 -i " + boot + " " + boot, 2, {"boot.png"});
}

TEST_CASE("pictures with their channels last are questioned") {
  Folder folder;
  const std::string model =
      folder.write("last.net", "network n {\n  input x 16x16x3\n  conv 4 3x3\n}\n");
  expect("inspect " + model, 0, {"last.net:2:11: warning:", "3x16x16"});
}

TEST_CASE("run reads and writes tensors") {
  Folder folder;
  for (const char *name : {"y.csv", "y.txt", "y", "y.npz"}) {
    expect(fmt::format("run lenet5 -o {}", folder.path(name)), 2, {name, ".npy", ".pb"});
    CHECK(!fs::exists(folder.path(name)));
  }
  Tensor x = Tensor::splat(0.5f, {2, 1, 32, 32});
  REQUIRE(write_npy(folder.path("x.npy"), x));
  expect(fmt::format("run lenet5 -i image={0}/x.npy -o {0}/y.npy", folder.path("")), 0,
         {"trained"});
  auto y = read_npy(folder.path("y.npy"));
  REQUIRE(y);
  CHECK(y->shape() == Shape{2, 10});
  double sum = 0;
  for (float p : y->f32()) sum += p;
  CHECK(sum == doctest::Approx(2));
  expect("run lenet5 --top 3", 0, {"random, seed 0"});
}

TEST_CASE("inspect, dump, verify and bench print what they promise") {
  Folder folder;
  auto json = nlohmann::json::parse(lathe_command("inspect alexnet --format json").out);
  CHECK(json["parameters"] == 60'965'224);
  CHECK(json["multiplies"] == 724'406'816);
  CHECK(json["weighted_layers"] == 8);
  for (const char *key : {"name", "inputs", "outputs", "layers", "weight_bytes", "arena_bytes",
                          "arena_lower_bound_bytes", "scratch_bytes"})
    CHECK(json.contains(key));
  expect("inspect lenet5", 0, {"28x28x6", "14x14x6", "10x10x16", "5x5x16", "61,706", "416,520"});
  expect("inspect", 0, {"resnet152", "googlenet", "trained"});
  expect("inspect lenet5 --format dot", 0, {"digraph", "conv1"});
  expect("dump lenet5 --after all", 0, {"after fuse_post_ops", "post = [tanh]"});
  expect("dump lenet5 --emit plan", 0, {"kernel 0", "arena"});
  expect("dump lenet5 --emit llvm", 0, {"define void @conv2d_f32_direct"});
  expect("dump lenet5 --emit asm --target-cpu avx2", 0, {"vfmadd", "ymm"});
  expect("dump lenet5 --emit asm --target-cpu neon", 0, {"fmla"});
  expect("verify lenet5 --all-layers", 0, {"ok"});
  expect("verify lenet5 --rtol 1e-12", 1, {"MISMATCH", "fc3"});
  std::string report = folder.path("bench.json");
  expect("bench lenet5 --batch 1,2 --threads 1,2 --duration 0.01 --json " + report, 0,
         {"median ms"});
  auto rows = nlohmann::json::parse(fopen(report.c_str(), "r"));
  REQUIRE(rows.size() == 4);
  for (const char *key : {"model",
                          "batch",
                          "threads",
                          "precision",
                          "min_ms",
                          "median_ms",
                          "p90_ms",
                          "p99_ms",
                          "mean_ms",
                          "stddev_ms",
                          "iterations",
                          "gflops",
                          "percent_of_peak",
                          "peak_gflops",
                          "bandwidth_gb_per_s",
                          "compile_ms",
                          "first_run_ms",
                          "cache_hit",
                          "arena_bytes",
                          "arena_lower_bound_bytes",
                          "weight_bytes",
                          "peak_rss_bytes",
                          "cpu",
                          "isa",
                          "version"})
    CHECK(rows[0].contains(key));
}

TEST_CASE("profile: a table, JSON, a page and a trace of the same kernels") {
  Folder folder;
  const std::string json = folder.path("p.json"), html = folder.path("p.html"),
                    trace = folder.path("p.trace");
  expect(fmt::format("profile lenet5 --batch 2 --threads 2 --duration 0.02 --json {} --html {} "
                     "--trace {}",
                     json, html, trace),
         0,
         {"batch 2, 2 threads", "conv1 +", "direct 5x5", "dense panels", "x roof", "sum of all"});
  auto parse = [](const std::string &path) {
    return nlohmann::json::parse(read_text_file(path, 1 << 20).value_or(""));
  };
  auto profile = parse(json);
  for (const char *key : {"model", "batch", "threads", "isa", "cpu", "version", "runs",
                          "peak_gflops", "bandwidth_gb_per_s", "total_ms", "roofline_ms"})
    CHECK(profile.contains(key));
  double share = 0;
  for (const auto &kernel : profile["kernels"]) {
    for (const char *key :
         {"name", "layers", "algorithm", "candidates", "shape", "median_ms", "share", "flops",
          "gflops", "percent_of_peak", "bytes", "gb_per_s", "roofline_ms", "times_roofline"})
      CHECK(kernel.contains(key));
    share += kernel["share"].get<double>();
  }
  CHECK(share == doctest::Approx(1));

  // Two pictures of 32x32; six channels of 14x14 are left behind the pool.
  const auto &first = profile["kernels"].front();
  CHECK(first["layers"].front() == "conv1");
  CHECK(first["algorithm"] == "direct 5x5 + average pool");
  REQUIRE(first["candidates"].size() == 3);
  CHECK(first["candidates"][0]["algorithm"] == "direct");
  CHECK(first["candidates"][0]["verdict"] == "chosen");
  CHECK(first["candidates"][0]["estimated_us"].get<double>() > 0);
  CHECK(first["candidates"][0]["measured_us"].is_null());
  CHECK(first["candidates"][1]["algorithm"] == "winograd 2");
  CHECK(first["candidates"][1]["extra_weight_bytes"].get<int64_t>() > 0);
  CHECK(first["candidates"][2]["algorithm"] == "winograd 2 from taps");
  CHECK(first["candidates"][2]["extra_weight_bytes"] == 0);
  CHECK(first["shape"] == "1x32x32 to 6x14x14");
  CHECK(first["flops"] == 2 * 2 * 28 * 28 * 6 * 25);
  CHECK(first["input_bytes"] == 2 * 32 * 32 * 4);
  CHECK(first["output_bytes"] == 2 * 6 * 14 * 14 * 4);
  for (const auto &kernel : profile["kernels"]) {
    if (kernel["layers"].front() != "fc2") continue;
    CHECK(kernel["shape"] == "120 to 84");
    CHECK(kernel["input_bytes"] == 2 * 120 * 4);
    const int64_t of_row = (120 + 1) * 4; // and there are whole vectors of rows
    CHECK(kernel["weight_bytes"] >= 84 * of_row);
    CHECK(kernel["weight_bytes"] <= 96 * of_row);
    CHECK(kernel["output_bytes"] == 2 * 84 * 4);
  }

  size_t spans = 0;
  double end = 0; // of the kernel before
  const auto events = parse(trace);
  for (const auto &event : events["traceEvents"]) {
    if (event["ph"] != "X") continue;
    ++spans;
    CHECK(event["ts"].get<double>() == doctest::Approx(end));
    end += event["dur"].get<double>();
    for (const char *key : {"name", "pid", "tid", "args"}) CHECK(event.contains(key));
  }
  CHECK(spans == profile["kernels"].size());

  const std::string page = read_text_file(html, 1 << 20).value_or("");
  CHECK(page.starts_with("<!doctype html>"));
  CHECK(page.contains("<svg"));
  CHECK(page.ends_with("</html>\n"));
  for (const char *elsewhere : {"http:", "https:", "src=", "href="})
    CHECK(!page.contains(elsewhere));

  // The longest two, and the sum of all.
  const std::string two = lathe_command("profile lenet5 --duration 0.01 --top 2").out;
  CHECK(two.contains("direct 5x5"));
  CHECK(std::ranges::count(two, '%') == 3);
  expect("profile lenet5 --duration 0.01 --json /nowhere/p.json", 5, {"/nowhere/p.json"});
}

TEST_CASE("a write that fails is an error, and loses nothing that was there") {
  Folder folder;
  std::string kept = folder.write("y.npy", "precious");
  // Files may not grow beyond 512 bytes here: as good as a full disk.
  std::string limited = fmt::format(
      "true; trap '' XFSZ; ulimit -f 1; exec {} run lenet5 --batch 100 -o {}", LATHE_PROGRAM, kept);
  int status = std::system(fmt::format("sh -c \"{}\" 2>/dev/null", limited).c_str());
  CHECK(WEXITSTATUS(status) == 5);
  CHECK(read_text_file(kept, 100).value_or("") == "precious");
  CHECK(std::distance(fs::directory_iterator(folder.path("")), {}) == 1); // no partial file either
  expect("inspect lenet5 > /dev/full", 5, {"cannot write to standard output"});
  expect("inspect lenet5 > /dev/full 2> /dev/full", 5, {}); // nor can the message be written
  expect("run lenet5 -o /dev/null", 0, {});                 // a device is written to as it is
  const std::string log = folder.path("log");               // behind what stood there
  REQUIRE(
      std::system(fmt::format("(printf head; exec {} run lenet5 -o /dev/stdout) >{} 2>/dev/null",
                              LATHE_PROGRAM, log)
                      .c_str()) == 0);
  CHECK(read_text_file(log, 1 << 20).value_or("").starts_with("head\x93NUMPY"));
}

TEST_CASE("a memory limit holds before anything is allocated") {
  expect("run squeezenet1_1 --memory-limit 1000000", 6,
         {"needs more memory than allowed", "at most 1000000 bytes", "for 1 images on "});
  expect("run lenet5 --memory-limit 1000000", 0, {});
  expect("run lenet5 --memory-limit 1000000 --batch 1000", 6, {"for 1000 images"});
  expect("run lenet5 --memory-limit -1", 2, {"--memory-limit"});
}

TEST_CASE("the memory plan is a picture too") {
  Outcome outcome = lathe_command("inspect resnet18 --memory-plan --format svg");
  CHECK(outcome.code == 0);
  CHECK(outcome.out.starts_with("<svg "));
  CHECK(outcome.out.find("arena 1,605,632 bytes per picture, lower bound 1,605,632") !=
        std::string::npos);
  CHECK(outcome.out.find("<title>layer1.0.relu_1: 802,816 bytes, kernels ") != std::string::npos);
  CHECK(outcome.out.ends_with("</svg>\n"));
  expect("inspect resnet18 --format svg", 2, {"add --memory-plan"});
}

TEST_CASE("explain says what became of a layer") {
  expect("explain resnet50 layer1.0.bn1", 0,
         {"kernel 1: conv2d_f32_direct_bias_relu", "layer1.0.conv1",
          "resnet.blocks.net:", "batch_norm", "fold_batch_norm put it into layer1.0.conv1"});
  expect("explain googlenet inception_3a.5x5_reduce", 0, {"merge_siblings put it into"});
  expect("explain lenet5", 0, {"kernel 0: ", "conv1", "average_pool"});
  expect("explain lenet5 nobody", 2, {"the model has no such layer", "nobody"});
}

TEST_CASE("what was considered for a convolution, and --tune") {
  const std::string layer = "explain squeezenet1_1 features.3.expand3x3";
  expect(layer, 0,
         {"candidate direct", "candidate winograd 4", "estimated ", " bytes", ": chosen"});
  expect(layer + " --weight-budget 0", 0, {"over the weight budget"});
  CHECK(!lathe_command(layer + " --numerics strict").out.contains("candidate"));
  expect("dump squeezenet1_1 --emit plan", 0, {"  estimated: direct "});
  expect(layer + " --tune", 0, {"estimated ", ", measured "});
  expect("run squeezenet1_1 --tune --top 1 -v", 0, {"tune  "});
  expect("dump lenet5 --emit plan --tune --numerics strict", 0, {"plan "});
  expect("dump lenet5 --emit plan --tune --target-cpu neon", 4, {"cannot run code", "neon"});
}

TEST_CASE("-v says what each step cost") {
  expect("run lenet5 -v --top 1", 0, {"fuse_post_ops", "changes", "code", "pack"});
}

TEST_CASE("ONNX models: run, verify, check, inspect, and tensors as .pb") {
  Folder folder;
  const std::string tiny = LATHE_SOURCE_DIR "/tests/data/tiny.onnx";
  expect("check " + tiny, 0, {"nothing stands in the way"});
  expect("verify " + tiny + " --batch 3", 0, {"ok "});
  expect("inspect " + tiny + " --format json", 0,
         {"\"image\"", "\"scores\"", "\"weighted_layers\": 3"});
  expect("run " + tiny + " --shape image=2x3x32x32 --top 1", 0, {"image 1", "the model's own"});
  expect("run " + tiny + " --shape image=2x3x32", 3, {"rank"});
  expect("run " + tiny + " --shape image=2x3xq", 2, {"NAME=1x3x224x224"});

  // Four pictures go in as .npy and as .pb, under the input's name or in order.
  Tensor pictures(DType::f32, {4, 3, 32, 32});
  for (size_t i = 0; i < size_t(pictures.size()); ++i)
    pictures.f32_mutable()[i] = float(i % 101) / 50 - 1;
  const std::string npy = folder.path("x.npy"), pb = folder.path("x.pb");
  REQUIRE(write_npy(npy, pictures));
  REQUIRE(write_tensor_proto(pb, "image", pictures));
  const std::string y = folder.path("y.npy"), z = folder.path("z.pb");
  expect(fmt::format("run {} -i {} -o {}", tiny, npy, y), 0, {});
  expect(fmt::format("run {} -i image={} -o scores={}", tiny, pb, z), 0, {});
  const Tensor a = read_npy(y).value(), b = read_tensor_proto(z).value();
  CHECK(a.shape() == Shape{4, 10});
  CHECK(std::ranges::equal(a.f32(), b.f32()));
  expect(fmt::format("verify {} -i {} --against {}", tiny, pb, z), 1, {}); // not before the softmax

  // Written out and read again, the same numbers come out.
  const std::string copy = folder.path("copy.onnx");
  expect(fmt::format("inspect {} --format onnx > {}", tiny, copy), 0, {});
  expect(fmt::format("run {} -i {} -o {}", copy, npy, y), 0, {});
  CHECK(std::ranges::equal(read_npy(y).value().f32(), b.f32()));

  // A case of ONNX's own tests, right and wrong.
  const std::string cases = "/usr/share/libonnx-testdata/data/node/";
  expect("verify " + cases + "test_reshape_negative_dim", 0, {"ok "});
  fs::copy(cases + "test_relu", folder.path("case"), fs::copy_options::recursive);
  REQUIRE(write_tensor_proto(folder.path("case/test_data_set_0/output_0.pb"), "y",
                             Tensor::splat(7, {3, 4, 5})));
  expect("verify " + folder.path("case"), 1, {"expected 7 for element 0"});
  fs::remove_all(folder.path("case/test_data_set_0"));
  expect("verify " + folder.path("case"), 3, {"a test case without data"});

  // What decides a shape is a constant to the compiler.
  const std::string reshape = cases + "test_reshape_negative_dim/";
  expect("run " + reshape + "model.onnx", 4, {"'shape'", "op Reshape"});
  expect(fmt::format("run {0}model.onnx -i {0}test_data_set_0/input_0.pb -i "
                     "{0}test_data_set_0/input_1.pb",
                     reshape),
         0, {});

  // Everything in the way, at once.
  test::OnnxBuilder b2;
  b2.input("x", {1, 3, 4, 4}).node("Quux", {"x"}, {"a"}, {}, "one");
  b2.node("Conv", {"x"}, {"c"}, {}, "two").output("a").output("c");
  expect("check " + folder.write("bad.onnx", b2.model()), 3,
         {"2 things are in the way", "'one', op Quux (opset 13)", "'two', op Conv (opset 13)"});
  expect("check " + folder.write("none.onnx", "no model"), 3, {"not an ONNX"});
  expect("check " + folder.path("nowhere.onnx"), 5, {"cannot open"});
}

TEST_CASE(
    "inspect shows what a bottleneck saves: the inception modules, and low rank that is found") {
  expect("inspect inception_module", 0, {"128,049,152"});
  expect("inspect inception_module_naive", 0, {"308,281,344"});
  // A 5x5 to 32 channels on 28x28x192 whose weights have rank 16.
  Folder folder;
  const std::string model =
      folder.write("wide.net", "network wide() { input x 192x28x28; c: conv 32 5x5 pad 2; relu }");
  constexpr int64_t rank = 16, in = 192, rest = 32 * 25;
  Tensor weights(DType::f32, {32, in, 5, 5});
  auto number = [](int64_t i) { return float((i * 7919 + i * i * 31) % 97 - 48) / 97; };
  for (int64_t m = 0; m < 32; ++m)
    for (int64_t c = 0; c < in; ++c)
      for (int64_t t = 0; t < 25; ++t) {
        double sum = 0;
        for (int64_t r = 0; r < rank; ++r)
          sum += double{number(r * in + c)} * double{number(5000 + r * rest + m * 25 + t)};
        weights.f32_mutable()[size_t((m * in + c) * 25 + t)] = float(sum);
      }
  const std::string file = folder.path("w.safetensors");
  REQUIRE(write_safetensors(file, {{"c.weight", weights}, {"c.bias", Tensor::splat(0, {32})}}));
  expect("inspect " + model, 0, {"120,422,400"});
  expect("inspect " + model + " -w " + file + " --after split_low_rank", 0, {"12,443,648"});
  expect("explain " + model + " -w " + file, 0, {"c.basis"});
  expect("verify " + model + " -w " + file, 0, {});
}

TEST_CASE("a memory limit is kept by another plan, until none does") {
  Outcome usual = lathe_command("inspect vgg16 --memory-plan");
  Outcome less = lathe_command("inspect vgg16 --memory-plan --memory-limit 565000000");
  CHECK(usual.code == 0);
  CHECK(less.code == 0);
  CHECK(!usual.out.contains("_chain"));
  CHECK(less.out.contains("_chain"));
  expect("inspect vgg16 --memory-plan --memory-limit 500000000", 6,
         {"at most 500000000 bytes", "for 1 images on", "the least that was found"});
}

TEST_CASE("the cache's verb, and the options that name its directory") {
  Folder folder;
  const std::string cache = folder.path("cache"), at = " --cache-dir " + cache;
  unsetenv("LATHE_CACHE_DIR");
  expect("cache ls", 2, {"--cache-dir"});
  expect("cache fill" + at, 2, {"fill"});
  expect("run lenet5 -v" + at, 0, {"code"});
  expect("run lenet5 -v" + at, 0, {", from the cache"});
  setenv("LATHE_CACHE_DIR", cache.c_str(), 1);
  expect("bench lenet5 -v --duration 0.01", 0, {", from the cache"});
  expect("cache ls", 0, {"kernels for", "lenet5", "2 entries"});
  expect("cache verify", 0, {"2 entries, all good"});
  for (const auto &file : fs::directory_iterator(cache)) fs::resize_file(file.path(), 1000);
  expect("cache verify", 1, {"damaged", "2 of 2"});
  expect("run lenet5", 0, {"note:", "damaged"});
  expect("cache verify", 0, {"all good"});
  expect("cache clear", 0, {});
  expect("cache ls", 0, {"0 entries"});
  unsetenv("LATHE_CACHE_DIR");
}

// Those of `failing/` with right answers; of ops/ some are refused, until there are kernels for
// them.
TEST_CASE("models that failed once") {
  const char *data = std::getenv("LATHE_TEST_DATA");
  if (!data) {
    fmt::print("SKIPPED: LATHE_TEST_DATA is not set, so there are no models that failed once\n");
    return;
  }
  const fs::path root = fs::path(data) / "failing";
  int verified = 0;
  for (const auto &entry : fs::recursive_directory_iterator(root)) {
    if (!entry.is_directory() || !fs::exists(entry.path() / "test_data_set_0")) continue;
    const std::string name = fs::relative(entry.path(), root).string();
    const bool strict = name.starts_with("strict_");
    CAPTURE(name);
    const Outcome outcome = lathe_command(
        fmt::format("verify '{}'{}", entry.path().string(), strict ? " --numerics strict" : ""));
    const bool may_be_refused = name.starts_with("ops/");
    CHECK_MESSAGE((outcome.code == 0 || (may_be_refused && outcome.code == 4)), outcome.out);
    verified += outcome.code == 0;
  }
  CHECK(verified >= 26);
  const std::string model = "/model.onnx";
  expect("check " + (root / "exporter/external_data_missing").string() + model, 5,
         {"ext.onnx.data", "cannot open"});
  expect("check " + (root / "opset_27").string() + model, 0, {"nothing stands in the way"});
}
