#include "cli/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <sys/resource.h>

namespace lathe::core::cli {

Latency measure_latency(Request &request, double seconds) {
  using Clock = std::chrono::steady_clock;
  auto since = [](Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  };
  request.run();
  std::vector<double> samples;
  auto start = Clock::now();
  while (samples.size() < 5 || (since(start) < seconds * 1000 && samples.size() < 1'000'000)) {
    auto run_start = Clock::now();
    request.run();
    samples.push_back(since(run_start));
  }
  std::ranges::sort(samples);
  auto percentile = [&](double p) {
    return samples[std::min(samples.size() - 1, size_t(p * double(samples.size())))];
  };
  Latency l{samples.front(),        percentile(0.5), percentile(0.9), percentile(0.99), 0, 0,
            int64_t(samples.size())};
  for (double s : samples) l.mean += s / double(samples.size());
  for (double s : samples) l.stddev += (s - l.mean) * (s - l.mean) / double(samples.size());
  l.stddev = std::sqrt(l.stddev);
  return l;
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t(usage.ru_maxrss) * 1024;
}

} // namespace lathe::core::cli
