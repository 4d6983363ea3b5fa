// The NEON kernels: object code and images of whole plans, linked with a C harness by the cross
// compiler and run under qemu, against the evaluator.
#include "codegen/codegen.h"
#include "frontend/bundled.h"
#include "frontend/weights.h"
#include "ir/compare.h"
#include "ir/evaluate.h"
#include "passes/pipeline.h"
#include "runtime/weights.h"
#include "tests/random_graph.h"
#include "tests/special_values.h"

#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <functional>
#include <map>
#include <unistd.h>

using namespace lathe::core;
namespace fs = std::filesystem;

namespace {

constexpr int64_t images = 2;

// Serialises buffers and calls for aarch64_harness.c.
class CaseFile {
public:
  explicit CaseFile(const fs::path &path) : out_(path, std::ios::binary) {}
  void word(int64_t value) { out_.write(reinterpret_cast<const char *>(&value), sizeof value); }
  void buffer(int64_t bytes, const std::byte *data) {
    word(bytes);
    word(data != nullptr);
    if (data) out_.write(reinterpret_cast<const char *>(data), bytes);
  }

private:
  std::ofstream out_;
};

void write_case(const fs::path &path, const Plan &plan, const PackedWeights &weights,
                const std::vector<Tensor> &inputs) {
  CaseFile file(path);
  const auto first_input = int64_t(plan.weights.size()) + 1;
  const auto first_output = first_input + int64_t(plan.inputs.size());
  file.word(first_output + int64_t(plan.outputs.size()));
  file.buffer(plan.arena_bytes.at(images), nullptr);
  for (size_t w = 0; w < plan.weights.size(); ++w)
    file.buffer(plan.weights[w].bytes, weights.address(int(w)));
  for (const Tensor &input : inputs) file.buffer(int64_t(input.bytes()), input.raw());
  for (const Type &type : plan.outputs)
    file.buffer(element_count(type.shape) * images * int64_t(size_of(type.dtype)), nullptr);
  file.word(int64_t(plan.kernels.size()));
  for (const Kernel &kernel : plan.kernels) {
    for (int64_t value : {kernel.tasks.at(images), kernel.scratch_bytes,
                          int64_t(kernel.operands.size()), int64_t(kernel.params.size())})
      file.word(value);
    for (const View &view : kernel.operands) {
      file.word(view.space == Space::arena     ? 0
                : view.space == Space::weights ? 1 + view.index
                : view.space == Space::input   ? first_input + view.index
                                               : first_output + view.index);
      file.word(view.offset.at(images));
    }
    for (const Affine &param : kernel.params) file.word(param.at(images));
  }
  file.word(int64_t(plan.outputs.size()));
  for (size_t j = 0; j < plan.outputs.size(); ++j) file.word(first_output + int64_t(j));
}

enum class Form : uint8_t { object, image };

// An image's bytes, put at a page, with the kernels' names: what the loader does, for a linker.
void write_image(const fs::path &folder, const CodeImage &image) {
  std::ofstream(folder / "image", std::ios::binary)
      .write(reinterpret_cast<const char *>(image.bytes.data()), int64_t(image.bytes.size()));
  std::ofstream assembly(folder / "kernels.s");
  assembly << ".text\n.balign 4096\nimage: .incbin \"" << (folder / "image").string() << "\"\n";
  for (const CodeImage::Symbol &symbol : image.symbols)
    if (symbol.name.contains("__")) // kernels, not local functions
      assembly << fmt::format(".globl {0}\n.set {0}, image + {1}\n", symbol.name, symbol.offset);
}

void write_kernels(const fs::path &folder, const Plan &plan, Form form) {
  std::map<std::string, KernelSpec> distinct;
  std::string table = "#include <stdint.h>\ntypedef void (*Kernel)(const int64_t *, int64_t, "
                      "int64_t, void *);\n",
              entries;
  for (const Kernel &kernel : plan.kernels) {
    std::string name = kernel_symbol(kernel.spec, plan.target);
    if (distinct.emplace(name, kernel.spec).second)
      table += fmt::format("void {}(const int64_t *, int64_t, int64_t, void *);\n", name);
    entries += name + ", ";
  }
  std::vector<KernelSpec> specs;
  for (const auto &[name, spec] : distinct) specs.push_back(spec);
  if (form == Form::image) {
    auto image = compile_image(specs, plan.target);
    REQUIRE_MESSAGE(image, to_string(image.error()));
    write_image(folder, *image);
  } else {
    auto object = compile_kernels(specs, plan.target);
    REQUIRE_MESSAGE(object, to_string(object.error()));
    std::ofstream(folder / "kernels.o", std::ios::binary)
        .write(object->bytes.data(), int64_t(object->bytes.size()));
  }
  std::ofstream(folder / "table.c")
      << table << fmt::format("const Kernel kernels[] = {{{}}};\n", entries);
}

// Calls body(number of an output, result, reference).
using Check = std::function<void(size_t, const Tensor &, const Tensor &)>;
void run_under_qemu(Graph graph, const std::vector<Tensor> &inputs, Form form, bool strict,
                    const Check &body) {
  std::vector<Tensor> read; // as kernels read them
  for (const Tensor &input : inputs) read.push_back(flushed(input));
  auto references = evaluate(graph, read);
  REQUIRE_MESSAGE(references, to_string(references.error()));
  PipelineOptions passes;
  passes.strict = strict;
  REQUIRE(run_passes(graph, passes));
  PlanOptions options;
  options.strict = strict;
  auto plan = make_plan(graph, *find_target("neon"), options);
  REQUIRE_MESSAGE(plan, to_string(plan.error()));
  REQUIRE(plan->batched);
  auto weights = PackedWeights::pack(*plan);
  REQUIRE(weights);
  fs::path folder = fs::temp_directory_path() / fmt::format("lathe-aarch64-{}", ::getpid());
  fs::create_directories(folder);
  write_case(folder / "case", *plan, *weights, inputs);
  write_kernels(folder, *plan, form);
  std::string build =
      fmt::format("aarch64-linux-gnu-gcc -O1 -static -o {0}/run "
                  "{1}/tests/runtime/aarch64_harness.c {0}/table.c {0}/kernels.{2}",
                  folder.string(), LATHE_SOURCE_DIR, form == Form::image ? "s" : "o");
  REQUIRE(std::system(build.c_str()) == 0);
  std::string run = fmt::format("qemu-aarch64-static {0}/run {0}/case {0}/out", folder.string());
  REQUIRE(std::system(run.c_str()) == 0);
  std::ifstream out(folder / "out", std::ios::binary);
  for (size_t j = 0; j < references->size(); ++j) {
    const Tensor &reference = (*references)[j];
    Tensor result(reference.dtype(), reference.shape());
    out.read(reinterpret_cast<char *>(result.raw_mutable()), int64_t(result.bytes()));
    REQUIRE(out.good());
    body(j, result, reference);
  }
  fs::remove_all(folder);
}

void check_under_qemu(const Graph &graph, Form form) {
  const auto inputs = random_inputs(graph, 5, images);
  run_under_qemu(graph, inputs, form, false,
                 [&](size_t, const Tensor &result, const Tensor &reference) {
                   Comparison c = compare(result, reference);
                   CAPTURE(c.largest_error);
                   CAPTURE(c.largest_reference);
                   CHECK(c.within(1e-4));
                 });
}

} // namespace

