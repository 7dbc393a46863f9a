#include "crash_table.hh"

#include <array>
#include <utility>

namespace godwit::sim {
namespace {

using S = migrate::SourceState;
using T = migrate::TargetState;
using F = Fault;
using enum Outcome;

constexpr std::array kFaultNames = {
    std::pair{F::source_agent, "source_agent"}, std::pair{F::target_agent, "target_agent"},
    std::pair{F::both_agents, "both_agents"},   std::pair{F::source_qemu, "source_qemu"},
    std::pair{F::target_qemu, "target_qemu"},   std::pair{F::source_power, "source_power"},
    std::pair{F::target_power, "target_power"}, std::pair{F::cut_1s, "cut_1s"},
    std::pair{F::cut_30s, "cut_30s"},           std::pair{F::cut_for_ever, "cut_for_ever"},
    std::pair{F::source_disk, "source_disk"},   std::pair{F::target_disk, "target_disk"}};

// The target's journal says owner, or the source has read it there.
std::set<Outcome> after_owner(F fault) {
  if (fault == F::target_qemu || fault == F::target_power) return {lost};
  return {target};
}

// It was refused or aborted: the guest is the source's again, once that knows.
std::set<Outcome> after_refusal(S journal, F fault) {
  const bool knows = journal == S::aborting || journal == S::aborted;
  if (!knows && fault == F::cut_for_ever) return {waiting, source};
  if (fault == F::source_qemu || fault == F::source_power) return {lost};
  return {source};
}

// The source asks, and the target's journal answers.
std::set<Outcome> after_release(T journal, F fault) {
  switch (fault) {
    case F::source_qemu:
      return {target};  // it has all
    case F::source_power:
      // With the agent the end of the stream may be lost, by which the target knows that it has.
      if (journal == T::loaded) return {target};
      return {target, lost};
    case F::target_qemu:
    case F::target_power:
    case F::target_disk:
      return {source};
    case F::cut_for_ever:
      return {waiting, source, target};
    default:
      return {source, target};
  }
}

std::set<Outcome> before_release(F fault) {
  switch (fault) {
    case F::source_agent:
    case F::both_agents:
    case F::target_qemu:
    case F::target_power:
    case F::source_disk:
    case F::target_disk:
      return {source};
    case F::source_qemu:
      // Unless its last word, that it has completed, was on its way to the agent.
      return {lost, target};
    case F::source_power:
      return {lost};
    case F::cut_for_ever:
      return {source, waiting};
    case F::target_agent:
    case F::cut_1s:
    case F::cut_30s:
      return {source, target};
  }
  return {};
}

}  // namespace

std::string_view to_text(Fault fault) {
  for (const auto& [value, name] : kFaultNames) {
    if (value == fault) return name;
  }
  return "?";
}

std::string_view to_text(Outcome outcome) {
  switch (outcome) {
    case source:
      return "source";
    case target:
      return "target";
    case lost:
      return "lost";
    case waiting:
      return "waiting";
  }
  return "?";
}

std::vector<Fault> all_faults() {
  std::vector<Fault> faults;
  for (const auto& [fault, name] : kFaultNames) faults.push_back(fault);
  return faults;
}

std::set<Outcome> allowed(S source_journal, T target_journal, F fault) {
  switch (source_journal) {
    case S::committed:
    case S::draining:
    case S::done:
      return after_owner(fault);
    case S::aborting:
    case S::aborted:
      return after_refusal(source_journal, fault);
    default:
      break;
  }
  if (target_journal == T::owner || target_journal == T::done) return after_owner(fault);
  if (target_journal == T::refused) return after_refusal(source_journal, fault);
  if (source_journal == S::released) return after_release(target_journal, fault);
  return before_release(fault);
}

}  // namespace godwit::sim
