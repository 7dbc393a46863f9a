#include "migrate/state.hh"

#include <algorithm>
#include <array>
#include <utility>

namespace godwit::migrate {
namespace {

using S = SourceState;
using T = TargetState;

constexpr std::array kSourceNames = {
    std::pair{S::planned, "planned"},     std::pair{S::preparing, "preparing"},
    std::pair{S::copying, "copying"},     std::pair{S::ready, "ready"},
    std::pair{S::switching, "switching"}, std::pair{S::released, "released"},
    std::pair{S::committed, "committed"}, std::pair{S::draining, "draining"},
    std::pair{S::done, "done"},           std::pair{S::aborting, "aborting"},
    std::pair{S::aborted, "aborted"}};

constexpr std::array kTargetNames = {
    std::pair{T::planned, "planned"}, std::pair{T::preparing, "preparing"},
    std::pair{T::loaded, "loaded"},   std::pair{T::owner, "owner"},
    std::pair{T::done, "done"},       std::pair{T::refused, "refused"}};

constexpr std::array kSourceTransitions = {
    std::pair{S::planned, S::preparing},  std::pair{S::planned, S::aborting},
    std::pair{S::preparing, S::copying},  std::pair{S::preparing, S::aborting},
    std::pair{S::copying, S::ready},      std::pair{S::copying, S::switching},
    std::pair{S::copying, S::aborting},   std::pair{S::ready, S::copying},
    std::pair{S::ready, S::aborting},     std::pair{S::switching, S::released},
    std::pair{S::switching, S::aborting}, std::pair{S::released, S::committed},
    std::pair{S::released, S::aborting},  std::pair{S::committed, S::draining},
    std::pair{S::draining, S::done},      std::pair{S::aborting, S::aborted}};

constexpr std::array kTargetTransitions = {
    std::pair{T::planned, T::preparing}, std::pair{T::planned, T::refused},
    std::pair{T::preparing, T::loaded},  std::pair{T::preparing, T::refused},
    std::pair{T::loaded, T::owner},      std::pair{T::loaded, T::refused},
    std::pair{T::owner, T::done}};

template <class State, std::size_t N>
std::string_view name_of(const std::array<std::pair<State, const char*>, N>& names, State state) {
  for (const auto& [value, name] : names) {
    if (value == state) return name;
  }
  return "?";
}

template <class State, std::size_t N>
std::optional<State> state_of(const std::array<std::pair<State, const char*>, N>& names,
                              std::string_view text) {
  for (const auto& [value, name] : names) {
    if (text == name) return value;
  }
  return std::nullopt;
}

}  // namespace

std::string_view to_text(SourceState state) { return name_of(kSourceNames, state); }
std::string_view to_text(TargetState state) { return name_of(kTargetNames, state); }
std::optional<SourceState> source_state(std::string_view text) {
  return state_of(kSourceNames, text);
}
std::optional<TargetState> target_state(std::string_view text) {
  return state_of(kTargetNames, text);
}

bool is_allowed(SourceState from, SourceState to) {
  return std::ranges::find(kSourceTransitions, std::pair{from, to}) != kSourceTransitions.end();
}
bool is_allowed(TargetState from, TargetState to) {
  return std::ranges::find(kTargetTransitions, std::pair{from, to}) != kTargetTransitions.end();
}

}  // namespace godwit::migrate
