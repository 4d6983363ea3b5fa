// What this machine can do at best, measured: the yardstick of every benchmark.
#pragma once

#include "ir/target.h"
#include "runtime/thread_pool.h"

namespace lathe::core {

// Both on all threads of the pool at the same time; without one, on the caller's.

// f32 fused multiply-adds (or multiplies and adds, without FMA) on registers, best of a few short
// runs: GFLOP/s.
double measure_peak_gflops(const Target &target, ThreadPool *pool = nullptr);

// Reading memory that no cache holds, best of a few passes: GB/s, or 0 where there is no
// memory to read. Takes four times the last-level cache, for some tenths of a second.
double measure_bandwidth_gbs(ThreadPool *pool = nullptr);

// Writing to memory that was never touched before, as packed weights are: GB/s on this thread, or 0
// where there is no memory.
double measure_fresh_memory_gbs();

} // namespace lathe::core
