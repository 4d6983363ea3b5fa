// CPU quotas of control groups, in folders that look like the root of a system.
#include "runtime/cpus.h"
#include "tests/scratch.h"

#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>

using namespace lathe::core;
namespace fs = std::filesystem;

namespace {

struct Root {
  void put(const std::string &file, const std::string &text) const {
    const fs::path path = folder.path("root") + file;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  double quota() const { return cpu_quota(folder.path("root")); }
  Scratch folder;
};

constexpr const char *unified =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 none rw\n";

} // namespace

TEST_CASE("a quota of cgroup v2 holds for all groups below") {
  Root root;
  root.put("/proc/self/mountinfo", unified);
  root.put("/proc/self/cgroup", "0::/outer/middle/own\n");
  root.put("/sys/fs/cgroup/outer/middle/own/cpu.max", "max 100000\n");
  CHECK(root.quota() == 0);
  root.put("/sys/fs/cgroup/outer/cpu.max", "300000 100000\n");
  CHECK(root.quota() == 3);
  root.put("/sys/fs/cgroup/outer/middle/cpu.max", "25000 50000\n");
  CHECK(root.quota() == 0.5);
  root.put("/sys/fs/cgroup/outer/middle/own/cpu.max", "400000 100000\n");
  CHECK(root.quota() == 0.5);
  root.put("/sys/fs/cgroup/outer/middle/own/cpu.max", "10000 100000\n");
  CHECK(root.quota() == 0.1);
  // Groups that are not above this process say nothing about it.
  root.put("/proc/self/cgroup", "0::/outer/other\n");
  CHECK(root.quota() == 3);
  root.put("/proc/self/cgroup", "0::/outermost\n");
  CHECK(root.quota() == 0);
}

TEST_CASE("a quota of cgroup v1 is in the hierarchy that counts CPU time") {
  Root root;
  root.put("/proc/self/mountinfo",
           "36 31 0:33 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
           "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
  root.put("/proc/self/cgroup", "5:cpuset:/wrong\n4:cpu,cpuacct:/a/b\n0::/elsewhere\n");
  CHECK(root.quota() == 0);
  root.put("/sys/fs/cgroup/cpuset/wrong/cpu.cfs_quota_us", "1000");
  root.put("/sys/fs/cgroup/cpuset/wrong/cpu.cfs_period_us", "100000");
  root.put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n");
  root.put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
  CHECK(root.quota() == 0);
  root.put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "150000\n");
  root.put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  CHECK(root.quota() == 1.5);
}

TEST_CASE("of both versions at once, the smaller quota") {
  Root root;
  root.put("/proc/self/mountinfo",
           "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
           "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n");
  root.put("/proc/self/cgroup", "1:cpu:/one\n0::/two\n");
  root.put("/sys/fs/cgroup/cpu/one/cpu.cfs_quota_us", "600000");
  root.put("/sys/fs/cgroup/cpu/one/cpu.cfs_period_us", "100000");
  CHECK(root.quota() == 6);
  root.put("/sys/fs/cgroup/unified/two/cpu.max", "500000 100000");
  CHECK(root.quota() == 5);
}

TEST_CASE("containers see a part of the hierarchy") {
  Root root;
  // Its own group is what is mounted, with a path of the machine's that has a blank.
  root.put("/proc/self/mountinfo",
           "33 31 0:30 /docker/4f\\040x /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  root.put("/proc/self/cgroup", "0::/docker/4f x/inner\n");
  root.put("/sys/fs/cgroup/cpu.max", "200000 100000");
  CHECK(root.quota() == 2);
  root.put("/sys/fs/cgroup/inner/cpu.max", "100000 100000");
  CHECK(root.quota() == 1);
  // A namespace of its own, entered by a process from outside.
  root.put("/proc/self/mountinfo", unified);
  root.put("/proc/self/cgroup", "0::/../../elsewhere\n");
  CHECK(root.quota() == 2);
}

TEST_CASE("what cannot be read limits nothing") {
  Root root;
  CHECK(root.quota() == 0);
  root.put("/proc/self/mountinfo", std::string(unified) + "nonsense\n - \n1 2 - cgroup2\n");
  root.put("/proc/self/cgroup", "nonsense\n0::\n");
  root.put("/sys/fs/cgroup/cpu.max", "some thing\n");
  CHECK(root.quota() == 0);
  CHECK(usable_cpus() >= 1);
}
