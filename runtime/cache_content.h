// The bytes of the cache's entries, but for weights, which are stored as they are. What is decoded
// was not made by this process: anything may stand there.
#pragma once

#include "codegen/codegen.h"

#include <optional>
#include <string>

namespace lathe::core {

std::string encode(const CodeImage &image);
// None, where bytes are missing or a symbol lies outside the code.
std::optional<CodeImage> decode_image(std::span<const std::byte> content);

// Lines of layer, algorithm and seconds.
std::string encode(const MeasuredCosts &costs);
std::optional<MeasuredCosts> decode_costs(std::string_view text);

} // namespace lathe::core
