#include "codegen/llvm_memory.h"

#include "codegen/llvm.h"
#include "ir/system/fork.h"

#include <atomic>
#include <cstdlib>
#include <execinfo.h>
#include <new>

namespace lathe::core {

void throw_when_out_of_memory() {
  made_once<[] {
    llvm::install_bad_alloc_error_handler(
        [](void *, const char *, bool) { throw std::bad_alloc(); });
    return true;
  }>();
}

namespace {

thread_local constinit void *reserve __attribute__((tls_model("initial-exec"))) = nullptr;
} // namespace

bool LlvmReserve::give_up() {
  if (!reserve) return false;
  std::free(std::exchange(reserve, nullptr));
  return true;
}

Result<LlvmReserve> LlvmReserve::hold(size_t bytes) {
  if (reserve) return LlvmReserve(false); // by a caller
  // What is thrown inside std::call_once passes through the C library, which then loads libgcc_s
  // and ends the process where it cannot. A first call loads it while there is memory.
  void *frame = nullptr;
  backtrace(&frame, 1);
  reserve = std::malloc(bytes);
  if (reserve) return LlvmReserve(true);
  return fail(ErrorCode::limit, "not enough memory to generate code");
}
LlvmReserve::~LlvmReserve() {
  if (held_) give_up();
}

namespace {

constinit std::atomic<std::new_handler> host_handler = nullptr;

void give_up_or_throw() {
  if (LlvmReserve::give_up()) return;
  if (const std::new_handler before = host_handler) return before();
  throw std::bad_alloc();
}

} // namespace

LlvmReserve::ForAll::ForAll() {
  host_handler = std::get_new_handler();
  std::set_new_handler(give_up_or_throw);
}
LlvmReserve::ForAll::~ForAll() {
  if (std::get_new_handler() == give_up_or_throw) std::set_new_handler(host_handler);
}

} // namespace lathe::core
