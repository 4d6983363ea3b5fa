// lathe compile: C programs around the libraries, which answer as `lathe run` does, bit for bit.
#include "frontend/bundled.h"
#include "frontend/npy.h"
#include "frontend/weights.h"
#include "ir/compare.h"
#include "ir/evaluate.h"
#include "runtime/executable.h"
#include "tests/random_graph.h"
#include "tests/scratch.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <fmt/format.h>
#include <sstream>
#include <sys/wait.h>

using namespace lathe::core;
namespace fs = std::filesystem;

namespace {

struct Outcome {
  int code;
  std::string out; // stdout and stderr
};
Outcome shell(const Scratch &folder, const std::string &command) {
  const std::string log = folder.path("log");
  const int status =
      std::system(fmt::format("cd {} && ({}) > {} 2>&1", folder.path(""), command, log).c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), contents(log)};
}
// Runs a command that must succeed, and returns what it printed.
std::string must(const Scratch &folder, const std::string &command) {
  const Outcome outcome = shell(folder, command);
  REQUIRE_MESSAGE(outcome.code == 0, command, "\n", outcome.out);
  return outcome.out;
}
std::string lathe_command(const Scratch &folder, const std::string &arguments) {
  return must(folder, fmt::format("{} {}", LATHE_PROGRAM, arguments));
}

std::string in_capitals(std::string text) {
  for (char &c : text) c = static_cast<char>(std::toupper(c));
  return text;
}

// The C compiler's command for tests/runtime/compiled_program.c with the library `name`.
std::string program(const std::string &name, const std::string &rest,
                    const std::string &compiler = "cc") {
  return fmt::format("{} -std=c11 -O1 -Wall -Wextra -Werror -pedantic -pthread "
                     "-Wl,--fatal-warnings -I. -DNETWORK={} -DCAPITALS={} -DHEADER='\"{}.h\"' "
                     "{}/tests/runtime/compiled_program.c {}",
                     compiler, name, in_capitals(name), name, LATHE_SOURCE_DIR, rest);
}

// Random numbers for a network's input, as .npy and as plain bytes.
Tensor make_input(const Scratch &folder, const Shape &shape, float scale = 1) {
  Tensor input = random_tensor({DType::f32, shape}, "input", 3);
  for (float &x : input.f32_mutable()) x *= scale;
  REQUIRE(write_npy(folder.path("in.npy"), input));
  folder.write("in.raw", {reinterpret_cast<const char *>(input.raw()), input.bytes()});
  return input;
}

// The bytes that `lathe run` answers with.
std::string expected(const Scratch &folder, const std::string &arguments) {
  lathe_command(folder, fmt::format("run {} -i in.npy -o out.npy", arguments));
  auto output = read_npy(folder.path("out.npy"));
  REQUIRE(output);
  return {reinterpret_cast<const char *>(output->raw()), output->bytes()};
}

struct Answer {
  std::string output;
  std::string target; // that the program chose
  int forks = 0;      // into several threads, in two runs
};
// What ./run does, perhaps under another program.
Answer run(const Scratch &folder, int threads, const std::string &weights = "",
           const std::string &under = "") {
  std::istringstream said(
      must(folder, fmt::format("{} ./run in.raw out.raw {} {}", under, threads, weights)));
  Answer answer;
  said >> answer.target >> answer.forks;
  answer.output = contents(folder.path("out.raw"));
  return answer;
}
std::string answer(const Scratch &folder, int threads, const std::string &weights = "") {
  return run(folder, threads, weights).output;
}

int64_t defined(const std::string &header, const std::string &macro) {
  const size_t at = header.find("#define " + macro + " ");
  REQUIRE(at != std::string::npos);
  return std::atoll(header.c_str() + at + 9 + macro.size());
}

bool have(const std::string &program) {
  const bool found = std::system(fmt::format("command -v {} > /dev/null", program).c_str()) == 0;
  if (!found) fmt::print("SKIPPED: {} is not installed\n", program);
  return found;
}

} // namespace

