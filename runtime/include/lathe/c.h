/* Lathe's C interface: the same as lathe/lathe.h, for C and for bindings. C99.
 *
 *   lathe_error *error = NULL;
 *   lathe_model *model = NULL;
 *   lathe_network *network = NULL;
 *   lathe_request *request = NULL;
 *   if (lathe_model_load("resnet50.onnx", NULL, &model, &error) ||
 *       lathe_compile(model, NULL, &network, &error) ||
 *       lathe_request_create(network, 1, NULL, &request, &error))
 *     fprintf(stderr, "%s\n", lathe_error_text(error));
 *
 * Functions that can fail return a status, and set *error (unless `error` is NULL) to what the
 * caller then frees; what they would have made is then untouched. Every object is freed by its
 * *_free, which takes NULL; objects that were made from another one keep what they need of it.
 * Names and shapes that are returned live as long as the object that was asked. Nothing here throws
 * or ends the program: where a pointer must not be NULL, and is, the status is LATHE_USAGE, or the
 * function does nothing and returns 0 or NULL; where the system refuses memory, threads or files,
 * that is a status too (lathe/lathe.h says the same of stacks and of fork() as holds here). A
 * model, a request and an error belong to one thread at a time; a network and threads to any
 * number. The interface only grows: fields are appended to structs, whose first field says which of
 * them the caller knows. */
#ifndef LATHE_C_H
#define LATHE_C_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define LATHE_C_API __attribute__((visibility("default")))
#else
#define LATHE_C_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lathe_status {
  LATHE_OK = 0,
  LATHE_USAGE = 2,       /* a wrong option or argument */
  LATHE_INVALID = 3,     /* a malformed model, weights file or tensor */
  LATHE_UNSUPPORTED = 4, /* well formed, but nothing that Lathe or this machine can do */
  LATHE_IO = 5,          /* the operating system refused */
  LATHE_LIMIT = 6,       /* a limit, or the memory there is, would be exceeded */
  LATHE_INTERNAL = 70    /* a bug in Lathe */
} lathe_status;

typedef enum lathe_dtype {
  LATHE_F32 = 0,
  LATHE_I64 = 1,
  LATHE_I32 = 2,
  LATHE_BOOL = 3,
  LATHE_F16 = 4,  /* IEEE 754 binary16; this, bfloat16 and double: only where the model declares */
  LATHE_BF16 = 5, /* an input or output so; what it computes it computes in float */
  LATHE_F64 = 6
} lathe_dtype;

typedef struct lathe_error lathe_error;
typedef struct lathe_model lathe_model;
typedef struct lathe_threads lathe_threads;
typedef struct lathe_network lathe_network; /* compiled: the Executable of C++ */
typedef struct lathe_request lathe_request;

LATHE_C_API const char *lathe_version(void);
LATHE_C_API int lathe_usable_cpus(void); /* by affinity and cgroup quotas */

/* --- Errors. What is not known is "" or 0; NULL is an error for which there was no memory. */

LATHE_C_API lathe_status lathe_error_status(const lathe_error *error);
LATHE_C_API const char *lathe_error_text(const lathe_error *error); /* all of it, for people */
LATHE_C_API const char *lathe_error_message(const lathe_error *error);
LATHE_C_API const char *lathe_error_file(const lathe_error *error);
LATHE_C_API int lathe_error_line(const lathe_error *error);
LATHE_C_API int lathe_error_column(const lathe_error *error);
LATHE_C_API const char *lathe_error_node(const lathe_error *error);
LATHE_C_API const char *lathe_error_op(const lathe_error *error);
LATHE_C_API const char *lathe_error_expected(const lathe_error *error);
LATHE_C_API const char *lathe_error_found(const lathe_error *error);
LATHE_C_API const char *lathe_error_detail(const lathe_error *error);
LATHE_C_API void lathe_error_free(lathe_error *error);

/* --- Models */

/* Dense and row-major. */
typedef struct lathe_tensor {
  const char *name;
  lathe_dtype dtype;
  size_t rank;
  const int64_t *shape; /* outermost first */
  const void *data;     /* NULL where only the type is told */
  size_t bytes;         /* ignored in arguments */
} lathe_tensor;

typedef struct lathe_parameter {
  const char *name;
  double value;
} lathe_parameter;

