#include "runtime/peak.h"

#include "codegen/codegen.h"
#include "ir/system/memory.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lathe::core {
namespace {

constexpr int chains = 12, rounds = 200'000; // enough independent chains to hide the latency

// Returns something that depends on every chain, so that none is dropped.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) float chains_avx512() {
  __m512 sum[chains], factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps(0.001f);
  for (int c = 0; c < chains; ++c) sum[c] = _mm512_set1_ps(float(c));
  for (int r = 0; r < rounds; ++r)
    for (int c = 0; c < chains; ++c) sum[c] = _mm512_fmadd_ps(sum[c], factor, term);
  for (int c = 1; c < chains; ++c) sum[0] = _mm512_add_ps(sum[0], sum[c]);
  return _mm512_cvtss_f32(sum[0]);
}
__attribute__((target("avx2,fma"))) float chains_avx2() {
  __m256 sum[chains], factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(0.001f);
  for (int c = 0; c < chains; ++c) sum[c] = _mm256_set1_ps(float(c));
  for (int r = 0; r < rounds; ++r)
    for (int c = 0; c < chains; ++c) sum[c] = _mm256_fmadd_ps(sum[c], factor, term);
  for (int c = 1; c < chains; ++c) sum[0] = _mm256_add_ps(sum[0], sum[c]);
  return _mm256_cvtss_f32(sum[0]);
}
#endif

using Vector4 = float __attribute__((vector_size(16)));
float chains_128() {
  Vector4 sum[chains], factor = {0.999f, 0.999f, 0.999f, 0.999f}, term = factor * 0.001f;
  for (int c = 0; c < chains; ++c) sum[c] = term * float(c);
  for (int r = 0; r < rounds; ++r)
    for (int c = 0; c < chains; ++c) sum[c] = sum[c] * factor + term;
  for (int c = 1; c < chains; ++c) sum[0] += sum[c];
  return sum[0][0];
}

// A load of any width fetches a whole line: vectors of 16 bytes read as fast as wider ones.
void read_all(const std::byte *memory, size_t bytes) {
  Vector4 sum[8] = {};
  const auto *vectors = reinterpret_cast<const Vector4 *>(memory);
  for (size_t i = 0; i + 8 <= bytes / sizeof(Vector4); i += 8)
    for (size_t k = 0; k < 8; ++k) sum[k] += vectors[i + k];
  for (size_t k = 1; k < 8; ++k) sum[0] += sum[k];
  volatile float sink = sum[0][0];
  (void)sink;
}

double seconds(ThreadPool *pool, int64_t tasks, ThreadPool::Work work, void *context) {
  const auto start = std::chrono::steady_clock::now();
  if (pool)
    pool->parallel_for(tasks, 1, work, context);
  else
    work(context, 0, tasks, 0);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

} // namespace

double measure_peak_gflops(const Target &target, ThreadPool *pool) {
  float (*run)() = chains_128;
#if defined(__x86_64__)
  if (target.vector_bytes == 64) run = chains_avx512;
  if (target.vector_bytes == 32) run = chains_avx2;
#endif
  // Several runs for each thread: so that little of the time passes while some have nothing to do.
  const int64_t runs = pool ? 8 * pool->threads() : 1;
  auto run_some = [](void *from, int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      volatile float sink = (*static_cast<float (**)()>(from))();
      (void)sink;
    }
  };
  const double flops = 2.0 * chains * rounds * double(target.lanes()) * double(runs);
  double best = 0;
  for (int i = 0; i < 8; ++i)
    best = std::max(best, 1e-9 * flops / seconds(pool, runs, run_some, &run));
  return best;
}

double measure_fresh_memory_gbs() {
  constexpr int64_t bytes = 64 << 20;
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const Memory memory = allocate(bytes);
    if (!memory) return 0;
    auto fill = [](void *from, int64_t, int64_t, int) { std::memset(from, 1, bytes); };
    best = std::max(best, 1e-9 * double(bytes) / seconds(nullptr, 1, fill, memory.get()));
  }
  return best;
}

double measure_bandwidth_gbs(ThreadPool *pool) {
  static constexpr int64_t block = 1 << 20;
  const int64_t blocks = std::max<int64_t>(64 << 20, 4 * host_target().l3_bytes) / block;
  const Memory memory = allocate(size_t(blocks * block));
  if (!memory) return 0;
  std::memset(memory.get(), 0, size_t(blocks * block)); // untouched pages are all the same one
  auto read_blocks = [](void *from, int64_t begin, int64_t end, int) {
    read_all(static_cast<const std::byte *>(from) + begin * block, size_t((end - begin) * block));
  };
  double best = 0;
  for (int i = 0; i < 5; ++i)
    best = std::max(best, 1e-9 * double(blocks * block) /
                              seconds(pool, blocks, read_blocks, memory.get()));
  return best;
}

} // namespace lathe::core
