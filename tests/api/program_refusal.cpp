// The command line, with one request to the system after the other refused (refuse.cpp, preloaded):
// it ends with an exit code of its own, and what it leaves in files is whole or not there.
// Arguments: the program, the library to preload, and --all for every request instead of a sample.
#include "tests/api/refuse.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/wait.h>
#include <vector>

using refuse::How;
using refuse::What;

namespace {

std::string folder;

std::string contents(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The exit code, or 1000 and a signal.
int run(const std::string &command) {
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

struct Verb {
  const char *name, *arguments;
  const char *writes; // a file, or none
};
constexpr Verb verbs[] = {
    {"inspect", "inspect squeezenet1_1", nullptr},
    {"run", "run lenet5 -o F/y.npy", "y.npy"},
    {"run made", "run F/odd.net -o F/z.npy", "z.npy"},
    {"cache", "run F/odd.net -o F/z.npy --cache-dir F/cache", "z.npy"},
    {"compile", "compile lenet5 -o F/lenet5.o --target-cpu plain", "lenet5.o"},
    {"onnx", "verify " LATHE_SOURCE_DIR "/tests/data/tiny.onnx", nullptr},
};

int try_all(const Verb &verb, const std::string &program, const std::string &preload, What what,
            How how, size_t sample) {
  std::string arguments = verb.arguments;
  for (size_t at; (at = arguments.find("F/")) != std::string::npos;)
    arguments.replace(at, 2, folder + "/");
  const std::string file = verb.writes ? folder + "/" + verb.writes : std::string();
  auto command = [&](const std::string &number) {
    std::filesystem::remove_all(folder + "/cache");
    if (!file.empty()) std::filesystem::remove(file);
    // Only the program itself is refused anything.
    return run("timeout -s KILL 60 env REFUSE='" + std::string(refuse::names[int(what)]) + " " +
               refuse::how_names[int(how)] + " " + number + "' LD_PRELOAD=" + preload + " " +
               program + " " + arguments + " >" + folder + "/out 2>" + folder + "/err");
  };
  if (command("count") != 0) {
    std::printf("FAILED: %s does not work at all: %s\n", verb.name,
                contents(folder + "/err").c_str());
    return 1;
  }
  const std::string said = contents(folder + "/err"), right = contents(file);
  const size_t at = said.rfind("counted ");
  const long all = at == std::string::npos ? -1 : std::atol(said.c_str() + at + 8);
  if (all < 0) {
    std::printf("FAILED: %s: nothing was counted\n", verb.name);
    return 1;
  }
  int failures = 0, tried = 0;
  const double step = sample == 0 ? 1 : std::max(1.0, double(all) / double(sample));
  for (double n = 1; n <= double(all); n += n < 4 ? 1 : step, ++tried) {
    const int code = command(std::to_string(long(n)));
    const bool good = code == 0 || code == 5 || code == 6 || (what == What::pages && code == 4);
    const bool whole = contents(file) == right || (code != 0 && !std::filesystem::exists(file));
    if (good && (file.empty() || whole)) continue;
    ++failures;
    std::printf("FAILED: %s, %s %s %ld: exit code %d%s: %s\n", verb.name, refuse::names[int(what)],
                refuse::how_names[int(how)], long(n), code, whole ? "" : ", half a file",
                contents(folder + "/err").c_str());
  }
  std::printf("%-8s %-8s %-5s %6ld requests, %4d refused, %d failures\n", verb.name,
              refuse::names[int(what)], refuse::how_names[int(how)], all, tried, failures);
  return failures;
}

} // namespace

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  const bool all = argc > 3 && std::strcmp(argv[3], "--all") == 0;
  std::string made = (std::filesystem::temp_directory_path() / "lathe-refusal-XXXXXX").string();
  folder = mkdtemp(made.data());
  std::ofstream(folder + "/odd.net")
      << "network odd {\n  input image 3x19x27\n  conv1: conv 20 3x5 stride 2; relu\n"
         "  maxpool 3x3 stride 2; global_avgpool; flatten; fc: dense 7; softmax\n}\n";
  int failures = 0;
  for (const Verb &verb : verbs)
    for (What what : {What::memory, What::pages, What::threads, What::files})
      for (How how : {How::once, How::on, How::full}) {
        if (how == How::full && what != What::memory) continue;
        failures += try_all(verb, argv[1], argv[2], what, how,
                            all                    ? 0
                            : what == What::memory ? 24
                                                   : 6);
      }
  std::filesystem::remove_all(folder);
  std::printf(failures ? "%d failures\n" : "every refusal is survived\n", failures);
  return failures != 0;
}
