// The Plan's checker. Every element of every value gets an identity; memory is simulated as a
// shadow that remembers which identity lies in each cell. A kernel must find in its operands
// exactly what the graph says, and must not overwrite what it still reads. Views of values (concat,
// slice, transpose, ...) are followed by running the reference evaluator on identities, so nothing
// here shares code or ideas with the planner.
#include "ir/evaluate.h"
#include "ir/op_facts.h"
#include "passes/plan/check_conv.h"
#include "passes/plan/check_params.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>

namespace lathe::core {
namespace {

constexpr std::string_view checking = "checking the plan";

class Checker {
public:
  Checker(const Plan &plan, const Graph &graph, int64_t images, const Budget &budget)
      : plan_(plan), graph_(graph), uses_(graph), images_(images), budget_(budget),
        identities_(graph.values.size()) {}

  Result<void> run() {
    for (const Value &value : graph_.values)
      cell_ = std::min(cell_, int64_t(size_of(value.type.dtype)));
    LATHE_CHECK(plan_.sized(images_, 1));
    LATHE_TRY(const Grant grant, pay());
    LATHE_CHECK(name_elements());
    int64_t arena = plan_.arena_bytes.at(images_);
    if (plan_.arena_lower_bound_bytes.at(images_) > arena)
      return complain("the arena is smaller than its lower bound");
    memory_of(Space::arena, 0).assign(size_t(arena / cell_), nothing);
    for (size_t i = 0; i < graph_.inputs.size(); ++i)
      lay_out(memory_of(Space::input, int(i)), graph_.inputs[i]);
    for (size_t j = 0; j < graph_.outputs.size(); ++j) {
      int64_t bytes =
          elements(graph_.outputs[j]) * int64_t(size_of(graph_.type(graph_.outputs[j]).dtype));
      memory_of(Space::output, int(j)).assign(size_t(bytes / cell_), nothing);
    }
    for (size_t k = 0; k < plan_.kernels.size(); ++k) {
      number_ = k;
      LATHE_CHECK(budget_.check(checking));
      LATHE_CHECK(step(plan_.kernels[k]));
    }
    for (size_t j = 0; j < graph_.outputs.size(); ++j) {
      std::vector<int64_t> expected;
      lay_out(expected, graph_.outputs[j]);
      if (memory_of(Space::output, int(j)) != expected)
        return complain(fmt::format("output {} does not hold its value in the end", j));
    }
    return {};
  }

private:
  std::unexpected<Error> complain(std::string message) const {
    return fail(Error{.code = ErrorCode::internal,
                      .message = "the plan is wrong: " + message,
                      .file = plan_.name});
  }
  std::unexpected<Error> complain_here(std::string message) const {
    const Kernel &kernel = plan_.kernels[number_];
    return complain(
        fmt::format("kernel {} ({}), {}", number_, fmt::join(kernel.sources, " + "), message));
  }

  // For an identity of every element that is computed, and of every cell, and for a kernel's lists.
  Result<Grant> pay() const {
    constexpr int64_t most = int64_t{1} << 56; // as good as infinitely many
    int64_t cells = plan_.arena_bytes.at(images_) / cell_, largest = 0;
    for (size_t id = 0; id < graph_.values.size(); ++id) {
      if (graph_.constant(ValueId(id))) continue;
      LATHE_TRY(const int64_t count, checked_element_count(shape_of(ValueId(id))));
      cells = std::min(cells + count, most);
      largest = std::max(largest, count);
    }
    return budget_.take(int64_t(sizeof(int64_t)) * (cells + 3 * largest), checking);
  }

  Shape shape_of(ValueId id) const {
    Shape shape = graph_.shape(id);
    if (plan_.batched && !graph_.constant(id)) shape[0] = images_;
    return shape;
  }
  int64_t elements(ValueId id) const { return element_count(shape_of(id)); }

  // --- Identities: fresh ones for what is computed, passed on by what only moves elements.

