#pragma once
// When to stop the vCPUs (design 7): a pure function of what QEMU and the transfer report. A sample
// that was taken right after QEMU synced its dirty bitmap (it tells so, MIGRATION_PASS) is exact:
// if what is dirty then is no more than our prediction allows, and the policy sees no gain in
// another round, the guest stops.
#include <optional>
#include <string_view>

#include "base/units.hh"
#include "migrate/stop_policy.hh"

namespace godwit::migrate {

// What becomes of a move whose pause will not fit.
enum class OnDiverge : std::uint8_t {
  abort,
  pause,     // longer than the limit
  throttle,  // the vCPUs, step by step; then abort
  postcopy,  // the rest of the memory follows while it runs at the target
};
std::string_view to_text(OnDiverge on_diverge);
std::optional<OnDiverge> on_diverge(std::string_view text);

struct MemorySample {
  Instant at{};
  std::uint64_t round = 0;                // QEMU's dirty-sync-count
  double remaining_bytes = 0;             // dirty, not yet read by us
  Nanoseconds since_sync = seconds(1);    // QEMU's last sync of the dirty bitmap
  double dirty_bytes_per_second = 0;      // QEMU's estimate at its last sync; 0 before the second
  double backlog_bytes = 0;               // read from QEMU, not yet acknowledged by the target
  double in_flight_bytes = 0;             // of these, given to the path
  double delivered_bytes_per_second = 0;  // what the target acknowledged lately, at best
  // The same of what the lanes carry. Much of a first round is a few bytes there (pages of zeros,
  // or that the target knows), what the guest changes is not: memory's rate of then is not its rate
  // now.
  double lane_share = 1;             // bytes on the lanes of a byte of memory that was changed
  double lane_backlog_bytes = 0;     // encoded, not yet acknowledged
  double lane_in_flight_bytes = 0;   // of these, given to the path
  double lane_bytes_per_second = 0;  // what the path carries; 0: unknown
  Nanoseconds rtt{};
  double sent_bytes = 0;    // of QEMU's stream
  double memory_bytes = 0;  // of the guest
};

struct PauseLimits {
  Nanoseconds max_downtime = milliseconds(300);
  StopPolicy policy = StopPolicy::downtime;
  bool pause_on_diverge = false;  // then it may be longer
  // Then the guest hardly stands, so one round that did not shrink says enough: each further one
  // is sent in vain.
  bool postcopy_on_diverge = false;
};

// What the pause costs beside the last pages: device state, load, the commit's round trips, fsyncs.
struct PauseCosts {
  double device_state_bytes = 256.0 * 1024;  // q35 with virtio-net, measured 2026-11: ~150 KiB
  Nanoseconds device_state_load = milliseconds(15);  // QEMU 7.2 under TCG, measured 2026-11
  Nanoseconds commit_local = milliseconds(15);       // two fsyncs, QMP round trips, cont
  double commit_round_trips = 1.5;                   // data 0.5, loaded 0.5, commit 0.5
};

// The pause if the vCPUs stopped with `bytes` still to move.
Nanoseconds predicted_pause(const MemorySample& sample, double bytes, const PauseCosts& costs);

// The bytes that may remain so that the pause stays within the limit; 0 if nothing fits.
double allowed_bytes(const MemorySample& sample, const PauseLimits& limits,
                     const PauseCosts& costs);

// How far the target may be behind before QEMU's stream waits here: what the path holds, its bursts
// and what a QEMU takes at once. What waits further on is old memory when it is taken, and QEMU
// goes round after round meanwhile (20 to 40 times where the target was slower than the path: it
// cleared pages as they came, 2026-11). From the second round on no more than half of what the
// pause may hold, so that the guest can stop at the next sync, and no less than the path holds.
double most_backlog(const MemorySample& sample, const PauseLimits& limits, const PauseCosts& costs);

// What waits beyond what the network holds so that the lane does not run dry. A lost segment holds
// up what is behind it for a round trip: then the network holds more than most_backlog() takes the
// path for, and with that as the only bound the lane ran dry.
double least_waiting(const MemorySample& sample);

// How far it may be behind in memory of the vm, where much of that is few bytes: a page of zeros
// costs who takes it a page.
double most_memory_behind(const MemorySample& sample);

// As most_backlog(), in post-copy: a page that the guest waits for comes after all of it.
double most_postcopy_backlog(BitRate delivered, Nanoseconds rtt);

// Remembers the rounds and says what is to be expected.
class StopJudge final {
 public:
  explicit StopJudge(PauseLimits limits) : limits_(limits) {}