/* Filled with defaults by lathe_load_options_init. */
typedef struct lathe_load_options {
  size_t struct_size;
  int64_t batch;              /* ONNX: images, where the file leaves dimension 0 open */
  const lathe_tensor *shapes; /* ONNX: of inputs, by name */
  size_t shape_count;
  const lathe_tensor *values; /* ONNX: of inputs that decide shapes; copied */
  size_t value_count;
  const lathe_parameter *parameters; /* .net: "classes" for one */
  size_t parameter_count;
  uint64_t largest_file;  /* bytes; a model file that is larger is refused */
  int64_t compile_memory; /* as in lathe_options: for reading, and for random weights */
  double time_limit;
} lathe_load_options;
#define lathe_load_options_init(options) lathe_load_options_fill((options), sizeof *(options))
LATHE_C_API void lathe_load_options_fill(lathe_load_options *options, size_t struct_size);

/* A file (.net, .onnx), or the name of a bundled network ("resnet50"; a file of such a name is
 * "./resnet50"). options may be NULL. */
LATHE_C_API lathe_status lathe_model_load(const char *model, const lathe_load_options *options,
                                          lathe_model **result, lathe_error **error);
/* The same from memory, which is copied. format: "onnx" or "net". */
LATHE_C_API lathe_status lathe_model_parse(const void *bytes, size_t size, const char *format,
                                           const lathe_load_options *options, lathe_model **result,
                                           lathe_error **error);
/* Weights by name, in place of those that the model has. All must be given and no others; what
 * checkpoints carry along besides (num_batches_tracked, auxiliary heads) is ignored. */
LATHE_C_API lathe_status lathe_model_bind_weights_file(lathe_model *model, const char *safetensors,
                                                       lathe_error **error);
LATHE_C_API lathe_status lathe_model_bind_weights(lathe_model *model, const lathe_tensor *weights,
                                                  size_t count, lathe_error **error);
/* Filled with defaults by lathe_bind_options_init. */
typedef struct lathe_bind_options {
  size_t struct_size;
  int partial;       /* 1: weights that are not given stay as they are */
  int ignore_unused; /* 1: tensors that no weight is named after are no errors */
} lathe_bind_options;
#define lathe_bind_options_init(options) lathe_bind_options_fill((options), sizeof *(options))
LATHE_C_API void lathe_bind_options_fill(lathe_bind_options *options, size_t struct_size);
/* The same with options, which may be NULL. */
LATHE_C_API lathe_status lathe_model_bind_weights_file_with(lathe_model *model,
                                                            const char *safetensors,
                                                            const lathe_bind_options *options,
                                                            lathe_error **error);
LATHE_C_API lathe_status lathe_model_bind_weights_with(lathe_model *model,
                                                       const lathe_tensor *weights, size_t count,
                                                       const lathe_bind_options *options,
                                                       lathe_error **error);
/* What the last binding that succeeded left over, by index; NULL: no more. */
typedef enum lathe_leftover {
  LATHE_UNUSED = 0, /* given, but of no weight */
  LATHE_KEPT = 1,   /* weights that were not given and stay as they were */
  LATHE_MISSING = 2 /* weights that were not given and have no numbers yet */
} lathe_leftover;
LATHE_C_API const char *lathe_model_leftover(const lathe_model *model, lathe_leftover which,
                                             size_t index);
/* What is allowed and yet looks wrong in a .net file, by index; NULL: no more. */
LATHE_C_API const char *lathe_model_warning(const lathe_model *model, size_t index);
LATHE_C_API lathe_status lathe_model_randomise_weights(lathe_model *model, uint64_t seed,
                                                       lathe_error **error);
/* Layers whose results are the outputs from now on: for features. */
LATHE_C_API lathe_status lathe_model_set_outputs(lathe_model *model, const char *const *names,
                                                 size_t count, lathe_error **error);
LATHE_C_API size_t lathe_model_layer_count(const lathe_model *model);
LATHE_C_API const char *lathe_model_layer(lathe_model *model, size_t index); /* NULL: no such */
LATHE_C_API void lathe_model_free(lathe_model *model);

/* --- Threads */

/* A pool of `count` threads, the caller among them; 0: as many as CPUs are usable. */
LATHE_C_API lathe_status lathe_threads_pool(int count, lathe_threads **result, lathe_error **error);
/* The caller's: parallel_for must call job(context, i) once for every i in [0, jobs), in any order,
 * on any threads, and return when all have returned. */
typedef void (*lathe_parallel_for)(void *host, int jobs, void (*job)(void *context, int index),
                                   void *context);
LATHE_C_API lathe_status lathe_threads_host(lathe_parallel_for parallel_for, void *host, int jobs,
                                            lathe_threads **result, lathe_error **error);
LATHE_C_API void lathe_threads_free(lathe_threads *threads);

/* --- Compiling */

