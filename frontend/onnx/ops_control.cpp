// Choices and loops whose conditions are known, which are unrolled; sequences and optionals, of
// which nothing is left at run time.
#include "frontend/onnx/import.h"

#include <algorithm>
#include <fmt/format.h>
#include <limits>

namespace lathe::core::onnx {
namespace {

constexpr int64_t most_iterations = 1 << 16;

bool is_true(Call &c, const Item &item) {
  if (item.id == no_value) c.invalid("a condition is no tensor");
  const Tensor known = c.known_value(item.id);
  if (known.dtype() != DType::boolean || known.size() != 1)
    c.invalid("a condition is not one bool", "one bool",
              fmt::format("{} {}", to_string(known.dtype()), to_string(known.shape())));
  return known.as<uint8_t>()[0] != 0;
}

ValueId integer(Call &c, int64_t value) {
  return c.constant(Tensor::of(std::vector<int64_t>{value}, {}));
}

// Along a new dimension; counted in the result's rank where it is negative.
ValueId stack(Call &c, const Values &parts, int64_t axis, bool backwards = false) {
  if (parts.empty()) c.unsupported("a stack of nothing");
  axis = c.axis(axis, c.rank(parts[0]) + 1);
  Values wide;
  for (ValueId part : parts) {
    if (c.rank(part) < axis) c.invalid("parts of a stack have other shapes");
    Shape shape = c.shape(part);
    shape.insert(shape.begin() + axis, 1);
    wide.push_back(c.reshape(part, shape));
  }
  if (backwards) std::ranges::reverse(wide);
  return c.add(Concat{axis}, wide);
}

void give_all(Call &c, Items items) {
  for (size_t i = 0; i < items.size() && i < c.output_count(); ++i) c.give(i, std::move(items[i]));
}

Values if_(Call &c) {
  const bool chosen = is_true(c, {c.input(0)});
  Items results =
      c.call_graph(c.graph(chosen ? "then_branch" : "else_branch"), {}, chosen ? "then" : "else");
  if (results.size() < c.output_count()) c.invalid("a branch has too few outputs");
  give_all(c, std::move(results));
  return {};
}

// What no iteration made: the body says of which shape.
ValueId nothing_of(Call &c, const ValueInfo &declared) {
  auto dtype = graph_type(declared.data_type);
  Shape shape{0};
  for (const Dimension &d : declared.shape) shape.push_back(d.value.value_or(-1));
  if (!dtype || !declared.has_shape || std::ranges::count(shape, -1))
    c.unsupported("a loop without iterations whose body does not say what shape its results have");
  return c.cast(c.filled(0, shape), *dtype);
}

Values loop(Call &c) {
  const GraphProto &body = c.graph("body");
  const bool counted = c.has(0), conditional = c.has(1);
  const int64_t trips = counted ? c.known_integer(0) : std::numeric_limits<int64_t>::max();
  Items carried;
  for (size_t i = 2; i < c.input_count(); ++i) carried.push_back(c.item(i));
  if (body.outputs.size() < carried.size() + 1)
    c.invalid("a loop's body has too few outputs", fmt::format("{}", carried.size() + 1),
              fmt::format("{}", body.outputs.size()));
  std::vector<Values> scans(body.outputs.size() - carried.size() - 1);
  bool going = !conditional || is_true(c, c.item(1));
  for (int64_t i = 0; i < trips && going; ++i) {
    if (i == most_iterations)
      throw Failure{Error{.code = ErrorCode::limit,
                          .message = "so long a loop",
                          .expected = fmt::format("at most {} iterations", most_iterations)}};
    Items inputs{{integer(c, i)}, {c.cast(c.scalar(1), DType::boolean)}};
    inputs.insert(inputs.end(), carried.begin(), carried.end());
    Items results = c.call_graph(body, inputs, std::to_string(i));
    if (conditional) going = is_true(c, results[0]);
    for (size_t k = 0; k < carried.size(); ++k) carried[k] = results[1 + k];
    for (size_t k = 0; k < scans.size(); ++k) {
      const ValueId scanned = results[1 + carried.size() + k].id;
      if (scanned == no_value) c.invalid("a sequence among a loop's scan outputs");
      scans[k].push_back(scanned);
    }
  }
  for (size_t k = 0; k < scans.size() && carried.size() < c.output_count(); ++k)
    carried.push_back({scans[k].empty()
                           ? nothing_of(c, body.outputs[body.outputs.size() - scans.size() + k])
                           : stack(c, scans[k], 0)});
  give_all(c, std::move(carried));
  return {};
}

// One of an attribute's numbers, all `otherwise` if there are none.
int64_t entry_of(Call &c, Bytes attribute, size_t i, int64_t otherwise) {
  const std::vector<int64_t> all = c.integers(attribute);
  if (!all.empty() && i >= all.size())
    c.invalid(fmt::format("attribute {} has the wrong length", attribute));
  return all.empty() ? otherwise : all[i];
}

Values scan(Call &c) {
  if (c.opset < 9) c.unsupported("the scan of opset 8");
  const GraphProto &body = c.graph("body");
  const int64_t scanned = c.integer("num_scan_inputs", 0);
  if (scanned < 1 || scanned > int64_t(c.input_count())) c.invalid("bad num_scan_inputs");
  const size_t states = c.input_count() - size_t(scanned);
  Items carried;
  for (size_t i = 0; i < states; ++i) carried.push_back(c.item(i));
  if (body.outputs.size() < states) c.invalid("a scan's body has too few outputs");
  std::vector<Values> scans(body.outputs.size() - states);
  std::vector<int64_t> axes;
  int64_t length = 0;
  for (size_t k = 0; k < size_t(scanned); ++k) {
    const ValueId x = c.input(states + k);
    axes.push_back(c.axis(entry_of(c, "scan_input_axes", k, 0), c.rank(x)));
    const int64_t extent = c.shape(x)[size_t(axes[k])];
    if (k > 0 && extent != length) c.invalid("scanned inputs have other lengths");
    length = extent;
  }
  if (length > most_iterations)
    c.unsupported("so long a scan", fmt::format("at most {} iterations", most_iterations));
  for (int64_t i = 0; i < length; ++i) {
    Items inputs = carried;
    for (size_t k = 0; k < size_t(scanned); ++k) {
      const ValueId x = c.input(states + k);
      const bool backwards = entry_of(c, "scan_input_directions", k, 0) != 0;
      const int64_t at = backwards ? length - 1 - i : i;
      Shape shape = c.shape(x);
      shape.erase(shape.begin() + axes[k]);
      inputs.push_back({c.reshape(c.slice(x, axes[k], at, at + 1), shape)});
    }
    Items results = c.call_graph(body, inputs, std::to_string(i));
    for (size_t k = 0; k < states; ++k) carried[k] = results[k];
    for (size_t k = 0; k < scans.size(); ++k) scans[k].push_back(results[states + k].id);
  }
  for (size_t k = 0; k < scans.size() && carried.size() < c.output_count(); ++k)
    carried.push_back({scans[k].empty() ? nothing_of(c, body.outputs[states + k])
                                        : stack(c, scans[k], entry_of(c, "scan_output_axes", k, 0),
                                                entry_of(c, "scan_output_directions", k, 0) != 0)});
  give_all(c, std::move(carried));
  return {};
}

// --- Sequences

// The place that input i names in a sequence of `size`, or `otherwise`; one beyond the last, if
// `end` allows it.
size_t place(Call &c, size_t i, size_t size, int64_t otherwise, bool end = false) {
  const auto n = int64_t(size);
  const int64_t last = end ? n : n - 1;
  int64_t at = c.has(i) ? c.known_integer(i) : otherwise;
  if (at < -n || at > last)
    c.invalid("a place outside of a sequence", fmt::format("{} to {}", -n, last),
              fmt::format("{}", at));
  return size_t(at < 0 ? at + n : at);
}

Values sequence_empty(Call &c) {
  c.give(0, Values{});
  return {};
}
Values sequence_construct(Call &c) {
  c.give(0, c.inputs());
  return {};
}
Values sequence_insert(Call &c) {
  Values parts = c.sequence(0);
  const size_t at = place(c, 2, parts.size(), int64_t(parts.size()), true);
  parts.insert(parts.begin() + int64_t(at), c.input(1));
  c.give(0, std::move(parts));
  return {};
}
Values sequence_erase(Call &c) {
  Values parts = c.sequence(0);
  parts.erase(parts.begin() + int64_t(place(c, 1, parts.size(), -1)));
  c.give(0, std::move(parts));
  return {};
}
Values sequence_at(Call &c) {
  const Values &parts = c.sequence(0);
  c.give(0, Item{parts[place(c, 1, parts.size(), -1)]});
  return {};
}
Values sequence_length(Call &c) { return {integer(c, int64_t(c.sequence(0).size()))}; }

Values split_to_sequence(Call &c) {
  const ValueId x = c.input(0);
  const int64_t axis = c.axis(c.integer("axis", 0), c.rank(x)), extent = c.shape(x)[size_t(axis)];
  std::vector<int64_t> sizes;
  const bool scalar = c.has(1) && c.rank(c.input(1)) == 0;
  if (c.has(1) && !scalar) {
    sizes = c.known_integers(1);
  } else { // equal parts, the last one smaller if need be
    const int64_t each = scalar ? c.known_integer(1) : 1;
    if (each < 1) c.invalid("bad length of a part", "1 or more", fmt::format("{}", each));
    if ((extent + each - 1) / each > most_iterations) c.unsupported("so many parts");
    for (int64_t at = 0; at < extent; at += each) sizes.push_back(std::min(each, extent - at));
  }
  Values parts;
  if (!sizes.empty()) parts = c.add_all(Split{axis, sizes}, {x});
  // By the specification keepdims counts only without lengths; torch writes both for `unbind`, and
  // ONNX Runtime does what it means.
  const bool single = !c.has(1) || (scalar && c.known_integer(1) == 1);
  if (!c.flag("keepdims", true) && single)
    for (ValueId &part : parts) {
      Shape shape = c.shape(part);
      shape.erase(shape.begin() + axis);
      part = c.reshape(part, shape);
    }
  c.give(0, std::move(parts));
  return {};
}
Values concat_from_sequence(Call &c) {
  const Values &parts = c.sequence(0);
  if (parts.empty()) c.unsupported("a concat of nothing");
  const int64_t axis = c.integer("axis", 0);
  if (c.flag("new_axis")) return {stack(c, parts, axis)};
  return {c.add(Concat{axis}, parts)};
}

Values sequence_map(Call &c) {
  const GraphProto &body = c.graph("body");
  std::vector<Values> results(c.output_count());
  for (size_t i = 0; i < c.sequence(0).size(); ++i) {
    Items inputs;
    for (size_t k = 0; k < c.input_count(); ++k) {
      const Item item = c.item(k);
      if (item.sequence && i >= item.sequence->size()) c.invalid("sequences have other lengths");
      inputs.push_back(item.sequence ? Item{(*item.sequence)[i]} : item);
    }
    const Items made = c.call_graph(body, inputs, std::to_string(i));
    if (made.size() < results.size()) c.invalid("a body has too few outputs");
    for (size_t k = 0; k < results.size(); ++k) results[k].push_back(made[k].id);
  }
  for (size_t k = 0; k < results.size(); ++k) c.give(k, std::move(results[k]));
  return {};
}

// --- Optionals

Values optional(Call &c) {
  c.give(0, c.item(0));
  return {};
}
Values optional_has_element(Call &c) {
  return {c.cast(c.scalar(c.item(0).present() ? 1 : 0), DType::boolean)};
}
Values optional_get_element(Call &c) {
  if (!c.has(0)) c.invalid("the element of an optional without one");
  return optional(c);
}

} // namespace

std::span<const HandlerEntry> control_handlers() {
  static constexpr HandlerEntry table[] = {
      {"ConcatFromSequence", concat_from_sequence, "axis new_axis"},
      {"If", if_, "else_branch then_branch"},
      {"Loop", loop, "body"},
      {"Optional", optional, "~type"},
      {"OptionalGetElement", optional_get_element},
      {"OptionalHasElement", optional_has_element},
      {"Scan", scan,
       "body directions@-8 num_scan_inputs scan_input_axes@9 scan_input_directions@9 "
       "scan_output_axes@9 scan_output_directions@9"},
      {"SequenceAt", sequence_at},
      {"SequenceConstruct", sequence_construct},
      {"SequenceEmpty", sequence_empty, "~dtype"},
      {"SequenceErase", sequence_erase},
      {"SequenceInsert", sequence_insert},
      {"SequenceLength", sequence_length},
      {"SequenceMap", sequence_map, "body"},
      {"SplitToSequence", split_to_sequence, "axis keepdims"},
  };
  return table;
}

} // namespace lathe::core::onnx
