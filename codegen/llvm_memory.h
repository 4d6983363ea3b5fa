// Where memory ends inside LLVM. It is built without exceptions: what is thrown passes through it
// and runs none of its destructors. So its objects stay as they are, half-changed, and are never
// touched again; what they hold is lost. Nothing that outlives a compilation may be left
// half-changed, so all that LLVM makes once for a process is made before (compile.cpp), with memory
// held back for it.
#pragma once

#include "ir/error.h"

#include <exception>
#include <utility>

namespace lathe::core {

// Has LLVM throw std::bad_alloc where it would end the process. Before anything of LLVM's.
void throw_when_out_of_memory();

// Owns an object of LLVM's, or made of such: freed at the end of a scope, but left to lie where
// something that was thrown ends it.
template <typename T> class LlvmOwner {
public:
  LlvmOwner() = default;
  explicit LlvmOwner(T *object) : object_(object) {}
  LlvmOwner(LlvmOwner &&other) noexcept
      : object_(std::exchange(other.object_, nullptr)), exceptions_(other.exceptions_) {}
  LlvmOwner &operator=(LlvmOwner &&other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~LlvmOwner() {
    if (std::uncaught_exceptions() <= exceptions_) delete object_;
  }
  T &operator*() const { return *object_; }
  T *operator->() const { return object_; }
  T *release() { return std::exchange(object_, nullptr); }

private:
  T *object_ = nullptr;
  int exceptions_ = std::uncaught_exceptions();
};

template <typename T, typename... Parts> LlvmOwner<T> make_llvm(Parts &&...parts) {
  return LlvmOwner<T>(new T(std::forward<Parts>(parts)...));
}

// Memory that this thread holds back while it works with LLVM: given up when there is no other, so
// that what was begun ends well. Errors: limit, where there is not so much.
class LlvmReserve {
public:
  static Result<LlvmReserve> hold(size_t bytes);
  LlvmReserve(LlvmReserve &&other) noexcept : held_(std::exchange(other.held_, false)) {}
  LlvmReserve &operator=(LlvmReserve &&other) noexcept {
    std::swap(held_, other.held_);
    return *this;
  }
  ~LlvmReserve();
  static bool give_up(); // whether this thread held something

  // While alive, also what others allocate for this thread (the C++ library its strings) may have
  // what it holds: by the process's new-handler, which otherwise does what it did. One at a time.
  class ForAll {
  public:
    ForAll();
    ForAll(const ForAll &) = delete;
    ForAll &operator=(const ForAll &) = delete;
    ~ForAll();
  };

private:
  explicit LlvmReserve(bool held) : held_(held) {}
  bool held_;
};

} // namespace lathe::core