/* Filled with defaults by lathe_options_init. */
typedef struct lathe_options {
  size_t struct_size;
  const lathe_threads *threads; /* NULL: a pool of as many threads as CPUs are usable */
  const char *target;           /* NULL: this machine's */
  int strict;                   /* 1: direct sums, IEEE 754's infinities, NaN through every op */
  double weight_budget; /* what transformed weights may add, as a multiple of the model's own, or of
                           2 MiB if it has fewer */
  int64_t memory_limit; /* bytes of one request of `batch` images, weights included; 0: none */
  int64_t batch;
  double time_limit;           /* seconds to compile; 0: none; an hour by default */
  int tune;                    /* 1: measure algorithms instead of estimating them */
  const char *cache_directory; /* NULL: none */
  int64_t cache_bytes;
  const char *const *disabled_passes;
  size_t disabled_pass_count;
  int64_t compile_memory; /* bytes that compiling may work in; 0: by itself (lathe/lathe.h) */
  int copy_weights; /* 0: weights are used in their mapped files where that is possible, which must
                       neither be overwritten nor cut while the network lives (SIGBUS); 1: copied */
} lathe_options;
#define lathe_options_init(options) lathe_options_fill((options), sizeof *(options))
LATHE_C_API void lathe_options_fill(lathe_options *options, size_t struct_size);

/* options may be NULL. */
LATHE_C_API lathe_status lathe_compile(const lathe_model *model, const lathe_options *options,
                                       lathe_network **result, lathe_error **error);

typedef struct lathe_memory { /* bytes */
  size_t struct_size;
  int64_t weights, arena, scratch, tensors;
} lathe_memory;

LATHE_C_API size_t lathe_network_input_count(const lathe_network *network);
LATHE_C_API size_t lathe_network_output_count(const lathe_network *network);
/* For one image. Returns LATHE_USAGE for an index that there is not. */
LATHE_C_API lathe_status lathe_network_input(const lathe_network *network, size_t index,
                                             lathe_tensor *info);
LATHE_C_API lathe_status lathe_network_output(const lathe_network *network, size_t index,
                                              lathe_tensor *info);
LATHE_C_API int lathe_network_batched(const lathe_network *network);
/* What a request takes, exactly; threads: 0 for those of the options. Each a quarter of INT64_MAX
 * where no request could be so large. struct_size must be set. */
LATHE_C_API void lathe_network_memory(const lathe_network *network, int64_t images, int threads,
                                      lathe_memory *memory);
LATHE_C_API const char *lathe_network_target(const lathe_network *network);
LATHE_C_API size_t lathe_network_kernel_count(const lathe_network *network);
LATHE_C_API const char *lathe_network_kernel(const lathe_network *network, size_t index);
LATHE_C_API void lathe_network_free(lathe_network *network);

/* Fills an input of shape 1,C,H,W with a picture, prepared by a preset: "torchvision",
 * "torchvision-v2", "caffe-bgr", "fashion-mnist", "raw" (see lathe/lathe.h). count: of the floats
 * at `to`. */
LATHE_C_API lathe_status lathe_read_picture(const char *file, const char *preset,
                                            const int64_t shape[4], float *to, size_t count,
                                            lathe_error **error);

/* --- Running */

/* threads: NULL for those of the options. */
LATHE_C_API lathe_status lathe_request_create(const lathe_network *network, int64_t images,
                                              const lathe_threads *threads, lathe_request **result,
                                              lathe_error **error);
/* The request's own memory, or what it was bound to; `bytes` may be NULL. NULL for an index that
 * there is not. */
LATHE_C_API void *lathe_request_input(lathe_request *request, size_t index, size_t *bytes);
LATHE_C_API const void *lathe_request_output(const lathe_request *request, size_t index,
                                             size_t *bytes);
/* The caller's memory, of just the tensor's size and aligned for its elements, in place of the
 * request's own, until other memory is bound. */
LATHE_C_API lathe_status lathe_request_bind_input(lathe_request *request, size_t index,
                                                  const void *memory, size_t bytes,
                                                  lathe_error **error);
LATHE_C_API lathe_status lathe_request_bind_output(lathe_request *request, size_t index,
                                                   void *memory, size_t bytes, lathe_error **error);
/* Allocates nothing and takes no lock but, with a pool, to wake and wait. */
LATHE_C_API void lathe_request_run(lathe_request *request);
/* The same; milliseconds of each of the network's kernels. */
LATHE_C_API void lathe_request_run_timed(lathe_request *request, double *milliseconds,
                                         size_t count);
LATHE_C_API void lathe_request_free(lathe_request *request);

#ifdef __cplusplus
}
#endif
#endif
