// What does a picture show?  classify [PICTURE [MODEL [WEIGHTS [PRESET]]]]
#include <lathe/lathe.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

namespace {

int classify(int argc, char **argv) {
  const std::string picture = argc > 1 ? argv[1] : "boot.png";
  lathe::Model model = lathe::Model::load(argc > 2 ? argv[2] : "lenet5").value();
  if (argc > 3) model.bind_weights(argv[3]).value();
  const lathe::Executable network = lathe::compile(model).value();
  lathe::Request request = network.request().value();
  lathe::read_picture(picture, argc > 4 ? argv[4] : "fashion-mnist", request.input_shape(),
                      request.input())
      .value();
  request.run();

  const std::span<const float> scores = request.output();
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const size_t top = std::min<size_t>(3, order.size());
  std::partial_sort(order.begin(), order.begin() + std::ptrdiff_t(top), order.end(),
                    [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  for (size_t i = 0; i < top; ++i) std::printf("class %zu: %.3f\n", order[i], scores[order[i]]);
  return 0;
}

} // namespace

int main(int argc, char **argv) {
  try {
    return classify(argc, argv);
  } catch (const lathe::BadResult &bad) {
    std::fprintf(stderr, "%s\n", bad.what());
    return int(bad.error.code);
  }
}
