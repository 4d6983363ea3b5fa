#include "runtime/kernel_facts.h"

#include "runtime/views.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core {
namespace {

// Multiplications by Winograd's algorithm for one of the direct one's.
double product_share(const Kernel &kernel) {
  auto *conv = std::get_if<ConvSpec>(&kernel.spec);
  if (!conv || !conv->winograd) return 1;
  using W = ConvSpec::WinogradParams;
  const size_t first = leaves<ConvSpec::Params>() + conv->winograd_param();
  auto param = [&](Affine W::*member) { return double(kernel.params[first + leaf(member)].fixed); };
  const auto &[outputs, kernel_size, _] = *conv->winograd;
  // Of a row or column of tiles, its edge included: points over taps of all outputs.
  auto share = [&](Affine W::*tiles, Affine W::*whole, int64_t of_tile, int64_t of_edge,
                   int64_t taps) {
    const double wholes = param(whole), edges = param(tiles) - wholes;
    return (wholes * double(of_tile + taps - 1) + edges * double(of_edge + taps - 1)) /
           ((wholes * double(of_tile) + edges * double(of_edge)) * double(taps));
  };
  const Size2 edge = conv->edge_outputs;
  return share(&W::tile_rows, &W::whole_tile_rows, outputs.h, edge.h, kernel_size.h) *
         share(&W::tile_cols, &W::whole_tile_cols, outputs.w, edge.w, kernel_size.w);
}

struct Algorithm {
  const Kernel &kernel;
  const Graph &graph;

  template <typename... Path> int64_t param(Path... path) const {
    return kernel.params[leaf(path...)].at(1);
  }

  // A chain in the order in which it runs, then its pool.
  std::string operator()(const ConvSpec &spec) const {
    std::string text = stage(spec, spec.first_stage_operand());
    if (spec.pool) text += fmt::format(" + {} pool", to_string(spec.pool->kind));
    return text;
  }
  std::string stage(const ConvSpec &spec, size_t first_operand) const {
    const Shape &w = graph.shape(kernel.operands[first_operand + ConvSpec::weights].value);
    if (w.size() == 2) return "dense panels";
    const bool grouped = spec.group_channels > 0 || param(&ConvSpec::Params::groups) > 1;
    const bool depthwise = grouped && w[1] == 1;
    std::string text = fmt::format("{}{} {}x{}", algorithm_name(spec.winograd),
                                   depthwise ? " depthwise"
                                   : grouped ? " grouped"
                                             : "",
                                   w[2], w[3]);
    for (const ConvSpec &source : spec.source)
      text = stage(source, first_operand + spec.stage_operands()) + " > " + text;
    return text;
  }
  std::string operator()(const PoolSpec &spec) const {
    const int64_t h = param(&PoolSpec::Params::kernel_h), w = param(&PoolSpec::Params::kernel_w);
    if (h == param(&PoolSpec::Params::in_rows) && w == param(&PoolSpec::Params::in_cols))
      return fmt::format("global {} pool", to_string(spec.kind));
    return fmt::format("{} pool {}x{}", to_string(spec.kind), h, w);
  }
  std::string operator()(const DenseSpec &) const { return "dense rows"; }
  std::string operator()(const MapSpec &spec) const {
    if (spec.steps.empty()) return spec.from == spec.to ? "copy" : "cast";
    std::string text = "map";
    for (const MapStep &step : spec.steps)
      text += std::visit([](auto &op) { return " " + std::string(to_string(op.kind)); }, step.op);
    return text;
  }
  std::string operator()(const GatherSpec &) const { return "gather"; }
  std::string operator()(const LrnSpec &) const { return "lrn"; }
  std::string operator()(const SoftmaxSpec &spec) const {
    return spec.log ? "log softmax" : "softmax";
  }
  std::string operator()(const ArgSpec &spec) const {
    return fmt::format("arg {}", to_string(spec.kind));
  }
  std::string operator()(const ReduceSpec &spec) const {
    return fmt::format("reduce {}", to_string(spec.kind));
  }
};

bool same_place(const View &a, const View &b) {
  return a.space == b.space && a.index == b.index && a.offset == b.offset && a.dims == b.dims &&
         a.strides == b.strides;
}

std::string shape_of_one(const Shape &dims) {
  return dims.size() < 2 ? to_string(dims) : to_string(Shape(dims.begin() + 1, dims.end()));
}

} // namespace

KernelFacts kernel_facts(const Plan &plan, const Graph &graph, size_t number, int64_t images) {
  const Kernel &kernel = plan.kernels[number];
  const std::vector<View> &operands = kernel.operands;
  const View &output = operands[size_t(kernel.output)];
  KernelFacts facts;
  facts.algorithm = std::visit(Algorithm{kernel, graph}, kernel.spec);
  facts.flops = kernel.flops_per_image *
                double(plan.batched || output.dims.empty() ? images : output.dims[0]);
  facts.product_flops = facts.flops * product_share(kernel);
  for (size_t o = 0; o < operands.size(); ++o) {
    const int64_t bytes = bytes_held(plan, graph, operands[o], images);
    auto before = operands.begin() + int64_t(o);
    if (int(o) == kernel.output)
      facts.output_bytes = bytes;
    else if (operands[o].space == Space::weights)
      facts.weight_bytes += bytes;
    else if (std::none_of(operands.begin(), before, [&](const View &earlier) {
               return &earlier != &output && same_place(earlier, operands[o]);
             }))
      facts.input_bytes += bytes;
  }
  // A convolution's input is its last operand, others begin with theirs.
  const View &input =
      std::holds_alternative<ConvSpec>(kernel.spec) ? operands.back() : operands.front();
  facts.shape = fmt::format("{} to {}", shape_of_one(input.dims), shape_of_one(output.dims));
  return facts;
}

} // namespace lathe::core
