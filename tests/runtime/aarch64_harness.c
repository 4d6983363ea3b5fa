/* Runs the kernels of a plan on AArch64, usually under an emulator. Reads from the file in argv[1]
   (64-bit words and bytes, see aarch64_test.cpp), writes the outputs to the file in argv[2]. Every
   buffer ends at a page that cannot be touched, so that a kernel that reads or writes too far dies. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef void (*Kernel)(const int64_t *args, int64_t begin, int64_t end, void *scratch);
extern const Kernel kernels[]; /* generated: one entry per kernel of the plan */

static FILE *file;
static int64_t word(void) {
  int64_t value;
  if (fread(&value, sizeof value, 1, file) != 1) exit(3);
  return value;
}

static char *guarded(int64_t bytes) {
  int64_t page = 65536, size = (bytes + page - 1) / page * page;
  char *memory = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory + size, page, PROT_NONE)) exit(4);
  return memory + size - bytes;
}

int main(int argc, char **argv) {
  if (argc != 3 || !(file = fopen(argv[1], "rb"))) return 2;
  int64_t count = word();
  char **buffers = calloc(count, sizeof *buffers);
  int64_t *sizes = calloc(count, sizeof *sizes);
  for (int64_t i = 0; i < count; ++i) { /* size, whether data follows, data */
    sizes[i] = word();
    buffers[i] = guarded(sizes[i]);
    if (word() && sizes[i] && fread(buffers[i], sizes[i], 1, file) != 1) return 3;
  }
  uint64_t flush = (uint64_t)1 << 24; /* subnormal numbers count as zero, as in a Request */
  __asm__ volatile("msr fpcr, %0" ::"r"(flush));
  int64_t runs = word();
  for (int64_t k = 0; k < runs; ++k) { /* tasks, scratch, operands as buffer and offset, parameters */
    int64_t tasks = word(), scratch_bytes = word(), operands = word(), parameters = word();
    int64_t *args = calloc(operands + parameters, sizeof *args);
    for (int64_t o = 0; o < operands; ++o) {
      char *base = buffers[word()];
      args[o] = (int64_t)(intptr_t)(base + word());
    }
    for (int64_t p = 0; p < parameters; ++p) args[operands + p] = word();
    char *scratch = guarded(scratch_bytes);
    int64_t half = tasks / 2; /* two calls: kernels must not depend on how tasks are cut */
    kernels[k](args, 0, half, scratch);
    kernels[k](args, half, tasks, scratch);
    free(args);
  }
  FILE *out = fopen(argv[2], "wb");
  int64_t outputs = word();
  for (int64_t j = 0; j < outputs; ++j) {
    int64_t buffer = word();
    if (!out || fwrite(buffers[buffer], sizes[buffer], 1, out) != 1) return 5;
  }
  return fclose(out) ? 5 : 0;
}
