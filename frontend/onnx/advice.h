// What whoever exports a model can do about what stands in its way. Private to frontend/onnx.
#pragma once

#include "frontend/onnx/proto.h"

#include <string>

namespace lathe::core::onnx {

// What stands in the way, where another export may go around it.
enum class Obstacle {
  other, // only another network would help
  training_mode,
  unknown_op,
  foreign_domain,
  newer_opset,
  quantised,
};

// In the words of the exporter that wrote the model, as far as the file names it: a sentence, or
// nothing where no option of it helps.
std::string advice_on(Obstacle obstacle, const NodeProto &node, const ModelProto &model);

} // namespace lathe::core::onnx
