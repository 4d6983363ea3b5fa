// What a child of fork() finds: no thread but its own, and nothing half-made.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace lathe::core {

// Grows in a child: who remembers another number was made in a process whose threads are not here.
inline std::atomic<uint32_t> fork_generation{0};
// False where the system did not let us know of forks.
bool forks_are_seen();

// A mutex that fork() waits for, so that a child finds it free and what it guards whole. A thread
// that holds one locks no other but first_use. For static objects.
class ForkMutex {
public:
  ForkMutex();
  ForkMutex(const ForkMutex &) = delete;
  ForkMutex &operator=(const ForkMutex &) = delete;
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

private:
  friend struct ForkHandlers;
  friend ForkMutex &first_use();
  explicit ForkMutex(std::nullptr_t) {} // fork() locks it last
  std::recursive_mutex mutex_;
  ForkMutex *next_ = nullptr;
};

ForkMutex &first_use();

// What `make` returns, made at its first use; a static variable would be half-made for ever in the
// child of a fork at that moment.
template <auto make> const auto &made_once() {
  using Made = decltype(make());
  static constinit std::atomic<const Made *> made{nullptr};
  if (const Made *known = made.load(std::memory_order_acquire)) return *known;
  const std::lock_guard lock(first_use());
  if (!made.load(std::memory_order_relaxed))
    made.store(new Made(make()), std::memory_order_release); // as long as the process
  return *made.load(std::memory_order_relaxed);
}

} // namespace lathe::core
