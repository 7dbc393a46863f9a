#pragma once
// A lid on how fast a lane may send while its congestion control (BBR, else cubic) finds out what
// the path carries. The lane shares the bottleneck with the wires of running guests, and what a
// full queue drops is their frames too: BBR's own start-up sends 2.9 times the rate it finds and
// fills a queue of more than one BDP (measured 2026-11: 4,500 segments lost per move at 400 Mbit/s,
// 40 ms).
//
//   ramp:    kRamp x what is delivered, which grows by as much each round trip; ends when the round
//            trip shows a queue, or after kFlatRounds without growth (one says nothing: a step
//            shows after one round trip)
//   drain:   kDrain x that, for kDrainRounds and until BBR has ended its start-up too: when three
//            round trips brought no more (not counting those of an idle sender)
//   steady:  kHeadroom x the most that was delivered within kMemory: room for BBR's probing
//   relief:  kRelief x what was acknowledged in the last span, which is what the path carries, when
//            the least round trip of that span shows a standing queue, and bytes waited for the
//            path in kBusyShare of it; for kReliefSpans at most, and not again within kRest
//
// The step that overshoots lasts a round trip and what it takes to see the queue: at 1.5 that is
// 0.5 to 0.8 BDP of queue. Noise in the round trips of a loaded host ends the ramp too early;
// steady then goes on growing, by kHeadroom each round trip. BBR takes the best delivery of ten
// round trips for the rate: where the path delivers in bursts that is too much, and the queue
// stands at up to a BDP until relief comes (measured 2026-11: 1.8 of 2.0 MB within 1.5 s). A pacer
// that reacted to the RTT throughout was tried and given up: on loaded hosts the rate collapsed.
// Relief takes no more than (1 - kRelief) of the rate for kReliefSpans spans, then comes kRest,
// whatever the round trips say. Of a sender that had nothing to send it would take nearly all: what
// it sent is not what the path carries, its round trips are a loaded host's, and BBR would take the
// lid for the path's rate, from which it grows by a quarter each eight round trips (measured
// 2026-11, four vms on two CPUs: 0.2 Mbit/s, and nothing else moved for 30 s). Pure.
#include "base/units.hh"
#include "stream/recent_most.hh"

namespace godwit::stream {

struct PathSample {
  Instant at{};
  Nanoseconds rtt{};           // the least seen: without a queue
  Nanoseconds smoothed_rtt{};  // lately
  BitRate delivered;           // lately, at best
  ByteCount acknowledged;      // in all
  bool starting_up = false;    // the congestion control still looks for the path's rate
  bool waiting = false;        // bytes wait in the kernel until they may be sent
};

class Pacer final {
 public:
  static constexpr BitRate kStart{100'000'000};
  static constexpr double kRamp = 1.5;
  static constexpr double kStillGrows = 1.08;  // from one round trip to the next
  static constexpr int kFlatRounds = 2;
  static constexpr double kDrain = 0.9;
  static constexpr int kDrainRounds = 4;
  static constexpr double kHeadroom = 1.25;
  static constexpr Nanoseconds kMemory = seconds(5);
  // A round trip longer than the least by more than an eighth of it, and by more than the hosts
  // cause by themselves.
  static constexpr int kQueueShare = 8;
  static constexpr Nanoseconds kHostNoise = milliseconds(3);
  static constexpr double kRelief = 0.9;
  static constexpr int kSpanRounds = 4;  // round trips, and no less than kLeastSpan
  static constexpr Nanoseconds kLeastSpan = milliseconds(100);
  static constexpr int kReliefSpans = 2;
  static constexpr Nanoseconds kRest = milliseconds(500);
  // A standing queue: a quarter of the round trip, and more than a loaded host's lateness.
  static constexpr int kStandingShare = 4;
  static constexpr Nanoseconds kStandingNoise = milliseconds(8);
  static constexpr double kBusyShare = 0.75;  // a loaded host refills the kernel late at times

  // Call every few milliseconds while there is something to send.
  BitRate update(const PathSample& sample);
  BitRate rate() const { return rate_; }
  BitRate delivered() const { return delivered_.most(); }  // the most within kMemory or two
  bool ramping() const { return ramping_; }

 private:
  bool ramp_ends(const PathSample& sample, BitRate most);
  void watch_the_queue(const PathSample& sample);

  BitRate rate_ = kStart;
  RecentMost<BitRate> delivered_{kMemory};
  BitRate last_round_{};
  bool ramping_ = true;
  int flat_rounds_ = 0;
  bool draining_ = false;
  Instant round_began_{}, drained_at_{};

  struct Span {
    Instant began{};
    ByteCount acknowledged;
    Nanoseconds least_rtt{};
    int samples = 0, waiting = 0;
  };
  Span span_;
  BitRate relief_{};  // zero: none
  int relief_spans_ = 0;
  Instant rested_at_{};
};

}  // namespace godwit::stream
