// What the pages say about the tree is so: files, names, passes, tests, the places of an op, and
// whose code is inside. What a program shows is run by other tests (`readme`, `consumer`).
#include "passes/pipeline.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fnmatch.h>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

namespace {

const fs::path root = LATHE_SOURCE_DIR;

std::string read(const fs::path &file) {
  std::ifstream in(root / file, std::ios::binary);
  REQUIRE(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

Strings pages() {
  Strings found{"README.md"};
  for (const auto &entry : fs::directory_iterator(root / "docs"))
    if (entry.path().extension() == ".md")
      found.push_back("docs/" + entry.path().filename().string());
  return found;
}

// The sources below a folder, relative to the root.
Strings sources(const std::string &folder) {
  Strings found;
  for (const auto &entry : fs::recursive_directory_iterator(root / folder))
    if (const fs::path &p = entry.path(); p.extension() == ".cpp" || p.extension() == ".h")
      found.push_back(fs::relative(p, root).string());
  return found;
}
Strings house() {
  Strings all;
  for (const char *folder : {"ir", "frontend", "passes", "codegen", "runtime", "cli"})
    std::ranges::copy(sources(folder), std::back_inserter(all));
  return all;
}

bool has_word(const std::string &text, const std::string &word) {
  return std::regex_search(text, std::regex("\\b" + word + "\\b"));
}

// The first group of all matches.
Strings all_matches(const std::string &text, const std::string &pattern) {
  const std::regex expression(pattern);
  Strings found;
  for (std::sregex_iterator it(text.begin(), text.end(), expression), end; it != end; ++it)
    found.push_back((*it)[1]);
  return found;
}

bool matches_a_file(const std::string &pattern, const Strings &files) {
  return std::ranges::any_of(
      files, [&](const std::string &f) { return fnmatch(pattern.c_str(), f.c_str(), 0) == 0; });
}

} // namespace

TEST_CASE("files that the pages name are there") {
  const std::string folders =
      "(ir|frontend|passes|codegen|runtime|cli|python|models|tests|docs|bench|cmake)";
  for (const std::string &page : pages())
    for (std::string path : all_matches(read(page), "`(" + folders + "/[A-Za-z0-9_./*-]+)`")) {
      CAPTURE(page);
      CAPTURE(path);
      if (std::regex_search(path, std::regex("PASS|TARGET"))) continue; // stand for any
      if (path.ends_with("/")) path.pop_back();
      const std::string folder = path.substr(0, path.find('/'));
      CHECK((fs::exists(root / path) || matches_a_file(path, sources(folder))));
    }
}

TEST_CASE("names of the API that the pages name are there") {
  std::string headers = read("runtime/include/lathe/lathe.h") + read("runtime/include/lathe/c.h");
  std::string inside;
  for (const std::string &file : house()) inside += read(file);
  for (const std::string &page : pages())
    for (const std::string &name : all_matches(read(page), "`([A-Za-z_]+::[A-Za-z_]+)[`(]")) {
      CAPTURE(page);
      CAPTURE(name);
      const std::string type = name.substr(0, name.find(':')),
                        member = name.substr(type.size() + 2);
      if (type == "Lathe") continue; // CMake's targets
      const bool manual = page == "README.md" || page == "docs/cache.md";
      CHECK(has_word(manual ? headers : inside, type));
      CHECK(has_word(manual ? headers : inside, member));
    }
}

TEST_CASE("the manual of passes has a row for each") {
  const std::string page = read("docs/passes.md");
  for (const lathe::core::Pass &pass : lathe::core::pipeline()) {
    CAPTURE(pass.name);
    CHECK(page.find("`" + std::string(pass.name) + "`") != std::string::npos);
  }
}

TEST_CASE("tests that the pages name are there") {
  std::set<std::string> names;
  std::string cases;
  for (const std::string &file : sources("tests")) {
    const std::string stem = fs::path(file).stem();
    if (stem.ends_with("_test")) names.insert(stem.substr(0, stem.size() - 5));
    cases += read(file);
  }
  for (const std::string &name : all_matches(read("tests/CMakeLists.txt"), "NAME ([a-z_]+)"))
    names.insert(name);
  for (const std::string &page : pages()) {
    const std::string text = read(page);
    for (const std::string &name : all_matches(text, "ctest [^\n]*-R ([A-Za-z_]+)")) {
      CAPTURE(name);
      CHECK(names.contains(name));
    }
    for (const std::string &part : all_matches(text, "--test-case='\\*([^*]+)\\*'")) {
      CAPTURE(part);
      CHECK(std::regex_search(cases, std::regex("TEST_CASE\\([^\n]*" + part)));
    }
  }
}

// The README's list for a new op, held against an op that has everything.
TEST_CASE("the README names every place of an op") {
  const std::string readme = read("README.md");
  const size_t begin = readme.find("**To add an op:**"), end = readme.find("**To add a pass:**");
  REQUIRE(begin < end);
  const Strings places =
      all_matches(readme.substr(begin, end - begin), "`([a-z]+/[A-Za-z0-9_./*]+)`");
  REQUIRE(places.size() > 10);
  for (const std::string &file : house()) {
    if (!std::regex_search(read(file), std::regex("\\bLrn(Spec)?\\b"))) continue;
    CAPTURE(file);
    CHECK(std::ranges::any_of(places, [&](const std::string &pattern) {
      return fnmatch(pattern.c_str(), file.c_str(), 0) == 0;
    }));
  }
}

// Debian packages that a build needs for what they bring into it, by the name that NOTICE uses.
TEST_CASE("NOTICE names whose code is inside") {
  const std::string notice = read("NOTICE");
  static const std::vector<std::pair<std::string, std::string>> names = {
      {"llvm-19-dev", "LLVM"},
      {"libzstd-dev", "zstd"},
      {"zlib1g-dev", "zlib"},
      {"libfmt-dev", "{fmt}"},
      {"nlohmann-json3-dev", "nlohmann-json"},
      {"libcli11-dev", "CLI11"},
      {"libprotozero-dev", "protozero"},
      {"libxxhash-dev", "xxHash"},
      {"libspng-dev", "libspng"},
      {"libjpeg62-turbo-dev", "libjpeg-turbo"},
      {"libeigen3-dev", "Eigen"},
      {"doctest-dev", ""}, // only in tests and benchmarks
      {"libbenchmark-dev", ""},
  };
  for (const std::string &package : all_matches(read("dev"), "\nbuild +([a-z0-9-]+-dev) ")) {
    CAPTURE(package);
    auto known = std::ranges::find(names, package, &std::pair<std::string, std::string>::first);
    REQUIRE(known != names.end());
    CHECK(notice.find(known->second) != std::string::npos);
  }
  CHECK(notice.find("nanobind") != std::string::npos);
}
