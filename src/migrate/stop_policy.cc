#include "migrate/stop_policy.hh"

#include <algorithm>
#include <array>
#include <utility>

namespace godwit::migrate {
namespace {

constexpr std::array kNames = {std::pair{StopPolicy::downtime, "downtime"},
                               std::pair{StopPolicy::smart, "smart"},
                               std::pair{StopPolicy::stock, "stock"}};

}  // namespace

std::string_view to_text(StopPolicy policy) {
  for (const auto& [value, name] : kNames) {
    if (value == policy) return name;
  }
  return "?";
}

std::optional<StopPolicy> stop_policy(std::string_view text) {
  for (const auto& [value, name] : kNames) {
    if (text == name) return value;
  }
  return std::nullopt;
}

void RoundHistory::begin_round(const RoundStart& start) {
  if (rounds_++ > 0) {
    window_.push_back(present_.remaining_bytes);
    if (window_.size() > kSmartWindow) window_.pop_front();
    const bool shrank = start.predicted_pause <= present_.predicted_pause * (1 - kSlack);
    if (flat_rounds_ > 0 || !shrank) ++flat_rounds_;
  }
  present_ = start;
}

bool RoundHistory::is_minimum(double remaining_bytes) const {
  if (window_.empty()) return false;
  const double lowest = std::ranges::min(window_);
  return remaining_bytes < lowest * (1 - kSlack) ||
         (window_.size() == kSmartWindow && remaining_bytes <= lowest * (1 + kSlack));
}

bool is_enough(StopPolicy policy, const RoundHistory& history, const Effort& effort) {
  switch (policy) {
    case StopPolicy::downtime:
      return true;
    case StopPolicy::smart:
      return is_spent(policy, effort) ||
             (history.flat_rounds() > 0 && history.is_minimum(effort.remaining_bytes));
    case StopPolicy::stock:
      return is_spent(policy, effort);
  }
  return true;
}

bool is_spent(StopPolicy policy, const Effort& effort) {
  switch (policy) {
    case StopPolicy::downtime:
      return false;
    case StopPolicy::smart:
      return effort.rounds >= kMostRounds;
    case StopPolicy::stock:
      return effort.rounds >= kMostRounds || effort.remaining_bytes < kFewBytes ||
             effort.sent_bytes > kMostMemorySent * effort.memory_bytes;
  }
  return false;
}

std::uint64_t most_stalled_rounds(StopPolicy policy) {
  switch (policy) {
    case StopPolicy::downtime:
      return kStalledRounds;
    case StopPolicy::smart:
      return kSmartWindow;
    case StopPolicy::stock:
      return kMostRounds;
  }
  return kStalledRounds;
}

}  // namespace godwit::migrate