  static bool moves(const Op &op) {
    const Effect effect = facts_of(op).effect;
    return effect == Effect::moves || effect == Effect::rearranges;
  }
  Tensor fresh(ValueId id) const {
    Tensor tensor(DType::i64, shape_of(id));
    auto ids = tensor.as_mutable<int64_t>();
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = (int64_t(id) << 36) + int64_t(i);
    return tensor;
  }
  // Constants get theirs when somebody asks, which few do: weights are read, not moved.
  const Tensor &identity(ValueId id) const {
    Tensor &tensor = identities_[id];
    if (!tensor.defined() && graph_.constant(id)) tensor = fresh(id);
    return tensor;
  }
  Result<void> name_elements() {
    for (ValueId id : graph_.inputs) identities_[id] = fresh(id);
    for (const Node &node : graph_.nodes) {
      // A cast to the same type moves elements, too.
      auto *cast = std::get_if<Cast>(&node.op);
      if (cast && cast->to == graph_.type(node.inputs[0]).dtype) {
        identities_[node.outputs[0]] = identity(node.inputs[0]);
        continue;
      }
      if (!moves(node.op)) {
        for (ValueId id : node.outputs) identities_[id] = fresh(id);
        continue;
      }
      if (facts_of(node.op).keeps_order) {
        identities_[node.outputs[0]] = identity(node.inputs[0]).reshaped(shape_of(node.outputs[0]));
        continue;
      }
      Op op = node.op;
      if (auto *pad = std::get_if<Pad>(&op)) pad->value = float(filler);
      std::vector<Tensor> inputs;
      for (ValueId id : node.inputs) inputs.push_back(identity(id));
      LATHE_TRY(auto results, evaluate(op, inputs, budget_));
      for (size_t i = 0; i < results.size(); ++i) identities_[node.outputs[i]] = results[i];
    }
    return {};
  }

  // --- Memory

  std::vector<int64_t> &memory_of(Space space, int index) { return memory_[{int(space), index}]; }
  void lay_out(std::vector<int64_t> &memory, ValueId id) const { // row-major
    auto ids = identity(id).as<int64_t>();
    int64_t step = std::max<int64_t>(1, int64_t(size_of(graph_.type(id).dtype)) / cell_);
    memory.assign(ids.size() * size_t(step), nothing);
    for (size_t i = 0; i < ids.size(); ++i) memory[i * size_t(step)] = ids[i];
  }

  // The cells of a view's elements in row-major order.
  Result<std::vector<int64_t>> cells(const View &view, int64_t element_bytes) {
    Shape dims = view.dims;
    if (plan_.batched && view.space != Space::weights && !dims.empty()) dims[0] = images_;
    std::vector<int64_t> result;
    result.reserve(size_t(element_count(dims)));
    std::vector<int64_t> index(dims.size(), 0);
    const int64_t limit = int64_t(memory_of(view.space, view.index).size());
    for (int64_t n = element_count(dims); n > 0; --n) {
      int64_t byte = view.offset.at(images_);
      for (size_t d = 0; d < dims.size(); ++d) byte += index[d] * view.strides[d] * element_bytes;
      if (byte % cell_ || byte < 0 || byte / cell_ + element_bytes / cell_ > limit)
        return complain_here(
            fmt::format("a view leaves its memory: byte {} of {}", byte, limit * cell_));
      result.push_back(byte / cell_);
      for (size_t d = dims.size(); d-- > 0;) {
        if (++index[d] < dims[d]) break;
        index[d] = 0;
      }
    }
    return result;
  }

  // --- One kernel

  Result<void> step(const Kernel &kernel) {
    LATHE_CHECK(check_params(kernel));
    auto *map = std::get_if<MapSpec>(&kernel.spec);
    if (map && map->steps.empty() && map->from == map->to)
      return copy(kernel, int64_t(size_of(map->to)));
    const View &out = kernel.operands[size_t(kernel.output)];
    LATHE_TRY(std::vector<int64_t> written, cells(out, bytes_of(out)));
    if (out.space != Space::arena && out.space != Space::output)
      return complain_here("it writes to read-only memory");
    for (size_t o = 0; o < kernel.operands.size(); ++o) {
      const View &view = kernel.operands[o];
      if (int(o) == kernel.output || view.space == Space::weights) continue;
      LATHE_TRY(std::vector<int64_t> read, cells(view, bytes_of(view)));
      auto identities = identity(view.value).as<int64_t>();
      std::vector<int64_t> expected(identities.begin(), identities.end());
      const Role role = role_of(kernel, o);
      if (role.packed_for) expected = in_panels(*role.packed_for, kernel, identity(view.value));
      if (read.size() != expected.size())
        return complain_here(fmt::format("operand {} has another size than its value", o));
      const std::vector<int64_t> &memory = memory_of(view.space, view.index);
      for (size_t i = 0; i < read.size(); ++i)
        if (memory[size_t(read[i])] != expected[i])
          return complain_here(
              fmt::format("operand {}, element {}: something else lies there", o, i));
      if (view.space == out.space && view.index == out.index)
        LATHE_CHECK(no_hazard(kernel, int(o), read, written));
    }
    if (std::holds_alternative<ConvSpec>(kernel.spec)) LATHE_CHECK(check_products(kernel));
    auto named = identity(out.value).as<int64_t>();
    if (written.size() != named.size())
      return complain_here("the result has another size than its value");
    std::vector<int64_t> &memory = memory_of(out.space, out.index);
    for (size_t i = 0; i < written.size(); ++i) memory[size_t(written[i])] = named[i];
    return {};
  }

