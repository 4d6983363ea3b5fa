// What a network computes inside: the values behind one of its layers.  features [MODEL [LAYER]]
// Without a layer it lists them.
#include <lathe/lathe.h>

#include <cmath>
#include <cstdio>

int main(int argc, char **argv) {
  lathe::Model model = lathe::Model::load(argc > 1 ? argv[1] : "lenet5").value();
  if (argc < 3) {
    for (const std::string &layer : model.layers()) std::printf("%s\n", layer.c_str());
    return 0;
  }
  const std::string layer = argv[2];
  if (auto done = model.set_outputs({&layer, 1}); !done) {
    std::fprintf(stderr, "%s\n", to_string(done.error()).c_str());
    return int(done.error().code);
  }
  lathe::Request request = lathe::compile(model).value().request().value();
  float x = 0;
  for (float &pixel : request.input()) pixel = std::sin(x += 0.1f);
  request.run();
  std::printf("%zu values, the first %f\n", request.output().size(), request.output()[0]);
}
