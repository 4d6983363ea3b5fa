#include "ir/budget.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fmt/format.h>
#include <optional>
#include <sys/sysinfo.h>

namespace lathe::core {

struct Budget::State {
  using Clock = std::chrono::steady_clock;
  int64_t bytes = 0; // 0: no limit
  double seconds = 0;
  std::optional<Clock::time_point> end;
  std::function<bool()> stop; // of tests
  bool is_part = false;
  std::shared_ptr<State> whole; // that it is a part of, if that has limits
  std::atomic<int64_t> taken = 0;

  bool over() const {
    return (end && Clock::now() >= *end) || (stop && stop()) || (whole && whole->over());
  }
  // Whether there was so much.
  bool take(int64_t more) {
    int64_t before = taken;
    do
      if (bytes > 0 && more > bytes - before) return false;
    while (!taken.compare_exchange_weak(before, before + more));
    if (!whole || whole->take(more)) return true;
    taken -= more;
    return false;
  }
  void give_back(int64_t less) {
    taken -= less;
    if (whole) whole->give_back(less);
  }
  // The one whose limit `more` would exceed.
  const State &narrowest(int64_t more) const {
    return whole && (bytes == 0 || more <= bytes - taken) ? whole->narrowest(more) : *this;
  }
};

Budget::Budget(int64_t bytes, double seconds) : state_(std::make_shared<State>()) {
  state_->bytes = std::max<int64_t>(0, bytes);
  if (!(seconds > 0)) return;
  state_->seconds = seconds;
  const std::chrono::duration<double> span(std::min(seconds, 1e9));
  state_->end = State::Clock::now() + std::chrono::duration_cast<State::Clock::duration>(span);
}

Budget Budget::until(std::function<bool()> over) {
  Budget budget(0, 0);
  budget.state_->stop = std::move(over);
  return budget;
}

Budget Budget::part(int64_t bytes) const {
  Budget result(bytes, 0);
  result.state_->is_part = true;
  result.state_->whole = state_;
  return result;
}

Result<Grant> Budget::take(int64_t bytes, std::string_view doing) const {
  if (!state_ || bytes <= 0) return Grant();
  if (state_->take(bytes))
    return Grant(state_.get(), [state = state_, bytes](const void *) { state->give_back(bytes); });
  const State &narrow = state_->narrowest(bytes);
  return fail(Error{.code = ErrorCode::limit,
                    .message = fmt::format("{} takes more memory than allowed", doing),
                    .expected = fmt::format("at most {} bytes{}", narrow.bytes,
                                            narrow.is_part ? "" : " (raised by --compile-memory)"),
                    .found = fmt::format("{} more beside {}", bytes, narrow.taken.load())});
}

Result<void> Budget::check(std::string_view doing) const {
  if (!over()) return {};
  const State *timed = state_.get();
  while (timed->whole && !timed->end) timed = timed->whole.get();
  return fail(Error{.code = ErrorCode::limit,
                    .message = fmt::format("{} takes longer than allowed", doing),
                    .expected = fmt::format("at most {} seconds in all (raised by --time-limit)",
                                            timed->seconds)});
}

bool Budget::over() const { return state_ && state_->over(); }
int64_t Budget::taken() const { return state_ ? state_->taken.load() : 0; }

int64_t default_compile_memory(int64_t memory_limit) {
  constexpr int64_t most = int64_t{16} << 30, beside = 256 << 20;
  const int64_t possible = std::min(most, machine_memory() / 4 * 3);
  // Weights as they are made and as they are packed, and what making them takes.
  return memory_limit <= 0 || memory_limit > (most - beside) / 2
             ? possible
             : std::min(possible, 2 * memory_limit + beside);
}

int64_t machine_memory() {
  struct sysinfo info = {};
  if (sysinfo(&info) != 0) return INT64_MAX;
  const uint64_t units = uint64_t{info.totalram} + info.totalswap;
  return units > uint64_t(INT64_MAX) / info.mem_unit ? INT64_MAX : int64_t(units * info.mem_unit);
}

} // namespace lathe::core
