#pragma once
// Vms that move as one: all are copied, and handed over together or one after the other once all
// could be. Before the first is handed over the group moves whole or not at all. Pure.
#include <span>
#include <vector>

#include "base/units.hh"
#include "migrate/state.hh"

namespace godwit::migrate {

inline constexpr std::size_t kMostMembers = 16;

struct GroupOptions {
  bool in_order = false;  // the next when the one before runs at the target; else all at once
  bool hold = false;      // until cutover is asked for
  BitRate cap{};          // of all together; zero: none
};

struct GroupMember {
  SourceState state = SourceState::planned;
  bool cutover_told = false;
  double remaining_bytes = 0;  // of memory, not yet sent
  double dirty_bytes_per_second = 0;
};

struct GroupVerdict {
  std::vector<std::size_t> cutover;  // members whose turn it is
  bool abort = false;                // those that still can
  std::vector<BitRate> caps;         // of each member; empty: none
  bool operator==(const GroupVerdict&) const = default;
};
GroupVerdict judge(const GroupOptions& options, std::span<const GroupMember> members);

// What the group's state is called: that of the member that is least far, `aborted` if all are.
SourceState state_of(std::span<const GroupMember> members);

}  // namespace godwit::migrate
