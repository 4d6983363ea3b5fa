// Small files that ask for much, as the command line meets them: each ends with a result or an
// error that says what the limit is, and never takes much more memory than that. And the clock: at
// whatever moment the time is over, compiling stops.
#include "frontend/weights.h"
#include "ir/system/threads.h"
#include "runtime/c_header.h"
#include "runtime/executable.h"
#include "tests/onnx_builder.h"
#include "tests/scratch.h"
#include "tests/tensors.h"

#include <atomic>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace lathe::core;
using namespace lathe::core::test;

namespace {

struct Outcome {
  int code = 0;
  int64_t peak = 0; // bytes of memory at most
  std::string errors;
};
Outcome lathe_command(const Scratch &folder, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), LATHE_PROGRAM);
  std::vector<char *> argv;
  for (std::string &argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const std::string errors = folder.path("stderr");
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const int null = open("/dev/null", O_WRONLY);
    const int file = open(errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(null, STDOUT_FILENO);
    dup2(file, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  REQUIRE(wait4(child, &status, 0, &usage) == child);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status),
          int64_t{usage.ru_maxrss} * 1024, contents(errors)};
}

Tensor ints(std::vector<int64_t> values) {
  const auto n = int64_t(values.size());
  return Tensor::of(std::move(values), {n});
}

// What becomes of a model under a memory limit of 150 MB, by verb.
struct Expected {
  int run, verify, compile, check, inspect;
};
void meet(const std::string &file, const std::string &bytes, const Expected &expected,
          const std::vector<std::string> &more = {}) {
  const Scratch folder;
  const std::string model = folder.write(file, bytes);
  constexpr int64_t limit = 150'000'000, most = 2 * limit + (256 << 20);
  for (const auto &[verb, code] :
       {std::pair("run", expected.run), std::pair("verify", expected.verify),
        std::pair("compile", expected.compile), std::pair("check", expected.check),
        std::pair("inspect", expected.inspect)}) {
    std::vector<std::string> arguments{verb, model, "--memory-limit", fmt::format("{}", limit)};
    if (verb != std::string_view("inspect"))
      arguments.insert(arguments.end(), more.begin(), more.end());
    if (verb == std::string_view("compile"))
      arguments.insert(arguments.end(), {"-o", folder.path("net.o")});
    const Outcome outcome = lathe_command(folder, arguments);
    CAPTURE(file);
    CAPTURE(verb);
    CAPTURE(outcome.errors);
    CHECK(outcome.code == code);
    CHECK(outcome.peak < most + most / 10);
    if (code == 6) CHECK(outcome.errors.contains("expected at most"));
    CHECK(std::filesystem::exists(folder.path("net.h")) ==
          (verb == std::string_view("compile") && code == 0));
    std::filesystem::remove(folder.path("net.h"));
  }
}

OnnxBuilder reduced(const std::string &op, const std::string &last) {
  OnnxBuilder b;
  b.input("x", {1, 3, 8, 8}).weight("axes", ints({0, 1}));
  b.node("ReduceSum", {last, "axes"}, {"sum"}, {attribute("keepdims", int64_t{0})});
  b.node(op, {"x", "sum"}, {"y"});
  b.output("y");
  return b;
}

} // namespace

TEST_CASE("a constant that two numbers make large") {
  OnnxBuilder wide = reduced("Add", "e");
  wide.weight("seed", floats({2, 1}, {1, 2})).weight("shape", ints({2, 250'000'000}));
  wide.node("Expand", {"seed", "shape"}, {"w"}).node("Exp", {"w"}, {"e"});
  meet("wide.onnx", wide.model(), {6, 6, 6, 0, 0});

  OnnxBuilder doubled = reduced("Mul", "c29");
  doubled.weight("c0", floats({1, 2}, {1, 2}));
  for (int i = 0; i < 29; ++i) {
    const std::string from = fmt::format("c{}", i), to = fmt::format("c{}", i + 1);
    doubled.node("Concat", {from, from}, {to}, {attribute("axis", int64_t{0})});
  }
  meet("doubled.onnx", doubled.model(), {6, 6, 6, 0, 0});
}

