// What this machine can do at best, measured: the yardstick of every benchmark.
#pragma once

#include "ir/target.h"

namespace lathe {

// f32 fused multiply-adds (or multiplies and adds, without FMA) on registers, one thread, best of a
// few short runs: GFLOP/s.
double measure_peak_gflops(const Target &target);

} // namespace lathe
