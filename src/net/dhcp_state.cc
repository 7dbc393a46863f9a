// What a DHCP server has leased, told to another instance of it (docs/protocol/component-state.md).
#include "net/dhcp_server.hh"
#include "net/state.hh"

namespace godwit::net {

void DhcpServer::begin_state() {}

void DhcpServer::end_state() {}

Bytes DhcpServer::take_state(std::size_t /*most*/, Instant /*now*/) { return {}; }

Result<> DhcpServer::load_state(BytesView message, Instant /*now*/) {
  const auto sections = read_state(message);
  if (!sections) return std::unexpected(sections.error());
  for (const StateSection& section : *sections) return not_known(section);
  return {};
}

}  // namespace godwit::net
