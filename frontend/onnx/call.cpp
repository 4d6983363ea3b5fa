// What a handler reads of its node, and builds of simple steps: all that needs no more of the
// importer than known.cpp's few functions of Call.
#include "frontend/onnx/import.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core::onnx {

// --- Inputs

Item Call::item(size_t i) const {
  if (i >= inputs_.size()) return {};
  read_[i] = true;
  return inputs_[i];
}
ValueId Call::input(size_t i) const {
  if (!has(i)) invalid(fmt::format("input {} is missing", i));
  const Item found = item(i);
  if (found.id == no_value) invalid(fmt::format("input {} is a sequence", i), "a tensor");
  return found.id;
}
const Values &Call::sequence(size_t i) const {
  if (!has(i)) invalid(fmt::format("input {} is missing", i));
  read_[i] = true;
  if (!inputs_[i].sequence) invalid(fmt::format("input {} is a tensor", i), "a sequence");
  return *inputs_[i].sequence;
}

Values Call::inputs() const {
  Values all;
  for (size_t i = 0; i < input_count(); ++i) all.push_back(input(i));
  return all;
}

void Call::check_inputs() const {
  for (size_t i = 0; i < input_count(); ++i)
    if (has(i) && !read_[i]) invalid(fmt::format("input {} is none of this op's", i));
}

std::vector<int64_t> Call::known_integers(size_t i) const {
  const Tensor t = known(i);
  if (t.shape().size() > 1)
    invalid(fmt::format("input {} has the wrong rank", i), "0 or 1 dimensions");
  if (t.dtype() == DType::i64) return {t.as<int64_t>().begin(), t.as<int64_t>().end()};
  if (t.dtype() == DType::i32) return {t.as<int32_t>().begin(), t.as<int32_t>().end()};
  invalid(fmt::format("input {} has the wrong element type", i), "int64 or int32",
          std::string(to_string(t.dtype())));
}
std::vector<float> Call::known_numbers(size_t i) const {
  const Tensor t = known(i);
  if (t.dtype() != DType::f32)
    invalid(fmt::format("input {} has the wrong element type", i), "float",
            std::string(to_string(t.dtype())));
  return {t.f32().begin(), t.f32().end()};
}
float Call::known_number(size_t i) const {
  std::vector<float> all = known_numbers(i);
  if (all.size() != 1)
    invalid(fmt::format("input {} is no scalar", i), "one element",
            fmt::format("{} elements", all.size()));
  return all[0];
}
int64_t Call::known_integer(size_t i) const {
  const std::vector<int64_t> all = known_integers(i);
  if (all.size() != 1)
    invalid(fmt::format("input {} is not one number", i), "one element",
            fmt::format("{} elements", all.size()));
  return all[0];
}

void Call::give(size_t output, Item item) { given_.insert_or_assign(output, std::move(item)); }
Items Call::results(const Values &values) const {
  Items all;
  for (size_t i = 0; i < output_count(); ++i) {
    auto given = given_.find(i);
    const bool wanted = !node_.outputs[i].empty();
    if (given == given_.end() && wanted && (i >= values.size() || values[i] == no_value))
      unsupported(fmt::format("output {} of this op", i));
    if (given != given_.end())
      all.push_back(given->second);
    else
      all.push_back(wanted ? Item{values[i]} : Item{});
  }
  return all;
}

// --- Attributes

const GraphProto &Call::graph(Bytes attribute) const {
  const AttributeProto *a = find(attribute, AttributeProto::g_);
  if (!a || !a->g) invalid(fmt::format("attribute {} is missing", attribute));
  return *a->g;
}

