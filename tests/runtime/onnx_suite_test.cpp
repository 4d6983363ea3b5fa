// ONNX's own backend tests: Debian's set (libonnx-testdata), and with LATHE_TEST_DATA those of
// later releases. Cases count if their ops are among those that Lathe promises and their tensors
// are f32, int64, int32 or bool; of these none may fail, and those that are not supported, or that
// peers and Lathe answer otherwise, are listed, with the reason, in onnx_unsupported.txt.
#include "frontend/onnx.h"
#include "frontend/onnx/import.h"
#include "frontend/onnx/proto.h"
#include "ir/system/mapped_file.h"
#include "runtime/onnx_case.h"

#include <algorithm>
#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <set>
#include <sstream>

using namespace lathe::core;
namespace fs = std::filesystem;

namespace {

const std::set<std::string> promised_ops = {"Abs",
                                            "Add",
                                            "ArgMax",
                                            "ArgMin",
                                            "AveragePool",
                                            "BatchNormalization",
                                            "Cast",
                                            "Ceil",
                                            "Celu",
                                            "Clip",
                                            "Concat",
                                            "Constant",
                                            "ConstantOfShape",
                                            "Conv",
                                            "ConvTranspose",
                                            "DepthToSpace",
                                            "Div",
                                            "Dropout",
                                            "Elu",
                                            "Exp",
                                            "Expand",
                                            "Flatten",
                                            "Floor",
                                            "Gather",
                                            "Gelu",
                                            "Gemm",
                                            "GlobalAveragePool",
                                            "GlobalMaxPool",
                                            "HardSigmoid",
                                            "HardSwish",
                                            "Hardmax",
                                            "Identity",
                                            "InstanceNormalization",
                                            "LayerNormalization",
                                            "LRN",
                                            "LeakyRelu",
                                            "Log",
                                            "LogSoftmax",
                                            "LpPool",
                                            "MatMul",
                                            "Max",
                                            "MaxPool",
                                            "Mean",
                                            "Min",
                                            "Mish",
                                            "Mul",
                                            "Neg",
                                            "PRelu",
                                            "Pad",
                                            "Pow",
                                            "Reciprocal",
                                            "ReduceL1",
                                            "ReduceL2",
                                            "ReduceLogSum",
                                            "ReduceLogSumExp",
                                            "ReduceMax",
                                            "ReduceMean",
                                            "ReduceMin",
                                            "ReduceProd",
                                            "ReduceSum",
                                            "ReduceSumSquare",
                                            "Relu",
                                            "Reshape",
                                            "Resize",
                                            "Selu",
                                            "Shape",
                                            "Sigmoid",
                                            "Size",
                                            "Slice",
                                            "Softmax",
                                            "Softplus",
                                            "Softsign",
                                            "SpaceToDepth",
                                            "Split",
                                            "Sqrt",
                                            "Squeeze",
                                            "Sub",
                                            "Sum",
                                            "Tanh",
                                            "ThresholdedRelu",
                                            "Tile",
                                            "Transpose",
                                            "Unsqueeze",
                                            "Upsample"};

std::map<std::string, std::string> listed_as_unsupported() {
  std::map<std::string, std::string> reasons;
  std::istringstream lines(
      read_text_file(LATHE_SOURCE_DIR "/tests/runtime/onnx_unsupported.txt", 1 << 20).value());
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t space = line.find(' ');
    REQUIRE(space != std::string::npos); // a reason each
    reasons[line.substr(0, space)] = line.substr(line.find_first_not_of(' ', space));
  }
  return reasons;
}

