// The Plan as text.
#include "passes/plan.h"

#include <fmt/format.h>

namespace lathe::core {
namespace {

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