const AttributeProto *Call::find(Bytes name, int32_t type) const {
  for (const AttributeProto &a : node_.attributes) {
    if (a.name != name) continue;
    if (!a.reference.empty()) invalid(fmt::format("attribute {} refers to a function's", name));
    if (type != AttributeProto::undefined && a.type != type)
      invalid(fmt::format("attribute {} has the wrong type", name),
              fmt::format("attribute type {}", type), fmt::format("{}", a.type));
    return &a;
  }
  return nullptr;
}
int64_t Call::integer(Bytes name, int64_t otherwise) const {
  const AttributeProto *a = find(name, AttributeProto::i_);
  return a ? a->i : otherwise;
}
float Call::number(Bytes name, float otherwise) const {
  const AttributeProto *a = find(name, AttributeProto::f_);
  return a ? a->f : otherwise;
}
Bytes Call::text(Bytes name, Bytes otherwise) const {
  const AttributeProto *a = find(name, AttributeProto::s_);
  return a ? a->s : otherwise;
}
std::vector<int64_t> Call::integers(Bytes name) const {
  const AttributeProto *a = find(name, AttributeProto::ints_);
  return a ? a->ints : std::vector<int64_t>();
}
std::vector<float> Call::numbers(Bytes name) const {
  const AttributeProto *a = find(name, AttributeProto::floats_);
  return a ? a->floats : std::vector<float>();
}
std::vector<int64_t> Call::spatial(Bytes name, size_t count, int64_t otherwise) const {
  std::vector<int64_t> values = integers(name);
  if (values.empty()) values.assign(count, otherwise);
  if (values.size() != count)
    invalid(fmt::format("attribute {} has the wrong length", name), fmt::format("{}", count),
            fmt::format("{}", values.size()));
  return values;
}

// --- Nodes

ValueId Call::scalar(float value) { return filled(value, {}); }
ValueId Call::reshape(ValueId x, const Shape &target) {
  const Shape &from = shape(x);
  if (from == target) return x;
  // Nothing is left, and zeros in a Reshape's target would be copies.
  if (element_count(from) == 0 && std::ranges::count(target, 0))
    return cast(filled(0, target), type(x).dtype);
  Reshape op{target};
  // Leading dimensions that stay say so: then a reshape means the same for every batch.
  for (size_t d = 0; d < op.shape.size() && d < from.size() && op.shape[d] == from[d]; ++d)
    op.shape[d] = 0;
  return add(op, {x});
}
ValueId Call::transpose(ValueId x, std::vector<int64_t> perm) {
  return std::ranges::is_sorted(perm) ? x : add(Transpose{std::move(perm)}, {x});
}
ValueId Call::slice(ValueId x, int64_t axis, int64_t begin, int64_t end, int64_t step) {
  return add(Slice{{axis}, {begin}, {end}, {step}}, {x});
}
ValueId Call::pad_or_crop(ValueId x, size_t axis, int64_t before, int64_t after) {
  const int64_t extent = shape(x)[axis];
  if (before < 0 || after < 0)
    x = slice(x, int64_t(axis), std::max<int64_t>(0, -before),
              std::max<int64_t>(0, extent + std::min<int64_t>(0, after)));
  if (before <= 0 && after <= 0) return x;
  Pad pad{std::vector<int64_t>(shape(x).size()), std::vector<int64_t>(shape(x).size())};
  pad.before[axis] = std::max<int64_t>(0, before);
  pad.after[axis] = std::max<int64_t>(0, after);
  return add(pad, {x});
}
ValueId Call::along_channels(ValueId vector, int64_t rank) {
  Shape target{element_count(shape(vector))};
  target.resize(size_t(std::max<int64_t>(1, rank - 1)), 1);
  return reshape(vector, target);
}
ValueId Call::cast(ValueId x, DType to) { return type(x).dtype == to ? x : add(Cast{to}, {x}); }

// --- Axes and errors

int64_t Call::axis(int64_t value, int64_t rank) const {
  if (value < -rank || value >= rank)
    invalid("axis out of range", fmt::format("{} to {}", -rank, rank - 1),
            fmt::format("{}", value));
  return value < 0 ? value + rank : value;
}
std::vector<int64_t> Call::axes(std::vector<int64_t> values, int64_t rank) const {
  for (int64_t &value : values) value = axis(value, rank);
  std::vector<int64_t> sorted = values;
  std::ranges::sort(sorted);
  if (std::ranges::adjacent_find(sorted) != sorted.end()) invalid("an axis stands twice");
  return values;
}

void Call::invalid(std::string message, std::string expected, std::string found) const {
  throw Failure{Error{.code = ErrorCode::invalid,
                      .message = std::move(message),
                      .expected = std::move(expected),
                      .found = std::move(found)}};
}
void Call::unsupported(std::string message, std::string expected, std::string found,
                       Obstacle obstacle) const {
  throw Failure{Error{.code = ErrorCode::unsupported,
                      .message = std::move(message),
                      .expected = std::move(expected),
                      .found = std::move(found)},
                obstacle};
}

} // namespace lathe::core::onnx
