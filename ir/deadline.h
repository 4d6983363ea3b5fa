// How long something may take.
#pragma once

#include "ir/error.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>

namespace lathe::core {

class Deadline {
public:
  Deadline() = default; // never
  // So many seconds from now; 0: never.
  explicit Deadline(double seconds) {
    if (seconds <= 0) return;
    seconds_ = seconds;
    const std::chrono::duration<double> span(std::min(seconds, 1e9));
    end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(span);
  }
  // Errors: limit, once it is over.
  Result<void> check() const {
    if (!end_ || Clock::now() < *end_) return {};
    return fail(Error{.code = ErrorCode::limit,
                      .message = "compiling takes too long",
                      .expected = "at most " + std::to_string(seconds_) + " seconds"});
  }

private:
  using Clock = std::chrono::steady_clock;
  double seconds_ = 0;
  std::optional<Clock::time_point> end_;
};

} // namespace lathe::core
