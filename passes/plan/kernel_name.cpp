// What kernels are called, by people and by programs.
#include "ir/op_facts.h"
#include "passes/plan.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

namespace lathe::core {
namespace {

// A float as part of a C identifier that no other float shares.
std::string identifier(float value) {
  std::string text = fmt::format("{}", value);
  for (char &c : text) {
    if (c == '.') c = 'p';
    if (c == '-') c = 'm';
    if (c == '+') c = '_';
  }
  return text;
}

std::string describe(const Unary &op) {
  std::string name(to_string(op.kind));
  return facts_of(op.kind).parameters > 0
             ? fmt::format("{}_{}_{}", name, identifier(op.alpha), identifier(op.beta))
             : name;
}
std::string describe(const std::vector<FusedOp> &post) {
  std::string text;
  for (const FusedOp &step : post) {
    if (auto *unary = std::get_if<Unary>(&step.op))
      text += "_" + describe(*unary);
    else
      text += "_" + std::string(to_string(std::get<Binary>(step.op).kind));
  }
  return text;
}

// "direct", "direct_depthwise", "direct_grouped4", "direct_2pixels_5taps", "winograd4_3x3",
// "winograd1x2_1x7", "winograd4_3x3_from_taps"
std::string algorithm(const ConvSpec &spec) {
  if (spec.group_channels == 1) return "direct_depthwise";
  if (spec.group_channels > 1) return fmt::format("direct_grouped{}", spec.group_channels);
  if (spec.vector_pixels > 1)
    return fmt::format("direct_{}pixels_{}taps", spec.vector_pixels, spec.step);
  if (!spec.winograd) return spec.apart ? "direct_apart" : "direct";
  const auto [outputs, kernel, from_taps] = *spec.winograd;
  const Size2 edge = spec.edge_outputs;
  return fmt::format("winograd{}_{}x{}{}{}", to_string(Winograd{outputs, kernel}), kernel.h,
                     kernel.w, from_taps ? "_from_taps" : "",
                     edge != outputs ? fmt::format("_edge{}x{}", edge.h, edge.w) : "");
}

struct Describe {
  const Target &target;
  // The part before the target, and what follows it.
  using Parts = std::pair<std::string, std::string>;

  Parts operator()(const ConvSpec &s) const {
    static constexpr std::string_view prologues[] = {"", "_copy", "_gather", "_chain"};
    Parts parts{fmt::format("{}_{}{}{}{}{}{}{}", ConvSpec::name, algorithm(s),
                            prologues[size_t(s.prologue)],
                            s.gathered > 0 ? fmt::format("{}", s.gathered) : "",
                            s.pre.empty() ? "" : "_behind" + describe(s.pre), s.bias ? "_bias" : "",
                            describe(s.post), s.masked ? "_masked" : ""),
                fmt::format("_{}x{}{}{}", s.tile_pixels, s.panel(),
                            s.smaller_tile
                                ? fmt::format("_{}x{}", s.tile_pixels - s.vector_pixels, s.panel())
                                : "",
                            s.last ? fmt::format("_last{}{}", s.last->vectors * s.lanes,
                                                 s.last->masked ? "_masked" : "")
                                   : "")};
    if (s.pool) parts.first += "_" + (*this)(*s.pool).first;
    for (const ConvSpec &source : s.source) {
      const Parts inner = (*this)(source);
      parts.first += "_of_" + inner.first;
      parts.second += "_of" + inner.second;
    }
    return parts;
  }
  Parts operator()(const DenseSpec &s) const {
    return {fmt::format("{}{}{}", DenseSpec::name, s.bias ? "_bias" : "", describe(s.post)), ""};
  }
  Parts operator()(const MapSpec &s) const {
    std::string text = s.steps.empty() ? "copy" : std::string(MapSpec::name);
    for (const MapStep &step : s.steps) {
      if (auto *unary = std::get_if<Unary>(&step.op))
        text += "_" + describe(*unary);
      else
        text += fmt::format("_{}{}", step.swapped ? "r" : "",
                            to_string(std::get<Binary>(step.op).kind));
    }
    if (s.from == s.to)
      text += fmt::format("_{}_", to_string(s.to));
    else
      text = fmt::format("cast_{}_{}_", to_string(s.from), to_string(s.to));
    for (Inner inner : s.operands)
      text += inner == Inner::contiguous ? 'c' : inner == Inner::broadcast ? 'b' : 's';
    return {text, ""};
  }
  Parts operator()(const GatherSpec &s) const {
    return {fmt::format("{}_b{}_{}{}", GatherSpec::name, s.element_bytes, to_string(s.indices_type),
                        s.rows ? "_rows" : ""),
            ""};
  }
  Parts operator()(const ArgSpec &s) const {
    return {fmt::format("{}_{}_f32{}{}", ArgSpec::name, to_string(s.kind), s.last ? "_last" : "",
                        s.one_hot ? "_one_hot" : ""),
            ""};
  }
  Parts operator()(const PoolSpec &s) const {
    return {fmt::format("{}_pool{}_f32{}{}{}{}{}{}{}", to_string(s.kind),
                        s.window.h == 0 ? "" : fmt::format("{}x{}", s.window.h, s.window.w),
                        s.strict ? "_strict" : "", s.blocked ? "_blocked" : "",
                        s.count_include_pad ? "_with_pad" : "", s.dilated ? "_dilated" : "",
                        s.pre.empty() ? "" : "_behind" + describe(s.pre), s.bias ? "_bias" : "",
                        describe(s.post)),
            ""};
  }
  Parts operator()(const LrnSpec &s) const {
    return {fmt::format("{}_{}_{}_{}", LrnSpec::name, identifier(s.scale), identifier(s.beta),
                        identifier(s.k)),
            ""};
  }
  Parts operator()(const SoftmaxSpec &s) const {
    return {fmt::format("{}{}{}{}", s.log ? "log_" : "", SoftmaxSpec::name,
                        s.contiguous ? "" : "_strided", s.blocked ? "_blocked" : ""),
            ""};
  }
  Parts operator()(const ReduceSpec &s) const {
    return {
        fmt::format("{}_{}_f32{}", ReduceSpec::name, to_string(s.kind), s.vector ? "_vector" : ""),
        ""};
  }
};

} // namespace

std::string kernel_name(const KernelSpec &spec, const Target &target) {
  auto [head, tail] = std::visit(Describe{target}, spec);
  return fmt::format("{}__{}{}", head, target.name, tail);
}

std::string kernel_symbol(const KernelSpec &spec, const Target &target) {
  std::string identity;
  append_identity(identity, spec);
  append_code_identity(identity, target);
  return fmt::format("{}__{:016x}", kernel_name(spec, target),
                     XXH3_64bits(identity.data(), identity.size()));
}

} // namespace lathe::core
