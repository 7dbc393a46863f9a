#pragma once
// The seam for time: code that needs "now" holds a Clock. The double is os/fake_clock.hh.
#include "base/units.hh"

namespace godwit::os {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const = 0;
};

// CLOCK_MONOTONIC.
class MonotonicSystemClock final : public Clock {
 public:
  Instant now() const override;
};

// The double: time moves only when told.
class FakeClock final : public Clock {
 public:
  Instant now() const override { return now_; }
  void advance(Nanoseconds by) { now_ += by; }

 private:
  Instant now_{};
};

}  // namespace godwit::os
