#include "cli/memory_picture.h"

#include "cli/markup.h"
#include "cli/model.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <ranges>

namespace lathe::core::cli {
namespace {

struct Box {
  std::string name, made_by;
  int64_t low, high;  // bytes, [low, high)
  size_t first, last; // kernels
};

Box box_of(const View &view, const Graph &graph, size_t kernel) {
  const Type &type = graph.type(view.value);
  int64_t elements = 1;
  for (size_t d = 0; d < view.dims.size(); ++d) elements += (view.dims[d] - 1) * view.strides[d];
  const int64_t low = view.offset.at(1);
  return {graph.values[view.value].name,
          "",
          low,
          low + elements * int64_t(size_of(type.dtype)),
          kernel,
          kernel};
}

// One box per place that a value has: copies of it have places of their own.
std::vector<Box> boxes_of(const Plan &plan, const Graph &graph) {
  std::map<std::pair<ValueId, int64_t>, Box> boxes;
  for (size_t k = 0; k < plan.kernels.size(); ++k) {
    const Kernel &kernel = plan.kernels[k];
    for (size_t o = 0; o < kernel.operands.size(); ++o) {
      const View &view = kernel.operands[o];
      if (view.space != Space::arena || view.value == no_value) continue;
      Box now = box_of(view, graph, k);
      auto [box, fresh] = boxes.try_emplace({view.value, now.low}, now);
      box->second.last = k;
      box->second.high = std::max(box->second.high, now.high);
      if (int(o) == kernel.output) box->second.made_by = kernel_name(kernel.spec, plan.target);
    }
  }
  // A concat is there from its first part on.
  auto of = [&](ValueId id) {
    return std::ranges::subrange(boxes.lower_bound({id, 0}), boxes.lower_bound({id + 1, 0}));
  };
  for (const Node &node : graph.nodes) {
    if (!std::holds_alternative<Concat>(node.op)) continue;
    for (auto &[key, whole] : of(node.outputs[0]))
      for (ValueId part : node.inputs)
        for (const auto &[part_key, box] : of(part)) whole.first = std::min(whole.first, box.first);
  }
  std::vector<Box> list;
  for (auto &[key, box] : boxes) list.push_back(std::move(box));
  return list;
}

} // namespace

std::string memory_svg(const Plan &plan, const Graph &graph) {
  constexpr double width = 1200, height = 600, left = 90, top = 50, bottom = 40;
  const auto bytes = double(std::max<int64_t>(1, plan.arena_bytes.at(1)));
  const auto kernels = double(std::max<size_t>(1, plan.kernels.size()));
  auto x = [&](double kernel) { return left + kernel / kernels * width; };
  auto y = [&](double byte) { return top + (1 - byte / bytes) * height; };
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" "
      "font-family=\"sans-serif\" font-size=\"11\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      "<text x=\"{2}\" y=\"24\" font-size=\"15\">{3}: arena {4} bytes per picture, lower bound {5}"
      "</text>\n",
      left + width + 20, top + height + bottom, left, escaped(plan.name),
      grouped(plan.arena_bytes.at(1)), grouped(plan.arena_lower_bound_bytes.at(1)));
  for (int i = 0; i <= 4; ++i) {
    const double byte = bytes * i / 4;
    svg += fmt::format("<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#ddd\"/>"
                       "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
                       left, left + width, y(byte), left - 6, y(byte) + 4, grouped(int64_t(byte)));
  }
  size_t number = 0;
  for (const Box &box : boxes_of(plan, graph)) {
    const double from = x(double(box.first)), to = x(double(box.last) + 1);
    const double high = y(double(box.high)), low = y(double(box.low));
    svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" "
                       "fill=\"hsl({},60%,70%)\" fill-opacity=\"0.75\" stroke=\"#555\" "
                       "stroke-width=\"0.5\"><title>{}: {} bytes, kernels {} to {}, made by {}"
                       "</title></rect>\n",
                       from, high, to - from, std::max(0.5, low - high), number++ * 67 % 360,
                       escaped(box.name), grouped(box.high - box.low), box.first, box.last,
                       escaped(box.made_by));
    if (low - high > 12 && to - from > 6.0 * double(box.name.size()))
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", from + 3,
                         (low + high) / 2 + 4, escaped(box.name));
  }
  const double bound = y(double(plan.arena_lower_bound_bytes.at(1)));
  svg += fmt::format("<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#c00\" "
                     "stroke-dasharray=\"6 4\"/>\n",
                     left, left + width, bound);
  for (size_t k = 0; k < plan.kernels.size(); k += std::max<size_t>(1, plan.kernels.size() / 24))
    svg +=
        fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}</text>\n", x(double(k)), top + height + 16, k);
  return svg +
         fmt::format("<text x=\"{}\" y=\"{}\">kernel</text>\n</svg>\n", left, top + height + 32);
}

} // namespace lathe::core::cli