TEST_CASE("SqueezeNet in a C program") {
  const Scratch folder;
  make_input(folder, {1, 3, 224, 224});
  lathe_command(folder, "compile squeezenet1_1 -o squeezenet1_1.o");
  must(folder, program("squeezenet1_1", "squeezenet1_1.o -o run"));
  const std::string right = expected(folder, "squeezenet1_1");
  CHECK(answer(folder, 1) == right);
  const Answer three = run(folder, 3);
  CHECK(three.output == right);
  CHECK(three.forks > 20);

  // Nothing but itself: no library's functions, no state, few names, little code.
  CHECK(must(folder, "nm -u squeezenet1_1.o") == "");
  const std::string symbols = must(folder, "nm -g --defined-only squeezenet1_1.o");
  CHECK(std::ranges::count(symbols, '\n') == 5);
  for (const char *function : {"run", "init", "check_weights", "error", "target"})
    CHECK(symbols.contains(fmt::format("squeezenet1_1_{}\n", function)));
  const std::string sections = must(folder, "readelf -SW squeezenet1_1.o");
  for (const char *writable : {" WA ", " WAX ", " WAT "}) CHECK(!sections.contains(writable));
  const int64_t weights =
      defined(contents(folder.path("squeezenet1_1.h")), "SQUEEZENET1_1_WEIGHTS_BYTES");
  const auto code = int64_t(fs::file_size(folder.path("squeezenet1_1.o"))) - weights;
  MESSAGE("SqueezeNet 1.1: ", code, " bytes besides ", weights, " bytes of weights");
  CHECK(code < 1'000'000);
}

TEST_CASE("the header is plain C and C++") {
  const Scratch folder;
  lathe_command(folder, "compile lenet5 -o net.o --batch 2");
  must(folder, "cc -std=c99 -Wall -Wextra -Werror -pedantic -x c -fsyntax-only net.h");
  must(folder, "c++ -std=c++98 -Wall -Wextra -Werror -pedantic -x c++ -fsyntax-only net.h");
  const std::string header = contents(folder.path("net.h"));
  CHECK(defined(header, "LENET5_BATCH") == 2);
  CHECK(defined(header, "LENET5_INPUT_0_BYTES") == 2 * 32 * 32 * 4);
  CHECK(defined(header, "LENET5_OUTPUT_0_BYTES") == 2 * 10 * 4);
  CHECK(header.contains("image  float 2x1x32x32"));
}

TEST_CASE("a batch, strict numerics, and the forms of the code") {
  const Scratch folder;
  make_input(folder, {4, 1, 32, 32});
  const std::string right = expected(folder, "lenet5 --numerics strict");
  const std::string options = "--batch 4 --numerics strict --name digits";
  lathe_command(folder, fmt::format("compile lenet5 -o digits.o {}", options));
  must(folder, program("digits", "digits.o -o run"));
  CHECK(answer(folder, 1) == right);
  CHECK(answer(folder, 2) == right);

  SUBCASE("assembly") {
    lathe_command(folder, fmt::format("compile lenet5 -o digits.s --emit asm {}", options));
    must(folder, program("digits", "digits.s -o run"));
    CHECK(answer(folder, 2) == right);
  }
  SUBCASE("LLVM IR") {
    lathe_command(folder, fmt::format("compile lenet5 -o digits.ll --emit llvm {}", options));
    CHECK(contents(folder.path("digits.ll")).contains("define i32 @digits_run("));
  }
  SUBCASE("a shared library") {
    lathe_command(folder, fmt::format("compile lenet5 -o libdigits.so --emit shared {}", options));
    must(folder, "mv libdigits.h digits.h");
    must(folder, program("digits", "-L. -ldigits -Wl,-rpath,. -o run"));
    CHECK(answer(folder, 2) == right);
    CHECK(must(folder, "nm -D -u libdigits.so") == "");
    CHECK(!must(folder, "readelf -lW libdigits.so").contains("RWE"));
    CHECK(!must(folder, "readelf -dW libdigits.so").contains("TEXTREL"));
    // The same object, every time.
    must(folder, "cp digits.o first.o");
    lathe_command(folder, fmt::format("compile lenet5 -o digits.o {}", options));
    CHECK(contents(folder.path("digits.o")) == contents(folder.path("first.o")));
  }
}

