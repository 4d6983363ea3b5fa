// Gates without a clock: what the machine code of hot kernels consists of, for every target.
#include "codegen/codegen.h"
#include "frontend/bundled.h"
#include "frontend/net.h"
#include "passes/pipeline.h"
#include "tests/assembly.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <map>

using namespace lathe::core;

namespace {

// The register tile that layers of so many channels get, and what is reached now: FMAs per
// instruction of its inner loop, rounded down, for this tile and the one of a pixel less. Beside
// its FMAs a step of K has a broadcast and, on x86, an address per pixel, the loads of weights, the
// prefetches of others and the address of these, and three or four instructions of the loop;
// without FMAs a product takes two or three (a copy of the broadcast).
struct TileGate {
  std::string target;
  int64_t channels, pixels, vectors, lanes;
  double fmas_per_instruction;
};
const std::vector<TileGate> tile_gates = {
    {"avx512", 256, 14, 2, 16, 0.46}, {"avx512", 48, 8, 3, 16, 0.47},
    {"avx512", 112, 6, 4, 16, 0.47},  {"avx512", 16, 14, 1, 16, 0.44},
    {"avx512", 8, 14, 1, 8, 0.41},    {"avx512", 4, 14, 1, 4, 0.41},
    {"avx2", 256, 6, 2, 8, 0.35},     {"avx2", 24, 4, 3, 8, 0.40},
    {"avx2", 8, 12, 1, 8, 0.28},      {"avx2", 4, 12, 1, 4, 0.28},
    {"plain", 256, 5, 2, 4, 0.21},    {"plain", 12, 3, 3, 4, 0.22},
    {"plain", 4, 10, 1, 4, 0.17},     {"neon", 256, 6, 4, 4, 0.58},
    {"neon", 12, 8, 3, 4, 0.55},      {"neon", 28, 6, 4, 4, 0.58},
    {"neon", 4, 14, 1, 4, 0.28},
};
// Channels that lie apart take another addition of addresses.
constexpr double apart_less = 0.01;

// The same for tiles whose vectors hold several groups of channels, or several pixels.
struct FormGate {
  std::string target;
  int64_t group_channels, vector_pixels;
  double fmas_per_instruction;
};
const std::vector<FormGate> form_gates = {
    {"avx512", 1, 1, 0.57}, {"avx512", 2, 1, 0.28}, {"avx512", 4, 1, 0.31}, {"avx512", 8, 1, 0.30},
    {"avx512", 0, 2, 0.38}, {"avx512", 0, 4, 0.31}, {"avx2", 1, 1, 0.40},   {"avx2", 2, 1, 0.28},
    {"avx2", 4, 1, 0.32},   {"avx2", 0, 2, 0.31},   {"plain", 1, 1, 0.22},  {"plain", 2, 1, 0.18},
    {"neon", 1, 1, 0.44},   {"neon", 2, 1, 0.29},
};

// The same for a dense layer's panels of eight vectors, which a loop reads from the L2 cache.
const std::map<std::string, double> panel_gates = {
    {"avx512", 0.36}, {"avx2", 0.44}, {"plain", 0.24}, {"neon", 0.4}};

// The same for dense layers over rows, by how many sums their loops over K have: whole steps for
// one image (the best figure), and for two; the rest of K.
struct DenseGate {
  std::string target;
  int64_t multiplies;
  double fmas_per_instruction, best_fmas_per_instruction;
};
const std::vector<DenseGate> dense_gates = {
    {"avx512", 16, 0.45, 0.69}, {"avx512", 4, 0, 0}, {"avx2", 8, 0.50, 0.53},  {"avx2", 2, 0, 0},
    {"plain", 8, 0.24, 0.25},   {"plain", 2, 0, 0},  {"neon", 16, 0.50, 0.55}, {"neon", 4, 0, 0},
};

Target target_named(const std::string &name) {
  auto target = find_target(name);
  REQUIRE_MESSAGE(target, to_string(target.error()));
  return *target;
}

using Specs = std::map<std::string, KernelSpec>; // by kernel name

Specs specs_of(Graph graph, const Target &target, const PlanOptions &options = {}) {
  REQUIRE(run_passes(graph));
  auto plan = make_plan(graph, target, options);
  REQUIRE_MESSAGE(plan, to_string(plan.error()));
  Specs specs;
  for (const Kernel &kernel : plan->kernels)
    specs.emplace(kernel_symbol(kernel.spec, target), kernel.spec);
  return specs;
}
Specs specs_of(const std::string &body, const Target &target, const PlanOptions &options = {}) {
  auto graph = parse_net("network n {\n" + body + "\n}\n", "n.net");
  REQUIRE_MESSAGE(graph, to_string(graph.error()));
  return specs_of(std::move(*graph), target, options);
}

template <typename Spec> Specs only(const Specs &specs) {
  Specs result;
  for (const auto &[name, spec] : specs)
    if (std::holds_alternative<Spec>(spec)) result.emplace(name, spec);
  return result;
}

// A convolution by F(m, 3) in both directions, whatever it costs.
Specs winograd_of(int64_t m, bool from_taps, const std::string &body, const Target &target) {
  for (uint64_t seed = 0; seed < 9; ++seed) {
    PlanOptions options;
    options.any_algorithm = seed;
    Specs specs = only<ConvSpec>(specs_of(body, target, options));
    REQUIRE(specs.size() == 1);
    if (std::get<ConvSpec>(specs.begin()->second).winograd == Winograd{{m, m}, {3, 3}, from_taps})
      return specs;
  }
  FAIL("no seed chooses F(", m, ", 3)");
  return {};
}

// Convolutions whose rows are a tile and one of a pixel less.
Specs layers_of(const TileGate &gate, const Target &target) {
  const int64_t c = gate.channels, columns = 2 * gate.pixels - 1;
  Specs layers;
  auto direct = [&](const std::string &body) {
    PlanOptions options;
    options.strict = true;
    layers.merge(only<ConvSpec>(specs_of(body, target, options)));
  };
  direct(fmt::format("input x {0}x3x{1}; conv {0} 3x3 pad 1; relu", c, columns));
  direct(fmt::format("input x 64x1x{1}; conv {0} 1x1", c, columns));
  for (int64_t channels : {c, c - 1}) // the last panel is full, and is not
    direct(fmt::format("input x {0}x1x{1}; add {{ {{ conv {0} 1x1 }} {{ }} }}; relu", channels,
                       columns));
  for (int64_t m : {4, 2})
    for (bool from_taps : {false, true})
      layers.merge(winograd_of(
          m, from_taps,
          fmt::format("input x {0}x{1}x{2}; conv {0} 3x3 pad 1; relu", c, m, m * columns), target));
  return layers;
}

// What an inner loop must be like.
struct Wanted {
  int64_t fmas; // of vectors of so many lanes
  int64_t lanes;
  double fmas_per_instruction;
};

// What is wrong with it.
std::vector<std::string> faults(const HotLoop &loop, const Wanted &wanted) {
  std::vector<std::string> found;
  if (!loop.spills.empty())
    found.push_back(
        fmt::format("vectors go through the stack: {}", fmt::join(loop.spills, ", then ")));
  if (loop.multiplies != wanted.fmas || loop.adds != wanted.fmas)
    found.push_back(fmt::format("{} multiplies and {} adds of vectors of {} lanes, not {}",
                                loop.multiplies, loop.adds, wanted.lanes, wanted.fmas));
  const double reached = double(loop.multiplies) / double(loop.instructions);
  if (reached < wanted.fmas_per_instruction)
    found.push_back(fmt::format("{:.3f} FMAs per instruction, not {:.2f}", reached,
                                wanted.fmas_per_instruction));
  return found;
}

void check(const std::string &function, const Target &target, const HotLoop &loop,
           const Wanted &wanted) {
  const auto found = faults(loop, wanted);
  CHECK_MESSAGE(found.empty(), fmt::format("{} for {}: {}\n{}", function, target.name,
                                           fmt::join(found, "; "), loop.text));
}

// The function of a register tile: results have what follows the product in their name, products of
// Winograd's transforms, and parts of them, are stored as they are.
std::string tile_name(const ConvSpec &spec, int64_t pixels, Target target) {
  target.vector_bytes = int(spec.lanes * spec.vector_pixels * 4);
  ConvSpec tile{.tile_pixels = pixels,
                .tile_vectors = spec.tile_vectors,
                .lanes = spec.lanes,
                .group_channels = spec.group_channels,
                .vector_pixels = spec.vector_pixels,
                .apart = spec.apart,
                .step = spec.step};
  if (spec.winograd)
    return kernel_symbol(tile, target) + (spec.winograd->from_taps ? ".part" : ".product");
  tile.masked = spec.masked;
  tile.bias = spec.bias;
  tile.post = spec.post;
  return kernel_symbol(tile, target) + ".tile";
}

// The register tiles of a convolution's panels, and of those that feed it in a chain, by function.
void add_tiles(std::map<std::string, Wanted> &tiles, const ConvSpec &spec, const Target &target) {
  if (spec.last) {
    ConvSpec last = spec.of_last_panel();
    last.last = {};
    last.source = {};
    add_tiles(tiles, last, target);
  }
  const int64_t together = spec.vector_pixels;
  const int64_t fewest =
      spec.winograd ? 1 : spec.tile_pixels - together * int64_t(spec.smaller_tile);
  for (int64_t pixels = fewest; pixels <= spec.tile_pixels; pixels += together) {
    double recorded = 0; // small tiles of few pixels have no figure
    const int64_t fmas = pixels / together * spec.tile_vectors * spec.step;
    for (const FormGate &gate : form_gates)
      if (gate.target == target.name && gate.group_channels == spec.group_channels &&
          gate.vector_pixels == together)
        recorded = gate.fmas_per_instruction;
    if (spec.tile_pixels == 1 && spec.tile_vectors == 8) recorded = panel_gates.at(target.name);
    for (const TileGate &gate : tile_gates)
      if (together == 1 && spec.group_channels == 0 && gate.target == target.name &&
          gate.lanes == spec.lanes && gate.vectors == spec.tile_vectors &&
          gate.pixels - pixels <= 1)
        recorded = gate.fmas_per_instruction - (spec.apart ? apart_less : 0);
    tiles[tile_name(spec, pixels, target)] = {fmas, spec.lanes * together, recorded};
  }
  for (const ConvSpec &source : spec.source) add_tiles(tiles, source, target);
}

std::map<std::string, AssemblyFunction> code_of(const Specs &specs, const Target &target) {
  std::vector<KernelSpec> list;
  for (const auto &[name, spec] : specs) list.push_back(spec);
  auto text = print_kernels(list, target, CodeText::assembly);
  REQUIRE_MESSAGE(text, to_string(text.error()));
  std::map<std::string, AssemblyFunction> code;
  for (AssemblyFunction &function : functions_of(*text))
    code.emplace(function.name, std::move(function));
  return code;
}

void check_tiles(const Specs &specs, const Target &target) {
  std::map<std::string, Wanted> tiles;
  for (const auto &[name, spec] : specs) add_tiles(tiles, std::get<ConvSpec>(spec), target);
  size_t seen = 0;
  for (const auto &[name, function] : code_of(specs, target)) {
    if (!name.ends_with(".tile") && !name.ends_with(".product") && !name.ends_with(".part"))
      continue;
    CAPTURE(name);
    REQUIRE(tiles.contains(name));
    ++seen;
    const Wanted &wanted = tiles[name];
    const auto loops = hot_loops(function, target, wanted.lanes);
    CHECK(loops.size() == 1);
    for (const HotLoop &loop : loops) check(name, target, loop, wanted);
  }
  CHECK(seen == tiles.size());
}

const std::vector<std::string> targets = {"avx512", "avx2", "plain", "neon"};

} // namespace

