// Every command that the README shows works: the lines of its `sh` blocks, run in the source tree.
#include <cstdlib>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fstream>

TEST_CASE("the README's commands") {
  std::ifstream readme(LATHE_SOURCE_DIR "/README.md");
  REQUIRE(readme.good());
  bool inside = false;
  int commands = 0;
  for (std::string line; std::getline(readme, line);) {
    if (line == "```sh" || (inside && line == "```")) {
      inside = !inside;
      continue;
    }
    if (!inside) continue;
    CAPTURE(line);
    REQUIRE(line.starts_with("lathe "));
    std::string command = fmt::format("cd {} && {} {} > /dev/null 2>&1", LATHE_SOURCE_DIR,
                                      LATHE_PROGRAM, line.substr(6));
    CHECK(std::system(command.c_str()) == 0);
    ++commands;
  }
  CHECK(commands > 8);
}
