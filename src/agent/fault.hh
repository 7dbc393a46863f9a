#pragma once
// A place for tests to stop the agent at: with GODWIT_FAULT=POINT in its environment it freezes
// (SIGSTOP), once, when a hand-over reaches that point. From outside it is then killed, or its
// network is cut and SIGCONT lets it go on. Points: SIDE.STATE.EFFECT.before and .after as
// migrate/points.hh finds them (`./dev sim --points`), like "source.released.commit_target.before",
// those of a libvirt domain's move (libvirt.released.commit, libvirt.preparing.run), those of a
// vm's start: vm.starting.record and vm.starting.launch; and of a NIC's: nic.plugging.record.
#include <string_view>

#include "migrate/event_queue.hh"

namespace godwit::agent {

using migrate::Moment;
void fault_point(std::string_view side, std::string_view state, std::string_view effect,
                 Moment moment);

}  // namespace godwit::agent
