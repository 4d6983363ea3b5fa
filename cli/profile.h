// What `lathe profile` found out, and the forms in which it says so.
#pragma once

#include "runtime/kernel_facts.h"

#include <string>
#include <vector>

namespace lathe::core::cli {

struct ProfiledKernel {
  std::string name;
  std::vector<std::string> sources; // the layers it computes
  KernelFacts facts;                // for the whole batch
  Choice choice;                    // what else was considered
  double ms = 0;                    // the median of all runs
  double share = 0;                 // of the sum of the kernels' medians
  double roof_ms = 0;    // what its arithmetic takes at the peak, or its bytes at full bandwidth
  double typical_ms = 0; // in the one run whose total is the median

  std::string layers() const; // short: "conv1 +2"
  double gflops() const { return 1e-6 * facts.flops / ms; }
  double gbs() const { return 1e-6 * double(facts.bytes()) / ms; }
  double roofs() const { return ms / roof_ms; }
};

struct Profile {
  std::string model, isa, cpu;
  int64_t batch = 1, runs = 0;
  int threads = 1;
  double peak_gflops = 0, bandwidth_gbs = 0; // of all threads together
  double total_ms = 0, roof_ms = 0;
  std::vector<ProfiledKernel> kernels; // in the order in which they run

  double percent_of_peak(const ProfiledKernel &k) const { return 100 * k.gflops() / peak_gflops; }
};

// A table of the `top` kernels that take longest (0: all), in the order in which they run.
std::string profile_table(const Profile &profile, size_t top);
std::string profile_json(const Profile &profile);
// A page that needs nothing else.
std::string profile_html(const Profile &profile);
// The typical run in Chrome's trace-event format, which Perfetto opens.
std::string profile_trace(const Profile &profile);

} // namespace lathe::core::cli