TEST_CASE("register tiles: one step of K, no vector through the stack, little beside the FMAs") {
  for (const std::string &name : targets) {
    const Target target = target_named(name);
    Specs specs;
    for (const TileGate &gate : tile_gates) {
      if (gate.target != name) continue;
      Specs layers = layers_of(gate, target);
      for (const auto &[kernel, spec] : layers) {
        CAPTURE(kernel);
        const auto &conv = std::get<ConvSpec>(spec);
        CHECK(conv.tile_pixels == gate.pixels);
        CHECK(conv.smaller_tile == !conv.winograd);
        CHECK(conv.tile_vectors == gate.vectors);
        CHECK(conv.lanes == gate.lanes);
      }
      specs.merge(layers);
    }
    check_tiles(specs, target);
  }
}

TEST_CASE("register tiles whose vectors hold several groups, or several pixels") {
  for (const FormGate &gate : form_gates) {
    const Target target = target_named(gate.target);
    const int64_t group = gate.group_channels;
    const std::string body =
        group > 0 ? fmt::format("input x {0}x3x14; conv {0} 3x3 groups {1} pad 1; relu",
                                4 * target.lanes(), 4 * target.lanes() / group)
                  : fmt::format("input x 1x3x28; conv {} 3x3 pad 1; relu",
                                target.lanes() / gate.vector_pixels);
    PlanOptions options;
    options.strict = true;
    const Specs specs = only<ConvSpec>(specs_of(body, target, options));
    REQUIRE(specs.size() == 1);
    const auto &spec = std::get<ConvSpec>(specs.begin()->second);
    CHECK(spec.group_channels == group);
    CHECK(spec.vector_pixels == gate.vector_pixels);
    check_tiles(specs, target);
  }
}

