// Timing whole networks.
#pragma once

#include "runtime/executable.h"

#include <vector>

namespace lathe::core::cli {

struct Latency { // milliseconds
  double min = 0, median = 0, p90 = 0, p99 = 0, mean = 0, stddev = 0;
  int64_t iterations = 0;
};
// Runs for about `seconds`, at least five times, after one run that does not count.
Latency measure_latency(Request &request, double seconds);
int64_t peak_resident_bytes();

} // namespace lathe::core::cli
