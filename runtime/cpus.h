// How many CPUs there are for this process.
#pragma once

#include <string>

namespace lathe::core {

// CPUs that this process may really use: its affinity, and the smallest quota of its control group
// and of all above it.
int usable_cpus();

// The CPUs' worth of time that control groups allow, of both versions; 0: all. `root`: in place of
// "/", for tests.
double cpu_quota(const std::string &root = "");

} // namespace lathe::core
