// Many small pictures on one sheet, framed by whether they were recognised.
#pragma once

#include "data/image.h"

#include <string>

namespace lathe::core {

struct SheetPicture {
  Image image;
  std::string label; // written below in a small font: a-z, 0-9, blank and - / . : ( ) %
  bool right = true; // a green frame, else a red one
};

// `columns` pictures side by side, each enlarged by a whole factor to about 84 pixels or cut to its
// middle. Labels are cut to the picture's width.
Image contact_sheet(std::span<const SheetPicture> pictures, int columns);

} // namespace lathe::core
