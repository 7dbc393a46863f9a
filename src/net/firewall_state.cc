// What a firewall has learned, told to another instance of it (docs/protocol/component-state.md).
#include "net/firewall.hh"
#include "net/state.hh"

namespace godwit::net {

void Firewall::begin_state() {}

void Firewall::end_state() {}

Bytes Firewall::take_state(std::size_t /*most*/, Instant /*now*/) { return {}; }

Result<> Firewall::load_state(BytesView message, Instant /*now*/) {
  const auto sections = read_state(message);
  if (!sections) return std::unexpected(sections.error());
  for (const StateSection& section : *sections) return not_known(section);
  return {};
}

}  // namespace godwit::net
