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
  options.compile_memory = 1000;
  CHECK(lathe_compile(model, &options, &network, &error) == LATHE_LIMIT);
  lathe_error_free(error);
  options.compile_memory = 0;
  options.copy_weights = 1;
  CHECK(lathe_compile(model, &options, &network, &error) == LATHE_OK);
  lathe_model_free(model);
  CHECK(lathe_network_input_count(network) == 1);
  CHECK(lathe_network_input(network, 0, &info) == LATHE_OK);
  CHECK(info.rank == 4 && info.shape[2] == 32 && info.dtype == LATHE_F32 && info.bytes == 4096);
  CHECK(lathe_network_input(network, 1, &info) == LATHE_USAGE);
  lathe_network_memory(network, 1, 1, &memory);
  CHECK(memory.weights > 0 && memory.tensors == 4096 + 40);
  lathe_network_memory(network, INT64_MAX, 1, &memory);
  CHECK(memory.arena == INT64_MAX / 4 && memory.tensors == INT64_MAX / 4);
  CHECK(lathe_request_create(network, INT64_MAX, NULL, &request, &error) == LATHE_USAGE);
  lathe_error_free(error);
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

/* A test of one status: the error goes. */
static void expect(lathe_status status, lathe_status wanted, lathe_error **error, const char *says,
                   int line) {
  if (status != wanted || (says && !strstr(lathe_error_text(*error), says))) {
    printf("FAILED: %s:%d: status %d, %s\n", __FILE__, line, (int)status,
           *error ? lathe_error_text(*error) : "no error");
    ++failures;
  }
  lathe_error_free(*error);
  *error = NULL;
}
#define EXPECT(call, wanted, says) expect((call), (wanted), &error, (says), __LINE__)

static void weights(void) {
  static const char text[] = "network n {\n  input x 2\n  fc: dense 1\n}\n";
  static const int64_t rows[] = {1, 2}, one[] = {1};
  static const float first[] = {2, 3}, second[] = {5, 7}, bias[] = {10};
  lathe_tensor given[3] = {{"fc.weight", LATHE_F32, 2, rows, first, 0},
                           {"fc.bias", LATHE_F32, 1, one, bias, 0},
                           {"fc.colour", LATHE_F32, 1, one, bias, 0}};
  lathe_error *error = NULL;
  lathe_model *model = NULL;
  lathe_network *network = NULL;
  lathe_request *request = NULL;
  lathe_bind_options options;
  float *x;

  EXPECT(lathe_model_parse(text, sizeof text - 1, "net", NULL, &model, &error), LATHE_OK, NULL);
  EXPECT(lathe_compile(model, NULL, &network, &error), LATHE_INVALID, "no weights yet");
  EXPECT(lathe_model_bind_weights(model, given, 1, &error), LATHE_INVALID, "fc.bias");
  EXPECT(lathe_model_bind_weights(model, given, 3, &error), LATHE_INVALID, "fc.colour");
  EXPECT(lathe_model_bind_weights(model, given, 2, &error), LATHE_OK, NULL);
  given[0].data = second;
  lathe_bind_options_init(&options);
  CHECK(options.partial == 0 && options.ignore_unused == 0);
  options.partial = 1;
  EXPECT(lathe_model_bind_weights_with(model, given, 1, &options, &error), LATHE_OK, NULL);
  CHECK(strcmp(lathe_model_leftover(model, LATHE_KEPT, 0), "fc.bias") == 0);
  CHECK(lathe_model_leftover(model, LATHE_KEPT, 1) == NULL);
  CHECK(lathe_model_leftover(model, LATHE_UNUSED, 0) == NULL);
  options.partial = 0;
  options.ignore_unused = 1;
  EXPECT(lathe_model_bind_weights_with(model, given, 3, &options, &error), LATHE_OK, NULL);
  CHECK(strcmp(lathe_model_leftover(model, LATHE_UNUSED, 0), "fc.colour") == 0);
  EXPECT(lathe_compile(model, NULL, &network, &error), LATHE_OK, NULL);
  EXPECT(lathe_request_create(network, 1, NULL, &request, &error), LATHE_OK, NULL);
  x = lathe_request_input(request, 0, NULL);
  x[0] = 1;
  x[1] = 100;
  lathe_request_run(request);
  CHECK(*(const float *)lathe_request_output(request, 0, NULL) == 715); /* of the last binding */
  lathe_request_free(request);
  lathe_network_free(network);
  lathe_model_free(model);
}

