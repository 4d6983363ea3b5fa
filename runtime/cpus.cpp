// Control groups as Linux shows them: cgroups(7), proc_pid_cgroup(5), proc_pid_mountinfo(5), and
// Documentation/admin-guide/cgroup-v2.rst, "cpu.max".
#include "runtime/cpus.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sched.h>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

namespace lathe::core {
namespace {

bool lists(std::string_view names, std::string_view name) { // "cpu,cpuacct"
  while (true) {
    const size_t comma = names.find(',');
    if (names.substr(0, comma) == name) return true;
    if (comma == names.npos) return false;
    names.remove_prefix(comma + 1);
  }
}

// "a\040b" is "a b".
std::string unescaped(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i)
    if (text[i] == '\\' && i + 3 < text.size()) {
      plain += char(std::strtol(std::string(text.substr(i + 1, 3)).c_str(), nullptr, 8));
      i += 3;
    } else {
      plain += text[i];
    }
  return plain;
}

// This process's group, in the hierarchy that counts CPU time, as a path below its root.
std::string group_of(const std::string &root, bool v2) {
  std::ifstream file(root + "/proc/self/cgroup"); // "0::/a/b", "4:cpu,cpuacct:/a/b"
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string_view controllers =
        std::string_view(line).substr(first + 1, second - first - 1);
    if (v2 ? line.starts_with("0::") : lists(controllers, "cpu")) return line.substr(second + 1);
  }
  return {};
}

struct Mount {
  std::string shown, place; // the hierarchy's folder that is mounted, and where
  bool v2;
};

std::vector<Mount> mounts(const std::string &root) {
  std::vector<Mount> found;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - ");
    if (dash == line.npos) continue;
    std::istringstream front(line.substr(0, dash)), back(line.substr(dash + 3));
    std::string skipped, shown, place, type, source, options;
    front >> skipped >> skipped >> skipped >> shown >> place;
    back >> type >> source >> options;
    if (type == "cgroup2" || (type == "cgroup" && lists(options, "cpu")))
      found.push_back({unescaped(shown), unescaped(place), type == "cgroup2"});
  }
  return found;
}

// Of one group; 0: no limit. v2: "200000 100000" is two CPUs, "max 100000" no limit; v1 has a file
// for each number.
double quota_of(const std::string &folder, bool v2) {
  double quota = 0, period = 0;
  if (v2) {
    std::string first;
    std::ifstream(folder + "/cpu.max") >> first >> period;
    quota = std::strtod(first.c_str(), nullptr); // of "max": 0
  } else {
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

} // namespace

double cpu_quota(const std::string &root) {
  double least = 0;
  for (const Mount &mount : mounts(root)) {
    // A container may see only a part of the hierarchy, or none of what it is in.
    std::string group = group_of(root, mount.v2);
    if (mount.shown != "/") {
      const bool inside = group.starts_with(mount.shown + "/");
      group = inside ? group.substr(mount.shown.size()) : std::string();
    }
    if (group.find("/..") != group.npos) group.clear();
    while (group.ends_with('/')) group.pop_back();
    while (true) {
      const double quota = quota_of(root + mount.place + group, mount.v2);
      if (quota > 0) least = least > 0 ? std::min(least, quota) : quota;
      if (group.empty()) break;
      group.resize(group.rfind('/') == group.npos ? 0 : group.rfind('/'));
    }
  }
  return least;
}

int usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                         : int(std::thread::hardware_concurrency());
  try {
    if (const double quota = cpu_quota(); quota > 0)
      cpus = int(std::min(double(cpus), std::ceil(quota)));
  } catch (...) {
    // Without memory to look, the affinity alone.
  }
  return std::max(1, cpus);
}

} // namespace lathe::core