TEST_CASE("register tiles of whole networks") {
  for (const std::string network : {"lenet5", "googlenet"})
    for (const std::string &name : targets) {
      CAPTURE(network);
      const Target target = target_named(name);
      auto graph = load_bundled(network);
      REQUIRE_MESSAGE(graph, to_string(graph.error()));
      check_tiles(only<ConvSpec>(specs_of(std::move(*graph), target)), target);
    }
}

TEST_CASE("dense layers whose weights a cache holds are read in panels") {
  for (const std::string &name : targets) {
    const Target target = target_named(name);
    const std::string body = fmt::format("input x 100; dense {}; relu", 16 * target.lanes());
    const Specs specs = only<ConvSpec>(specs_of(body, target));
    REQUIRE(specs.size() == 1);
    const auto &spec = std::get<ConvSpec>(specs.begin()->second);
    CHECK(spec.tile_pixels == 1);
    CHECK(spec.tile_vectors == 8);
    check_tiles(specs, target);
  }
}

TEST_CASE("dense layers share what they load between rows, and between images") {
  for (const std::string &name : targets) {
    const Target target = target_named(name);
    const Specs specs = only<DenseSpec>(specs_of("input x 512; dense 1000; relu", target));
    REQUIRE(specs.size() == 1);
    std::map<int64_t, double> met; // multiplies and the best figure of loops with so many
    for (const auto &[function, code] : code_of(specs, target))
      for (const HotLoop &loop : hot_loops(code, target, target.lanes())) {
        CAPTURE(loop.text);
        double &best = met[loop.multiplies];
        best = std::max(best, double(loop.multiplies) / double(loop.instructions));
        auto gate = std::ranges::find_if(dense_gates, [&](const DenseGate &g) {
          return g.target == name && g.multiplies == loop.multiplies;
        });
        REQUIRE(gate != dense_gates.end());
        check(function, target, loop,
              {gate->multiplies, target.lanes(), gate->fmas_per_instruction});
      }
    for (const DenseGate &gate : dense_gates)
      if (gate.target == name) CHECK(met[gate.multiplies] >= gate.best_fmas_per_instruction);
  }
}