TEST_CASE("a large constant of one number is no work") {
  OnnxBuilder b = reduced("Add", "m300");
  b.weight("s", ints({3, 300'000'000}));
  b.node("ConstantOfShape", {"s"}, {"m0"}, {attribute("value", floats({1}, {0.25f}))});
  for (int i = 0; i < 300; ++i)
    b.node("Mul", {fmt::format("m{}", i), fmt::format("m{}", i)}, {fmt::format("m{}", i + 1)});
  meet("splat.onnx", b.model(), {0, 0, 0, 0, 0});
}

TEST_CASE("a chain of thousands of small convolutions") {
  OnnxBuilder b;
  constexpr int layers = 7000;
  b.input("v0", {1, 2, 16, 16}).weight("w", floats({2, 2, 1, 1}, {0, 1, 1, 0}));
  for (int i = 0; i < layers; ++i)
    b.node("Conv", {fmt::format("v{}", i), "w"}, {fmt::format("v{}", i + 1)});
  b.output(fmt::format("v{}", layers));
  meet("chain.onnx", b.model(), {0, 0, 0, 0, 0});
}

TEST_CASE("a window far beyond all channels") {
  OnnxBuilder b;
  b.input("x", {1, 5, 24, 24});
  b.node("LRN", {"x"}, {"y"}, {attribute("size", int64_t{12'000'001})});
  b.output("y");
  meet("lrn.onnx", b.model(), {0, 0, 0, 0, 0});
}

TEST_CASE("a description whose random weights would be calibrated on more than there is") {
  meet("slow.net",
       "network n { input x 3x1400x1400; conv 100 9x9 pad 4; relu; conv 100 9x9; global_avgpool }",
       {6, 6, 6, 6, 6});
  meet("heavy.net", "network n { input x 3x1x1; flatten; dense 30000; dense 20000 }",
       {6, 6, 6, 6, 6});
}

TEST_CASE("values that wrap around for so many images") {
  OnnxBuilder b;
  b.input("x", {1, 1, 1, 1}).weight("s", ints({1, 1, 1 << 19, 1 << 18})); // 2^39 bytes each
  std::vector<std::string> most;
  for (int i = 0; i < 8; ++i) {
    const std::string n = fmt::format("{}", i);
    b.node("Expand", {"x", "s"}, {"e" + n});
    b.node("MaxPool", {"e" + n}, {"p" + n},
           {attribute("kernel_shape", std::vector<int64_t>{2, 2}),
            attribute("pads", std::vector<int64_t>{0, 0, 1, 1})});
  }
  for (int i = 0; i < 8; ++i) {
    const std::string n = fmt::format("{}", i);
    b.node("ReduceMax", {"p" + n}, {"m" + n},
           {attribute("axes", std::vector<int64_t>{1, 2, 3}), attribute("keepdims", int64_t{1})});
    most.push_back("m" + n);
  }
  b.node("Sum", most, {"y"}).output("y");
  // 8 * 2^39 * 2^19 and 2^22 more of them are 2^61 and 2^64.
  for (const char *batch : {"1", "524288", "1048576"})
    meet("arena.onnx", b.model(), {6, 6, 6, 6, 6}, {"--batch", batch});
}

TEST_CASE("limits can be given, and are named where they do not suffice") {
  const Scratch folder;
  auto meets = [&](std::vector<std::string> arguments, int code, std::string_view part) {
    const Outcome outcome = lathe_command(folder, std::move(arguments));
    CAPTURE(outcome.errors);
    CHECK(outcome.code == code);
    CHECK(outcome.errors.contains(part));
  };
  meets({"run", "lenet5", "--compile-memory", "100000"}, 6, "raised by --compile-memory");
  meets({"run", "lenet5", "--compile-memory", "100000000"}, 0, "");
  meets({"run", "lenet5", "--time-limit", "1e-9"}, 6, "raised by --time-limit");
  meets({"check", "lenet5", "--time-limit", "1e-9"}, 6, "raised by --time-limit");
  meets({"run", "lenet5", "--time-limit", "0"}, 0, "");
  meets({"run", "lenet5", "--time-limit", "-1"}, 2, "--time-limit");
  meets({"run", "lenet5", "--compile-memory", "-1"}, 2, "--compile-memory");
}

