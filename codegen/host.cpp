// What this machine is: which targets it can run, and how large its caches are.
#include "codegen/codegen.h"
#include "codegen/llvm.h"
#include "codegen/llvm_memory.h"

#include <fstream>
#include <string>
#include <string_view>

namespace lathe::core {

bool host_supports(const Target &target) {
#if defined(__x86_64__)
  if (target.arch != Arch::x86_64) return false;
#elif defined(__aarch64__)
  if (target.arch != Arch::aarch64) return false;
#else
  return false;
#endif
  throw_when_out_of_memory();
  const llvm::StringMap<bool> host = llvm::sys::getHostCPUFeatures();
  std::string_view rest = target.features;
  while (!rest.empty()) { // "+avx2,+fma"
    size_t comma = rest.find(',');
    std::string_view feature = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? "" : rest.substr(comma + 1);
    if (!feature.starts_with('+')) continue;
    auto found = host.find(llvm::StringRef(feature.data() + 1, feature.size() - 1));
    if (found == host.end() || !found->second) return false;
  }
  return true;
}

Result<void> require_host(const Target &target) {
  if (host_supports(target)) return {};
  return fail(Error{.code = ErrorCode::unsupported,
                    .message = "this machine cannot run code for the target",
                    .expected = "at most " + host_target().name,
                    .found = target.name});
}

namespace {

// A cache's bytes as Linux tells them (Documentation/ABI/testing/sysfs-devices-system-cpu):
// "32768K". The C library's sysconf counts the whole socket's last level, of which a core uses one
// slice.
int64_t cache_bytes(int level, int64_t otherwise) {
  for (int index = 0; index < 8; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
    int its_level = 0;
    int64_t kilobytes = 0;
    std::string type;
    std::ifstream(folder + "/level") >> its_level;
    std::ifstream(folder + "/type") >> type;
    std::ifstream(folder + "/size") >> kilobytes;
    if (its_level == level && type != "Instruction" && kilobytes > 0) return kilobytes << 10;
  }
  return otherwise;
}

// A core of a shared machine that Lathe was measured on: what plans depend on beside its
// instructions.
struct Machine {
  int64_t l1_bytes, l2_bytes, l3_bytes;
  double gflops, l3_gbs, memory_gbs;

  Target of(Target target) const {
    target.l1_bytes = l1_bytes, target.l2_bytes = l2_bytes, target.l3_bytes = l3_bytes;
    target.gflops = gflops, target.l3_gbs = l3_gbs, target.memory_gbs = memory_gbs;
    return target;
  }
};
constexpr Machine zen4{32 << 10, 1 << 20, 16 << 20, 118, 52, 23};
constexpr Machine zen5{48 << 10, 1 << 20, 32 << 20, 262, 105, 40};
constexpr Machine emerald_rapids{48 << 10, 2 << 20, 256 << 20, 179, 30, 15};

// By LLVM's name of the CPU, so that plans are the same on all machines of a kind. Other server
// CPUs of Intel's are taken to be alike, all others for a Zen 4.
const Machine &machine_of(llvm::StringRef cpu) {
  if (cpu == "znver5") return zen5;
  for (const char *intel : {"emeraldrapids", "sapphirerapids", "graniterapids", "icelake-server",
                            "cooperlake", "cascadelake", "skylake-avx512"})
    if (cpu == intel) return emerald_rapids;
  return zen4;
}

} // namespace

std::vector<Target> measured_machines(const Target &target) {
  return {zen4.of(target), zen5.of(target), emerald_rapids.of(target)};
}

Target host_target() {
  for (const Target &known : known_targets()) {
    if (!host_supports(known)) continue;
    Target target = machine_of(llvm::sys::getHostCPUName()).of(known);
    target.l1_bytes = cache_bytes(1, target.l1_bytes);
    target.l2_bytes = cache_bytes(2, target.l2_bytes);
    target.l3_bytes = cache_bytes(3, target.l3_bytes);
    return target;
  }
  return known_targets().back();
}

} // namespace lathe::core
