// Calibrated random weights: one walk through the graph that evaluates every node on a random
// picture as soon as its weights are chosen, and chooses them by what was measured so far.
#include "frontend/constants.h"
#include "frontend/weights.h"
#include "ir/evaluate.h"
#include "ir/op_facts.h"

#include <algorithm>
#include <cmath>

namespace lathe::core {
namespace {

// The i-th of a stream of random numbers: the finaliser of SplitMix64 (Steele, Lea, Flood 2014,
// "Fast splittable pseudorandom number generators") over a counter.
struct Random {
  uint64_t key;
  Random(std::string_view name, uint64_t seed) : key(14695981039346656037u ^ seed) {
    for (unsigned char c : name) key = (key ^ c) * 1099511628211u; // FNV-1a
  }
  uint64_t operator()(int64_t i) const {
    uint64_t z = key + (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  float uniform(int64_t i) const { // in [0, 1)
    return static_cast<float>((*this)(i) >> 40) * 0x1p-24f;
  }
  // A sum of four uniforms has a variance of 4/12. Integers until the last step: no machine rounds
  // otherwise.
  float normal(int64_t i) const {
    const uint64_t bits = (*this)(i);
    const auto sum = static_cast<int32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                          (bits >> 32 & 0xffff) + (bits >> 48));
    return static_cast<float>(sum - 2 * 0xffff) * (1.7320508f / 0x1p16f);
  }
};

template <typename Number>
Tensor filled(const Type &type, std::string_view name, uint64_t seed, const Number &number) {
  Tensor tensor(type.dtype, type.shape);
  if (type.dtype != DType::f32) {
    std::ranges::fill(std::span(tensor.raw_mutable(), tensor.bytes()), std::byte{0});
    return tensor;
  }
  const Random random(name, seed);
  int64_t i = 0;
  for (float &x : tensor.f32_mutable()) x = number(random, i++);
  return tensor;
}

// To eight bits, so that the last digits of a measurement, which differ between machines, vanish.
float coarse(double x) {
  int exponent = 0;
  const double mantissa = std::frexp(x, &exponent);
  return static_cast<float>(std::ldexp(std::nearbyint(mantissa * 256) / 256, exponent));
}

struct Moments {
  double mean = 0, variance = 0;
  double rms() const { return std::sqrt(mean * mean + variance); }
};
template <typename Each> Moments moments(int64_t count, const Each &at) {
  Moments result;
  for (int64_t i = 0; i < count; ++i) result.mean += at(i);
  result.mean /= static_cast<double>(std::max<int64_t>(1, count));
  for (int64_t i = 0; i < count; ++i) {
    const double difference = at(i) - result.mean;
    result.variance += difference * difference;
  }
  result.variance /= static_cast<double>(std::max<int64_t>(1, count));
  return result;
}
Moments moments(const Tensor &tensor) {
  return moments(tensor.size(), [x = tensor.f32()](int64_t i) -> double { return x[size_t(i)]; });
}

// Makes the weights of each output channel sum to zero, so that the layer sees differences and not
// the common level that ReLU leaves behind: deep networks would answer alike to all inputs.
void centre_rows(Tensor &weights) {
  constexpr size_t fewest = 8; // a row of less would lose too much
  const size_t rows = static_cast<size_t>(std::max<int64_t>(1, weights.shape()[0])),
               length = static_cast<size_t>(weights.size()) / rows;
  if (length < fewest) return;
  for (size_t row = 0; row < rows; ++row) {
    auto x = weights.f32_mutable().subspan(row * length, length);
    double sum = 0;
    for (float v : x) sum += double(v);
    const auto mean = coarse(sum / static_cast<double>(length));
    for (float &v : x) v -= mean;
  }
}

void scale(Tensor &tensor, float factor) {
  for (float &x : tensor.f32_mutable()) x *= factor;
}

// Thrown where the budget has no room for weights.
struct Refused {
  Error error;
};

class Calibration {
public:
  Calibration(Graph &graph, uint64_t seed, const Budget &budget)
      : graph_(graph), uses_(graph), seed_(seed), budget_(budget), values_(graph.values.size()) {}

  Result<void> run() {
    try {
      return walk();
    } catch (Refused &refused) {
      return fail(std::move(refused.error));
    }
  }

private:
  using Tensors = std::vector<Tensor>;

