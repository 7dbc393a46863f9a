#pragma once
// The events of one hand-over machine (migrate::Source or migrate::Target), taken one after the
// other. Events may arise while effects are performed: they wait until those are done.
#include <spdlog/spdlog.h>

#include <deque>
#include <string>
#include <string_view>
#include <utility>

#include "agent/fault.hh"
#include "base/id.hh"

namespace godwit::agent {

template <class Machine, class Event>
class EventQueue final {
 public:
  // `side`: "source" or "target".
  EventQueue(Machine& machine, MigrationId id, std::string_view side)
      : machine_(machine), id_(id), side_(side) {}

  // perform(effect) for each effect of the machine, in order.
  void feed(Event event, std::string text, const auto& perform) {
    waiting_.emplace_back(event, std::move(text));
    if (std::exchange(feeding_, true)) return;
    while (!waiting_.empty()) {
      auto [next, why] = std::move(waiting_.front());
      waiting_.pop_front();
      const auto before = machine_.state();
      const auto effects = machine_.handle(next, std::move(why));
      spdlog::debug("migration {}: {} in {} -> {}", id_.text(), to_text(next), to_text(before),
                    to_text(machine_.state()));
      for (const auto effect : effects) {
        const std::string_view state = to_text(machine_.state());
        fault_point(side_, state, to_text(effect), Moment::before);
        perform(effect);
        fault_point(side_, state, to_text(effect), Moment::after);
      }
    }
    feeding_ = false;
  }

 private:
  Machine& machine_;
  MigrationId id_;
  std::string_view side_;
  std::deque<std::pair<Event, std::string>> waiting_;
  bool feeding_ = false;
};

}  // namespace godwit::agent
