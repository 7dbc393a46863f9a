#pragma once
// The events of one hand-over machine (Source or Target), taken one after the other. Events may
// arise while effects are performed: they wait until those are done.
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.hh"
#include "base/result.hh"

namespace godwit::migrate {

enum class Moment : std::uint8_t { before, after };

template <class Machine>
class EventQueue final {
 public:
  using Event = Machine::Event;
  using Effect = Machine::Effect;

  struct Handlers {
    // Only a `record` may fail: the disk is full, and the journal is as it was before; or it became
    // untrue while it was written.
    std::function<Result<>(Effect)> perform;
    // Around each effect: where a fault may strike.
    std::function<void(Effect, Moment)> reached;
    std::function<void(Event, typename Machine::State before)> took;  // for the log
  };

  EventQueue(Machine& machine, Handlers handlers)
      : machine_(machine), handlers_(std::move(handlers)) {}

  void feed(Event event, std::string text) {
    waiting_.emplace_back(event, std::move(text));
    if (std::exchange(feeding_, true)) return;
    while (!waiting_.empty()) {
      auto [next, why] = std::move(waiting_.front());
      waiting_.pop_front();
      const auto before = machine_.state();
      auto effects = machine_.handle(next, std::move(why));
      handlers_.took(next, before);
      if (const auto done = perform_all(effects); !done) {
        effects = machine_.record_failed(done.error().text);
        const auto undone = perform_all(effects);
        CHECK(undone, "what follows a failed record has none: {}", undone.error().text);
      }
    }
    feeding_ = false;
  }

 private:
  Result<> perform_all(const std::vector<Effect>& effects) {
    for (const Effect effect : effects) {
      handlers_.reached(effect, Moment::before);
      if (auto done = handlers_.perform(effect); !done) return done;
      handlers_.reached(effect, Moment::after);
    }
    return {};
  }

  Machine& machine_;
  Handlers handlers_;
  std::deque<std::pair<Event, std::string>> waiting_;
  bool feeding_ = false;
};

}  // namespace godwit::migrate