  Result<void> walk() {
    for (ValueId id : graph_.inputs) {
      const Grant grant = room_for(graph_.type(id), graph_.values[id].name);
      values_[id] = random_tensor(graph_.type(id), graph_.values[id].name, seed_);
      values_[id].keep(grant);
    }
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      const Node &node = graph_.nodes[n];
      auto results = std::visit([&](const auto &op) { return evaluate_node(node, op); }, node.op);
      if (!results) {
        Error error = results.error();
        error.node = node.name;
        error.op = op_name(node.op);
        return fail(std::move(error));
      }
      for (size_t i = 0; i < results->size(); ++i) values_[node.outputs[i]] = (*results)[i];
      for (ValueId id : node.inputs)
        if (std::ranges::max(uses_.readers[id]) == static_cast<int>(n)) values_[id] = {};
    }
    for (size_t id = 0; id < graph_.values.size(); ++id) // that no node reads
      if (graph_.values[id].constant) draw_normal(static_cast<ValueId>(id), 0, 1);
    return {};
  }

  Grant room_for(const Type &type, const std::string &name) const {
    auto grant = budget_.take(element_count(type.shape) * int64_t(size_of(type.dtype)),
                              "drawing random weights");
    if (auto time = budget_.check("drawing random weights"); grant && !time)
      grant = std::unexpected(time.error());
    if (grant) return std::move(*grant);
    grant.error().node = name;
    throw Refused{std::move(grant.error())};
  }

  static constexpr float branch_rms = 0.35f; // of what is added to an identity
  // What the result of a node should have as its RMS. A residual network's signal grows with every
  // addition of a branch to the identity beside it: such a branch must be small.
  float wanted_rms(const Node &node) const {
    const ValueId result = node.outputs[0];
    const int reader = uses_.single_reader(result);
    if (reader < 0) return 1;
    const Node &next = graph_.nodes[static_cast<size_t>(reader)];
    const auto *binary = std::get_if<Binary>(&next.op);
    if (!binary || binary->kind != BinaryKind::add) return 1;
    const ValueId other = next.inputs[next.inputs[0] == result ? 1 : 0];
    return values_[other].defined() ? branch_rms : 1;
  }

  // Draws the constants without data below `id`; returns the new tensors.
  template <typename Number> Tensors draw(ValueId id, const Number &number) {
    Tensors drawn;
    ConstantRef &constant = graph_.values[id].constant;
    if (!constant) return drawn;
    constant = with_data(constant, [&](const Constant &leaf) {
      if (!unbound(leaf)) return Tensor();
      auto [entry, fresh] = drawn_.try_emplace(leaf.name);
      if (fresh || entry->second.shape() != leaf.type.shape ||
          entry->second.dtype() != leaf.type.dtype) {
        const Grant grant = room_for(leaf.type, leaf.name);
        entry->second = filled(leaf.type, leaf.name, seed_, number);
        entry->second.keep(grant);
        drawn.push_back(entry->second);
      }
      return entry->second;
    });
    return drawn;
  }
  Tensors draw_normal(ValueId id, float mean, float deviation) {
    return draw(
        id, [=](const Random &random, int64_t i) { return mean + deviation * random.normal(i); });
  }
  Tensors draw_uniform(ValueId id, float low, float high) {
    return draw(id, [=](const Random &random, int64_t i) {
      return low + (high - low) * random.uniform(i);
    });
  }
  // Biases and shifts. Around zero, ReLU would make every layer amplify small differences by a
  // fifth, and rounding errors of networks as deep as Inception v3 a hundredfold; in trained
  // networks it does not. But shifts of branches must not add up.
  void draw_shift(ValueId id, float rms) {
    const float mean = rms == branch_rms ? 0 : 0.5f;
    draw_uniform(id, (mean - 0.3f) * rms, (mean + 0.3f) * rms);
  }
  template <typename Measured> void assign(ValueId id, const Measured &measured) {
    draw(id, [&](const Random &, int64_t i) { return coarse(measured(i)); });
  }

  Result<Tensor> value(ValueId id) {
    if (!values_[id].defined() && graph_.constant(id))
      return materialise(graph_.constant(id), budget_);
    return values_[id];
  }
  Result<Tensors> evaluate_as_it_is(const Node &node) {
    Tensors inputs;
    for (ValueId id : node.inputs) {
      LATHE_TRY(Tensor input, value(id));
      inputs.push_back(std::move(input));
    }
    return evaluate(node.op, inputs, budget_);
  }

