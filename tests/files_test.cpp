// Files of strangers and files for them: the door to what a model's file names, what happens where
// a file changes while it is in use, and how files are written.
#include "frontend/net.h"
#include "frontend/onnx.h"
#include "frontend/safetensors.h"
#include "frontend/weights.h"
#include "ir/evaluate.h"
#include "ir/system/mapped_file.h"
#include "ir/system/mapping.h"
#include "ir/system/output_file.h"
#include "tests/onnx_builder.h"
#include "tests/scratch.h"

#include <algorithm>
#include <csignal>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace lathe::core;
namespace fs = std::filesystem;

namespace {

Result<void> write(const std::string &path, const std::string &text) {
  return write_file(path, {as_bytes(text)});
}
std::vector<std::string> names_in(const fs::path &folder) {
  std::vector<std::string> names;
  for (const auto &entry : fs::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}
using FileNames = std::vector<std::string>;

// What the door gives: the text, or the error.
std::string beneath(const fs::path &folder, const std::string &path) {
  auto file = MappedFile::open_beneath(folder.string(), path);
  return file ? std::string((*file)->text()) : to_string(file.error());
}
bool contains(const std::string &text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

} // namespace

// ---- Reading

TEST_CASE("the links of Hugging Face's cache, and no others, pass the door") {
  Scratch scratch;
  const fs::path hub = scratch.path("hub"), store = hub / "models--some--net";
  const fs::path snapshot = store / "snapshots" / "4fa1", onnx = snapshot / "onnx";
  fs::create_directories(onnx);
  fs::create_directories(store / "blobs" / "deep");
  fs::create_directories(store / "refs");
  fs::create_directories(hub / "models--other--net" / "blobs");
  std::ofstream(store / "blobs" / "abc") << "a blob";
  std::ofstream(store / "blobs" / "deep" / "abc") << "too deep";
  std::ofstream(store / "refs" / "main") << "no blob";
  std::ofstream(store / "secret") << "secret";
  std::ofstream(hub / "models--other--net" / "blobs" / "abc") << "another's blob";
  fs::create_symlink("../secret", store / "blobs" / "link");
  fs::create_hard_link(store / "secret", store / "blobs" / "hard");
  fs::create_symlink("../../blobs/abc", snapshot / "data");
  fs::create_symlink("../../../blobs/abc", onnx / "data");
  CHECK(beneath(snapshot, "data") == "a blob");
  CHECK(beneath(snapshot, "onnx/data") == "a blob");
  CHECK(beneath(onnx, "data") == "a blob");
  // As a shell in the snapshot names them.
  const fs::path before = fs::current_path();
  fs::current_path(snapshot);
  CHECK(beneath("", "data") == "a blob");
  CHECK(beneath("onnx", "data") == "a blob");
  fs::current_path(before);

  for (const char *target :
       {"../../secret", "../../refs/main", "../../blobs/../secret", "../../blobs/link",
        "../../blobs/deep/abc", "../../blobs/", "../../blobs", "../../blobs/..", "../blobs/abc",
        "../../../blobs/abc", "../../../models--other--net/blobs/abc", "./../../blobs/abc",
        "../../blobs//abc", "../../blobs/none"}) {
    CAPTURE(target);
    fs::remove(snapshot / "bad");
    fs::create_symlink(target, snapshot / "bad");
    const std::string error = beneath(snapshot, "bad");
    CHECK_MESSAGE(contains(error, "symbolic link"), error);
    CHECK_MESSAGE(contains(error, std::string("found a link to '") + target), error);
  }
  fs::remove(snapshot / "bad");
  fs::create_symlink((store / "blobs" / "abc").string(), snapshot / "bad"); // absolute
  CHECK(contains(beneath(snapshot, "bad"), "symbolic link"));
  fs::remove(snapshot / "bad");
  fs::create_symlink("../../blobs/hard", snapshot / "bad");
  CHECK(contains(beneath(snapshot, "bad"), "hard links"));
  // The same names elsewhere are no store: the folder must be below `snapshots`.
  fs::create_directories(store / "other" / "4fa1");
  fs::create_symlink("../../blobs/abc", store / "other" / "4fa1" / "data");
  CHECK(contains(beneath(store / "other" / "4fa1", "data"), "symbolic link"));
  // What the message quotes of a link is printable.
  fs::create_symlink("\x1b[2J\n", snapshot / "control");
  CHECK(contains(beneath(snapshot, "control"), "found a link to '?[2J?'"));
}

TEST_CASE("an include leads nowhere but beside its file") {
  Scratch scratch;
  const std::string main = scratch.path("folder/main.net");
  fs::create_directories(scratch.path("folder/sub.net"));
  scratch.write("secret.net", "password: hunter2 and more\n");
  scratch.write("folder/block.net", "block part(n) { conv n 1x1 bias }\n");
  fs::create_symlink("../secret.net", scratch.path("folder/link.net"));
  fs::create_symlink("block.net", scratch.path("folder/near.net"));
  fs::create_hard_link(scratch.path("secret.net"), scratch.path("folder/hard.net"));
  fs::create_symlink("/dev/zero", scratch.path("folder/zero.net"));
  REQUIRE(mkfifo(scratch.path("folder/fifo.net").c_str(), 0600) == 0);
  auto load = [&](const std::string &name) {
    std::ofstream(main) << "include \"" << name
                        << "\"\nnetwork n { input x 1x2x2; p: conv 2 1x1 }\n";
    auto graph = load_net(main);
    return graph ? std::string("good") : to_string(graph.error());
  };
  CHECK(load("block.net") == "good");
  for (const auto &[name, reason] : {std::pair{"link.net", "a link to '../secret.net'"},
                                     {"near.net", "a link to 'block.net'"},
                                     {"hard.net", "hard links"},
                                     {"zero.net", "a link to '/dev/zero'"},
                                     {"fifo.net", "not a regular file"},
                                     {"sub.net", "not a regular file"},
                                     {"none.net", "cannot open"},
                                     {"../secret.net", "no plain name"},
                                     {"", "no plain name"},
                                     {"/dev/zero", "no plain name"},
                                     {"sub.net/../../secret.net", "no plain name"}}) {
    CAPTURE(name);
    const std::string error = load(name);
    CHECK_MESSAGE(contains(error, reason), error);
    CHECK(!contains(error, "hunter2"));
  }
  // From the folder itself, and in a cache.
  const fs::path before = fs::current_path();
  fs::current_path(scratch.path("folder"));
  std::ofstream("main.net") << "include \"block.net\"\nnetwork n { input x 1x2x2; part(2) }\n";
  CHECK(load_net("main.net"));
  fs::current_path(before);
  const std::string snapshot = scratch.path("models--a--b/snapshots/1");
  fs::create_directories(snapshot);
  fs::create_directories(scratch.path("models--a--b/blobs"));
  fs::rename(main, scratch.path("models--a--b/blobs/m"));
  fs::rename(scratch.path("folder/block.net"), scratch.path("models--a--b/blobs/b"));
  fs::create_symlink("../../blobs/m", snapshot + "/main.net");
  fs::create_symlink("../../blobs/b", snapshot + "/block.net");
  CHECK(load_net(snapshot + "/main.net"));
}

namespace {

constexpr int64_t many = 1 << 19; // floats: a file that is mapped

std::string weights_file(const Scratch &scratch, float value) {
  const std::string path = scratch.path("w.safetensors");
  REQUIRE(write_safetensors(path, {{"w", Tensor::splat(value, {many})}}));
  return path;
}

// y = x + w, with w from a file.
Graph sum_with(const std::string &file) {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::f32, {1, many}});
  const ValueId w = graph.add_constant("w", named_constant("w", {DType::f32, {many}}));
  graph.outputs = {graph.add_node("y", Binary{BinaryKind::add}, {x, w}).value()};
  REQUIRE(bind_weights(graph, WeightsFile::open(file).value()));
  return graph;
}

} // namespace

