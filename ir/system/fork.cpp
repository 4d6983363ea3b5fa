#include "ir/system/fork.h"

#include <new>
#include <pthread.h>

namespace lathe::core {
namespace {
constinit ForkMutex *first = nullptr; // of a list
}

ForkMutex::ForkMutex() : next_(first) { first = this; }

ForkMutex &first_use() {
  alignas(ForkMutex) static constinit unsigned char memory[sizeof(ForkMutex)] = {};
  static ForkMutex &mutex = *new (memory) ForkMutex(nullptr); // never destroyed
  return mutex;
}

struct ForkHandlers {
  static void prepare() {
    for (ForkMutex *m = first; m; m = m->next_) m->mutex_.lock();
    first_use().lock();
  }
  static void parent() {
    first_use().unlock();
    for (ForkMutex *m = first; m; m = m->next_) m->mutex_.unlock();
  }
  // Such a mutex belongs to a thread by its number, which is another one here: a new one.
  static void child() {
    fork_generation.fetch_add(1, std::memory_order_relaxed);
    new (&first_use().mutex_) std::recursive_mutex;
    for (ForkMutex *m = first; m; m = m->next_) new (&m->mutex_) std::recursive_mutex;
  }
};

namespace {
const bool seen = (first_use(), pthread_atfork(ForkHandlers::prepare, ForkHandlers::parent,
                                               ForkHandlers::child) == 0);
}
bool forks_are_seen() { return seen; }

} // namespace lathe::core