// Whether a case is among those that the promise covers; or else, whether the importer has handlers
// for all of its ops, some of which are computed where their operands are constants.
enum class Cases : uint8_t { promised, of_constants };
bool is_covered(const fs::path &folder, Cases cases) {
  auto file = MappedFile::open((folder / "model.onnx").string());
  REQUIRE(file);
  auto model = onnx::read_model((*file)->text());
  if (!model) return false;
  bool promised = true, handled = true;
  for (const onnx::NodeProto &node : model->graph.nodes) {
    promised = promised && node.domain.empty() && promised_ops.contains(std::string(node.op_type));
    handled = handled && node.domain.empty() && onnx::find_handler(node.op_type);
  }
  if (cases == Cases::promised ? !promised : promised || !handled) return false;
  for (auto *list : {&model->graph.inputs, &model->graph.outputs})
    for (const onnx::ValueInfo &value : *list)
      if (!value.is_tensor || !onnx::graph_type(value.data_type)) return false;
  // Statistics of a batch, and dropped elements, are training; the data of tests with bfloat16 says
  // that it is uint16.
  const std::string name = folder.filename();
  return name.find("BFLOAT16") == std::string::npos &&
         name.find("training_dropout") == std::string::npos &&
         name.find("batchnorm_epsilon_training") == std::string::npos &&
         name.find("batchnorm_example_training") == std::string::npos;
}

struct Counts {
  int passed = 0, failed = 0, unsupported = 0;
};

void run_all(const fs::path &root, Cases kind) {
  const std::map<std::string, std::string> listed = listed_as_unsupported();
  std::vector<fs::path> cases;
  for (const auto &entry : fs::recursive_directory_iterator(root))
    if (entry.path().filename() == "model.onnx") cases.push_back(entry.path().parent_path());
  std::ranges::sort(cases);
  std::map<std::string, Counts> per_op;
  Counts total;
  int outside = 0;
  for (const fs::path &folder : cases) {
    if (!is_covered(folder, kind)) {
      ++outside;
      continue;
    }
    const std::string name = folder.filename();
    CAPTURE(folder.string());
    const auto inputs =
        kind == Cases::promised ? InputsOfCase::at_run_time : InputsOfCase::constants;
    auto outcome = verify_onnx_case(folder.string(), CompileOptions{}, 1e-3, 1e-7, inputs);
    const bool known = listed.contains(name);
    auto count = [&](Counts &c) {
      if (outcome)
        ++c.passed;
      else if (known && outcome.error().code == (listed.at(name).starts_with("otherwise:")
                                                     ? ErrorCode::mismatch
                                                     : ErrorCode::unsupported))
        ++c.unsupported;
      else
        ++c.failed;
    };
    count(total);
    auto model = OnnxModel::open((folder / "model.onnx").string());
    for (const std::string &op : model->ops()) count(per_op[op]);
    if (known)
      CHECK_MESSAGE(!outcome, "passes, but is listed as unsupported");
    else
      CHECK_MESSAGE(outcome, to_string(outcome.error()));
  }
  fmt::print("{}\n{:<24}{:>8}{:>8}{:>13}\n", root.string(), "op", "passed", "failed",
             "unsupported");
  for (const auto &[op, c] : per_op)
    fmt::print("{:<24}{:>8}{:>8}{:>13}\n", op, c.passed, c.failed, c.unsupported);
  fmt::print("{:<24}{:>8}{:>8}{:>13}   ({} cases of other ops or types)\n", "cases", total.passed,
             total.failed, total.unsupported, outside);
  const int covered = total.passed + total.failed + total.unsupported;
  CHECK(covered > 100);
  CHECK(total.failed == 0);
  if (kind == Cases::promised) CHECK(total.unsupported * 100 < covered * 2);
}

} // namespace

TEST_CASE("Debian's set of ONNX's backend tests") {
  run_all("/usr/share/libonnx-testdata/data", Cases::promised);
}

TEST_CASE("what is known is computed, by any op: ONNX's backend tests with constants for inputs") {
  run_all("/usr/share/libonnx-testdata/data", Cases::of_constants);
}

TEST_CASE("ONNX's backend tests of later releases") {
  const char *data = std::getenv("LATHE_TEST_DATA");
  if (!data) {
    fmt::print("SKIPPED: LATHE_TEST_DATA is not set, so there are no later tests\n");
    return;
  }
  const fs::path folder = fs::temp_directory_path() / fmt::format("lathe-onnx-suite-{}", getpid());
  fs::create_directories(folder);
  const std::string unpack = fmt::format("cd {} && {} -E tar xJf {}/onnx-suite/onnx-suite.tar.xz",
                                         folder.string(), LATHE_CMAKE, data);
  const bool unpacked = std::system(unpack.c_str()) == 0;
  if (unpacked) run_all(folder, Cases::promised);
  fs::remove_all(folder);
  CHECK(unpacked);
}
