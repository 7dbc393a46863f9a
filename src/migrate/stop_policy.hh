#pragma once
// When another round of pre-copy is not worth its bytes (--stop-policy): rules that are pure
// functions of the rounds so far. A rule only proposes. Whether the guest may stop then is the
// pause's limit to say, and what happens if it may not, --on-diverge.
#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>

#include "base/units.hh"

namespace godwit::migrate {

enum class StopPolicy : std::uint8_t {
  downtime,  // as soon as the pause fits
  smart,     // CloudNet's Smart Stop: once the rounds do not shrink, at a local minimum
  stock,     // Xen's: few pages left, 29 rounds, or thrice the memory sent
};

std::string_view to_text(StopPolicy policy);
std::optional<StopPolicy> stop_policy(std::string_view text);

// A round as it begins, right after QEMU's sync of its dirty bitmap.
struct RoundStart {
  double remaining_bytes = 0;
  Nanoseconds predicted_pause{};  // if the guest stopped now
};

// The rounds before the present one.
class RoundHistory final {
 public:
  void begin_round(const RoundStart& start);
  // Phase 2 of Smart Stop: since a round did not shorten the pause.
  std::uint64_t flat_rounds() const { return flat_rounds_; }
  // Clearly lower than all rounds in the window, or as low as any in a full one: nothing moves.
  bool is_minimum(double remaining_bytes) const;

 private:
  std::deque<double> window_;  // bytes that remained as they began
  RoundStart present_;
  std::uint64_t rounds_ = 0, flat_rounds_ = 0;
};

// What was spent on the move so far.
struct Effort {
  std::uint64_t rounds = 0;  // that have ended
  double sent_bytes = 0;
  double memory_bytes = 0;  // of the guest
  double remaining_bytes = 0;
};

// Another round gains nothing.
bool is_enough(StopPolicy policy, const RoundHistory& history, const Effort& effort);
// The policy takes no more rounds: what does not fit now diverges.
bool is_spent(StopPolicy policy, const Effort& effort);
// Rounds in a row that began with no less than kStallRatio of the one before, and more than is
// allowed, before a move is said to diverge.
std::uint64_t most_stalled_rounds(StopPolicy policy);

// A round clearly shrinks if it begins with less than this of the one before.
inline constexpr double kStallRatio = 0.8;

// CloudNet's window (Wood et al., VEE 2011). What differs by less than this share is as low:
// CloudNet would go on to its bound where the whole working set is dirty at each sync.
inline constexpr std::size_t kSmartWindow = 5;
inline constexpr double kSlack = 0.05;

// Three tell a trend from a burst.
inline constexpr std::uint64_t kStalledRounds = 3;

// Xen's tools/libxc/xc_linux_save.c; CloudNet keeps the bound of the rounds.
inline constexpr std::uint64_t kMostRounds = 29;
inline constexpr double kMostMemorySent = 3.0;
inline constexpr double kFewBytes = 50.0 * 4096;

}  // namespace godwit::migrate
