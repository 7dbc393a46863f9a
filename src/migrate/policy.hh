#pragma once
// When to stop the vCPUs (design 7, policy `downtime`): a pure function of what QEMU and the
// transfer report. QEMU itself compares `remaining` against its bandwidth estimate x downtime-limit
// after an exact dirty-bitmap sync (QEMU 7.2 migration_iteration_run); we give it the limit at
// which that threshold equals the bytes that *our* prediction allows, so the trigger is ours and
// the test exact.
#include <optional>

#include "base/units.hh"

namespace godwit::migrate {

struct MemorySample {
  Instant at{};
  std::uint64_t round = 0;                // QEMU's dirty-sync-count
  double remaining_bytes = 0;             // dirty, not yet read by us
  double dirty_bytes_per_second = 0;      // QEMU's estimate at its last sync; 0 before the second
  double backlog_bytes = 0;               // read from QEMU, not yet acknowledged by the target
  double delivered_bytes_per_second = 0;  // what the target acknowledged lately
  double qemu_bytes_per_second = 0;       // QEMU's own bandwidth estimate
  Nanoseconds rtt{};
};

struct PauseLimits {
  Nanoseconds max_downtime = milliseconds(300);
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

// Remembers the rounds and says what is to be expected.
class DowntimePolicy final {
 public:
  explicit DowntimePolicy(PauseLimits limits) : limits_(limits) {}

  struct Verdict {
    Nanoseconds predicted_pause{};  // at the end of the present round
    Nanoseconds eta{};              // until the hand-over, if it converges
    Nanoseconds qemu_downtime_limit = milliseconds(1);
    bool fits = false;      // the switch-over may be allowed: QEMU's next sync decides
    bool diverges = false;  // it will not fit at this rate
  };
  Verdict judge(const MemorySample& sample);

  void set_limits(PauseLimits limits) { limits_ = limits, stalled_rounds_ = 0; }
  const PauseLimits& limits() const { return limits_; }

 private:
  void note_round(const MemorySample& sample, double allowed);

  PauseLimits limits_;
  PauseCosts costs_;
  std::uint64_t round_ = 0;
  double round_start_remaining_ = 0;
  int stalled_rounds_ = 0;
};

// Rounds in a row that began with no less than 0.8 of the one before, and more than is allowed,
// before a move is said to diverge. Three tell a trend from a burst.
inline constexpr int kStalledRoundsToDiverge = 3;

// In the first round the switch-over is allowed once this multiple of the allowed bytes remains:
// early enough for QEMU to end with this round, late enough for a rate to be known.
inline constexpr double kFirstRoundMultiple = 4.0;

// QEMU's own value while the switch-over is not allowed. 0 would end after the first round (7.2).
inline constexpr Nanoseconds kHeldDowntimeLimit = milliseconds(1);
inline constexpr Nanoseconds kMaxQemuDowntimeLimit = seconds(2000);

}  // namespace godwit::migrate
