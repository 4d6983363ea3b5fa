// Code that was compiled when Lathe was built: it is there for the usual layers, it is what the
// compiler makes, and networks that it serves only in part work too.
#include "frontend/bundled.h"
#include "frontend/net.h"
#include "passes/pipeline.h"
#include "runtime/prebuilt.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <set>

using namespace lathe::core;

namespace {

std::vector<Target> prebuilt_targets() {
  std::vector<Target> targets;
  for (const Target &target : known_targets())
    if (prebuilt_code().find(kernel_symbol(SoftmaxSpec{}, target))) targets.push_back(target);
  return targets;
}

std::vector<KernelSpec> specs_of(Graph graph, const Target &target,
                                 const PlanOptions &options = {}) {
  REQUIRE(run_passes(graph));
  auto plan = make_plan(graph, target, options);
  REQUIRE_MESSAGE(plan, to_string(plan.error()));
  std::vector<KernelSpec> specs;
  for (const Kernel &kernel : plan->kernels)
    if (!std::ranges::count(specs, kernel.spec)) specs.push_back(kernel.spec);
  return specs;
}

CodeImage image_of(std::span<const KernelSpec> specs, const Target &target,
                   const CodeArchive *archive) {
  auto image = compile_image(specs, target, 2, {}, archive);
  REQUIRE_MESSAGE(image, to_string(image.error()));
  return *image;
}

// Functions by name, with their sizes.
std::set<std::pair<std::string, int64_t>> functions_of(const CodeImage &image) {
  std::set<std::pair<std::string, int64_t>> functions;
  for (const CodeImage::Symbol &symbol : image.symbols) functions.emplace(symbol.name, symbol.size);
  return functions;
}

} // namespace

TEST_CASE("bundled networks find all their code compiled") {
  CHECK(prebuilt_targets().size() >= 1);
  for (const Target &target : prebuilt_targets())
    for (const std::string &name : bundled_models()) {
      CAPTURE(target.name);
      CAPTURE(name);
      const CodeImage image =
          image_of(specs_of(load_bundled(name).value(), target), target, &prebuilt_code());
      CHECK(image.compiled == 0);
    }
  // This machine's plans may be others, but of the same parts: a few small kernels at most.
  size_t kernels = 0, compiled = 0;
  const Target host = host_target();
  for (const std::string &name : bundled_models()) {
    const std::vector<KernelSpec> specs = specs_of(load_bundled(name).value(), host);
    kernels += specs.size();
    compiled += image_of(specs, host, &prebuilt_code()).compiled;
  }
  if (prebuilt_code().find(kernel_symbol(SoftmaxSpec{}, host))) CHECK(2 * compiled <= kernels);
}

TEST_CASE("prebuilt code is what the compiler makes, byte by byte") {
  for (const Target &target : prebuilt_targets())
    for (const char *name : {"lenet5", "googlenet"}) {
      const std::vector<KernelSpec> specs = specs_of(load_bundled(name).value(), target);
      auto archive = compile_archive(specs, target, 2);
      REQUIRE_MESSAGE(archive, to_string(archive.error()));
      const CodeArchive fresh(std::as_bytes(std::span(*archive)));
      const CodeImage image = image_of(specs, target, &prebuilt_code());
      REQUIRE(!image.symbols.empty());
      for (const CodeImage::Symbol &symbol : image.symbols) {
        CAPTURE(symbol.name);
        const CodeArchive::Function *ours = prebuilt_code().find(symbol.name);
        const CodeArchive::Function *other = fresh.find(symbol.name);
        REQUIRE(ours);
        REQUIRE(other);
        CHECK(ours->calls == other->calls);
        CHECK(std::ranges::equal(ours->object, other->object));
      }
      CHECK(functions_of(image) == functions_of(image_of(specs, target, nullptr)));
    }
}

TEST_CASE("layers on pictures of other sizes are compiled but for their register tiles") {
  const std::string text =
      "network n {\ninput x 3x97x131\nconv 64 7x7 stride 2 pad 3; relu\n"
      "maxpool 3x3 stride 2 pad 1\nconv 64 1x1; relu\nconv 96 3x3 pad 1; relu\n"
      "add { { conv 96 3x3 pad 1 } { } }; relu\nconv 31 5x5; sigmoid\n}\n";
  for (const Target &target : prebuilt_targets())
    for (bool strict : {false, true}) {
      CAPTURE(target.name);
      PlanOptions options;
      options.strict = strict;
      const std::vector<KernelSpec> specs =
          specs_of(parse_net(text, "n.net").value(), target, options);
      const CodeImage all = image_of(specs, target, nullptr);
      const CodeImage image = image_of(specs, target, &prebuilt_code());
      CHECK(functions_of(image) == functions_of(all));
      CHECK(all.compiled == all.symbols.size());
      CHECK(image.compiled > 0);                 // the sigmoid's, at least
      CHECK(image.compiled <= specs.size() + 4); // that layer's tiles, of whole and of last panels
    }
}

TEST_CASE("archives follow each other, and have what they have") {
  const CodeArchive::Function one{.name = "one", .calls = {"two"}, .object = {"abc", 3}};
  const CodeArchive::Function two{.name = "two", .calls = {}, .object = {"defghijklm", 10}};
  const std::string bytes = encode(one) + encode(two);
  const CodeArchive archive(std::as_bytes(std::span(bytes)));
  REQUIRE(archive.size() == 2);
  REQUIRE(archive.find("one"));
  CHECK(archive.find("one")->calls == std::vector<std::string_view>{"two"});
  CHECK(std::ranges::equal(archive.find("two")->object, two.object));
  CHECK(!archive.find("three"));
  CHECK(CodeArchive().size() == 0);
}
