// Models as people name them: bundled networks, and files of the formats that Lathe reads. Who adds
// a format adds a row to the table in formats.cpp.
#pragma once

#include "ir/budget.h"
#include "ir/graph.h"

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::core {

struct LoadOptions {
  int64_t batch = 1; // of dimensions 0 that a file leaves open
  // Of inputs, by name: shapes replace the file's; values are constants where they decide shapes.
  // For formats whose files state shapes.
  std::map<std::string, Shape> shapes = {};
  std::map<std::string, Tensor> values = {};
  std::map<std::string, double> parameters = {}; // of a network that is written with some
  bool unbind_weights = false;                   // weights of the file are not taken
  // What is read otherwise than it stands there, or looks wrong, is noted here, if anywhere.
  std::vector<std::string> *notes = nullptr;
  Budget budget = {};
};

struct Format {
  std::string_view name;   // "onnx": what programs call it
  std::string_view ending; // ".onnx"
  bool has_parameters;     // takes LoadOptions::parameters
  bool has_shapes;         // takes LoadOptions::shapes and values
  bool has_weights;        // files bring their weights
  // Whether a file that begins with these bytes, up to a kilobyte, is one of this format.
  bool (*recognises)(std::span<const std::byte> beginning);
  Result<Graph> (*load)(const std::string &path, const LoadOptions &options);
  // Of bytes in memory, which are copied; reads no other file.
  Result<Graph> (*parse)(std::span<const std::byte> bytes, const LoadOptions &options);
  // The names of the inputs, as the file lists them.
  Result<std::vector<std::string>> (*inputs)(const std::string &path, const LoadOptions &options);
};

std::span<const Format> formats();
// By its name. Errors: usage, with the names that there are.
Result<const Format *> find_format(std::string_view name);
// Of a model as people name it: by a file's ending, else by its first bytes. A bundled network is
// one of the `.net` language. Errors: io for what is neither a file nor bundled, with a suggestion;
// unsupported for formats that Lathe does not read.
Result<const Format *> format_of(const std::string &model);

// A model as people name it: a bundled network, or a file. (A file called like a bundled network
// can be named with its folder: "./resnet50".) Errors: as format_of; usage for options that the
// format does not have; else those of the format.
Result<Graph> load_model(const std::string &model, const LoadOptions &options = {});
Result<Graph> parse_model(std::span<const std::byte> bytes, const Format &format,
                          const LoadOptions &options = {});
Result<std::vector<std::string>> model_inputs(const std::string &model,
                                              const LoadOptions &options = {});

} // namespace lathe::core
