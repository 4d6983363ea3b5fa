// The cache: the same answers with it as without, whatever became of its files; and the images of
// code that it keeps.
#include "frontend/bundled.h"
#include "frontend/npy.h"
#include "frontend/weights.h"
#include "runtime/cache.h"
#include "runtime/executable.h"
#include "tests/scratch.h"

#include <algorithm>
#include <csignal>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace lathe::core;
namespace fs = std::filesystem;

namespace {

Graph model(uint64_t seed = 1) {
  auto graph = load_bundled("lenet5");
  REQUIRE(graph);
  REQUIRE(randomise_weights(*graph, seed));
  return std::move(*graph);
}

CompileOptions with_cache(const std::string &directory) {
  CompileOptions options;
  options.cache.directory = directory;
  return options;
}

struct Outcome {
  CacheUse use;
  std::vector<float> scores;
  bool operator==(const std::vector<float> &expected) const { return scores == expected; }
};
// Compiles and runs: never an error, whatever the cache is like.
Outcome run(const CompileOptions &options, uint64_t seed = 1) {
  auto executable = Executable::compile(model(seed), options);
  REQUIRE_MESSAGE(executable, to_string(executable.error()));
  auto request = Request::create(*executable);
  REQUIRE(request);
  const Type &type = (*executable)->plan().inputs[0];
  REQUIRE((*request)->set_input(0, random_tensor(type, "x", 7)));
  (*request)->run();
  const std::span<const float> scores = (*request)->output(0).f32();
  return {(*executable)->cache_use(), {scores.begin(), scores.end()}};
}

bool all_found(const CacheUse &use) { return use.code.found && use.weights.found; }
std::string notes(const CacheUse &use) {
  return use.directory.note + use.code.note + use.weights.note;
}

std::vector<std::string> files(const std::string &directory) {
  std::vector<std::string> found;
  for (const auto &file : fs::directory_iterator(directory)) found.push_back(file.path().string());
  std::ranges::sort(found);
  return found;
}

Cache open(const CacheOptions &options) {
  auto cache = Cache::open(options);
  REQUIRE_MESSAGE(cache, to_string(cache.error()));
  return std::move(*cache);
}
size_t bad_entries(const std::string &directory) {
  CacheOptions options;
  options.directory = directory;
  auto entries = open(options).entries(true);
  REQUIRE(entries);
  return size_t(std::ranges::count_if(*entries, [](auto &e) { return !e.problem.empty(); }));
}

void overwrite(const std::string &path, const std::string &bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// Runs `work` in a process of its own; whether it returned true.
template <typename Work> bool in_child(const Work &work) {
  const pid_t child = fork();
  if (child == 0) _exit(work() ? 0 : 1);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

} // namespace

TEST_CASE("the same bits from the cache, from compiling into it, and without one") {
  Scratch scratch;
  const std::string folder = scratch.path("new/cache");
  const std::vector<float> expected = run({}).scores;
  const Outcome first = run(with_cache(folder)), second = run(with_cache(folder));
  CHECK(first == expected);
  CHECK(second == expected);
  CHECK(!first.use.code.found);
  CHECK(!first.use.weights.found);
  CHECK(all_found(second.use));
  CHECK(notes(first.use) == "");
  CHECK(notes(second.use) == "");
  struct stat status{};
  REQUIRE(stat(folder.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0700);
  REQUIRE(files(folder).size() == 2);
  for (const std::string &file : files(folder)) {
    REQUIRE(stat(file.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
  }
  CHECK(bad_entries(folder) == 0);
}

TEST_CASE("other weights, options and targets have entries of their own") {
  Scratch scratch;
  const std::string folder = scratch.path("cache");
  std::vector<CompileOptions> variants(4);
  variants[1].plan.strict = true;
  variants[2].target = *find_target("plain");
  variants[3].passes.disabled = {"fuse_post_ops", "fuse_bias"};
  for (int round = 0; round < 2; ++round)
    for (uint64_t seed : {1, 2})
      for (CompileOptions options : variants) {
        const std::vector<float> expected = run(options, seed).scores;
        options.cache.directory = folder;
        const Outcome outcome = run(options, seed);
        CHECK(outcome == expected);
        if (round == 1) CHECK(all_found(outcome.use));
      }
  // Code is shared by other weights.
  CompileOptions options = with_cache(folder);
  const Outcome other = run(options, 3);
  CHECK(other.use.code.found);
  CHECK(!other.use.weights.found);
}

TEST_CASE("a bit that flipped anywhere is noticed, and the entry made anew") {
  Scratch scratch;
  const std::string folder = scratch.path("cache");
  const std::vector<float> expected = run(with_cache(folder)).scores;
  for (const std::string &file : files(folder)) {
    const std::string good = contents(file);
    for (size_t at = 0; at < good.size(); at += at < 240 ? 29 : 1499) {
      CAPTURE(file);
      CAPTURE(at);
      std::string bad = good;
      bad[at] = char(bad[at] ^ 1 << at % 8);
      overwrite(file, bad);
      CHECK(bad_entries(folder) == 1);
      const Outcome outcome = run(with_cache(folder));
      CHECK(outcome == expected);
      CHECK(outcome.use.code.found != outcome.use.weights.found);
      CHECK(notes(outcome.use).contains("damaged"));
      CHECK(contents(file) == good);
    }
  }
}

TEST_CASE("entries that are cut short, empty, too long, or another's") {
  Scratch scratch;
  const std::string folder = scratch.path("cache");
  const std::vector<float> expected = run(with_cache(folder)).scores;
  const std::string code = files(folder)[0], weights = files(folder)[1];
  const std::string good = contents(weights);
  for (const std::string &bad :
       {good.substr(0, good.size() - 1), good.substr(0, 100), good.substr(0, good.size() / 2),
        std::string(), good + "x", contents(code)}) {
    overwrite(weights, bad);
    CHECK(bad_entries(folder) == 1);
    CHECK(run(with_cache(folder)) == expected);
    CHECK(contents(weights) == good);
  }
}

TEST_CASE("what is no private file of this user's is not read") {
  Scratch scratch;
  const std::string folder = scratch.path("cache");
  const std::vector<float> expected = run(with_cache(folder)).scores;
  const std::string code = files(folder)[0], good = contents(code);
  const std::string elsewhere = scratch.write("elsewhere", good);
  auto put = [&](const char *what) {
    fs::remove_all(code);
    const std::string kind = what;
    if (kind == "link") fs::create_symlink(elsewhere, code);
    if (kind == "fifo") REQUIRE(mkfifo(code.c_str(), 0600) == 0);
    if (kind == "folder") fs::create_directory(code);
    if (kind == "writable" || kind == "foreign") overwrite(code, good);
    if (kind == "writable") REQUIRE(chmod(code.c_str(), 0660) == 0);
    if (kind == "foreign") REQUIRE(chown(code.c_str(), 65534, 65534) == 0);
  };
  for (const char *what : {"link", "fifo", "folder", "writable", "foreign"}) {
    CAPTURE(what);
    if (std::string(what) == "foreign" && geteuid() != 0) continue; // needs the right to give away
    put(what);
    CHECK(bad_entries(folder) == 1);
    const Outcome outcome = run(with_cache(folder));
    CHECK(outcome == expected);
    CHECK(!outcome.use.code.found);
    CHECK(outcome.use.code.note != "");
    // Replaced, but for a folder.
    CHECK(all_found(run(with_cache(folder)).use) == (std::string(what) != "folder"));
  }
  CHECK(contents(elsewhere) == good);
}

TEST_CASE("a directory that others may write to, or no directory, is not used") {
  Scratch scratch;
  const std::vector<float> expected = run({}).scores;
  const std::string open_to_all = scratch.path("open"), file = scratch.write("file", "x");
  fs::create_directory(open_to_all);
  REQUIRE(chmod(open_to_all.c_str(), 0777) == 0);
  for (const std::string &folder : {open_to_all, file, file + "/below", std::string("/proc/new")}) {
    CAPTURE(folder);
    const Outcome outcome = run(with_cache(folder));
    CHECK(outcome == expected);
    CHECK(!outcome.use.directory.found);
    CHECK(outcome.use.directory.note != "");
  }
  CHECK(files(open_to_all).empty());
}

TEST_CASE("the least recently used entries go when the limit is reached") {
  Scratch scratch;
  CacheOptions options;
  options.directory = scratch.path("cache");
  options.limit_bytes = 5000;
  const Cache cache = open(options);
  const std::string content(1000, 'x');
  auto key = [](int64_t number) {
    CacheKey key("costs");
    key.add(number);
    return key;
  };
  auto found = [&](int64_t number) {
    auto stored = cache.find(key(number));
    REQUIRE(stored);
    return stored->has_value();
  };
  for (int64_t i = 0; i < 10; ++i) {
    REQUIRE(cache.store(key(i), "test", as_bytes(content)));
    const std::string path = options.directory + "/" + key(i).entry();
    const timespec times[2] = {{1000 + i, 0}, {1000 + i, 0}};
    REQUIRE(utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
    auto entries = cache.entries();
    REQUIRE(entries);
    int64_t bytes = 0;
    for (const Cache::Entry &entry : *entries) bytes += entry.bytes;
    CHECK(bytes <= options.limit_bytes);
  }
  CHECK(found(6)); // and now the last to go
  CHECK(!found(5));
  REQUIRE(cache.store(key(10), "test", as_bytes(content)));
  CHECK(found(6));
  CHECK(!found(7));
  CHECK(found(10));
  auto too_large = cache.store(key(11), "test", as_bytes(std::string(6000, 'x')));
  REQUIRE(!too_large);
  CHECK(too_large.error().code == ErrorCode::limit);
  CHECK(found(10));
  REQUIRE(cache.clear());
  CHECK(files(options.directory).empty());
}

TEST_CASE("what killed writers left is removed, what is being written stays") {
  Scratch scratch;
  const std::string folder = scratch.path("cache");
  run(with_cache(folder));
  const std::string dead = files(folder)[0] + ".part";
  const std::string busy = folder + "/code-0123456789abcdef0123456789abcdef.part";
  const std::string other = folder + "/notes.txt"; // not ours to remove
  for (const std::string &file : {dead, busy, other}) overwrite(file, "half");
  const int writer = ::open(busy.c_str(), O_RDONLY);
  REQUIRE(flock(writer, LOCK_EX) == 0);
  run(with_cache(folder), 2);
  CHECK(!fs::exists(dead));
  CHECK(fs::exists(busy));
  close(writer);
  run(with_cache(folder), 3);
  CHECK(!fs::exists(busy));
  CHECK(fs::exists(other));
  CHECK(bad_entries(folder) == 0);
}

TEST_CASE("a directory that cannot be written, and a disk that is full") {
  Scratch scratch;
  const std::vector<float> expected = run({}).scores;
  const std::string folder = scratch.path("cache");
  fs::create_directory(folder);
  CHECK(in_child([&] { // larger files than this end a process that tries to write them
    const rlimit small{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &small);
    const Outcome outcome = run(with_cache(folder));
    return outcome == expected && outcome.use.code.note.contains("larger than files may be");
  }));
  CHECK(files(folder).empty());

  const bool root = geteuid() == 0;
  REQUIRE(chmod(folder.c_str(), 0500) == 0);
  if (root) REQUIRE(chown(folder.c_str(), 65534, 65534) == 0);
  fs::permissions(fs::path(folder).parent_path(), fs::perms::others_exec, fs::perm_options::add);
  CHECK(in_child([&] {
    if (root && (setgid(65534) != 0 || setuid(65534) != 0)) return false;
    const Outcome outcome = run(with_cache(folder));
    return outcome == expected && outcome.use.code.note.contains("cannot write");
  }));

  const std::string command =
      fmt::format("unshare -m sh -c 'mount -t tmpfs -o size=16k,mode=700 none {0} && "
                  "{1} run lenet5 --cache-dir {0} 2>&1' 2>&1",
                  scratch.path("mount"), LATHE_PROGRAM);
  fs::create_directory(scratch.path("mount"));
  if (std::system("unshare -m true 2>/dev/null") != 0) return; // no right to mount
  FILE *pipe = popen(command.c_str(), "r");
  REQUIRE(pipe);
  std::string said(4096, 0);
  said.resize(fread(said.data(), 1, said.size(), pipe));
  CAPTURE(said);
  CHECK(pclose(pipe) == 0);
  CHECK(said.contains("No space left"));
}

TEST_CASE("measured costs come from the cache") {
  Scratch scratch;
  CompileOptions options = with_cache(scratch.path("cache"));
  options.tune = true;
  options.tuning.seconds = 0.001;
  const CacheUse first = run(options).use, second = run(options).use;
  CHECK(!first.costs.found);
  CHECK(second.costs.found);
  CHECK(all_found(second));
}

TEST_CASE("many processes fill one cache, and some are killed") {
  Scratch scratch;
  const std::string folder = scratch.path("cache");
  auto start = [&](const std::string &out) {
    const pid_t child = fork();
    if (child == 0) {
      const int null = ::open("/dev/null", O_RDWR);
      dup2(null, 1);
      dup2(null, 2);
      execl(LATHE_PROGRAM, LATHE_PROGRAM, "run", "lenet5", "--cache-dir", folder.c_str(), "-o",
            out.c_str(), nullptr);
      _exit(127);
    }
    return child;
  };
  auto succeeds = [](pid_t child) {
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  const std::string expected = scratch.path("expected.npy");
  REQUIRE(succeeds(start(expected)));
  fs::remove_all(folder);

  constexpr int count = 20;
  std::vector<pid_t> children;
  for (int i = 0; i < count; ++i) children.push_back(start(scratch.path(fmt::format("{}.npy", i))));
  std::mt19937 random(5);
  for (int i = 0; i < count; i += 3) {
    usleep(useconds_t(random() % 100'000));
    kill(children[size_t(i)], SIGKILL);
  }
  for (int i = 0; i < count; ++i) {
    const bool done = succeeds(children[size_t(i)]);
    if (i % 3 != 0) CHECK(done);
    if (done) CHECK(contents(scratch.path(fmt::format("{}.npy", i))) == contents(expected));
  }
  CHECK(bad_entries(folder) == 0);
  REQUIRE(succeeds(start(scratch.path("last.npy"))));
  CHECK(contents(scratch.path("last.npy")) == contents(expected));
}

TEST_CASE("images of code depend on no address, and not on how many threads made them") {
  auto graph = load_bundled("squeezenet1_1");
  REQUIRE(graph);
  REQUIRE(run_passes(*graph));
  for (const Target &target : known_targets()) {
    CAPTURE(target.name);
    auto plan = make_plan(*graph, target);
    REQUIRE(plan);
    std::vector<KernelSpec> specs;
    for (const Kernel &kernel : plan->kernels)
      if (!std::ranges::count(specs, kernel.spec)) specs.push_back(kernel.spec);
    auto one = compile_image(specs, target, 1), three = compile_image(specs, target, 3);
    REQUIRE_MESSAGE(one, to_string(one.error()));
    REQUIRE(three);
    CHECK(one->bytes == three->bytes);
    for (const KernelSpec &spec : specs)
      CHECK(std::ranges::count(one->symbols, kernel_symbol(spec, target),
                               &CodeImage::Symbol::name) == 1);
  }
}

TEST_CASE("where the system lets no memory become executable, the error names a way out") {
  // From now on the kernel refuses to make memory executable, in this process (seccomp).
  auto forbid = [] {
    constexpr auto word = uint32_t(sizeof(uint64_t));
    const auto number = uint32_t(offsetof(seccomp_data, nr));
    const auto protection = uint32_t(offsetof(seccomp_data, args)) + 2 * word; // of mmap, mprotect
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, number),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, protection),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{std::size(program), program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
  };
  CHECK(in_child([&] {
    if (!forbid()) return false;
    auto executable = Executable::compile(model());
    return !executable && executable.error().code == ErrorCode::unsupported &&
           to_string(executable.error()).contains("ahead of time");
  }));
}

TEST_CASE("profilers find functions by name, also of code from the cache") {
  Scratch scratch;
  run(with_cache(scratch.path("cache")));
  const std::string map = fmt::format("/tmp/perf-{}.map", getpid());
  fs::remove(map);
  setenv("LATHE_PERF_MAP", "1", 1);
  CHECK(all_found(run(with_cache(scratch.path("cache"))).use));
  unsetenv("LATHE_PERF_MAP");
  const std::string names = contents(map);
  for (const char *part : {" conv2d_f32_direct_", " softmax_f32__", ".tile"})
    CHECK(names.contains(part));
  fs::remove(map);
}
