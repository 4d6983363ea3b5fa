// The layers of the language: one row each, for parser and messages. docs/net-language.md explains
// them; lower.cpp gives them their meaning.
#include "frontend/net/syntax.h"

namespace lathe::net {
namespace {

const std::vector<LayerRule> &rules() {
  static const std::vector<LayerRule> table = {
      {"conv",
       "channels and kernel",
       2,
       2,
       {{"stride"}, {"pad"}, {"dilation"}, {"groups"}, {"bias", true}, {"nobias", true}}},
      {"dense", "outputs", 1, 1, {{"bias", true}, {"nobias", true}}},
      {"maxpool", "kernel", 1, 1, {{"stride"}, {"pad"}, {"dilation"}, {"ceil", true}}},
      {"avgpool",
       "kernel",
       1,
       1,
       {{"stride"}, {"pad"}, {"dilation"}, {"ceil", true}, {"count_include_pad", true}}},
      {"global_avgpool", "", 0, 0, {}},
      {"global_maxpool", "", 0, 0, {}},
      {"lrn", "size", 0, 1, {{"alpha"}, {"beta"}, {"k"}}},
      {"batchnorm", "", 0, 0, {{"eps"}}},
      {"relu", "", 0, 0, {}},
      {"relu6", "", 0, 0, {}},
      {"leaky_relu", "slope", 0, 1, {}},
      {"prelu", "", 0, 0, {{"shared", true}}},
      {"clip", "lower and upper bound", 2, 2, {}},
      {"sigmoid", "", 0, 0, {}},
      {"tanh", "", 0, 0, {}},
      {"hard_sigmoid", "", 0, 0, {{"alpha"}, {"beta"}}},
      {"hard_swish", "", 0, 0, {}},
      {"elu", "alpha", 0, 1, {}},
      {"exp", "", 0, 0, {}},
      {"log", "", 0, 0, {}},
      {"sqrt", "", 0, 0, {}},
      {"neg", "", 0, 0, {}},
      {"abs", "", 0, 0, {}},
      {"softmax", "", 0, 0, {{"axis"}}},
      {"log_softmax", "", 0, 0, {{"axis"}}},
      {"dropout", "rate", 0, 1, {}},
      {"flatten", "axis", 0, 1, {}},
      {"reshape", "a list of sizes", 1, 1, {}},
      {"transpose", "a list of axes", 1, 1, {}},
      {"reduce_mean", "a list of axes", 1, 1, {{"drop", true}}},
      {"slice", "", 0, 0, {{"axis"}, {"begin"}, {"end"}, {"step"}}},
      {"zeropad", "", 0, 0, {{"channels"}, {"rows"}, {"cols"}, {"value"}}},
      {"scale", "factor", 1, 1, {}},
      {"identity", "", 0, 0, {}},
  };
  return table;
}

} // namespace

const LayerRule *find_layer(std::string_view name) {
  for (const LayerRule &rule : rules())
    if (rule.name == name) return &rule;
  return nullptr;
}

std::vector<std::string> layer_names() {
  std::vector<std::string> names;
  for (const LayerRule &rule : rules()) names.emplace_back(rule.name);
  return names;
}

} // namespace lathe::net
