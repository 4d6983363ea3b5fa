#include "cli/shared_library.h"

#include "ir/system/mapped_file.h"
#include "ir/system/output_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace lathe::core::cli {
namespace {

namespace fs = std::filesystem;

class TemporaryFolder {
public:
  static Result<TemporaryFolder> make() {
    std::error_code code;
    std::string name = (fs::temp_directory_path(code) / "lathe-XXXXXX").string();
    if (code || !mkdtemp(name.data()))
      return fail(Error{.code = ErrorCode::io,
                        .message = std::string("no temporary folder: ") + std::strerror(errno),
                        .file = name});
    return TemporaryFolder(name);
  }
  TemporaryFolder(TemporaryFolder &&other) noexcept : path_(std::exchange(other.path_, {})) {}
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  std::string file(const char *name) const { return (path_ / name).string(); }

private:
  explicit TemporaryFolder(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

// The compiler's driver, which knows how its system links.
const char *linker(Arch arch) {
#if defined(__aarch64__)
  const Arch own = Arch::aarch64;
#else
  const Arch own = Arch::x86_64;
#endif
  if (arch == own) return "cc";
  return arch == Arch::aarch64 ? "aarch64-linux-gnu-gcc" : "x86_64-linux-gnu-gcc";
}

} // namespace

Result<std::vector<char>> link_shared(std::span<const char> object, Arch arch,
                                      const std::string &file_name) {
  LATHE_TRY(const TemporaryFolder folder, TemporaryFolder::make());
  const std::string from = folder.file("network.o"), to = folder.file("network.so");
  LATHE_CHECK(write_file(from, {std::as_bytes(object)}));
  std::vector<std::string> words = {linker(arch), "-shared", "-nostdlib",
                                    "-Wl,-z,now,-z,relro,-z,noexecstack"};
  for (const std::string &word : {std::string("-soname"), file_name})
    words.insert(words.end(), {"-Xlinker", word});
  words.insert(words.end(), {"-o", to, from});
  std::vector<char *> arguments;
  for (std::string &word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t process = 0;
  const int refused =
      posix_spawnp(&process, arguments[0], nullptr, nullptr, arguments.data(), environ);
  if (refused != 0)
    return fail(Error{.code = ErrorCode::unsupported,
                      .message = "cannot start the linker",
                      .file = file_name,
                      .expected = words[0] + " on the PATH, or --emit obj",
                      .found = std::strerror(refused)});
  int status = 0;
  while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return fail(Error{.code = ErrorCode::io,
                      .message = "the linker failed",
                      .file = file_name,
                      .expected = words[0] + " to succeed",
                      .found = fmt::format("status {}", status)});
  LATHE_TRY(const auto linked, MappedFile::read(to));
  const std::string_view bytes = linked->text();
  return std::vector<char>(bytes.begin(), bytes.end());
}

} // namespace lathe::core::cli