/* What must not be NULL, and is. */
static void nulls(void) {
  static const int64_t shape[] = {1, 1, 32, 32};
  const char *names[] = {"conv1", NULL};
  lathe_tensor tensor = {NULL, LATHE_F32, 4, shape, NULL, 0};
  lathe_parameter parameter = {NULL, 3};
  lathe_load_options load;
  lathe_options options;
  lathe_bind_options bind;
  lathe_memory memory = {sizeof memory, 1, 2, 3, 4};
  lathe_error *error = NULL;
  lathe_model *model = NULL, *none = NULL;
  lathe_network *network = NULL;
  lathe_request *request = NULL;
  lathe_threads *threads = NULL;
  float number = 0;
  double milliseconds = -1;

  lathe_load_options_fill(NULL, 8);
  lathe_options_fill(NULL, 8);
  lathe_bind_options_fill(NULL, 8);
  EXPECT(lathe_model_load(NULL, NULL, &none, &error), LATHE_USAGE, "model");
  EXPECT(lathe_model_load("lenet5", NULL, NULL, &error), LATHE_USAGE, "result");
  EXPECT(lathe_model_parse(NULL, 0, "net", NULL, &none, &error), LATHE_USAGE, "model");
  EXPECT(lathe_model_parse("x", 1, NULL, NULL, &none, &error), LATHE_USAGE, "format");
  EXPECT(lathe_model_parse("x", 1, "net", NULL, NULL, &error), LATHE_USAGE, "result");
  CHECK(lathe_model_load(NULL, NULL, NULL, NULL) == LATHE_USAGE);

  lathe_load_options_init(&load);
  load.shape_count = 1;
  EXPECT(lathe_model_load("lenet5", &load, &none, &error), LATHE_USAGE, "shapes");
  load.shapes = &tensor;
  EXPECT(lathe_model_load("lenet5", &load, &none, &error), LATHE_USAGE, "name of a tensor");
  tensor.name = "x";
  tensor.shape = NULL;
  EXPECT(lathe_model_load("lenet5", &load, &none, &error), LATHE_USAGE, "shape of a tensor");
  lathe_load_options_init(&load);
  load.value_count = 1;
  EXPECT(lathe_model_load("lenet5", &load, &none, &error), LATHE_USAGE, "values");
  load.values = &tensor;
  EXPECT(lathe_model_load("lenet5", &load, &none, &error), LATHE_USAGE, "shape of a tensor");
  tensor.shape = shape;
  EXPECT(lathe_model_load("lenet5", &load, &none, &error), LATHE_INVALID, "data");
  tensor.dtype = (lathe_dtype)256;
  EXPECT(lathe_model_load("lenet5", &load, &none, &error), LATHE_USAGE, "element type");
  tensor.dtype = LATHE_F32;
  lathe_load_options_init(&load);
  load.parameter_count = 1;
  EXPECT(lathe_model_load("lenet5", &load, &none, &error), LATHE_USAGE, "parameters");
  load.parameters = &parameter;
  EXPECT(lathe_model_load("lenet5", &load, &none, &error), LATHE_USAGE, "name of a parameter");
  load.parameter_count = 0; /* nothing is read behind an empty list */
  load.parameters = NULL;
  EXPECT(lathe_model_load("lenet5", &load, &model, &error), LATHE_OK, NULL);
  CHECK(none == NULL);

  EXPECT(lathe_model_bind_weights_file(NULL, "x", &error), LATHE_USAGE, "model");
  EXPECT(lathe_model_bind_weights_file(model, NULL, &error), LATHE_USAGE, "file");
  EXPECT(lathe_model_bind_weights(NULL, &tensor, 1, &error), LATHE_USAGE, "model");
  EXPECT(lathe_model_bind_weights(model, NULL, 1, &error), LATHE_USAGE, "weights");
  EXPECT(lathe_model_bind_weights(model, NULL, 0, &error), LATHE_INVALID, "missing");
  EXPECT(lathe_model_bind_weights(model, &tensor, 1, &error), LATHE_INVALID, "data");
  lathe_bind_options_init(&bind);
  bind.partial = 1;
  EXPECT(lathe_model_bind_weights_with(model, NULL, 0, &bind, &error), LATHE_OK, NULL);
  EXPECT(lathe_model_randomise_weights(NULL, 1, &error), LATHE_USAGE, "model");
  EXPECT(lathe_model_set_outputs(NULL, names, 1, &error), LATHE_USAGE, "model");
  EXPECT(lathe_model_set_outputs(model, NULL, 1, &error), LATHE_USAGE, "output");
  EXPECT(lathe_model_set_outputs(model, names, 2, &error), LATHE_USAGE, "output");
  EXPECT(lathe_model_set_outputs(model, NULL, 0, &error), LATHE_USAGE, "output");
  CHECK(lathe_model_layer_count(NULL) == 0 && lathe_model_layer(NULL, 0) == NULL);
  CHECK(lathe_model_leftover(NULL, LATHE_KEPT, 0) == NULL);
  CHECK(lathe_model_leftover(model, (lathe_leftover)9, 0) == NULL);
  CHECK(lathe_model_warning(NULL, 0) == NULL && lathe_model_warning(model, 0) == NULL);

  lathe_options_init(&options);
  options.disabled_pass_count = 2;
  EXPECT(lathe_compile(model, &options, &network, &error), LATHE_USAGE, "disabled pass");
  options.disabled_passes = names;
  EXPECT(lathe_compile(model, &options, &network, &error), LATHE_USAGE, "disabled pass");
  EXPECT(lathe_compile(NULL, NULL, &network, &error), LATHE_USAGE, "model");
  EXPECT(lathe_compile(model, NULL, NULL, &error), LATHE_USAGE, "result");
  EXPECT(lathe_compile(model, NULL, &network, &error), LATHE_OK, NULL);
  EXPECT(lathe_threads_pool(1, NULL, &error), LATHE_USAGE, "result");
  EXPECT(lathe_threads_host(NULL, NULL, 2, &threads, &error), LATHE_USAGE, "parallel_for");
  EXPECT(lathe_threads_host(in_turn, NULL, 2, NULL, &error), LATHE_USAGE, "result");

  CHECK(lathe_network_input_count(NULL) == 0 && lathe_network_output_count(NULL) == 0);
  CHECK(lathe_network_input(NULL, 0, &tensor) == LATHE_USAGE);
  CHECK(lathe_network_input(network, 0, NULL) == LATHE_USAGE);
  CHECK(lathe_network_output(NULL, 0, &tensor) == LATHE_USAGE);
  CHECK(lathe_network_output(network, 0, NULL) == LATHE_USAGE);
  CHECK(lathe_network_batched(NULL) == 0 && lathe_network_target(NULL) == NULL);
  CHECK(lathe_network_kernel_count(NULL) == 0 && lathe_network_kernel(NULL, 0) == NULL);
  lathe_network_memory(network, 1, 1, NULL);
  lathe_network_memory(NULL, 1, 1, &memory);
  CHECK(memory.weights == 1);
  EXPECT(lathe_read_picture(NULL, "raw", shape, &number, 1, &error), LATHE_USAGE, "file");
  EXPECT(lathe_read_picture("x", NULL, shape, &number, 1, &error), LATHE_USAGE, "preset");
  EXPECT(lathe_read_picture("x", "raw", NULL, &number, 1, &error), LATHE_USAGE, "shape");
  EXPECT(lathe_read_picture("x", "raw", shape, NULL, 1024, &error), LATHE_USAGE, "memory");

  EXPECT(lathe_request_create(NULL, 1, NULL, &request, &error), LATHE_USAGE, "network");
  EXPECT(lathe_request_create(network, 1, NULL, NULL, &error), LATHE_USAGE, "result");
  EXPECT(lathe_request_create(network, 1, NULL, &request, &error), LATHE_OK, NULL);
  CHECK(lathe_request_input(NULL, 0, NULL) == NULL && lathe_request_output(NULL, 0, NULL) == NULL);
  CHECK(lathe_request_input(request, 1, NULL) == NULL);
  EXPECT(lathe_request_bind_input(NULL, 0, &number, 4, &error), LATHE_USAGE, "request");
  EXPECT(lathe_request_bind_input(request, 0, NULL, 4096, &error), LATHE_USAGE, "memory");
  EXPECT(lathe_request_bind_output(NULL, 0, &number, 4, &error), LATHE_USAGE, "request");
  EXPECT(lathe_request_bind_output(request, 0, NULL, 40, &error), LATHE_USAGE, "memory");
  lathe_request_run(NULL);
  lathe_request_run_timed(NULL, &milliseconds, 1);
  lathe_request_run_timed(request, NULL, 5);
  lathe_request_run(request);
  CHECK(milliseconds == -1 && lathe_request_output(request, 0, NULL) != NULL);
  lathe_request_free(request);
  lathe_network_free(network);
  lathe_model_free(model);
}

int main(void) {
  CHECK(strlen(lathe_version()) > 0 && lathe_usable_cpus() > 0);
  compile_and_run();
  errors();
  features();
  weights();
  nulls();
  puts(failures ? "failed" : "the C interface works");
  return failures != 0;
}
