// Names of kernels, and the Plan as text.
#include "passes/plan.h"

#include <fmt/format.h>

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
  bool parametric = op.kind == UnaryKind::leaky_relu || op.kind == UnaryKind::clip ||
                    op.kind == UnaryKind::hard_sigmoid || op.kind == UnaryKind::elu ||
                    op.kind == UnaryKind::thresholded_relu;
  return parametric ? fmt::format("{}_{}_{}", name, identifier(op.alpha), identifier(op.beta))
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

std::string show(const Affine &a) {
  if (a.per_image == 0) return fmt::format("{}", a.fixed);
  return a.fixed == 0 ? fmt::format("{}*N", a.per_image)
                      : fmt::format("{}*N+{}", a.per_image, a.fixed);
}

std::string show(const View &v) {
  static constexpr std::string_view spaces[] = {"weights", "arena", "input", "output"};
  std::string where(spaces[size_t(v.space)]);
  if (v.space != Space::arena) where += fmt::format(" {}", v.index);
  return fmt::format("{} @{} [{}] strides [{}]", where, show(v.offset), to_string(v.dims),
                     fmt::join(v.strides, ", "));
}

} // namespace

std::string kernel_name(const KernelSpec &spec, const Target &target) {
  auto [head, tail] = std::visit(Describe{target}, spec);
  return fmt::format("{}__{}{}", head, target.name, tail);
}

std::string print(const Plan &plan) {
  std::string text = fmt::format("plan \"{}\" target {} {}\n", plan.name, plan.target.name,
                                 plan.batched ? "any number of images" : "fixed shapes");
  text +=
      fmt::format("arena {} bytes, lower bound {}; scratch {} bytes per thread; weights {} bytes\n",
                  show(plan.arena_bytes), show(plan.arena_lower_bound_bytes), plan.scratch_bytes,
                  plan.weight_bytes());
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    static constexpr std::string_view packings[] = {"as it lies", "convolution panels",
                                                    "convolution bias"};
    const Weight &w = plan.weights[i];
    text += fmt::format("weight {} \"{}\" [{}] {}", i, w.name, to_string(w.constant->type.shape),
                        packings[size_t(w.packing)]);
    if (w.packing != Weight::Packing::as_is)
      text +=
          fmt::format(" of {} by {}, {} groups", w.panels.width, w.panels.lanes, w.panels.groups);
    text += fmt::format(", {} bytes\n", w.bytes);
  }
  for (size_t i = 0; i < plan.kernels.size(); ++i) {
    const Kernel &k = plan.kernels[i];
    text += fmt::format("kernel {} {}\n  computes {}; tasks {}, grain {}, scratch {}\n", i,
                        kernel_name(k.spec, plan.target), fmt::join(k.sources, " + "),
                        show(k.tasks), k.grain, k.scratch_bytes);
    if (!k.choice.candidates.empty())
      text += fmt::format("  {}: {}\n", k.choice.candidates[0].measured ? "measured" : "estimated",
                          to_string(k.choice));
    for (size_t o = 0; o < k.operands.size(); ++o)
      text += fmt::format("  {} {}\n", int(o) == k.output ? "out" : "in ", show(k.operands[o]));
    text += "  params";
    for (const Affine &p : k.params) text += " " + show(p);
    text += "\n";
  }
  return text;
}

} // namespace lathe::core
