// Which format a model is of, and what its options are.
#include "frontend/bundled.h"
#include "frontend/formats.h"
#include "tests/onnx_builder.h"
#include "tests/scratch.h"

#include <doctest/doctest.h>

using namespace lathe::core;

namespace {

const char *const small_net = "# a comment first\n\nnetwork small(width = 4) {\n"
                              "  input image 3x8x8\n  conv width 3x3\n  relu\n}\n";

std::string small_onnx() {
  test::OnnxBuilder builder;
  builder.input("x", {1, 3}).node("Relu", {"x"}, {"y"}).output("y");
  return builder.model();
}

Error refused(const std::string &model, const LoadOptions &options = {}) {
  auto graph = load_model(model, options);
  REQUIRE(!graph);
  return graph.error();
}

TEST_CASE("a file of any name is known by its first bytes") {
  const Scratch scratch;
  for (const char *name : {"model", "blob.bin", "weights.onnx.part"}) {
    const auto onnx = load_model(scratch.write(name, small_onnx()));
    REQUIRE_MESSAGE(onnx, to_string(onnx.error()));
    CHECK(op_name(onnx->nodes.at(0).op) == "relu");
    const auto net = load_model(scratch.write(name, small_net));
    REQUIRE_MESSAGE(net, to_string(net.error()));
    CHECK(net->name == "small");
  }
}

TEST_CASE("what is no model says which files are") {
  const Scratch scratch;
  for (const std::string content :
       {"", "\x89PNG\r\n", "PK\x03\x04", "networks are nice", "\x08\x07\n"}) {
    const Error error = refused(scratch.write("model.pt", content));
    CHECK(error.code == ErrorCode::unsupported);
    CHECK(error.expected == "a .net or .onnx file");
    CHECK(error.found == ".pt");
  }
  CHECK(refused(scratch.path("")).code == ErrorCode::io);
  const Error absent = refused("resnet5");
  CHECK(absent.code == ErrorCode::io);
  CHECK(absent.expected == "perhaps 'resnet50'");
  CHECK(refused(scratch.path("absent.onnx")).code == ErrorCode::io);
}

TEST_CASE("formats are found by name") {
  for (const Format &format : formats()) CHECK(find_format(format.name).value() == &format);
  const auto none = find_format("caffe2");
  REQUIRE(!none);
  CHECK(none.error().code == ErrorCode::usage);
  CHECK(none.error().expected == "\"net\" or \"onnx\"");
  CHECK(none.error().found == "\"caffe2\"");
}

TEST_CASE("options that a format does not have are refused, not ignored") {
  const Scratch scratch;
  const std::string onnx = scratch.write("m.onnx", small_onnx());
  const Error parameters = refused(onnx, {.parameters = {{"classes", 10}}});
  CHECK(parameters.code == ErrorCode::usage);
  CHECK(parameters.found == "'classes'");
  for (const std::string &net : {std::string("lenet5"), scratch.write("small.net", small_net)})
    CHECK(refused(net, {.shapes = {{"image", {1, 1, 28, 28}}}}).code == ErrorCode::usage);
  const auto wide =
      load_model(scratch.write("small.net", small_net), {.parameters = {{"width", 9}}});
  REQUIRE(wide);
  CHECK(wide->values[wide->outputs[0]].type.shape[1] == 9);
}

TEST_CASE("the names of inputs are those of the file") {
  const Scratch scratch;
  CHECK(model_inputs(scratch.write("m.onnx", small_onnx())).value() ==
        std::vector<std::string>{"x"});
  CHECK(model_inputs("lenet5").value() == std::vector<std::string>{"image"});
}

TEST_CASE("models are read from memory in every format") {
  const std::string texts[] = {small_net, small_onnx()};
  for (size_t i = 0; i < formats().size(); ++i)
    CHECK(parse_model(std::as_bytes(std::span(texts[i])), formats()[i]));
}

} // namespace