TEST_CASE("subnormal numbers count as zero, on all threads") {
  const Scratch folder;
  make_input(folder, {1, 3, 64, 64}, 2e-38f);
  folder.write("n.net", "network n {\n  input x 3x64x64\n  conv 8 3x3 bias false\n}\n");
  lathe_command(folder, "compile n.net -o n.o");
  must(folder, program("n", "n.o -o run"));
  const std::string right = expected(folder, "n.net");
  CHECK(answer(folder, 1) == right);
  const Answer two = run(folder, 2);
  CHECK(two.output == right);
  CHECK(two.forks > 0);
  std::vector<float> results(right.size() / sizeof(float));
  std::memcpy(results.data(), right.data(), right.size());
  CHECK(std::ranges::count(results, 0.f) > 100);
  CHECK(std::ranges::none_of(results, [](float x) { return std::fpclassify(x) == FP_SUBNORMAL; }));
}

TEST_CASE("two networks in one program") {
  const Scratch folder;
  lathe_command(folder, "compile lenet5 -o a.o --name a");
  lathe_command(folder, "compile lenet5 -o b.o --name b --random-weights");
  must(folder, program("a", "-c -o main_a.o -Dmain=main_a"));
  must(folder, program("b", "-c -o main_b.o -Dmain=main_b"));
  folder.write("both.c", "int main_a(int, char **), main_b(int, char **);\n"
                         "int main(int n, char **v) {\n"
                         "  int a = main_a(n, v);\n"
                         "  v[2] = \"b.raw\";\n"
                         "  return a ? a : main_b(n, v);\n"
                         "}\n");
  must(folder, "cc both.c main_a.o main_b.o a.o b.o -pthread -o run");
  make_input(folder, {1, 1, 32, 32});
  CHECK(answer(folder, 1) == expected(folder, "lenet5"));
  CHECK(contents(folder.path("b.raw")) == expected(folder, "lenet5 --random-weights"));
}

TEST_CASE("weights in a file") {
  const Scratch folder;
  make_input(folder, {1, 1, 32, 32});
  lathe_command(folder, "compile lenet5 -o lenet5.o --weights-in file");
  must(folder, program("lenet5", "lenet5.o -o run"));
  CHECK(answer(folder, 2, "lenet5.weights") == expected(folder, "lenet5"));

  lathe_command(folder, "compile lenet5 -o other.o --weights-in file --random-weights");
  std::string damaged = contents(folder.path("lenet5.weights"));
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
  folder.write("damaged.weights", damaged);
  folder.write("short.weights", damaged.substr(0, damaged.size() - 64));
  folder.write("empty.weights", "");
  constexpr int null_argument = 1, wrong_weights = 5;
  for (const char *file : {"other.weights", "damaged.weights", "short.weights", "empty.weights"}) {
    CAPTURE(file);
    const Outcome outcome = shell(folder, fmt::format("./run in.raw out.raw 1 {}", file));
    CHECK(outcome.code == wrong_weights);
    CHECK(outcome.out.contains("not those that this code was compiled with"));
  }
  CHECK(shell(folder, "./run in.raw out.raw 1").code == null_argument);
}

