#include "runtime/peak.h"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lathe {
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

} // namespace

double measure_peak_gflops(const Target &target) {
  float (*run)() = chains_128;
#if defined(__x86_64__)
  if (target.vector_bytes == 64) run = chains_avx512;
  if (target.vector_bytes == 32) run = chains_avx2;
#endif
  double best = 0;
  for (int i = 0; i < 8; ++i) {
    auto start = std::chrono::steady_clock::now();
    volatile float sink = run();
    (void)sink;
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2.0 * chains * rounds * target.lanes() / took.count() * 1e-9);
  }
  return best;
}

} // namespace lathe
