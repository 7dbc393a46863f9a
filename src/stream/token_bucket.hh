#pragma once
// The bandwidth cap: tokens are bytes, filled at the rate, kept up to a burst. Time is injected.
#include <optional>

#include "base/units.hh"

namespace godwit::stream {

// The burst covers a loop that wakes late (both cores busy with emulated guests) without loss of
// rate, and stays small against the queue of the slowest link meant (5 ms at its rate).
inline constexpr milliseconds kPacingBurst{8};
inline constexpr std::int64_t kMinPacingBurst = 64 << 10;  // bytes
// Bulk waits until this much may go, instead of dribbling a few bytes per wake-up.
inline constexpr std::int64_t kPacingQuantum = 16 << 10;  // bytes

class TokenBucket final {
 public:
  // nullopt: no cap. A rate of 0 stops bulk altogether.
  void set_rate(std::optional<BitRate> rate, Instant now);
  std::optional<BitRate> rate() const { return rate_; }

  // Bytes that bulk may send now: 0, or at least a quantum (or `wanted` where that is less).
  std::size_t allowance(std::size_t wanted, Instant now);
  // Urgent bytes are spent without being asked for: the balance may go below zero.
  void spend(std::size_t bytes);
  // When allowance(kPacingQuantum) is no longer 0; Instant::max() at rate 0.
  Instant ready_at() const;

 private:
  void refill(Instant now);
  std::int64_t burst() const;

  std::optional<BitRate> rate_;
  double tokens_ = 0;
  Instant filled_{};
};

}  // namespace godwit::stream
