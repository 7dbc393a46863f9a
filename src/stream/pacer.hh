#pragma once
// How fast a lane may send so that it fills its path and no queue: the lane shares the bottleneck with
// the wires of running guests, and what a full queue drops is their frames too. The congestion
// control below (BBR, else cubic) may always send less.
//
//   ramp:   x kRampFactor per round trip until a queue shows (the RTT rises above its minimum)
//   drain:  kDrain of what was delivered then, until the queue is gone
//   hold:   kHold of it; up by kProbeFactor per kProbeInterval until a queue shows: drain
//
// A step of the ramp shows one round trip later, when the next was just taken: with 1.3 the queue
// grows to half a BDP before the ramp ends.
// Delay tells of a queue before it overflows; delivery tells the rate (as in BBR, Cardwell et al.,
// CACM 2017; the ramp is slower than its start-up, which overshoots by a whole BDP). Pure.
#include "base/units.hh"

namespace godwit::stream {

struct PathSample {
  Instant at{};
  Nanoseconds rtt{};
  Nanoseconds min_rtt{};
  BitRate delivered;  // lately
};

class Pacer final {
 public:
  static constexpr BitRate kStart{50'000'000};
  static constexpr BitRate kFloor{2'000'000};
  static constexpr double kRampFactor = 1.3;
  static constexpr double kProbeFactor = 1.02;
  static constexpr Nanoseconds kProbeInterval = milliseconds(250);
  static constexpr double kDrain = 0.8;
  static constexpr double kHold = 0.97;
  // A queue shows when the RTT exceeds its minimum by more than this; less is noise of hosts.
  static constexpr Nanoseconds kQueueShows = milliseconds(6);

  // Call every few milliseconds while there is something to send.
  BitRate update(const PathSample& sample);
  BitRate rate() const { return rate_; }

 private:
  enum class Phase { ramp, drain, hold };

  BitRate rate_ = kStart;
  BitRate held_{};  // what to go on with after draining
  Phase phase_ = Phase::ramp;
  Instant changed_{};
};

}  // namespace godwit::stream