TEST_CASE("NEON kernels of random graphs") {
  for (uint64_t seed = 500; seed < 520; ++seed) {
    CAPTURE(seed);
    check_under_qemu(random_graph(seed), seed % 2 ? Form::image : Form::object);
  }
}

TEST_CASE("NEON kernels with NaN, infinities and subnormal numbers, strictly") {
  for (const SpecialCase &special : special_cases()) {
    if (!special.images) continue; // the harness runs batches
    CAPTURE(special.name);
    for (Specials specials : {Specials::nan, Specials::all}) {
      CAPTURE(int(specials));
      run_under_qemu(special.graph, special_inputs(special, specials, 4, images), Form::object,
                     true, [&](size_t j, const Tensor &result, const Tensor &reference) {
                       const std::string wrong = special_fault(special, result, reference);
                       CHECK_MESSAGE(wrong.empty(), fmt::format("output {}: {}", j, wrong));
                     });
    }
  }
}

TEST_CASE("NEON kernels of narrow networks") {
  const std::map<std::string, std::map<std::string, double>> networks = {
      {"lenet5", {}},
      {"alexnet", {{"width", 6}, {"classes", 10}}},
      {"resnet50", {{"width", 4}, {"classes", 10}, {"size", 64}}},
      {"googlenet", {{"width", 8}, {"classes", 10}}},
  };
  for (const auto &[name, parameters] : networks) {
    CAPTURE(name);
    auto graph = load_bundled(name, {.parameters = parameters, .include = {}});
    REQUIRE_MESSAGE(graph, to_string(graph.error()));
    REQUIRE(randomise_weights(*graph, 2));
    check_under_qemu(before_softmax(std::move(*graph)), Form::image);
  }
}
