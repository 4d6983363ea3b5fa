#include "runtime/onnx_case.h"

#include "frontend/onnx.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>

namespace lathe::core {
namespace {

namespace fs = std::filesystem;

Result<std::vector<Tensor>> read_numbered(const fs::path &folder, std::string_view stem) {
  std::vector<Tensor> tensors;
  for (size_t i = 0;; ++i) {
    const fs::path file = folder / fmt::format("{}_{}.pb", stem, i);
    if (!fs::exists(file)) return tensors;
    LATHE_TRY(Tensor tensor, read_tensor_proto(file.string()));
    tensors.push_back(std::move(tensor));
  }
}

// A file's floats, which are read as f32, in the width that the model declares.
Tensor as_declared(const Tensor &tensor, DType dtype) {
  return is_float(tensor.dtype()) && is_float(dtype) ? to_floats(tensor, dtype) : tensor;
}

// Half a unit in the last place of a number near 1.
double rounding_of(DType dtype) {
  return dtype == DType::f16 ? 0x1p-11 : dtype == DType::bf16 ? 0x1p-8 : 0;
}

Result<void> check_output(const std::string &name, const Tensor &output, const Tensor &expected,
                          double rtol, double atol) {
  const Tensor found = is_float(output.dtype()) ? to_f32(output) : output;
  // Peers round what they compute with to the declared width, and so do we with what we give.
  rtol += 2 * rounding_of(output.dtype());
  auto differs = [&](std::string wanted, std::string got) {
    return fail(Error{.code = ErrorCode::mismatch,
                      .message = "an output differs from the expected one",
                      .node = name,
                      .expected = std::move(wanted),
                      .found = std::move(got)});
  };
  if (found.dtype() != expected.dtype() || found.shape() != expected.shape())
    return differs(fmt::format("{} {}", to_string(expected.dtype()), to_string(expected.shape())),
                   fmt::format("{} {}", to_string(found.dtype()), to_string(found.shape())));
  if (expected.dtype() != DType::f32) {
    if (expected.bytes() == 0 || std::memcmp(found.raw(), expected.raw(), expected.bytes()) == 0)
      return {};
    return differs("the same integers", "others");
  }
  // Those who computed what is expected did so in f32: large numbers leave an error in small ones.
  if (atol < 0) {
    double largest = 1;
    for (float e : expected.f32())
      if (std::isfinite(e)) largest = std::max(largest, std::abs(double(e)));
    atol = (1e-7 + rounding_of(output.dtype())) * largest;
  }
  for (size_t i = 0; i < static_cast<size_t>(expected.size()); ++i) {
    const double e = expected.f32()[i], f = found.f32()[i];
    if (e == f || (std::isnan(e) && std::isnan(f))) continue;
    if (!(std::abs(f - e) <= atol + rtol * std::abs(e)))
      return differs(fmt::format("{:g} for element {}", e, i), fmt::format("{:g}", f));
  }
  return {};
}

Result<void> verify_set(const OnnxModel &model, const fs::path &folder,
                        const CompileOptions &options, double rtol, double atol,
                        InputsOfCase kind) {
  LATHE_TRY(auto inputs, read_numbered(folder, "input"));
  LATHE_TRY(auto outputs, read_numbered(folder, "output"));
  if (inputs.size() > model.inputs().size() || outputs.size() > model.outputs().size())
    return fail(Error{.code = ErrorCode::invalid,
                      .message = "more tensors than the model has inputs or outputs",
                      .file = folder.string()});
  OnnxOptions import;
  import.budget = options.budget;
  import.all_known = kind == InputsOfCase::constants;
  for (size_t i = 0; i < inputs.size(); ++i) import.values[model.inputs()[i]] = inputs[i];
  LATHE_TRY(Graph graph, model.graph(import));
  std::vector<std::string> names;
  for (ValueId id : graph.inputs) names.push_back(graph.values[id].name);
  LATHE_TRY(auto executable, Executable::compile(std::move(graph), options));
  LATHE_TRY(auto request, Request::create(executable));
  for (size_t i = 0; i < names.size(); ++i) {
    auto value = import.values.find(names[i]);
    if (value == import.values.end())
      return fail(Error{.code = ErrorCode::invalid,
                        .message = "no data for an input",
                        .file = folder.string(),
                        .node = names[i]});
    LATHE_CHECK(request->set_input(i, as_declared(value->second, request->input(i).dtype())));
  }
  request->run();
  for (size_t j = 0; j < outputs.size(); ++j)
    LATHE_CHECK(check_output(model.outputs()[j], request->output(j), outputs[j], rtol, atol));
  return {};
}

} // namespace

Result<void> verify_onnx_case(const std::string &folder, const CompileOptions &options, double rtol,
                              double atol, InputsOfCase inputs) {
  LATHE_TRY(OnnxModel model, OnnxModel::open((fs::path(folder) / "model.onnx").string()));
  int sets = 0;
  for (;; ++sets) {
    const fs::path set = fs::path(folder) / fmt::format("test_data_set_{}", sets);
    if (!fs::is_directory(set)) break;
    auto good = verify_set(model, set, options, rtol, atol, inputs);
    if (!good) {
      if (good.error().file.empty()) good.error().file = set.string();
      return good;
    }
  }
  if (sets == 0)
    return fail(Error{.code = ErrorCode::invalid,
                      .message = "a test case without data",
                      .file = folder,
                      .expected = "a folder test_data_set_0"});
  return {};
}

} // namespace lathe::core
