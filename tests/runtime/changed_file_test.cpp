// Weights whose file changes: before, while and after a network is compiled from it.
#include "frontend/net.h"
#include "frontend/onnx.h"
#include "frontend/safetensors.h"
#include "frontend/weights.h"
#include "runtime/executable.h"
#include "tests/scratch.h"

#include <algorithm>
#include <csignal>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace lathe::core;
namespace fs = std::filesystem;

namespace {

// Weights of 16 MB, some packed and some used where they lie.
constexpr std::string_view text = "network n {\n"
                                  "  input x 3x16x16\n"
                                  "  a: conv 64 3x3 pad 1; relu; b: conv 512 3x3 pad 1; relu\n"
                                  "  global_avgpool; flatten; c: dense 4096; d: dense 10\n"
                                  "}\n";

Graph unbound() {
  auto graph = parse_net(text, "n.net");
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  return std::move(*graph);
}

std::map<std::string, Tensor> random_weights() {
  Graph graph = unbound();
  std::map<std::string, Tensor> weights;
  for (const Value &value : graph.values)
    if (value.constant)
      weights.emplace(value.constant->name,
                      random_tensor(value.constant->type, value.constant->name, 1));
  return weights;
}

// The file that a model is loaded from, with all that is in it.
struct File {
  Scratch folder;
  bool onnx;
  std::string path = folder.path(onnx ? "m.onnx" : "w.safetensors"), bytes;

  explicit File(bool is_onnx) : onnx(is_onnx) {
    const std::string weights = encode_safetensors(random_weights());
    bytes = weights;
    if (onnx) {
      Graph graph = unbound();
      REQUIRE(
          bind_weights(graph, WeightsFile::parse(as_bytes(weights), nullptr, "memory").value()));
      bytes = write_onnx(graph).value();
    }
    mend();
  }
  void mend() const { std::ofstream(path, std::ios::binary) << bytes; }
  Result<Graph> load() const {
    if (onnx) {
      LATHE_TRY(const OnnxModel model, OnnxModel::open(path));
      return model.graph();
    }
    Graph graph = unbound();
    LATHE_TRY(const WeightsFile file, WeightsFile::open(path));
    LATHE_TRY(const BindReport report, bind_weights(graph, file));
    return graph;
  }
};

std::vector<float> run(const std::shared_ptr<const Executable> &executable) {
  auto request = Request::create(executable).value();
  REQUIRE(request->set_input(0, random_tensor(executable->plan().inputs[0], "x", 7)));
  request->run();
  const std::span<const float> scores = request->output(0).f32();
  return {scores.begin(), scores.end()};
}

} // namespace

TEST_CASE("a file that is cut or written to before the network is compiled") {
  for (bool onnx : {false, true}) {
    const File file(onnx);
    CAPTURE(onnx);
    for (const uintmax_t size : {file.bytes.size() - 4, file.bytes.size() / 2, size_t{0}}) {
      CAPTURE(size);
      file.mend();
      auto graph = file.load();
      REQUIRE(graph);
      fs::resize_file(file.path, size);
      auto executable = Executable::compile(std::move(*graph));
      REQUIRE_FALSE(executable);
      CHECK(executable.error().code == ErrorCode::io);
      CHECK(executable.error().file == file.path);
    }
    file.mend();
    auto graph = file.load();
    REQUIRE(graph);
    usleep(20'000); // the time that file systems tell apart
    std::fstream other(file.path, std::ios::in | std::ios::out | std::ios::binary);
    other.seekp(int64_t(file.bytes.size()) - 2).put('x').flush();
    auto executable = Executable::compile(std::move(*graph));
    REQUIRE_FALSE(executable);
    CHECK(executable.error().message.contains("changed while it was in use"));
  }
}

TEST_CASE("a file that is cut while the network is compiled") {
  for (const std::string &cache : {std::string(), std::string("cache")})
    for (bool onnx : {false, true}) {
      const File file(onnx);
      CAPTURE(onnx);
      CompileOptions options;
      options.copy_weights = true;
      if (!cache.empty()) options.cache.directory = file.folder.path(cache);
      const std::vector<float> expected =
          run(Executable::compile(file.load().value(), options).value());
      int good = 0, refused = 0;
      for (int i = 0; i < 60; ++i) {
        file.mend();
        auto graph = file.load();
        REQUIRE(graph);
        if (!cache.empty()) fs::remove_all(options.cache.directory);
        // Another process, after a while.
        const pid_t other = fork();
        if (other == 0) {
          usleep(useconds_t(i * 500));
          _exit(truncate(file.path.c_str(), off_t(file.bytes.size() * size_t(i % 3) / 3)));
        }
        auto executable = Executable::compile(std::move(*graph), options);
        int status = 0;
        waitpid(other, &status, 0);
        REQUIRE(status == 0);
        if (executable) {
          CHECK(run(*executable) == expected);
        } else {
          CHECK(executable.error().code == ErrorCode::io);
        }
        ++(executable ? good : refused);
      }
      MESSAGE(fmt::format("{} compiled, {} refused", good, refused));
      CHECK(refused > 0);
    }
}

TEST_CASE("copied weights do not need their file any more") {
  for (bool onnx : {false, true})
    for (bool cached : {false, true}) {
      const File file(onnx);
      CAPTURE(onnx);
      CAPTURE(cached);
      CompileOptions options;
      options.copy_weights = true;
      if (cached) {
        options.cache.directory = file.folder.path("cache");
        REQUIRE(Executable::compile(file.load().value(), options));
      }
      const auto executable = Executable::compile(file.load().value(), options).value();
      CHECK(executable->cache_use().weights.found == cached);
      CHECK(std::ranges::any_of(executable->plan().weights, lies_in_place));
      const std::vector<float> expected = run(executable);
      std::ofstream(file.path, std::ios::in | std::ios::binary)
          << std::string(file.bytes.size(), '\x41');
      CHECK(run(executable) == expected);
      fs::resize_file(file.path, 0);
      CHECK(run(executable) == expected);
    }
}

TEST_CASE("the command line ends with an error where its file is cut under it") {
  const File file(false);
  const std::string net = file.folder.write("n.net", std::string(text));
  const std::string command =
      fmt::format("{} bench {} -w {} --duration 5 >/dev/null 2>{}", LATHE_PROGRAM, net, file.path,
                  file.folder.path("messages"));
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", ("exec " + command).c_str(), nullptr);
    _exit(127);
  }
  sleep(3);
  fs::resize_file(file.path, 0);
  int status = 0;
  waitpid(child, &status, 0);
  const std::string messages = contents(file.folder.path("messages"));
  CAPTURE(messages);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == int(ErrorCode::io));
  // The latter on a machine so busy that it was still compiling.
  CHECK((messages.contains("cut short") || messages.contains("changed while it was in use")));
}