  struct Verdict {
    Nanoseconds predicted_pause{};  // at the end of the present round
    Nanoseconds pause_now{};        // if the guest stopped at this sample
    Nanoseconds eta{};              // until the hand-over, if it converges
    bool fits = false;              // the switch-over may be allowed: the next sync decides
    bool stop_now = false;          // this sample is exact enough, and what is dirty fits
    bool best_now = false;  // where a pause over the limit is allowed: no better moment is in sight
    bool diverges = false;  // it will not fit at this rate
  };
  Verdict judge(const MemorySample& sample);

  // Rounds are counted anew.
  void set_limits(PauseLimits limits);
  const PauseLimits& limits() const { return limits_; }
  // A move that was held has used up its rounds: it gets new ones.
  void renew() {
    if (is_spent_) set_limits(limits_);
  }

 private:
  void note_round(const MemorySample& sample);
  void note_floor(Nanoseconds pause, Instant at);
  bool is_at_floor(Instant now) const;
  std::uint64_t most_stalled() const;

  PauseLimits limits_;
  PauseCosts costs_;
  RoundHistory history_;
  std::uint64_t round_ = 0;
  double round_start_remaining_ = 0;
  std::uint64_t stalled_rounds_ = 0;
  double sent_ = 0;
  std::uint64_t counted_from_ = 1;  // this round
  double sent_before_ = 0;
  bool is_spent_ = false;

  // The shortest pause that a round of late began with, and what came after it.
  struct Floor {
    Nanoseconds pause{};
    Instant at{};
    std::uint64_t rounds = 0;
  };
  std::optional<Floor> floor_;
};

// A guest that dirties less than this share of what the link carries converges in the end: a round
// that did not shrink then was an accident of the hosts.
inline constexpr double kDivergeShare = 0.6;

// What a guest's memory leaves of a pause has a floor: its device state, the commit, hosts that are
// busy. A pause over the limit that so many rounds, and so much time, did not shorten is there, and
// no further round helps. Who would pause anyway need not wait long for it; a move that is given up
// for it was worth more patience.
inline constexpr std::uint64_t kFloorRounds = 10;
inline constexpr Nanoseconds kFloorBeforePause = seconds(3);
inline constexpr Nanoseconds kFloorBeforeAbort = seconds(30);

// In the first round the switch-over is allowed once this multiple of the allowed bytes remains:
// early enough for QEMU to end with this round, late enough for a rate to be known.
inline constexpr double kFirstRoundMultiple = 4.0;

// So soon after a sync what the guest has dirtied since is little, and is estimated.
inline constexpr Nanoseconds kExactFor = milliseconds(50);

inline constexpr double kLeastBacklogBytes = 4 << 20;  // also before a rate is known
inline constexpr Nanoseconds kBacklogBeyondRtt = milliseconds(80);
// Beyond what the path holds: a batch of the encoder, so that the lane does not run dry.
inline constexpr Nanoseconds kWaitsAtLeast = milliseconds(20);
inline constexpr double kLeastWaits = 192 << 10;
inline constexpr double kMostWaits = 512 << 10;
inline constexpr double kPostcopyWaits = 64 << 10;
inline constexpr Nanoseconds kMemoryBehind = milliseconds(100);
inline constexpr double kLeastMemoryBehind = 16 << 20;

inline constexpr Nanoseconds kMaxQemuDowntimeLimit = seconds(2000);  // QEMU takes no more

}  // namespace godwit::migrate
