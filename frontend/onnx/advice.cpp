// Advice for each exporter. What it says of RNN, GRU and norms in training mode was tried on
// exports of torch 2.6 (tests/exporter); the rest is what the exporters' manuals say.
#include "frontend/onnx/advice.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace lathe::core::onnx {
namespace {

enum class Exporter { other, torch_script, torch_dynamo, tf2onnx, paddle2onnx };

// torch's exporter of today has written IR version 10 from the start, its older one stays below.
Exporter exporter_of(const ModelProto &model) {
  if (model.producer == "pytorch")
    return model.ir_version >= 10 ? Exporter::torch_dynamo : Exporter::torch_script;
  if (model.producer == "tf2onnx") return Exporter::tf2onnx;
  if (model.producer.starts_with("Paddle")) return Exporter::paddle2onnx;
  return Exporter::other;
}

bool is_torch(Exporter e) { return e == Exporter::torch_script || e == Exporter::torch_dynamo; }

// The option that asks for an opset whose ops are all known.
std::string other_opset(Exporter exporter) {
  constexpr int64_t opset = 18;
  if (is_torch(exporter)) return fmt::format("export with opset_version={}", opset);
  if (exporter == Exporter::tf2onnx) return fmt::format("convert with --opset {}", opset);
  if (exporter == Exporter::paddle2onnx)
    return fmt::format("convert with --opset_version {}", opset);
  return fmt::format("export for opset {}", opset);
}

// Ops that opsets after 18 brought, and that exporters write as several ops for older ones.
constexpr std::array<Bytes, 4> composed{"Attention", "RMSNormalization", "RotaryEmbedding",
                                        "Swish"};
// What torch's older exporter writes as one op, and that of today as many.
constexpr std::array<Bytes, 2> unrolled{"RNN", "GRU"};
constexpr std::array<Bytes, 6> quantised{"QuantizeLinear", "DynamicQuantizeLinear",
                                         "QLinearConv",    "QLinearMatMul",
                                         "ConvInteger",    "MatMulInteger"};
constexpr const char *before_quantising = "export the model as it was before it was quantised";

std::string on_training(Exporter exporter) {
  if (exporter == Exporter::torch_script)
    return "call model.eval() before torch.onnx.export; norms without running statistics need its "
           "dynamo=True";
  if (exporter == Exporter::torch_dynamo)
    return "call model.eval() before torch.onnx.export; if that was done, dynamo=False writes what "
           "was meant";
  return "export the model for inference";
}

std::string on_domain(Bytes domain) {
  if (domain == "com.microsoft" || domain == "com.microsoft.nchwc")
    return "ONNX Runtime put it there: take the model as it was before that was optimised or "
           "quantised";
  if (domain == "aten" || domain == "org.pytorch.aten")
    return "torch writes ops of its own with operator_export_type=ONNX_ATEN_FALLBACK; leave that "
           "away";
  if (domain.starts_with("pkg.") || domain == "custom_domain")
    return "its function is not in the file; torch.onnx.export leaves none out with optimize=True";
  return "";
}

} // namespace

std::string advice_on(Obstacle obstacle, const NodeProto &node, const ModelProto &model) {
  const Exporter exporter = exporter_of(model);
  switch (obstacle) {
  case Obstacle::other:
    return "";
  case Obstacle::training_mode:
    return on_training(exporter);
  case Obstacle::unknown_op:
    if (std::ranges::count(quantised, node.op_type) > 0) return before_quantising;
    if (std::ranges::count(composed, node.op_type) > 0)
      return other_opset(exporter) + ", where several ops stand for it";
    if (exporter == Exporter::torch_script && std::ranges::count(unrolled, node.op_type) > 0)
      return "torch.onnx.export with dynamo=True writes it as ops that Lathe knows";
    return "";
  case Obstacle::foreign_domain:
    return on_domain(node.domain);
  case Obstacle::newer_opset:
    return other_opset(exporter);
  case Obstacle::quantised:
    return before_quantising;
  }
  return "";
}

} // namespace lathe::core::onnx
