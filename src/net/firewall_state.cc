// What a firewall has seen, told to another instance of it (docs/protocol/component-state.md).
#include "net/firewall.hh"

namespace godwit::net {

void Firewall::begin_state() { tracker_.begin_state(); }

std::size_t Firewall::untold() const { return tracker_.untold(); }

void Firewall::end_state() { tracker_.end_state(); }

Bytes Firewall::take_state(std::size_t most, Instant now) {
  StateWriter state(most);
  tracker_.take_state(state, now);
  return state.take();
}

Result<> Firewall::load_state(BytesView message, Instant now) {
  return load_sections(
      message, [&](const StateSection& section) { return tracker_.load_state(section, now); });
}

}  // namespace godwit::net