  // By what the kernel's parameters say, its code finds its operands where their Views lie.
  Result<void> check_params(const Kernel &kernel) const {
    std::vector<CheckedView> operands;
    for (const View &view : kernel.operands) {
      CheckedView checked{view.dims, view.strides, view.value == no_value ? 4 : bytes_of(view)};
      if (plan_.batched && view.space != Space::weights && !view.dims.empty())
        checked.dims[0] = images_;
      operands.push_back(std::move(checked));
    }
    const ValueId result = kernel.operands[size_t(kernel.output)].value;
    const int producer = result == no_value ? -1 : uses_.producer[result];
    const Op *op = producer < 0 ? nullptr : &graph_.nodes[size_t(producer)].op;
    const std::string fault = fault_of_params(kernel, operands, op, images_);
    if (!fault.empty()) return complain_here(fault);
    return {};
  }

  int64_t bytes_of(const View &view) const {
    return int64_t(size_of(graph_.type(view.value).dtype));
  }

  // What a kernel does with an operand besides reading it somewhere.
  struct Role {
    const ConvSpec *packed_for = nullptr; // weights or bias in the panels of this convolution
    bool replaceable = false;             // the result may lie where it lies
  };
  Role role_of(const Kernel &kernel, size_t operand) const {
    if (auto *conv = std::get_if<ConvSpec>(&kernel.spec)) {
      size_t first = conv->first_stage_operand();
      if (operand < first) return {};
      for (const ConvSpec *stage = conv; stage;
           stage = stage->source.empty() ? nullptr : &stage->source[0]) {
        const size_t post = first + stage->stage_operands() - operands_of(stage->post);
        const size_t end = first + stage->stage_operands();
        if (operand <= first + stage->bias) return {stage, false};
        if (operand < end) return {nullptr, operand >= post && stage == conv && !conv->pool};
        first = end;
      }
      return {};
    }
    if (auto *dense = std::get_if<DenseSpec>(&kernel.spec))
      return {nullptr, operand >= size_t(DenseSpec::bias_operand + dense->bias)};
    if (std::holds_alternative<MapSpec>(kernel.spec))
      return {nullptr, bytes_of(kernel.operands[operand]) ==
                           bytes_of(kernel.operands[size_t(kernel.output)])};
    if (auto *pool = std::get_if<PoolSpec>(&kernel.spec))
      return {nullptr, operand >= kernel.operands.size() - operands_of(pool->post)};
    return {nullptr, std::holds_alternative<SoftmaxSpec>(kernel.spec) ||
                         std::holds_alternative<LrnSpec>(kernel.spec)};
  }

  // Of the layers that may be meant, where several share input and weights, one must be it.
  Result<void> check_products(const Kernel &kernel) {
    const View &view = kernel.operands.back();
    CheckedInput input{view.dims, view.strides, identity(view.value).as<int64_t>()};
    input.dims.resize(4, 1);
    input.strides.resize(4, 0);
    if (plan_.batched) input.dims[0] = images_;
    std::string fault = "no layer of the graph is it";
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (graph_.nodes[n].inputs[0] != view.value) continue;
      const std::vector<CheckedConv> layers = layers_of(kernel, int(n));
      if (layers.empty()) continue;
      fault = fault_of_products(kernel, layers, input);
      if (fault.empty()) return {};
    }
    return complain_here(fault);
  }
  // What a kernel computes, if its first convolution is node `n`: the last one first.
  std::vector<CheckedConv> layers_of(const Kernel &kernel, int n) const {
    std::vector<ValueId> weights; // the last one's first
    auto *conv = &std::get<ConvSpec>(kernel.spec);
    size_t operand = conv->first_stage_operand();
    for (; conv; conv = conv->source.empty() ? nullptr : &conv->source[0]) {
      weights.push_back(kernel.operands[operand].value);
      operand += conv->stage_operands();
    }
    std::vector<CheckedConv> layers;
    for (; !weights.empty(); weights.pop_back()) {
      if (n < 0 || graph_.nodes[size_t(n)].inputs.size() < 2) return {};
      const Node &node = graph_.nodes[size_t(n)];
      auto *op = std::get_if<Conv>(&node.op);
      const auto own = weights_of(node.op);
      if (!own || node.inputs[*own] != weights.back()) return {};
      CheckedConv layer{op ? *op : Conv{}, graph_.shape(node.inputs[0]),
                        graph_.shape(node.outputs[0])};
      layer.x.resize(4, 1);
      layer.y.resize(4, 1);
      layers.insert(layers.begin(), layer);
      n = uses_.single_reader(node.outputs[0]);
    }
    return layers;
  }

