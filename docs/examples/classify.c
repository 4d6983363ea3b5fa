/* The same as classify.cpp, in C11.  classify_c [PICTURE [MODEL [WEIGHTS [PRESET]]]] */
#include <lathe/c.h>

#include <stdio.h>

int main(int argc, char **argv) {
  lathe_error *error = NULL;
  lathe_model *model = NULL;
  lathe_network *network = NULL;
  lathe_request *request = NULL;
  lathe_tensor input;
  size_t bytes = 0;
  lathe_status status = lathe_model_load(argc > 2 ? argv[2] : "lenet5", NULL, &model, &error);
  if (!status && argc > 3) status = lathe_model_bind_weights_file(model, argv[3], &error);
  if (!status) status = lathe_compile(model, NULL, &network, &error);
  if (!status) status = lathe_request_create(network, 1, NULL, &request, &error);
  if (!status) status = lathe_network_input(network, 0, &input);
  if (!status) {
    float *pixels = lathe_request_input(request, 0, &bytes);
    status = lathe_read_picture(argc > 1 ? argv[1] : "boot.png",
                                argc > 4 ? argv[4] : "fashion-mnist", input.shape, pixels,
                                bytes / sizeof *pixels, &error);
  }
  if (!status) {
    const float *scores;
    size_t i, best = 0;
    lathe_request_run(request);
    scores = lathe_request_output(request, 0, &bytes);
    for (i = 1; i < bytes / sizeof *scores; ++i)
      if (scores[i] > scores[best]) best = i;
    printf("class %zu: %.3f\n", best, (double)scores[best]);
  } else {
    fprintf(stderr, "%s\n", lathe_error_text(error));
  }
  lathe_error_free(error);
  lathe_request_free(request);
  lathe_network_free(network);
  lathe_model_free(model);
  return (int)status;
}
