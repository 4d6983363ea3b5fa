// The plan of the house: which folder may include what, where LLVM may be seen, and that the
// repository leaves the choice of package sources to the machine.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

const fs::path root = LATHE_SOURCE_DIR;

// What a folder may include of ours: other folders, or single headers of them. Tests look anywhere.
const std::map<std::string, std::vector<std::string>> allowed = {
    {"ir", {}},
    {"ir/system", {"ir/error.h"}},
    {"frontend", {"ir/"}},
    {"data", {"ir/"}},
    {"passes", {"ir/"}},
    {"codegen", {"ir/", "passes/plan.h"}},
    {"runtime", {"ir/", "frontend/", "data/", "passes/", "codegen/codegen.h", "codegen/archive.h"}},
    {"cli", {"ir/", "frontend/", "data/", "passes/", "runtime/"}},
    {"bench", {"ir/", "runtime/", "frontend/bundled.h", "frontend/formats.h", "frontend/npy.h"}},
};

const std::vector<std::string> llvm_headers = {"codegen/llvm.h", "codegen/llvm_ir.h"};
// A program in the tests that is somebody else's, with an LLVM of its own.
const std::string host_with_llvm = "tests/consumer/host.cpp";

// Files below a folder with one of the endings (any, if none is given), leaving out what is not the
// repository's: hidden folders and the build. Paths are relative to the root.
std::vector<std::string> files(const fs::path &folder, const std::vector<std::string> &endings) {
  std::vector<std::string> found;
  if (!fs::exists(root / folder)) return found;
  for (auto it = fs::recursive_directory_iterator(root / folder);
       it != fs::recursive_directory_iterator(); ++it) {
    const fs::path path = fs::relative(it->path(), root);
    const bool hidden_folder =
        it->is_directory() && path.filename().string().starts_with(".") && path != ".ci";
    if (hidden_folder || path == "build") {
      it.disable_recursion_pending();
    } else if (it->is_regular_file() &&
               (endings.empty() || std::ranges::count(endings, path.extension().string()))) {
      found.push_back(path.string());
    }
  }
  return found;
}

std::string read(const std::string &file) {
  std::ifstream in(root / file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Include {
  std::string file, header;
  bool quoted;
};

std::vector<Include> includes(const fs::path &folder) {
  std::vector<Include> found;
  for (const std::string &file : files(folder, {".h", ".cpp"})) {
    std::istringstream lines(read(file));
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string directive, header;
      words >> directive >> header;
      if (directive == "#include" && header.size() > 2)
        found.push_back({file, header.substr(1, header.size() - 2), header.front() == '"'});
    }
  }
  return found;
}

TEST_CASE("each folder includes only the layers below it") {
  for (const auto &[folder, others] : allowed) {
    for (const Include &include : includes(folder)) {
      if (!include.quoted) continue;
      INFO(include.file << " includes " << include.header);
      CHECK(fs::exists(root / include.header));
      CHECK((include.header.starts_with(folder + "/") ||
             std::ranges::any_of(others, [&](const std::string &other) {
               return other.ends_with("/") ? include.header.starts_with(other)
                                           : include.header == other;
             })));
    }
  }
}

TEST_CASE("folders of ours are included in quotes, from the root of the tree") {
  for (const Include &include : includes("")) {
    const std::string folder = include.header.substr(0, include.header.find('/'));
    INFO(include.file << " includes " << include.header);
    CHECK(include.quoted == (allowed.contains(folder) || folder == "tests"));
  }
}

TEST_CASE("LLVM is seen by two private headers only") {
  for (const Include &include : includes("")) {
    const std::string folder = include.header.substr(0, include.header.find('/'));
    INFO(include.file << " includes " << include.header);
    if (folder == "llvm" || folder == "llvm-c" || folder == "clang" || folder == "lld")
      CHECK((std::ranges::count(llvm_headers, include.file) || include.file == host_with_llvm));
    if (std::ranges::count(llvm_headers, include.header))
      CHECK(include.file != "codegen/codegen.h");
  }
}

TEST_CASE("no file names a host to take packages from") {
  const std::vector<std::string> hosts = {
      "deb.debian.",     "security.debian.", "snapshot.debian.", "ftp.debian.",
      "archive.ubuntu.", "pypi.org",         "pythonhosted.org", "conda.anaconda.org"};
  for (const std::string &file : files("", {"", ".txt", ".cmake", ".json", ".md", ".h", ".cpp",
                                            ".py", ".sh", ".toml", ".yml", ".net"})) {
    if (file == "tests/layering_test.cpp") continue;
    const std::string text = read(file);
    for (const std::string &host : hosts) {
      INFO(file << " names " << host);
      CHECK(text.find(host) == std::string::npos);
    }
  }
}

} // namespace
