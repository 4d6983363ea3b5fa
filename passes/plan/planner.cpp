// Graph to Plan: inputs, outputs and concats find their places, then every node is lowered, then
// the arena is laid out.
#include "passes/plan/builder.h"

#include <climits>
#include <fmt/format.h>

namespace lathe::core {
namespace {

class Planner {
public:
  Planner(const Graph &graph, const Target &target, const PlanOptions &options,
          const Budget &budget)
      : b_(graph, target, options), budget_(budget) {}

  Result<Plan> run() {
    LATHE_CHECK(check_types());
    place_inputs_and_outputs();
    place_concats();
    for (size_t n = 0; n < b_.graph.nodes.size(); ++n) {
      if (b_.schedule.reader[n] >= 0) continue;
      b_.current = int(n);
      LATHE_CHECK(pay());
      if (makes_nothing(b_.graph.nodes[n])) continue;
      if (auto done = lower(b_, b_.graph.nodes[n]); !done) {
        Error error = done.error();
        const Node &node = b_.graph.nodes[n];
        error.node = node.name;
        error.op = op_name(node.op);
        error.file = node.source.file;
        error.line = node.source.line;
        return fail(std::move(error));
      }
    }
    b_.current = INT_MAX;
    LATHE_CHECK(copy_outputs());
    LATHE_CHECK(finish());
    return std::move(b_.plan);
  }

private:
  // For the kernels so far.
  Result<void> pay() {
    constexpr std::string_view planning = "planning the network";
    LATHE_CHECK(budget_.check(planning));
    if (b_.plan.kernels.size() < paid_) return {};
    constexpr size_t together = 256;
    LATHE_TRY(grants_.emplace_back(), budget_.take(int64_t(together) * kernel_bytes, planning));
    paid_ += together;
    return {};
  }

  // --- Decisions about the whole graph

  // Kernels move any type, do simple arithmetic on whole numbers, and compute in f32.
  Result<void> check_types() {
    std::string problems;
    auto complain = [&](std::string problem) {
      problems += (problems.empty() ? "" : "\n") + problem;
    };
    for (const Node &node : b_.graph.nodes) {
      DType dtype = b_.graph.type(node.inputs[0]).dtype;
      if (!facts_of(node.op).any_type && dtype != DType::f32)
        complain(
            fmt::format("  layer '{}': {} on {}", node.name, op_name(node.op), to_string(dtype)));
    }
    if (problems.empty()) return {};
    return fail(Error{.code = ErrorCode::unsupported,
                      .message = "no kernel covers parts of the network",
                      .file = b_.graph.name,
                      .detail = problems});
  }
  void place_inputs_and_outputs() {
    for (size_t i = 0; i < b_.graph.inputs.size(); ++i) {
      ValueId id = b_.graph.inputs[i];
      b_.storage.set(id, b_.storage.external(Space::input, int(i), b_.graph.type(id)));
      b_.plan.inputs.push_back(b_.graph.type(id));
      b_.plan.input_names.push_back(b_.graph.values[id].name);
    }
    for (size_t j = 0; j < b_.graph.outputs.size(); ++j) {
      ValueId id = b_.graph.outputs[j];
      b_.plan.outputs.push_back(b_.graph.type(id));
      b_.plan.output_names.push_back(b_.graph.values[id].name);
      const Shape &shape = b_.graph.shape(id);
      int producer = b_.uses.producer[id];
      bool computed = producer >= 0 && !is_view(b_.graph.nodes[size_t(producer)].op);
      // NHWC and NCHW agree where there is one channel or one pixel.
      bool row_major = shape.size() != 4 || shape[1] == 1 || shape[2] * shape[3] == 1;
      if (computed && row_major && !b_.storage.has(id))
        b_.storage.set(id, b_.storage.external(Space::output, int(j), b_.graph.type(id)));
    }
  }