TEST_CASE("a tile that is too large for the registers is reported") {
  for (const std::string &name : targets) {
    CAPTURE(name);
    const Target target = target_named(name);
    ConvSpec spec;
    spec.tile_vectors = 2;
    spec.tile_pixels = target.vector_registers / spec.tile_vectors;
    spec.lanes = target.lanes();
    const std::string kernel = kernel_symbol(spec, target);
    const auto code = code_of({{kernel, spec}}, target);
    const auto loops =
        hot_loops(code.at(tile_name(spec, spec.tile_pixels, target)), target, spec.lanes);
    REQUIRE(loops.size() == 1);
    CAPTURE(loops[0].text);
    const auto found = faults(loops[0], {target.vector_registers, spec.lanes, 0});
    REQUIRE(found.size() == 1);
    CHECK(found[0].starts_with("vectors go through the stack"));
  }
}

TEST_CASE("faults in single loops are reported") {
  auto faults_of = [](const std::string &body, const std::string &name, const Wanted &wanted) {
    const auto functions = functions_of("\t.text\nkernel:\n" + body + "\tret\n.Lfunc_end0:\n");
    REQUIRE(functions.size() == 1);
    const auto loops = hot_loops(functions[0], target_named(name), wanted.lanes);
    REQUIRE(loops.size() == 1);
    return faults(loops[0], wanted);
  };
  auto reported = [&](const std::string &body, const std::string &name, const Wanted &wanted,
                      const std::string &fault) {
    const auto found = faults_of(body, name, wanted);
    CAPTURE(fmt::format("{}", fmt::join(found, "\n")));
    REQUIRE(found.size() == 1);
    CHECK(found[0].starts_with(fault));
  };
  // The outer loop may use the stack.
  auto x86 = [](const std::string &inner) {
    return ".LBB0_1:\n\tvmovups\t64(%rsp), %zmm3\n.LBB0_2:\n\tvmovups\t(%rsi), %zmm1\n" + inner +
           "\tvfmadd231ps\t(%rdi){1to16}, %zmm1, %zmm0\n\tincq\t%rax\n\tcmpq\t40(%rsp), %rax\n"
           "\tjl\t.LBB0_2\n\tdecq\t%rbx\n\tjne\t.LBB0_1\n";
  };
  const std::string through_stack = "vectors go through the stack: ";
  CHECK(faults_of(x86(""), "avx512", {1, 16, 0.2}).empty());
  CHECK(faults_of(x86("\tvmovups\t(%rbp), %zmm2\n"), "avx512", {1, 16, 0.16}).empty());
  reported(x86("\tvmovups\t64(%rsp), %zmm2\n"), "avx512", {1, 16, 0.16},
           through_stack + "vmovups\t64(%rsp), %zmm2");
  reported(x86("\tvmovaps\t%ymm2, -32(%rsp,%rax)\n"), "avx512", {1, 16, 0.16}, through_stack);
  reported("\tmovq\t%rsp, %rbp\n" + x86("\tvmovups\t-64(%rbp), %zmm2\n"), "avx512", {1, 16, 0.16},
           through_stack);
  reported(x86(""), "avx512", {1, 16, 0.21}, "0.200 FMAs per instruction, not 0.21");
  reported(x86(""), "avx512", {2, 16, 0.2}, "1 multiplies and 1 adds");
  reported(x86("\tvfmadd231ps\t%ymm1, %ymm1, %ymm2\n"), "avx512", {2, 16, 0.1}, "1 multiplies");
  reported(x86("\tvfmadd231ss\t%xmm1, %xmm1, %xmm2\n"), "avx512", {2, 16, 0.1}, "1 multiplies");

  reported(".LBB0_1:\n\tmulps\t%xmm1, %xmm2\n\tsubq\t$1, %rcx\n\tjne\t.LBB0_1\n", "plain",
           {1, 4, 0.3}, "1 multiplies and 0 adds");

  auto arm = [](const std::string &inner) {
    return ".LBB0_1:\n\tldp\tq1, q2, [x1], #32\n" + inner +
           "\tfmla\tv0.4s, v1.4s, v2.s[0]\n\tsubs\tx8, x8, #1\n\tb.ne\t.LBB0_1\n";
  };
  CHECK(faults_of(arm(""), "neon", {1, 4, 0.25}).empty());
  CHECK(faults_of(arm("\tldr\tx9, [sp, #16]\n"), "neon", {1, 4, 0.2}).empty());
  reported(arm("\tstr\tq3, [sp, #16]\n"), "neon", {1, 4, 0.2}, through_stack + "str\tq3");
  reported(arm("\tldp\tq3, q4, [sp]\n"), "neon", {1, 4, 0.2}, through_stack);
  reported("\tadd\tx29, sp, #16\n" + arm("\tldur\tq3, [x29, #-32]\n"), "neon", {1, 4, 0.2},
           through_stack);
}
