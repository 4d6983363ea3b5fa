// Which algorithm computes each convolution: what there is to choose from, what each is said to
// take, and a budget for what transformed weights add.
#include "passes/plan/planner.h"

#include <fmt/format.h>

namespace lathe::core {

std::vector<Winograd> alternatives(const Conv &op) {
  if (op.stride != Size2{} || op.dilation != Size2{}) return {};
  std::vector<Winograd> result;
  for (int64_t h : {1, 2, 4})
    for (int64_t w : {1, 2, 4}) {
      const Winograd tile{{h, w}, op.kernel};
      const auto [points_h, points_w] = tile.points();
      // A transform of more points loses too many digits, at least nested in another one.
      const int64_t most = points_h == 1 || points_w == 1 ? 8 : 6;
      if ((h == 1) == (op.kernel.h == 1) && (w == 1) == (op.kernel.w == 1) && h * w > 1 &&
          has_winograd(h, op.kernel.h) && has_winograd(w, op.kernel.w) &&
          std::max(points_h, points_w) <= most)
        result.push_back(tile);
    }
  return result;
}

namespace {

// Whether its kernel computes no other convolution.
bool stands_alone(const Graph &graph, const Schedule &schedule, size_t n) {
  const int reader = schedule.reader[n];
  return schedule.previous[n] < 0 &&
         (reader < 0 || !std::holds_alternative<Conv>(graph.nodes[size_t(reader)].op));
}

// All that decides how long its kernel takes, but for pitches.
std::string describe(const Graph &graph, const Schedule &schedule, size_t n) {
  const Node &node = graph.nodes[n];
  std::string text =
      fmt::format("{} of {} to {}", print(node.op), to_string(graph.shape(node.inputs[0])),
                  to_string(graph.shape(node.outputs[0])));
  if (std::ranges::count(graph.inputs, node.inputs[0])) text += ", from outside";
  if (const int reader = schedule.reader[n]; reader >= 0)
    text += ", " + print(graph.nodes[size_t(reader)].op);
  return text;
}

std::vector<Candidate> candidates(const Conv &op, const Shape &x, const Shape &y,
                                  int64_t weight_bytes, const Target &target) {
  const ConvShape shape = conv_shape(op, x, y, target);
  std::vector<Candidate> all{{.estimated = fma_seconds(target) * direct_cost(shape, target)}};
  if (shape.group_channels > 0) return all;
  for (Winograd w : alternatives(op)) {
    if (winograd_scratch(shape, w, 1, target) > most_winograd_scratch(target)) continue;
    const auto [h, v] = w.points();
    const int64_t taps = op.kernel.h * op.kernel.w;
    for (bool from_taps : {false, true}) {
      if (from_taps && (h == 1 || v == 1)) continue; // little to save
      w.from_taps = from_taps;
      const double cost = winograd_cost(shape, w, winograd_block(shape, w, target), target);
      all.push_back({.winograd = w,
                     .estimated = fma_seconds(target) * cost,
                     .extra_bytes = from_taps ? 0 : weight_bytes / taps * (h * v - taps)});
    }
  }
  return all;
}

void add_measurements(Choice &choice, const MeasuredCosts &measured) {
  const auto layer = measured.find(choice.layer);
  if (layer == measured.end()) return;
  const auto &seconds = layer->second;
  auto known = [&](const Candidate &c) { return seconds.contains(algorithm_name(c.winograd)); };
  if (!std::ranges::all_of(choice.candidates, known)) return;
  for (Candidate &c : choice.candidates) c.measured = seconds.at(algorithm_name(c.winograd));
}

// What adds no bytes is free; beyond that, the most gain for a byte first. A better candidate may
// replace another of the same layer.
void spend(double budget, std::vector<Choice> &choices) {
  struct Offer {
    Choice *choice;
    size_t candidate;
    double gain, bytes;
  };
  std::vector<Offer> offers;
  for (Choice &choice : choices) {
    const std::vector<Candidate> &all = choice.candidates;
    for (size_t i = 1; i < all.size(); ++i)
      if (all[i].extra_bytes <= 0 && all[i].seconds() < all[choice.chosen].seconds())
        choice.chosen = i;
    for (size_t i = 1; i < all.size(); ++i) {
      const double gain = all[choice.chosen].seconds() - all[i].seconds();
      if (all[i].extra_bytes > 0 && gain > 0)
        offers.push_back({&choice, i, gain, double(all[i].extra_bytes)});
    }
  }
  std::ranges::stable_sort(
      offers, [](const Offer &a, const Offer &b) { return a.gain * b.bytes > b.gain * a.bytes; });
  for (const Offer &offer : offers) {
    Choice &choice = *offer.choice;
    const Candidate &now = choice.candidates[choice.chosen];
    const double bytes = offer.bytes - double(now.extra_bytes);
    if (choice.candidates[offer.candidate].seconds() >= now.seconds() || bytes > budget) continue;
    budget -= bytes;
    choice.chosen = offer.candidate;
  }
}

} // namespace

std::vector<Choice> choose_algorithms(const Graph &graph, const Schedule &schedule,
                                      const Target &target, const PlanOptions &options) {
  std::vector<Choice> choices(graph.nodes.size());
  if (options.strict || options.direct) return choices;
  int64_t weights = 0; // bytes
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node &node = graph.nodes[n];
    auto *op = std::get_if<Conv>(&node.op);
    const auto own = weights_of(node.op);
    if (!own || !graph.constant(node.inputs[*own])) continue;
    const int64_t bytes = 4 * element_count(graph.shape(node.inputs[*own]));
    weights += bytes;
    if (!op || alternatives(*op).empty() || !stands_alone(graph, schedule, n)) continue;
    Choice &choice = choices[n];
    choice.layer = describe(graph, schedule, n);
    choice.candidates =
        candidates(*op, graph.shape(node.inputs[0]), graph.shape(node.outputs[0]), bytes, target);
    if (options.any_algorithm)
      choice.chosen = size_t(*options.any_algorithm + n + 1) % choice.candidates.size();
    else
      add_measurements(choice, options.measured);
  }
  const double most = options.weight_budget * double(std::max(weights, PlanOptions::few_weights));
  if (!options.any_algorithm) spend(most, choices);
  return choices;
}

// --- In words

std::string algorithm_name(const std::optional<Winograd> &winograd) {
  if (!winograd) return "direct";
  return "winograd " + to_string(*winograd);
}

std::string_view verdict(const Choice &choice, size_t candidate) {
  if (candidate == choice.chosen) return "chosen";
  const double chosen = choice.candidates[choice.chosen].seconds();
  return choice.candidates[candidate].seconds() < chosen ? "over the weight budget" : "slower";
}

std::string to_string(const Choice &choice) {
  std::string text;
  for (size_t i = 0; i < choice.candidates.size(); ++i) {
    const Candidate &c = choice.candidates[i];
    text += fmt::format(
        "{}{} {:.1f} us{}, {}", i ? "; " : "", algorithm_name(c.winograd), 1e6 * c.seconds(),
        c.extra_bytes ? fmt::format(", +{} bytes", c.extra_bytes) : "", verdict(choice, i));
  }
  return text;
}

} // namespace lathe::core