TEST_CASE("whenever the time is over, compiling stops") {
  Graph graph = parse_graph(R"(graph "g" {
  input %0 "x": f32[1,3,16,16]
  recipe @0: f32[8,3,3,3] = named "a"
  recipe @1: f32[8,8,1,5] = named "b"
  const %1 "a" = @0
  const %2 "b" = @1
  node "a" -> %3 "a": f32[1,8,14,14] = conv(%0, %1) {kernel = 3x3}
  node "t" -> %4 "t": f32[1,8,14,14] = tanh(%3)
  node "b" -> %5 "b": f32[1,8,14,10] = conv(%4, %2) {kernel = 1x5}
  node "s" -> %6 "s": f32[1,8,14,10] = softmax(%5) {axis = 1}
  output %6
}
)")
                    .value();
  REQUIRE(randomise_weights(graph, 1));
  bool done = false;
  int stopped = 0;
  for (int n = 0; !done; ++n) {
    REQUIRE(n < 1000);
    CAPTURE(n);
    std::atomic<int> asked = 0;
    CompileOptions options;
    options.threads = 2;
    options.budget = Budget::until([&] { return asked++ >= n; });
    const auto executable = Executable::compile(graph, options);
    done = executable.has_value();
    if (done) break;
    ++stopped;
    CHECK(executable.error().code == ErrorCode::limit);
    CHECK(executable.error().message.contains("longer than allowed"));
    CHECK(asked <= n + 12); // code and weights are made side by side, and each may ask once more
  }
  CHECK(stopped > 20);
}

TEST_CASE("a request for more images than can be addressed is refused, and so is a library") {
  Graph graph;
  graph.name = "wide";
  const ValueId x = graph.add_input("x", {DType::f32, {1, 1, 1, 1}});
  Pool pool;
  pool.kernel = {2, 2};
  pool.pad = {.bottom = 1, .right = 1};
  std::vector<ValueId> made;
  for (int i = 0; i < 4; ++i) {
    const ValueId wide =
        graph.add_node(fmt::format("e{}", i), Expand{{1, 1, 1 << 14, 1 << 10}}, {x}).value();
    made.push_back(graph.add_node(fmt::format("p{}", i), pool, {wide}).value());
  }
  for (int i = 0; i < 4; ++i)
    graph.outputs.push_back(graph
                                .add_node(fmt::format("m{}", i),
                                          Reduce{ReduceKind::max, {1, 2, 3}, true},
                                          {made[size_t(i)]})
                                .value());
  const auto executable = Executable::compile(graph).value(); // 4 * 2^26 bytes for an image
  for (int64_t images : {most_images / 2, most_images}) {
    const auto request = Request::create(executable, images);
    REQUIRE(!request);
    CHECK(request.error().code == ErrorCode::limit);
  }
  for (int64_t images : {int64_t{-1}, int64_t{0}, most_images + 1, INT64_MAX})
    CHECK(Request::create(executable, images).error().code == ErrorCode::usage);

  const Plan &plan = executable->plan();
  const LibraryWeights weights = pack_for_library({&plan, 1}).value();
  NetworkLibrary library{.name = "net",
                         .images = most_images,
                         .variants = {{&plan, weights.places[0]}},
                         .weights = weights.header,
                         .own_weights = weights.bytes};
  CHECK(compile_library(library).error().code == ErrorCode::limit);
  library.images = 1;
  CHECK(compile_library(library));
}