#if defined(__x86_64__)
TEST_CASE("several targets in one library") {
  const Scratch folder;
  make_input(folder, {1, 3, 64, 64});
  const std::string model = "squeezenet1_1 --set size=64 --set classes=10";
  lathe_command(
      folder, fmt::format("compile {} -o net.o --name net --target-cpu plain,avx512,avx2", model));
  CHECK(contents(folder.path("net.h")).contains("for avx512, avx2, plain."));
  must(folder, program("net", "net.o -static -o run"));
  auto check = [&](const Answer &answer) {
    CHECK(answer.output ==
          expected(folder, fmt::format("{} --target-cpu {}", model, answer.target)));
    return answer.target;
  };
  check(run(folder, 2));

  if (!have("qemu-x86_64-static")) return;
  // All that qemu can do goes up to AVX2; its qemu64 is the first x86-64.
  const std::string qemu = "qemu-x86_64-static -cpu ";
  CHECK(check(run(folder, 2, "", qemu + "qemu64")) == "plain");
  CHECK(check(run(folder, 1, "", qemu + "max")) == "avx2");

  lathe_command(folder,
                fmt::format("compile {} -o net.o --name net --target-cpu avx512,avx2", model));
  must(folder, program("net", "net.o -static -o run"));
  const Outcome outcome = shell(folder, qemu + "qemu64 ./run in.raw out.raw 1");
  constexpr int unsupported_cpu = 6;
  CHECK(outcome.code == unsupported_cpu);
  CHECK(outcome.out.contains("this CPU lacks"));
}
#endif

TEST_CASE("AArch64") {
  if (!have("aarch64-linux-gnu-gcc") || !have("qemu-aarch64-static")) return;
  const Scratch folder;
  const Tensor input = make_input(folder, {1, 3, 64, 64});
  const std::string model = "squeezenet1_1 --set size=64 --set classes=10";
  lathe_command(folder, fmt::format("compile {} -o net.o --name net --target-cpu neon", model));
  CHECK(must(folder, "aarch64-linux-gnu-nm -u net.o") == "");
  must(folder, program("net", "net.o -static -o run", "aarch64-linux-gnu-gcc"));
  const std::string one = run(folder, 1, "", "qemu-aarch64-static").output;
  CHECK(run(folder, 3, "", "qemu-aarch64-static").output == one);

  auto graph =
      load_bundled("squeezenet1_1", {.parameters = {{"size", 64}, {"classes", 10}}, .include = {}});
  REQUIRE(graph);
  REQUIRE(randomise_weights(*graph, 0));
  auto reference = evaluate(*graph, std::vector{input});
  REQUIRE(reference);
  Tensor result(DType::f32, (*reference)[0].shape());
  REQUIRE(one.size() == result.bytes());
  std::memcpy(result.raw_mutable(), one.data(), one.size());
  CHECK(compare(result, (*reference)[0]).within(1e-4));

  lathe_command(folder, fmt::format("compile {} -o net.so --emit shared --target-cpu neon", model));
  CHECK(must(folder, "readelf -hW net.so").contains("AArch64"));
}

TEST_CASE("names from a model's file stay inside the header's comment") {
  const Scratch folder;
  folder.write("2*.net", "network n {\n  input \"a*/ int b; /*\" 3x8x8\n"
                         "  \"?\?/\\\": conv 2 1x1\n}\n");
  lathe_command(folder, "compile '2*.net' -o net.o");
  must(folder, "cc -std=c99 -Wall -Wextra -Werror -pedantic -x c -fsyntax-only net.h");
  CHECK(contents(folder.path("net.h")).contains("int net2__run("));
}

