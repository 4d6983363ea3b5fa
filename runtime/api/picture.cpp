// lathe::read_picture.
#include "data/preprocess.h"
#include "runtime/api/convert.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe {

Result<void> read_picture(const std::string &file, std::string_view preset, const Shape &shape,
                          std::span<float> to) {
  return guarded_deep([&]() -> Result<void> {
    const auto recipe = core::find_preset(preset);
    if (!recipe)
      return Error{.code = ErrorCode::usage,
                   .message = "unknown preset",
                   .expected = core::preset_names(),
                   .found = std::string(preset)};
    const auto count = core::checked_element_count(shape);
    if (shape.size() != 4 || shape[0] != 1 || !count || size_t(*count) != to.size())
      return Error{.code = ErrorCode::usage,
                   .message = "a picture does not fit",
                   .file = file,
                   .expected = "a shape of 1,C,H,W and memory for as many numbers",
                   .found = fmt::format("{}, {} numbers", core::to_string(shape), to.size())};
    LATHE_PUBLIC_TRY(const core::Image image, core::read_image(file));
    LATHE_PUBLIC_TRY(const core::Tensor tensor,
                     core::preprocess(image, *recipe, shape[1], shape[2], shape[3]));
    std::ranges::copy(tensor.f32(), to.begin());
    return {};
  });
}

} // namespace lathe
