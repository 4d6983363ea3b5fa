// The machines that have names.
#include "ir/target.h"

#include <doctest/doctest.h>

using namespace lathe::core;

TEST_CASE("targets by name, and an error that lists them") {
  for (const char *name : {"avx512", "avx2", "plain", "neon", "plain-aarch64"}) {
    auto target = find_target(name);
    REQUIRE(target);
    CHECK(target->name == name);
  }
  CHECK(find_target("x86-64-v4")->name == "avx512");
  CHECK(find_target("x86-64-v3")->lanes() == 8);
  CHECK(find_target("x86-64")->name == "plain");
  CHECK(!find_target("plain")->fma);
  auto unknown = find_target("z80");
  REQUIRE(!unknown);
  CHECK(unknown.error().code == ErrorCode::usage);
  for (const Target &target : known_targets())
    CHECK(to_string(unknown.error()).find(target.name) != std::string::npos);
}
