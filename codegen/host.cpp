// What this machine is: which targets it can run, and how large its caches are.
#include "codegen/codegen.h"
#include "codegen/llvm.h"

#include <unistd.h>

namespace lathe::core {

bool host_supports(const Target &target) {
#if defined(__x86_64__)
  if (target.arch != Arch::x86_64) return false;
#elif defined(__aarch64__)
  if (target.arch != Arch::aarch64) return false;
#else
  return false;
#endif
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

Target host_target() {
  auto size_or = [](int name, int64_t otherwise) {
    long size = sysconf(name);
    return size > 0 ? int64_t(size) : otherwise;
  };
  for (Target target : known_targets()) {
    if (!host_supports(target)) continue;
    target.l1_bytes = size_or(_SC_LEVEL1_DCACHE_SIZE, target.l1_bytes);
    target.l2_bytes = size_or(_SC_LEVEL2_CACHE_SIZE, target.l2_bytes);
    target.l3_bytes = size_or(_SC_LEVEL3_CACHE_SIZE, target.l3_bytes);
    return target;
  }
  return known_targets().back();
}

} // namespace lathe::core
