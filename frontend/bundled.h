// The networks that come with Lathe: models/*.net and small trained weights, inside the library.
#pragma once

#include "frontend/net.h"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace lathe::core {

// The bytes of a file of models/, by its plain name ("resnet50.net"); empty if there is none.
std::span<const std::byte> bundled_file(std::string_view name);
// The names of the networks, sorted: "alexnet", "resnet50", ...
std::vector<std::string> bundled_models();
// The trained weights that come with a network, a safetensors file; empty if none do.
std::span<const std::byte> bundled_weights(std::string_view model);
// Whether `model` is a bundled network to `load_model`, whatever files there are.
bool is_bundled(std::string_view model);
// Binds the trained weights of a bundled network to it as its author wrote it, with no parameters
// set. False where none come with it, and for files, whatever their names.
Result<bool> bind_bundled_weights(Graph &graph, const std::string &model,
                                  const std::map<std::string, double> &parameters = {});
// Errors: usage for an unknown name, with the nearest one; else those of parse_net.
Result<Graph> load_bundled(std::string_view name, const NetOptions &options = {});

} // namespace lathe::core
