// One row per layer. docs/net-language.md explains them.
#include "frontend/net/layers.h"

#include "ir/system/fork.h"

#include <algorithm>
#include <fmt/format.h>
#include <limits>

namespace lathe::core::net {

const Argument *LayerCall::option(std::string_view name) const {
  for (const Argument &a : statement.arguments)
    if (a.option == name) return &a;
  return nullptr;
}
const Argument *LayerCall::positional(size_t index) const {
  for (const Argument &a : statement.arguments)
    if (a.option.empty() && index-- == 0) return &a;
  return nullptr;
}
bool LayerCall::flag(const Argument *a, bool standard) const {
  return !a ? standard : !a->value || scope.number(*a->value) != 0;
}
double LayerCall::number(const Argument *a, double standard) const {
  return a ? scope.number(*a->value) : standard;
}
int64_t LayerCall::integer(const Argument *a, int64_t standard) const {
  return a ? scope.integer(*a->value) : standard;
}
int64_t LayerCall::count(const Argument *a) const {
  int64_t n = scope.integer(*a->value);
  if (n < 1)
    reject(a->place, fmt::format("'{}' needs channels", statement.word), "at least 1",
           fmt::format("{}", n));
  return n;
}
ConstantRef LayerCall::per_channel(const Argument *a) const {
  const Value values = scope.evaluate(*a->value);
  if (values.size() == 1) return splat_constant(static_cast<float>(values[0]), {1});
  if (static_cast<int64_t>(values.size()) != channels())
    reject(a->place, "wrong number of values",
           fmt::format("one, or one for each of {} channels", channels()),
           fmt::format("{}", values.size()));
  Shape aligned(x.size() - 1, 1); // C,1,1, which broadcasts over N,C,H,W
  aligned[0] = channels();
  return literal_constant(Tensor::of(std::vector<float>(values.begin(), values.end()), aligned));
}
std::vector<int64_t> LayerCall::integers(const Argument *a, std::vector<int64_t> standard) const {
  return a ? scope.integers(*a->value) : standard;
}
Size2 LayerCall::size(const Argument *a, Size2 standard) const {
  if (!a) return standard;
  std::vector<int64_t> values = scope.integers(*a->value);
  if (values.size() > 2)
    reject(a->place, "too many sizes", "height x width, or one for both",
           fmt::format("{}", fmt::join(values, "x")));
  return {values.front(), values.back()};
}

namespace {

struct Window {
  Size2 kernel, stride, dilation;
  Pads pad;
};

// `same`: as many results as without a kernel, the odd row or column of zeros at the end.
Pads same_padding(const Window &w, const Shape &x) {
  if (x.size() != 4 || w.stride.h < 1 || w.stride.w < 1) return {}; // refused by the shape rule
  auto total = [](int64_t in, int64_t kernel, int64_t stride, int64_t dilation) {
    int64_t out = (in + stride - 1) / stride;
    return std::max<int64_t>(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - in);
  };
  int64_t h = total(x[2], w.kernel.h, w.stride.h, w.dilation.h);
  int64_t v = total(x[3], w.kernel.w, w.stride.w, w.dilation.w);
  return {h / 2, v / 2, h - h / 2, v - v / 2};
}

Window window(const LayerCall &c, const Argument *kernel, bool steps_by_kernel) {
  Window w;
  w.kernel = c.size(kernel, {});
  w.stride = c.size(c.option("stride"), steps_by_kernel ? w.kernel : Size2{});
  w.dilation = c.size(c.option("dilation"), {});
  const Argument *pad = c.option("pad");
  if (!pad) return w;
  if (pad->value->kind == Expression::Kind::name && pad->value->text == "same") {
    w.pad = same_padding(w, c.x);
    return w;
  }
  std::vector<int64_t> v = c.integers(pad, {});
  if (v.size() == 4)
    w.pad = {v[0], v[1], v[2], v[3]};
  else if (v.size() <= 2)
    w.pad = {v.front(), v.back(), v.front(), v.back()};
  else
    reject(pad->place, "wrong number of paddings",
           "one, two (height, width) or four (top, left, bottom, right)",
           fmt::format("{}", v.size()));
  return w;
}

ConstantRef weight(const LayerCall &c, std::string_view suffix, Shape shape) {
  if (auto count = checked_element_count(shape); !count) {
    Error why = count.error();
    reject(c.statement.place,
           fmt::format("the weight of '{}' is impossible: {}", c.name, why.message), why.expected,
           why.found);
  }
  return named_constant(fmt::format("{}.{}", c.name, suffix), {DType::f32, std::move(shape)});
}
Layer with_weights(const LayerCall &c, Op op, std::vector<std::pair<const char *, Shape>> shapes) {
  Layer layer{std::move(op)};
  for (auto &[suffix, shape] : shapes)
    layer.operands.push_back({suffix, weight(c, suffix, std::move(shape))});
  return layer;
}

Layer conv(const LayerCall &c) {
  Conv conv;
  int64_t channels = c.count(c.positional(0));
  Window w = window(c, c.positional(1), false);
  conv.kernel = w.kernel;
  conv.stride = w.stride;
  conv.dilation = w.dilation;
  conv.pad = w.pad;
  conv.groups = c.integer(c.option("groups"), 1);
  conv.bias = c.flag(c.option("bias"), !c.normalised);
  int64_t depth = conv.groups > 0 ? c.channels() / conv.groups : c.channels();
  Shape shape{channels, depth, conv.kernel.h, conv.kernel.w};
  if (!conv.bias) return with_weights(c, conv, {{"weight", shape}});
  return with_weights(c, conv, {{"weight", shape}, {"bias", {channels}}});
}

Layer dense(const LayerCall &c) {
  if (c.x.size() != 2)
    reject(c.statement.place, "a dense layer reads vectors", "a 'flatten' before it",
           to_string(c.x));
  Dense dense;
  int64_t outputs = c.count(c.positional(0));
  dense.bias = c.flag(c.option("bias"), !c.normalised);
  if (!dense.bias) return with_weights(c, dense, {{"weight", {outputs, c.x[1]}}});
  return with_weights(c, dense, {{"weight", {outputs, c.x[1]}}, {"bias", {outputs}}});
}

Layer batch_norm(const LayerCall &c) {
  Shape channels{c.channels()};
  return with_weights(c, BatchNorm{static_cast<float>(c.number(c.option("eps"), 1e-5))},
                      {{"weight", channels},
                       {"bias", channels},
                       {"running_mean", channels},
                       {"running_var", channels}});
}

// PyTorch keeps one slope per channel in a vector; the op broadcasts it as C,1,1.
Layer prelu(const LayerCall &c) {
  int64_t channels = c.flag(c.option("shared")) ? 1 : c.channels();
  Shape aligned(c.x.size() > 1 ? c.x.size() - 1 : 1, 1);
  aligned[0] = channels;
  auto slope = computed_constant(Reshape{aligned}, {weight(c, "weight", {channels})});
  if (!slope) throw Failure{slope.error()};
  return {Binary{BinaryKind::prelu}, {{"slope", *slope}}};
}

template <BinaryKind kind> Layer by_channel(const LayerCall &c) {
  const char *suffix = kind == BinaryKind::mul ? "factor" : "shift";
  return {Binary{kind}, {{suffix, c.per_channel(c.positional(0))}}};
}

template <PoolKind kind> Layer pool(const LayerCall &c) {
  Window w = window(c, c.positional(0), true);
  Pool pool;
  pool.kind = kind;
  pool.kernel = w.kernel;
  pool.stride = w.stride;
  pool.dilation = w.dilation;
  pool.pad = w.pad;
  pool.ceil_mode = c.flag(c.option("ceil"));
  pool.count_include_pad = c.flag(c.option("count_include_pad"));
  return {pool};
}

float real(const LayerCall &c, const Argument *a, double standard) {
  return static_cast<float>(c.number(a, standard));
}

Layer lrn(const LayerCall &c) {
  return {Lrn{c.integer(c.positional(0), 5), real(c, c.option("alpha"), 1e-4),
              real(c, c.option("beta"), 0.75), real(c, c.option("k"), 1)}};
}

template <UnaryKind kind> Layer unary(const LayerCall &) { return {Unary{kind}}; }
Layer relu6(const LayerCall &) { return {Unary{UnaryKind::clip, 0, 6}}; }
Layer clip(const LayerCall &c) {
  return {Unary{UnaryKind::clip, real(c, c.positional(0), 0), real(c, c.positional(1), 1)}};
}
Layer leaky_relu(const LayerCall &c) {
  return {Unary{UnaryKind::leaky_relu, real(c, c.positional(0), 0.01)}};
}
Layer elu(const LayerCall &c) { return {Unary{UnaryKind::elu, real(c, c.positional(0), 1)}}; }
Layer hard_sigmoid(const LayerCall &c) {
  return {Unary{UnaryKind::hard_sigmoid, real(c, c.option("alpha"), 1.0 / 6),
                real(c, c.option("beta"), 0.5)}};
}

// Over the channels of a picture, over the last axis of everything else.
template <bool log> Layer softmax(const LayerCall &c) {
  return {Softmax{c.integer(c.option("axis"), c.x.size() == 4 ? 1 : -1), log}};
}

Layer slice(const LayerCall &c) {
  Slice slice;
  slice.axes = c.integers(c.option("axis"), {1});
  size_t n = slice.axes.size();
  slice.begin = c.integers(c.option("begin"), std::vector<int64_t>(n, 0));
  slice.end =
      c.integers(c.option("end"), std::vector<int64_t>(n, std::numeric_limits<int64_t>::max()));
  slice.step = c.integers(c.option("step"), std::vector<int64_t>(n, 1));
  return {slice};
}
Layer split(const LayerCall &c) {
  return {Split{c.integer(c.option("axis"), 1), c.integers(c.positional(0), {})}};
}

Layer pad(const LayerCall &c) {
  Pad pad{std::vector<int64_t>(c.x.size(), 0), std::vector<int64_t>(c.x.size(), 0),
          real(c, c.option("value"), 0)};
  size_t axis = 1;
  for (const char *name : {"channels", "rows", "cols"}) {
    if (const Argument *a = c.option(name)) {
      std::vector<int64_t> sides = c.integers(a, {});
      if (sides.size() > 2 || axis >= c.x.size())
        reject(a->place, fmt::format("cannot pad {}", name), "one or two sides of a dimension",
               fmt::format("{} of {}", sides.size(), to_string(c.x)));
      pad.before[axis] = sides.front();
      pad.after[axis] = sides.back();
    }
    ++axis;
  }
  return {pad};
}

Layer reshape(const LayerCall &c) {
  Reshape reshape{{0}}; // the batch stays
  for (int64_t d : c.integers(c.positional(0), {})) reshape.shape.push_back(d);
  return {reshape};
}

std::vector<LayerRule> make_rules() {
  const std::vector<OptionRule> window = {{"stride"}, {"pad"}, {"dilation"}};
  auto with = [](std::vector<OptionRule> options, std::initializer_list<OptionRule> more) {
    options.insert(options.end(), more);
    return options;
  };
  constexpr bool flag = true;
  return {
      {"conv", 2, 2, "channels and kernel", with(window, {{"groups"}, {"bias", flag}}), conv},
      {"dense", 1, 1, "the number of outputs", {{"bias", flag}}, dense},
      {"maxpool", 1, 1, "the kernel", with(window, {{"ceil", flag}}), pool<PoolKind::max>},
      {"avgpool", 1, 1, "the kernel", with(window, {{"ceil", flag}, {"count_include_pad", flag}}),
       pool<PoolKind::average>},
      {"global_avgpool", 0, 0, "", {}, [](auto &) { return Layer{GlobalPool{PoolKind::average}}; }},
      {"global_maxpool", 0, 0, "", {}, [](auto &) { return Layer{GlobalPool{PoolKind::max}}; }},
      {"lrn", 0, 1, "the size", {{"alpha"}, {"beta"}, {"k"}}, lrn},
      {"batchnorm", 0, 0, "", {{"eps"}}, batch_norm},
      {"relu", 0, 0, "", {}, unary<UnaryKind::relu>},
      {"relu6", 0, 0, "", {}, relu6},
      {"leaky_relu", 0, 1, "the slope", {}, leaky_relu},
      {"prelu", 0, 0, "", {{"shared", flag}}, prelu},
      {"clip", 2, 2, "lower and upper bound", {}, clip},
      {"sigmoid", 0, 0, "", {}, unary<UnaryKind::sigmoid>},
      {"tanh", 0, 0, "", {}, unary<UnaryKind::tanh>},
      {"hard_sigmoid", 0, 0, "", {{"alpha"}, {"beta"}}, hard_sigmoid},
      {"hard_swish", 0, 0, "", {}, unary<UnaryKind::hard_swish>},
      {"elu", 0, 1, "alpha", {}, elu},
      {"exp", 0, 0, "", {}, unary<UnaryKind::exp>},
      {"log", 0, 0, "", {}, unary<UnaryKind::log>},
      {"sqrt", 0, 0, "", {}, unary<UnaryKind::sqrt>},
      {"neg", 0, 0, "", {}, unary<UnaryKind::neg>},
      {"abs", 0, 0, "", {}, unary<UnaryKind::abs>},
      {"identity", 0, 0, "", {}, unary<UnaryKind::identity>},
      {"scale", 1, 1, "the factor", {}, by_channel<BinaryKind::mul>},
      {"shift", 1, 1, "what is added", {}, by_channel<BinaryKind::add>},
      {"softmax", 0, 0, "", {{"axis"}}, softmax<false>},
      {"log_softmax", 0, 0, "", {{"axis"}}, softmax<true>},
      {"dropout",
       0,
       1,
       "the rate",
       {},
       [](auto &c) { return Layer{Dropout{real(c, c.positional(0), 0.5)}}; }},
      {"flatten",
       0,
       1,
       "the axis",
       {},
       [](auto &c) { return Layer{Flatten{c.integer(c.positional(0), 1)}}; }},
      {"reshape", 1, 1, "the sizes behind the batch", {}, reshape},
      {"transpose",
       1,
       1,
       "the order of all axes",
       {},
       [](auto &c) { return Layer{Transpose{c.integers(c.positional(0), {})}}; }},
      {"reduce_mean",
       1,
       1,
       "the axes",
       {{"keep", flag}},
       [](auto &c) {
         return Layer{Reduce{ReduceKind::mean, c.integers(c.positional(0), {}),
                             c.flag(c.option("keep"), true)}};
       }},
      {"slice", 0, 0, "", {{"axis"}, {"begin"}, {"end"}, {"step"}}, slice},
      {"split", 1, 1, "the sizes of the parts", {{"axis"}}, split},
      {"pad", 0, 0, "", {{"channels"}, {"rows"}, {"cols"}, {"value"}}, pad},
  };
}
const std::vector<LayerRule> &rules() { return made_once<make_rules>(); }

} // namespace

const LayerRule *find_layer(std::string_view name) {
  auto found = std::ranges::find(rules(), name, &LayerRule::name);
  return found == rules().end() ? nullptr : &*found;
}

std::vector<std::string> layer_names() {
  std::vector<std::string> names;
  for (const LayerRule &rule : rules()) names.emplace_back(rule.name);
  return names;
}

bool is_join(std::string_view word) {
  static constexpr std::string_view words[] = {"add", "sub", "mul", "div", "min", "max", "concat"};
  return std::ranges::count(words, word) > 0;
}

} // namespace lathe::core::net