TEST_CASE("weights whose file is cut are an error, not the program's end") {
  Scratch scratch;
  const std::string path = weights_file(scratch, 0.5f);
  const Graph graph = sum_with(path);
  const Tensor x = Tensor::splat(1, {1, many});
  CHECK(evaluate(graph, {&x, 1}).value()[0].f32()[many - 1] == 1.5f);
  const auto whole = fs::file_size(path);
  for (uintmax_t size : {whole - 4, whole / 2, uintmax_t{100}, uintmax_t{0}}) {
    CAPTURE(size);
    fs::resize_file(path, size);
    auto result = evaluate(graph, {&x, 1});
    REQUIRE_FALSE(result);
    CHECK(result.error().code == ErrorCode::io);
    CHECK(result.error().file == path);
    CHECK(contains(result.error().message, "changed while it was in use"));
  }
}

TEST_CASE("what was in a file is checked to be there still") {
  Scratch scratch;
  const std::string path = weights_file(scratch, 0.5f);
  const auto file = MappedFile::open(path).value();
  REQUIRE(is_mapped(file->bytes()));
  CHECK(check_unchanged(file->bytes()));
  // Replaced by renaming: the old one is what it was.
  weights_file(scratch, 2);
  CHECK(check_unchanged(file->bytes()));
  const auto other = MappedFile::open(path).value();
  usleep(20'000); // the time that file systems tell apart
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary).seekp(5000).put('x').flush();
  CHECK(check_unchanged(file->bytes()));
  CHECK(check_unchanged(other->bytes()).error().code == ErrorCode::io);
  // Other memory is nobody's business.
  const std::string own(1000, 'x');
  CHECK(!is_mapped(as_bytes(own)));
  CHECK(check_unchanged(as_bytes(own)));
  const auto small = MappedFile::open(scratch.write("small", "abc")).value();
  CHECK(!is_mapped(small->bytes()));
  CHECK(small->text() == "abc");
}

