/* The C interface, as strict C11 without warnings. */
#include <lathe/c.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;
#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      printf("FAILED: %s:%d: %s\n", __FILE__, __LINE__, #condition);                               \
      ++failures;                                                                                  \
    }                                                                                              \
  } while (0)

static void in_turn(void *host, int jobs, void (*job)(void *context, int index), void *context) {
  int i;
  ++*(int *)host;
  for (i = 0; i < jobs; ++i) job(context, i);
}

static void compile_and_run(void) {
  lathe_error *error = NULL;
  lathe_model *model = NULL;
  lathe_network *network = NULL;
  lathe_request *request = NULL, *hosted = NULL;
  lathe_threads *threads = NULL;
  lathe_options options;
  lathe_tensor info;
  lathe_memory memory = {sizeof memory, 0, 0, 0, 0};
  float *x, sum = 0, y[10];
  const float *scores;
  size_t bytes = 0, i;
  int calls = 0;

  CHECK(lathe_model_load("lenet5", NULL, &model, &error) == LATHE_OK);
  lathe_options_init(&options);
  options.strict = 1;
  CHECK(lathe_compile(model, &options, &network, &error) == LATHE_OK);
  lathe_model_free(model);
  CHECK(lathe_network_input_count(network) == 1);
  CHECK(lathe_network_input(network, 0, &info) == LATHE_OK);
  CHECK(info.rank == 4 && info.shape[2] == 32 && info.dtype == LATHE_F32 && info.bytes == 4096);
  CHECK(lathe_network_input(network, 1, &info) == LATHE_USAGE);
  lathe_network_memory(network, 1, 1, &memory);
  CHECK(memory.weights > 0 && memory.tensors == 4096 + 40);
  CHECK(lathe_network_kernel_count(network) > 0 && lathe_network_kernel(network, 0) != NULL);
  CHECK(lathe_network_batched(network) == 1);

  CHECK(lathe_request_create(network, 1, NULL, &request, &error) == LATHE_OK);
  x = lathe_request_input(request, 0, &bytes);
  CHECK(bytes == 4096);
  for (i = 0; i < 1024; ++i) x[i] = (float)(i % 7);
  lathe_request_run(request);
  scores = lathe_request_output(request, 0, &bytes);
  CHECK(bytes == 40);
  for (i = 0; i < 10; ++i) sum += scores[i];
  CHECK(fabsf(sum - 1) < 1e-5f);

  CHECK(lathe_threads_host(in_turn, &calls, 2, &threads, &error) == LATHE_OK);
  CHECK(lathe_request_create(network, 1, threads, &hosted, &error) == LATHE_OK);
  CHECK(lathe_request_bind_input(hosted, 0, x, 4096, &error) == LATHE_OK);
  CHECK(lathe_request_bind_output(hosted, 0, y, sizeof y, &error) == LATHE_OK);
  CHECK(lathe_request_bind_output(hosted, 0, y, 36, &error) == LATHE_INVALID);
  CHECK(strstr(lathe_error_text(error), "36 bytes") != NULL);
  lathe_error_free(error);
  lathe_network_free(network); /* requests keep what they need */
  lathe_request_run(hosted);
  CHECK(memcmp(y, scores, sizeof y) == 0);
  lathe_request_free(hosted);
  lathe_request_free(request);
  lathe_threads_free(threads);
}

static void errors(void) {
  static const char text[] = "network n {\n  input x 1x8x8\n  conv1: conv 4 9x9\n}\n";
  lathe_error *error = NULL;
  lathe_model *model = NULL;
  lathe_load_options load;
  CHECK(lathe_model_load("no/such/file.onnx", NULL, &model, &error) == LATHE_IO);
  CHECK(model == NULL && lathe_error_status(error) == LATHE_IO);
  CHECK(strcmp(lathe_error_file(error), "no/such/file.onnx") == 0);
  lathe_error_free(error);
  CHECK(lathe_model_load("no/such/file.onnx", NULL, &model, NULL) == LATHE_IO);
  CHECK(lathe_model_parse(text, sizeof text - 1, "net", NULL, &model, &error) == LATHE_INVALID);
  CHECK(lathe_error_line(error) == 3 && strcmp(lathe_error_node(error), "conv1") == 0);
  lathe_error_free(error);
  CHECK(lathe_model_parse(text, sizeof text - 1, "caffe", NULL, &model, &error) == LATHE_USAGE);
  lathe_error_free(error);
  lathe_load_options_init(&load);
  CHECK(load.batch == 1);
  load.struct_size = sizeof load.struct_size; /* a caller of another time: the rest are defaults */
  load.batch = -5;
  CHECK(lathe_model_load("lenet5", &load, &model, &error) == LATHE_OK);
  lathe_model_free(model);
  CHECK(lathe_compile(NULL, NULL, NULL, &error) == LATHE_USAGE);
  lathe_error_free(error);
  lathe_error_free(NULL);
  lathe_model_free(NULL);
  lathe_network_free(NULL);
  lathe_request_free(NULL);
  lathe_threads_free(NULL);
}

static void features(void) {
  lathe_error *error = NULL;
  lathe_model *model = NULL;
  lathe_network *network = NULL;
  lathe_tensor info;
  const char *name;
  CHECK(lathe_model_load("lenet5", NULL, &model, &error) == LATHE_OK);
  CHECK(lathe_model_layer_count(model) > 5);
  CHECK(lathe_model_layer(model, 1000) == NULL);
  name = lathe_model_layer(model, 2);
  CHECK(lathe_model_set_outputs(model, &name, 1, &error) == LATHE_OK);
  CHECK(lathe_model_layer_count(model) == 3); /* what stood behind it is gone */
  CHECK(lathe_model_layer(model, 3) == NULL);
  name = lathe_model_layer(model, 2);
  CHECK(name != NULL);
  CHECK(lathe_compile(model, NULL, &network, &error) == LATHE_OK);
  CHECK(lathe_network_output(network, 0, &info) == LATHE_OK && strcmp(info.name, name) == 0);
  CHECK(lathe_threads_pool(1, NULL, NULL) == LATHE_USAGE);
  lathe_network_free(network);
  lathe_model_free(model);
}

int main(void) {
  CHECK(strlen(lathe_version()) > 0 && lathe_usable_cpus() > 0);
  compile_and_run();
  errors();
  features();
  puts(failures ? "failed" : "the C interface works");
  return failures != 0;
}
