#pragma once
// A lid on how fast a lane may send while its congestion control (BBR, else cubic) finds out what
// the path carries. The lane shares the bottleneck with the wires of running guests, and what a
// full queue drops is their frames too: BBR's own start-up sends 2.9 times the rate it finds and
// fills a queue of more than one BDP (measured 2026-11: 4,500 segments lost per move at 400 Mbit/s,
// 40 ms).
//
//   ramp:    kRamp x what was delivered, measured once per round trip, until that stays the same
//   for
//            kFlatRounds (a step shows after one round trip, so one flat round says nothing)
//   drain:   kDrain x that, for kDrainRounds: BBR ends its start-up in them, and the queue goes
//   steady:  kHeadroom x the most that was delivered within kMemory: room for BBR's probing (1.25)
//
// The step that overshoots lasts two round trips and a bit: at 1.25 that queues
// well below one BDP.
// After that BBR keeps the queue short by itself. A pacer that reacted to the RTT was
// tried and given up: on loaded hosts the RTT is mostly noise, and the rate collapsed. Pure.
#include "base/units.hh"

namespace godwit::stream {

struct PathSample {
  Instant at{};
  Nanoseconds rtt{};
  BitRate delivered;  // lately
};

class Pacer final {
 public:
  static constexpr BitRate kStart{100'000'000};
  static constexpr double kRamp = 1.25;
  static constexpr double kStillGrows = 1.08;  // from one round trip to the next
  static constexpr int kFlatRounds = 2;
  static constexpr double kDrain = 0.9;
  static constexpr int kDrainRounds = 4;
  static constexpr double kHeadroom = 1.25;
  static constexpr Nanoseconds kMemory = seconds(5);

  // Call every few milliseconds while there is something to send.
  BitRate update(const PathSample& sample);
  BitRate rate() const { return rate_; }
  bool ramping() const { return ramping_; }

 private:
  BitRate rate_ = kStart;
  BitRate most_{};         // delivered, within the running kMemory
  BitRate most_before_{};  // and within the one before
  BitRate last_round_{};
  bool ramping_ = true;
  int flat_rounds_ = 0;
  Instant round_began_{}, memory_began_{}, drained_at_{};
};

}  // namespace godwit::stream