TEST_CASE("files are opened while they are being cut") {
  Scratch scratch;
  const Tensor weight = Tensor::splat(1, {many});
  test::OnnxBuilder b;
  b.input("x", {1, many}).weight("w", weight).node("Add", {"x", "w"}, {"y"}).output("y");
  const std::string model = b.model(), weights = encode_safetensors({{"w", weight}});
  const std::string onnx = scratch.path("m.onnx"), file = scratch.path("w.safetensors");
  // Another process cuts and mends them all the time.
  const pid_t other = fork();
  if (other == 0) {
    for (unsigned i = 0;; ++i)
      for (const auto &[path, bytes] : {std::pair(&onnx, &model), std::pair(&file, &weights)}) {
        const int to = open(path->c_str(), O_WRONLY | O_CREAT, 0600);
        [[maybe_unused]] const ssize_t n = pwrite(to, bytes->data(), bytes->size(), 0);
        [[maybe_unused]] const int cut = ftruncate(to, off_t(bytes->size() * (i % 7) / 7));
        close(to);
      }
  }
  int good = 0, refused = 0;
  const Tensor x = Tensor::splat(1, {1, many});
  for (int i = 0; i < 400; ++i) {
    auto opened = OnnxModel::open(onnx);
    auto graph = opened ? opened->graph() : Result<Graph>(std::unexpected(opened.error()));
    auto result = graph ? evaluate(*graph, {&x, 1})
                        : Result<std::vector<Tensor>>(std::unexpected(graph.error()));
    ++(result ? good : refused);
    CHECK((result || result.error().code == ErrorCode::io ||
           result.error().code == ErrorCode::invalid));
    auto w = WeightsFile::open(file);
    CHECK((w || w.error().code == ErrorCode::io || w.error().code == ErrorCode::invalid));
  }
  kill(other, SIGKILL);
  waitpid(other, nullptr, 0);
  CHECK(good + refused == 400);
  CHECK(refused > 0);
}

