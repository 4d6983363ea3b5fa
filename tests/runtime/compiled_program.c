/* A program around a network that is compiled ahead of time, as a user would write it:
 *   program INPUT OUTPUT THREADS [WEIGHTS]
 * with tensors as plain bytes. NETWORK is the library's name, HEADER its header's. Exits with the
 * library's status, or 100 and more for what this program finds wrong. */
#define _POSIX_C_SOURCE 200809L
#include HEADER

#include <float.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define F(name) JOIN(NETWORK, name)
#define C(name) JOIN(CAPITALS, name)

#define REQUIRE(condition)                                                                         \
  do                                                                                               \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition);                              \
      exit(100);                                                                                   \
    }                                                                                              \
  while (0)

static void *allocate(size_t bytes) {
  void *memory = NULL;
  REQUIRE(posix_memalign(&memory, C(_ALIGNMENT), bytes + 64) == 0);
  return memory;
}

static void *read_file(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  REQUIRE(file);
  fseek(file, 0, SEEK_END);
  *bytes = (size_t)ftell(file);
  rewind(file);
  void *memory = allocate(*bytes);
  REQUIRE(fread(memory, 1, *bytes, file) == *bytes);
  fclose(file);
  return memory;
}

/* A thread for every job: the simplest that keeps the contract. */
struct job {
  void (*run)(void *context, int index);
  void *context;
  int index;
};
static void *run_job(void *data) {
  struct job *job = data;
  job->run(job->context, job->index);
  return NULL;
}
static int forks = 0;
static void parallel_for(void *pool, int jobs, void (*run)(void *context, int index),
                         void *context) {
  pthread_t threads[16];
  struct job all[16];
  REQUIRE(pool == &forks && jobs <= 16);
  ++forks;
  for (int i = 0; i < jobs; ++i) {
    all[i] = (struct job){run, context, jobs - 1 - i};
    REQUIRE(pthread_create(&threads[i], NULL, run_job, &all[i]) == 0);
  }
  for (int i = 0; i < jobs; ++i) pthread_join(threads[i], NULL);
}

int main(int argc, char **argv) {
  REQUIRE(argc == 4 || argc == 5);
  const int threads = atoi(argv[3]);
  size_t weights_bytes = 0, input_bytes = 0;
  void *weights = argc == 5 ? read_file(argv[4], &weights_bytes) : NULL;
  F(_network) network;
  memset(&network, 0, sizeof network);
  REQUIRE(F(_target)(&network) == NULL);
  REQUIRE(F(_run)(&network, NULL, 0, NULL, NULL, NULL) == C(_UNINITIALISED));
  int status = F(_init)(&network, weights, weights_bytes);
  if (!status) status = F(_check_weights)(weights, weights_bytes);
  if (status) {
    fprintf(stderr, "%s\n", F(_error)(status));
    return status;
  }
  printf("%s\n", F(_target)(&network));

  void *input = read_file(argv[1], &input_bytes);
  REQUIRE(C(_INPUT_COUNT) == 1 && C(_OUTPUT_COUNT) == 1 && input_bytes == C(_INPUT_0_BYTES));
  unsigned char *output = allocate(C(_OUTPUT_0_BYTES));
  const size_t arena_bytes = C(_ARENA_BYTES)(threads);
  unsigned char *arena = allocate(arena_bytes);
  memset(arena, 0xff, arena_bytes); /* NaN, wherever something is read before it is written */
  memset(arena + arena_bytes, 0x55, 64);
  memset(output + C(_OUTPUT_0_BYTES), 0x55, 64);
  const void *inputs[] = {input};
  void *outputs[] = {output};
  F(_parallel) parallel = {parallel_for, &forks, threads};

  /* What run must refuse. */
  const void *no_input[] = {NULL}, *odd_input[] = {(char *)input + 1};
  const struct {
    int status;
    void *arena;
    size_t bytes;
    const void *const *inputs;
  } bad[] = {
      {C(_NULL_ARGUMENT), NULL, arena_bytes, inputs},
      {C(_NULL_ARGUMENT), arena, arena_bytes, NULL},
      {C(_NULL_ARGUMENT), arena, arena_bytes, no_input},
      {C(_MISALIGNED), arena, arena_bytes, odd_input},
      {C(_MISALIGNED), arena + 32, arena_bytes, inputs},
      {C(_SMALL_ARENA), arena, arena_bytes - 1, inputs},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i)
    REQUIRE(F(_run)(&network, bad[i].arena, bad[i].bytes, bad[i].inputs, outputs, &parallel) ==
            bad[i].status);
  parallel.threads = 0;
  REQUIRE(F(_run)(&network, arena, arena_bytes, inputs, outputs, &parallel) == C(_BAD_PARALLEL));
  parallel.threads = threads;

  for (int round = 0; round < 2; ++round) {
    memset(output, 0, C(_OUTPUT_0_BYTES));
    status = F(_run)(&network, arena, arena_bytes, inputs, outputs, threads > 1 ? &parallel : NULL);
    if (status) return status;
  }
  REQUIRE(strlen(F(_error)(status)) > 0 && strlen(F(_error)(1000)) > 0);
  REQUIRE(threads > 1 || forks == 0);
  printf("%d\n", forks);
  for (int i = 0; i < 64; ++i)
    REQUIRE(arena[arena_bytes + (size_t)i] == 0x55 && output[C(_OUTPUT_0_BYTES) + i] == 0x55);
  volatile float tiny = FLT_MIN; /* subnormals are as before */
  REQUIRE(tiny / 2 > 0);

  FILE *file = fopen(argv[2], "wb");
  REQUIRE(file && fwrite(output, 1, C(_OUTPUT_0_BYTES), file) == C(_OUTPUT_0_BYTES));
  REQUIRE(fclose(file) == 0);
  free(output);
  free(arena);
  free(input);
  free(weights);
  return status;
}
