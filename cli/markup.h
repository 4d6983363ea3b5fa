// Text inside SVG and HTML.
#pragma once

#include <string>
#include <string_view>

namespace lathe::core::cli {

std::string escaped(std::string_view text);

} // namespace lathe::core::cli