TEST_CASE("a large model's structure is read without its weights") {
  Scratch scratch;
  Tensor weight(DType::f32, {many});
  for (int64_t i = 0; i < many; ++i) weight.f32_mutable()[size_t(i)] = float(i);
  test::OnnxBuilder b;
  b.input("x", {1, many}).weight("w", weight).weight("k", Tensor::splat(2, {1}));
  b.node("Add", {"x", "w"}, {"s"}).node("Mul", {"s", "k"}, {"y"}).output("y");
  const std::string path = scratch.write("m.onnx", b.model());
  const auto graph = OnnxModel::open(path).value().graph().value();
  const Tensor x = Tensor::splat(1, {1, many});
  const Tensor y = evaluate(graph, {&x, 1}).value()[0];
  CHECK(y.f32()[0] == 2);
  CHECK(y.f32()[many - 1] == 2 * float(many));
  // The same from memory, and what is damaged is refused alike.
  const std::string bytes = b.model();
  CHECK(OnnxModel::parse(as_bytes(bytes), nullptr, "m.onnx").value().graph());
  for (size_t length :
       {bytes.size() - 1, bytes.size() - 30, bytes.size() / 2, bytes.size() * 2 / 3})
    CHECK(OnnxModel::open(scratch.write("cut.onnx", bytes.substr(0, length))).error().code ==
          ErrorCode::invalid);
}

// ---- Writing

TEST_CASE("a file is written whole, and nothing else is left") {
  Scratch scratch;
  const std::string path = scratch.path("out");
  REQUIRE(write(path, "first"));
  CHECK(contents(path) == "first");
  fs::permissions(path, fs::perms::owner_all | fs::perms::group_read);
  REQUIRE(write(path, "second"));
  CHECK(contents(path) == "second");
  CHECK(fs::status(path).permissions() == (fs::perms::owner_all | fs::perms::group_read));
  CHECK(names_in(scratch.path("")) == FileNames{"out"});
  const mode_t before = umask(027);
  REQUIRE(write(scratch.path("new"), "x"));
  umask(before);
  CHECK((fs::status(scratch.path("new")).permissions() & fs::perms::mask) ==
        (fs::perms::owner_read | fs::perms::owner_write | fs::perms::group_read));
  for (const char *bad : {"", "no/such/folder", ".", "..", "out/x", "/"}) {
    CAPTURE(bad);
    auto written = write(*bad == '/' || !*bad ? bad : scratch.path(bad), "x");
    REQUIRE_FALSE(written);
    CHECK(written.error().code == ErrorCode::io);
  }
  CHECK(contents(path) == "second");
}