  // Parts of a concat are computed where the whole lies. Last concat first, so that a concat of
  // concats becomes one buffer.
  void place_concats() {
    for (size_t n = b_.graph.nodes.size(); n-- > 0;) {
      const Node &node = b_.graph.nodes[n];
      auto *concat = std::get_if<Concat>(&node.op);
      if (!concat || b_.graph.type(node.outputs[0]).dtype != DType::f32) continue;
      ValueId whole = node.outputs[0];
      if (!b_.storage.has(whole)) b_.storage.set(whole, b_.storage.allocate(b_.graph.type(whole)));
      const size_t axis = axis_index(concat->axis, b_.graph.shape(whole).size());
      int64_t begin = 0;
      for (ValueId part : node.inputs) {
        int64_t extent = b_.graph.shape(part)[axis];
        int producer = b_.uses.producer[part];
        bool own = producer >= 0 && !is_view(b_.graph.nodes[size_t(producer)].op) &&
                   !b_.uses.is_output[part];
        if (own && !b_.storage.has(part))
          b_.storage.set(part, subview(b_.storage[whole], axis, begin, extent));
        begin += extent;
      }
    }
  }

  // Results without elements need storage, for their readers, but no kernel.
  bool makes_nothing(const Node &node) {
    for (ValueId id : node.outputs)
      if (element_count(b_.graph.shape(id)) > 0) return false;
    for (ValueId id : node.outputs) b_.result(id);
    return true;
  }

  // --- The end

  Result<void> copy_outputs() {
    for (size_t j = 0; j < b_.graph.outputs.size(); ++j) {
      ValueId id = b_.graph.outputs[j];
      Storage source = b_.operand(id);
      const Buffer &buffer = b_.storage.buffers[size_t(source.buffer)];
      if (buffer.space == Space::output && buffer.index == int(j)) continue;
      LATHE_CHECK(b_.copy(source, b_.storage.external(Space::output, int(j), b_.graph.type(id)), id,
                          id, nullptr));
    }
    return {};
  }

  Result<void> finish() {
    LATHE_TRY(const ArenaSize size, assign_offsets(b_.storage.buffers, b_.batched, budget_));
    b_.plan.arena_bytes = b_.batched ? Affine{size.bytes, 0} : Affine{0, size.bytes};
    b_.plan.arena_lower_bound_bytes =
        b_.batched ? Affine{size.lower_bound, 0} : Affine{0, size.lower_bound};
    count_alive();
    for (Kernel &kernel : b_.plan.kernels) {
      for (View &view : kernel.operands) {
        const Buffer &buffer = b_.storage.buffers[size_t(view.index)];
        view.space = buffer.space;
        view.index = buffer.space == Space::arena ? 0 : buffer.index;
        (b_.batched ? view.offset.per_image : view.offset.fixed) += buffer.offset;
      }
      b_.plan.scratch_bytes = std::max(b_.plan.scratch_bytes, kernel.scratch_bytes);
    }
    LATHE_CHECK(b_.plan.sized(1, 1));
    return {};
  }

  void count_alive() {
    std::vector<int64_t> change(b_.plan.kernels.size() + 1);
    for (const Buffer &buffer : b_.storage.buffers) {
      if (buffer.space != Space::arena || buffer.last < 0) continue;
      const int64_t bytes = buffer.bytes.per_image + buffer.bytes.fixed;
      change[size_t(buffer.first)] += bytes;
      change[size_t(buffer.last) + 1] -= bytes;
    }
    int64_t alive = 0;
    for (size_t k = 0; k < b_.plan.kernels.size(); ++k)
      b_.plan.kernels[k].alive_bytes = alive += change[k];
  }

  PlanBuilder b_;
  const Budget &budget_;
  size_t paid_ = 0; // kernels
  std::vector<Grant> grants_;
};

} // namespace

Result<Plan> make_plan(const Graph &graph, const Target &target, const PlanOptions &options,
                       const Budget &budget) {
  return Planner(graph, target, options, budget).run();
}

} // namespace lathe::core
