#pragma once
// The states of a migration, as journalled on both sides (design 9).
//
//   planned -> preparing -> copying <-> ready -> switching -> released -> committed -> draining ->
//   done any of these before committed ......................... -> aborting -> aborted
//
// `released` is the source's point of no return: from there it resumes only on the target's
// recorded refusal, or on the operator's word that the target is destroyed. The target has its own,
// shorter life: preparing -> loaded -> owner -> done, or -> refused from the first two.
#include <cstdint>
#include <optional>
#include <string_view>

namespace godwit::migrate {

enum class SourceState : std::uint8_t {
  planned,
  preparing,
  copying,
  ready,
  switching,
  released,
  committed,
  draining,
  done,
  aborting,
  aborted,
};

enum class TargetState : std::uint8_t { planned, preparing, loaded, owner, done, refused };

std::string_view to_text(SourceState state);
std::string_view to_text(TargetState state);
std::optional<SourceState> source_state(std::string_view text);
std::optional<TargetState> target_state(std::string_view text);

// The transition table. A machine CHECKs each of its transitions against it.
bool is_allowed(SourceState from, SourceState to);
bool is_allowed(TargetState from, TargetState to);

inline bool is_final(SourceState s) { return s == SourceState::done || s == SourceState::aborted; }
inline bool is_final(TargetState s) { return s == TargetState::done || s == TargetState::refused; }

}  // namespace godwit::migrate