TEST_CASE("planted files and links are not followed") {
  Scratch scratch;
  const std::string victim = scratch.write("victim", "precious"), path = scratch.path("out");
  // The name that was once used.
  fs::create_symlink(victim, path + ".part-" + std::to_string(getpid()));
  REQUIRE(write(path, "new"));
  CHECK(contents(victim) == "precious");
  CHECK(contents(path) == "new");
  // A hard link is parted from the other name.
  fs::remove(path);
  fs::create_hard_link(victim, path);
  REQUIRE(write(path, "new"));
  CHECK(contents(victim) == "precious");
  if (geteuid() != 0) return; // the rest needs another user
  for (bool pipe : {false, true}) {
    fs::remove(path);
    if (pipe)
      REQUIRE(mkfifo(path.c_str(), 0666) == 0);
    else
      fs::create_symlink(victim, path);
    REQUIRE(lchown(path.c_str(), 65534, 65534) == 0);
    // As another user again, who is not the owner, nor is root.
    const pid_t child = fork();
    if (child == 0) {
      if (chown(scratch.path("").c_str(), 1234, 1234) != 0 || chown(victim.c_str(), 1234, 1234) ||
          setuid(1234) != 0)
        _exit(2);
      auto written = write(path, "new");
      const bool refused = !written && contains(written.error().message, "of another user");
      _exit(refused && contents(victim) == "precious" ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(status == 0);
  }
}

TEST_CASE("one's own links stay, and lead where they led") {
  Scratch scratch;
  fs::create_directory(scratch.path("far"));
  scratch.write("far/target", "old");
  fs::create_symlink("far/target", scratch.path("link"));
  fs::create_symlink("link", scratch.path("again"));
  REQUIRE(write(scratch.path("again"), "new"));
  CHECK(contents(scratch.path("far/target")) == "new");
  CHECK(fs::is_symlink(scratch.path("link")));
  CHECK(fs::is_symlink(scratch.path("again")));
  // One that leads nowhere yet.
  fs::create_symlink(scratch.path("far/fresh"), scratch.path("dangling"));
  REQUIRE(write(scratch.path("dangling"), "new"));
  CHECK(contents(scratch.path("far/fresh")) == "new");
  CHECK(fs::is_symlink(scratch.path("dangling")));
  fs::create_symlink("loop", scratch.path("loop"));
  CHECK(write(scratch.path("loop"), "x").error().code == ErrorCode::io);
  CHECK(names_in(scratch.path("far")) == FileNames{"fresh", "target"});
}

TEST_CASE("devices, pipes and open descriptors are written to as they are") {
  Scratch scratch;
  CHECK(write("/dev/null", "x"));
  CHECK(contains(write("/dev/full", "x").error().message, "No space left"));
  CHECK(write("/dev/fd/999", "x").error().code == ErrorCode::io);
  // Behind what stood in the descriptor's file before.
  const std::string path = scratch.write("log", "before ");
  const int file = open(path.c_str(), O_WRONLY | O_APPEND);
  for (const char *name : {"/dev/fd/", "/proc/self/fd/"})
    CHECK(write(name + std::to_string(file), "x"));
  fs::create_symlink("/dev/fd/" + std::to_string(file), scratch.path("link"));
  CHECK(write(scratch.path("link"), "y"));
  close(file);
  CHECK(contents(path) == "before xxy");
  const std::string pipe = scratch.path("pipe");
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  CHECK(write(pipe, "through"));
  char text[8] = {};
  CHECK(read(reader, text, sizeof text) == 7);
  close(reader);
  CHECK(std::string(text) == "through");
  CHECK(fs::is_fifo(pipe));
}

TEST_CASE("what cannot be written leaves what was there") {
  Scratch scratch;
  const std::string first = scratch.write("first", "old 1"),
                    second = scratch.write("second", "old 2");
  const std::string text = "new";
  auto both = [&](const std::string &last) {
    const OutputFile files[] = {{first, {as_bytes(text)}}, {last, {as_bytes(text)}}};
    return write_files(files);
  };
  CHECK_FALSE(both(scratch.path("no/folder")));
  CHECK_FALSE(both(scratch.path("")));
  CHECK(contents(first) == "old 1");
  // A file that is larger than this process may write.
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit{1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    auto written = write(first, std::string(2000, 'x'));
    _exit(!written && written.error().code == ErrorCode::io ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(contents(first) == "old 1");
  REQUIRE(both(second));
  CHECK(contents(first) == "new");
  CHECK(contents(second) == "new");
  CHECK(names_in(scratch.path("")) == FileNames{"first", "second"});
}

TEST_CASE("a full disk leaves what was there") {
  Scratch scratch;
  const std::string disk = scratch.path("disk");
  fs::create_directory(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=64k") != 0) {
    MESSAGE("a small file system cannot be mounted here: not tried");
    return;
  }
  const std::string path = disk + "/out";
  const auto first = write(path, "old");
  const auto written = write(path, std::string(1 << 20, 'x'));
  const std::string left = contents(path);
  const FileNames names = names_in(disk);
  umount(disk.c_str());
  CHECK(first);
  REQUIRE_FALSE(written);
  CHECK(contains(written.error().message, "No space left"));
  CHECK(left == "old");
  CHECK(names == FileNames{"out"});
}