  // Weights or biases that a convolution packed at run time: [group][panel][kh][kw][channel][lane].
  std::vector<int64_t> in_panels(const ConvSpec &spec, const Kernel &kernel,
                                 const Tensor &value) const {
    Shape w = value.shape();
    w.resize(4, 1);
    const int64_t groups =
        spec.group_channels > 0
            ? 1
            : kernel.params[leaf(&ConvSpec::Params::groups)].fixed; // that panels end at
    const int64_t rows = w[0] / groups;
    auto ids = value.as<int64_t>();
    std::vector<int64_t> packed;
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t p = 0, panel = 0; p < rows; p += panel) {
        panel = p + spec.panel() < rows ? spec.panel() : spec.of_last_panel().panel();
        for (int64_t tap = 0; tap < w[2] * w[3]; ++tap)
          for (int64_t c = 0; c < w[1]; ++c)
            for (int64_t lane = p; lane < p + panel; ++lane)
              packed.push_back(lane < rows
                                   ? ids[size_t(((g * rows + lane) * w[1] + c) * w[2] * w[3] + tap)]
                                   : filler);
      }
    return packed;
  }

  // A cell may be read and written by one kernel only where each element depends on itself alone.
  Result<void> no_hazard(const Kernel &kernel, int operand, const std::vector<int64_t> &read,
                         const std::vector<int64_t> &written) const {
    if (role_of(kernel, size_t(operand)).replaceable && read == written) return {};
    std::vector<int64_t> a = read, b = written, both;
    std::ranges::sort(a);
    std::ranges::sort(b);
    std::ranges::set_intersection(a, b, std::back_inserter(both));
    if (both.empty()) return {};
    return complain_here(fmt::format("operand {} is overwritten while it is read", operand));
  }

  // A copy moves whatever lies there; its readers are checked later.
  Result<void> copy(const Kernel &kernel, int64_t element_bytes) {
    const View &from = kernel.operands[0], &to = kernel.operands[1];
    LATHE_TRY(std::vector<int64_t> written, cells(to, element_bytes));
    std::vector<int64_t> &target = memory_of(to.space, to.index);
    if (from.space == Space::weights) {
      const ConstantRef &constant = plan_.weights[size_t(from.index)].constant;
      bool pads = constant->splat && from.value == no_value;
      auto ids = pads ? std::span<const int64_t>{} : identity(from.value).as<int64_t>();
      for (size_t i = 0; i < written.size(); ++i)
        target[size_t(written[i])] = pads ? filler : ids[i % ids.size()];
      return {};
    }
    LATHE_TRY(std::vector<int64_t> read, cells(from, element_bytes));
    if (read.size() != written.size()) return complain_here("a copy between different sizes");
    std::vector<int64_t> moved;
    for (int64_t cell : read) moved.push_back(memory_of(from.space, from.index)[size_t(cell)]);
    for (size_t i = 0; i < written.size(); ++i) target[size_t(written[i])] = moved[i];
    return {};
  }

  const Plan &plan_;
  const Graph &graph_;
  const Uses uses_;
  const int64_t images_;
  const Budget &budget_;
  int64_t cell_ = 4; // bytes
  size_t number_ = 0;
  mutable std::vector<Tensor> identities_;
  std::map<std::pair<int, int>, std::vector<int64_t>> memory_;
};

} // namespace

Result<void> check_plan(const Plan &plan, const Graph &graph, int64_t images,
                        const Budget &budget) {
  return Checker(plan, graph, images, budget).run();
}

} // namespace lathe::core
