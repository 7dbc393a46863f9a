// What a router has learned, told to another instance of it (docs/protocol/component-state.md).
#include "net/router.hh"
#include "net/state.hh"

namespace godwit::net {

void Router::begin_state() {}

void Router::end_state() {}

Bytes Router::take_state(std::size_t /*most*/, Instant /*now*/) { return {}; }

Result<> Router::load_state(BytesView message, Instant /*now*/) {
  const auto sections = read_state(message);
  if (!sections) return std::unexpected(sections.error());
  for (const StateSection& section : *sections) return not_known(section);
  return {};
}

}  // namespace godwit::net