namespace {

// What a library's own code answers, linked into this process, with jobs that run in reverse.
std::vector<Tensor> run_library(const Graph &graph, const Plan &plan, std::vector<Tensor> inputs,
                                int64_t images, int threads) {
  auto weights = pack_for_library({&plan, 1});
  REQUIRE(weights);
  NetworkLibrary library{.name = "net",
                         .images = images,
                         .variants = {{&plan, weights->places[0]}},
                         .weights = weights->header,
                         .own_weights = weights->bytes};
  auto object = compile_library(library);
  REQUIRE_MESSAGE(object, to_string(object.error()));
  const std::span<const char> code_bytes(object->bytes);
  auto image = link_image({&code_bytes, 1});
  REQUIRE_MESSAGE(image, to_string(image.error()));
  auto code = LoadedCode::load(*image);
  REQUIRE_MESSAGE(code, to_string(code.error()));
  auto find = [&]<typename Function>(const char *name, Function *&function) {
    auto found = (*code)->find(name);
    REQUIRE(found);
    function = reinterpret_cast<Function *>(reinterpret_cast<void (*)()>(*found));
  };
  struct Network {
    const void *weights;
    int variant;
  } network;
  struct Parallel {
    void (*parallel_for)(void *, int, void (*)(void *, int), void *);
    void *pool;
    int threads;
  } parallel{[](void *, int jobs, void (*job)(void *, int), void *context) {
               while (jobs-- > 0) job(context, jobs);
             },
             nullptr, threads};
  int (*init)(Network *, const void *, size_t) = nullptr;
  int (*run)(const Network *, void *, size_t, const void *const *, void *const *,
             const Parallel *) = nullptr;
  find("net_init", init);
  find("net_run", run);
  REQUIRE(init(&network, nullptr, 0) == 0);

  std::vector<Tensor> outputs;
  std::vector<const void *> from;
  std::vector<void *> to;
  for (const Tensor &input : inputs) from.push_back(input.raw());
  for (ValueId id : graph.outputs)
    outputs.emplace_back(graph.type(id).dtype, with_images(plan, graph.shape(id), images));
  for (Tensor &output : outputs) to.push_back(output.raw_mutable());
  const int64_t bytes = library.arena_bytes() + threads * library.scratch_per_thread();
  const Memory arena = allocate(size_t(bytes));
  REQUIRE(run(&network, arena.get(), size_t(bytes), from.data(), to.data(), &parallel) == 0);
  return outputs;
}

} // namespace

TEST_CASE("libraries of random graphs") {
  constexpr int64_t images = 3;
  for (uint64_t seed = 900; seed < 960; ++seed) {
    CAPTURE(seed);
    CompileOptions options;
    options.plan.any_algorithm = seed;
    auto executable = Executable::compile(random_graph(seed), options);
    REQUIRE_MESSAGE(executable, to_string(executable.error()));
    auto request = Request::create(*executable, images);
    REQUIRE(request);
    const auto inputs = random_inputs((*executable)->graph(), seed, images);
    for (size_t i = 0; i < inputs.size(); ++i) REQUIRE((*request)->set_input(i, inputs[i]));
    (*request)->run();
    const auto outputs = run_library((*executable)->graph(), (*executable)->plan(), inputs, images,
                                     1 + int(seed % 3));
    for (size_t j = 0; j < outputs.size(); ++j)
      CHECK(std::memcmp(outputs[j].raw(), (*request)->output(j).raw(), outputs[j].bytes()) == 0);
  }
}

TEST_CASE("what compile refuses") {
  const Scratch folder;
  auto refuses = [&](const std::string &arguments, int code, const std::string &part) {
    const Outcome outcome =
        shell(folder, fmt::format("{} compile lenet5 {}", LATHE_PROGRAM, arguments));
    CAPTURE(arguments);
    CAPTURE(outcome.out);
    CHECK(outcome.code == code);
    CHECK(outcome.out.contains(part));
  };
  refuses("", 2, "--output");
  refuses("-o net.o --emit elf", 2, "elf");
  refuses("-o net.o --name 2nd", 2, "'2nd'");
  refuses("-o net.o --name 'a b'", 2, "a letter, then letters");
  refuses("-o net.o --batch 0", 2, "batch");
  refuses("-o net.o --target-cpu avx2,neon", 2, "one architecture");
  refuses("-o net.o --target-cpu avx2,x86-64-v3", 2, "twice");
  refuses("-o net.o --target-cpu avx2,", 2, "unknown target CPU");
  refuses("-o net.h", 2, "beside it");
  refuses("-o net.o --memory-limit 1000", 6, "1000");
  refuses("-o nowhere/net.o", 5, "nowhere/net.h");
  fs::create_directory(folder.path("net.d"));
  refuses("-o net.d", 5, "directory");
  refuses("-o net.d --weights-in file", 5, "directory");
  CHECK(shell(folder,
              fmt::format("PATH=/nowhere {} compile lenet5 -o net.so --emit shared", LATHE_PROGRAM))
            .code == 4);
  CHECK(!fs::exists(folder.path("net.o")));
  CHECK(!fs::exists(folder.path("net.h")));
  CHECK(!fs::exists(folder.path("net.weights")));
}
