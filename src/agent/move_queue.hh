#pragma once
// The event queue of a move (SourceMove, TargetMove) as the agent runs it: logged, and with a fault
// point around each effect.
#include <spdlog/spdlog.h>

#include <functional>
#include <string_view>

#include "agent/fault.hh"
#include "base/id.hh"
#include "migrate/event_queue.hh"

namespace godwit::agent {

// `side`: "source" or "target". `machine` and `perform` live as long as the queue.
template <class Machine>
typename migrate::EventQueue<Machine>::Handlers queue_handlers(
    std::string_view side, MigrationId id, const Machine& machine,
    std::function<Result<>(typename Machine::Effect)> perform) {
  return {.perform = std::move(perform),
          .reached =
              [side, &machine](auto effect, Moment moment) {
                fault_point(side, to_text(machine.state()), to_text(effect), moment);
              },
          .took =
              [id, &machine](auto event, auto before) {
                spdlog::debug("migration {}: {} in {} -> {}", id.text(), to_text(event),
                              to_text(before), to_text(machine.state()));
              }};
}

}  // namespace godwit::agent