  template <LayerOp Layer>
    requires(facts_of<Layer>().weights.has_value())
  Result<Tensors> evaluate_node(const Node &node, const Layer &layer) {
    const float rms = wanted_rms(node);
    if (layer.bias) draw_shift(node.inputs[2], rms);
    const Shape &shape = graph_.shape(node.inputs[1]);
    const auto fan_in = static_cast<float>(element_count(shape) / std::max<int64_t>(1, shape[0]));
    Tensors drawn = draw_normal(node.inputs[1], 0, 1 / std::sqrt(std::max(1.f, fan_in)));
    if (drawn.empty()) return evaluate_as_it_is(node);
    centre_rows(drawn[0]);

    Layer sum_only = layer;
    sum_only.bias = false;
    if constexpr (requires { sum_only.pre; }) sum_only.pre.clear();
    sum_only.post.clear();
    Tensors inputs(2);
    for (size_t i = 0; i < 2; ++i) {
      LATHE_TRY(inputs[i], value(node.inputs[i]));
    }
    LATHE_TRY(Tensors sums, evaluate(sum_only, inputs, budget_));
    const double measured = moments(sums[0]).rms();
    const float factor = measured > 0 && std::isfinite(measured) ? coarse(rms / measured) : 1;
    scale(drawn[0], factor);
    if (!pre_of(layer).empty() || !layer.post.empty()) return evaluate_as_it_is(node);
    scale(sums[0], factor); // instead of a second evaluation
    if (!layer.bias) return sums;
    LATHE_TRY(Tensor bias, value(node.inputs[2]));
    Shape along_channels(sums[0].shape().size(), 1);
    along_channels[1] = bias.size();
    return evaluate(Binary{BinaryKind::add}, Tensors{sums[0], bias.reshaped(along_channels)},
                    budget_);
  }

  Result<Tensors> evaluate_node(const Node &node, const BatchNorm &) {
    const float rms = wanted_rms(node);
    draw_uniform(node.inputs[1], 0.8f * rms, 1.2f * rms);
    draw_shift(node.inputs[2], rms);
    LATHE_TRY(Tensor x, value(node.inputs[0]));
    const int64_t images = x.shape()[0], channels = x.shape()[1],
                  area = x.size() / std::max<int64_t>(1, images * channels);
    const Moments all = moments(x);
    // Few pixels say little about a channel: the statistics of all channels help out, as much as
    // `helpers` pixels would.
    constexpr double helpers = 8;
    const double pixels = static_cast<double>(images * area), sum = pixels + helpers;
    std::vector<Moments> own;
    for (int64_t c = 0; c < channels; ++c)
      own.push_back(moments(images * area, [&](int64_t i) -> double {
        return x.f32()[static_cast<size_t>((i / area * channels + c) * area + i % area)];
      }));
    assign(node.inputs[3], [&](int64_t c) {
      return (own[static_cast<size_t>(c)].mean * pixels + all.mean * helpers) / sum;
    });
    assign(node.inputs[4], [&](int64_t c) {
      const double variance =
          (own[static_cast<size_t>(c)].variance * pixels + all.variance * helpers) / sum;
      return all.variance > 0 ? std::max(variance, 0.01 * all.variance) : 1;
    });
    return evaluate_as_it_is(node);
  }

  Result<Tensors> evaluate_node(const Node &node, const Binary &op) {
    for (ValueId id : node.inputs) {
      if (op.kind == BinaryKind::prelu)
        draw_uniform(id, 0.15f, 0.35f);
      else if (op.kind == BinaryKind::mul || op.kind == BinaryKind::div)
        draw_uniform(id, 0.8f, 1.2f);
      else
        draw_normal(id, 0, 0.1f);
    }
    return evaluate_as_it_is(node);
  }

  template <typename Other> Result<Tensors> evaluate_node(const Node &node, const Other &) {
    for (ValueId id : node.inputs) draw_normal(id, 0, 1);
    return evaluate_as_it_is(node);
  }

  Graph &graph_;
  Uses uses_;
  uint64_t seed_;
  const Budget &budget_;
  std::vector<Tensor> values_;          // those that are still to be read
  std::map<std::string, Tensor> drawn_; // by name: layers may share a weight
};

} // namespace

Tensor random_tensor(const Type &type, std::string_view name, uint64_t seed) {
  if (is_float(type.dtype) && type.dtype != DType::f32)
    return to_floats(random_tensor({DType::f32, type.shape}, name, seed), type.dtype);
  return filled(type, name, seed, [](const Random &random, int64_t i) { return random.normal(i); });
}

Result<void> randomise_weights(Graph &graph, uint64_t seed, const Budget &budget) {
  return Calibration(graph, seed, budget).run();
}

} // namespace lathe::core
