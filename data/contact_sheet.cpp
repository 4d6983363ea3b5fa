#include "data/contact_sheet.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace lathe::core {
namespace {

// The font: characters of 5x7 dots in columns of 6, drawn as they appear.
struct Band {
  std::string_view characters;
  std::array<std::string_view, 7> rows;
};
constexpr Band font[] = {
    {"abcdefghi",
     {".###. ####. .#### ####. ##### ##### .#### #...# .###. ",
      "#...# #...# #.... #...# #.... #.... #.... #...# ..#.. ",
      "#...# #...# #.... #...# #.... #.... #.... #...# ..#.. ",
      "##### ####. #.... #...# ####. ####. #..## ##### ..#.. ",
      "#...# #...# #.... #...# #.... #.... #...# #...# ..#.. ",
      "#...# #...# #.... #...# #.... #.... #...# #...# ..#.. ",
      "#...# ####. .#### ####. ##### #.... .#### #...# .###. "}},
    {"jklmnopqr",
     {"..### #...# #.... #...# #...# .###. ####. .###. ####. ",
      "...#. #..#. #.... ##.## ##..# #...# #...# #...# #...# ",
      "...#. #.#.. #.... #.#.# ##..# #...# #...# #...# #...# ",
      "...#. ##... #.... #.#.# #.#.# #...# ####. #...# ####. ",
      "...#. #.#.. #.... #...# #..## #...# #.... #.#.# #.#.. ",
      "#..#. #..#. #.... #...# #..## #...# #.... #..#. #..#. ",
      ".##.. #...# ##### #...# #...# .###. #.... .##.# #...# "}},
    {"stuvwxyz ",
     {".#### ##### #...# #...# #...# #...# #...# ##### ..... ",
      "#.... ..#.. #...# #...# #...# #...# #...# ....# ..... ",
      "#.... ..#.. #...# #...# #...# .#.#. .#.#. ...#. ..... ",
      ".###. ..#.. #...# #...# #.#.# ..#.. ..#.. ..#.. ..... ",
      "....# ..#.. #...# #...# #.#.# .#.#. ..#.. .#... ..... ",
      "....# ..#.. #...# .#.#. ##.## #...# ..#.. #.... ..... ",
      "####. ..#.. .###. ..#.. #...# #...# ..#.. ##### ..... "}},
    {"012345678",
     {".###. ..#.. .###. ####. #..#. ##### .###. ##### .###. ",
      "#...# .##.. #...# ....# #..#. #.... #.... ....# #...# ",
      "#..## ..#.. ....# ....# #..#. ####. #.... ...#. #...# ",
      "#.#.# ..#.. ..##. .###. ##### ....# ####. ...#. .###. ",
      "##..# ..#.. .#... ....# ...#. ....# #...# ..#.. #...# ",
      "#...# ..#.. #.... ....# ...#. #...# #...# ..#.. #...# ",
      ".###. .###. ##### ####. ...#. .###. .###. ..#.. .###. "}},
    {"9-/.:()%?",
     {".###. ..... ....# ..... ..... ...#. .#... ##..# .###. ",
      "#...# ..... ....# ..... ..#.. ..#.. ..#.. ##..# #...# ",
      "#...# ..... ...#. ..... ..#.. .#... ...#. ...#. ....# ",
      ".#### ##### ..#.. ..... ..... .#... ...#. ..#.. ...#. ",
      "....# ..... .#... ..... ..#.. .#... ...#. .#... ..#.. ",
      "....# ..... #.... ..#.. ..#.. ..#.. ..#.. #..## ..... ",
      ".###. ..... #.... ..#.. ..... ...#. .#... #..## ..#.. "}},
};
constexpr int glyph_width = 6, glyph_height = 7, picture_size = 84;

bool dot(char character, int x, int y) {
  const auto c = static_cast<char>(std::tolower(static_cast<unsigned char>(character)));
  for (const Band &band : font)
    if (size_t at = band.characters.find(c); at != std::string_view::npos)
      return band.rows[static_cast<size_t>(y)][at * glyph_width + static_cast<size_t>(x)] == '#';
  return dot('?', x, y);
}

struct Colour {
  uint8_t red, green, blue;
};
constexpr Colour paper{250, 250, 250}, ink{32, 32, 32}, right_frame{38, 166, 91},
    wrong_frame{214, 48, 49};

class Canvas {
public:
  Canvas(int width, int height) : image_{width, height, {}} {
    image_.rgb.resize(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
    box(0, 0, width, height, paper);
  }
  void point(int x, int y, Colour colour) {
    uint8_t *to =
        image_.rgb.data() +
        (static_cast<size_t>(y) * static_cast<size_t>(image_.width) + static_cast<size_t>(x)) * 3;
    to[0] = colour.red;
    to[1] = colour.green;
    to[2] = colour.blue;
  }
  void box(int left, int top, int width, int height, Colour colour) {
    for (int y = top; y < top + height; ++y)
      for (int x = left; x < left + width; ++x) point(x, y, colour);
  }
  void text(int left, int top, std::string_view characters) {
    for (char character : characters) {
      for (int y = 0; y < glyph_height; ++y)
        for (int x = 0; x < glyph_width; ++x)
          if (dot(character, x, y)) point(left + x, top + y, ink);
      left += glyph_width;
    }
  }
  Image take() { return std::move(image_); }

private:
  Image image_;
};

// The picture's middle, each pixel as a square of dots; what it does not fill stays paper.
void draw(Canvas &canvas, int left, int top, const Image &image) {
  const int factor = std::max(1, picture_size / std::max(1, std::min(image.width, image.height)));
  const int width = std::min(image.width, picture_size / factor),
            height = std::min(image.height, picture_size / factor);
  const int first_x = (image.width - width) / 2, first_y = (image.height - height) / 2;
  left += (picture_size - width * factor) / 2;
  top += (picture_size - height * factor) / 2;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const uint8_t *rgb =
          image.rgb.data() +
          size_t(3) * (size_t(first_y + y) * size_t(image.width) + size_t(first_x + x));
      canvas.box(left + x * factor, top + y * factor, factor, factor, {rgb[0], rgb[1], rgb[2]});
    }
}

} // namespace

Image contact_sheet(std::span<const SheetPicture> pictures, int columns) {
  constexpr int frame = 3, gap = 6, framed = picture_size + 2 * frame;
  constexpr int cell_width = framed + gap, cell_height = framed + 3 + glyph_height + gap;
  const int count = static_cast<int>(pictures.size());
  columns = std::clamp(columns, 1, std::max(1, count));
  const int rows = std::max(1, (count + columns - 1) / columns);
  Canvas canvas(columns * cell_width + gap, rows * cell_height + gap);
  for (int i = 0; i < count; ++i) {
    const SheetPicture &picture = pictures[static_cast<size_t>(i)];
    const int left = gap + i % columns * cell_width, top = gap + i / columns * cell_height;
    canvas.box(left, top, framed, framed, picture.right ? right_frame : wrong_frame);
    canvas.box(left + frame, top + frame, picture_size, picture_size, paper);
    draw(canvas, left + frame, top + frame, picture.image);
    const auto label = std::string_view(picture.label).substr(0, framed / glyph_width);
    const int spare = framed - static_cast<int>(label.size()) * glyph_width;
    canvas.text(left + spare / 2, top + framed + 3, label);
  }
  return canvas.take();
}

} // namespace lathe::core
