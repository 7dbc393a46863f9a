// What a DHCP server has leased, told to another instance of it (docs/protocol/component-state.md).
#include "net/dhcp_server.hh"
#include "net/state.hh"

namespace godwit::net {
namespace {

void write_lease(Writer& to, const DhcpLease& lease, Instant now) {
  to.u8(static_cast<std::uint8_t>(lease.state)).u32(lease.address.as4());
  write_mac(to, lease.mac);
  write_ns(to, lease.ends - now);
  to.text8(as_text(lease.identifier)).text8(lease.host);
}

// Empty: there can be no such lease.
std::optional<DhcpLease> read_lease(Reader& from, Instant now) {
  DhcpLease lease{.state = static_cast<DhcpLease::State>(from.u8())};
  lease.address = Ip::of4(from.u32());
  lease.mac = read_mac(from);
  lease.ends = now + read_ns(from);
  lease.identifier = to_bytes(as_bytes(from.text8()));
  lease.host = from.text8();
  if (!from.ok() || lease.state > DhcpLease::State::declined) return std::nullopt;
  return lease;
}

}  // namespace

void DhcpServer::begin_state() {
  account_.begin();
  for (const auto& [address, lease] : leases_) account_.changed(address);
}

std::size_t DhcpServer::untold() const { return account_.size(); }

void DhcpServer::end_state() { account_.end(); }

Bytes DhcpServer::take_state(std::size_t most, Instant now) {
  StateWriter state(most);
  state.rows(
      StateKind::gone_leases, [&] { return account_.next_gone(); },
      [](Writer& row, Ip address) { row.u32(address.as4()); });
  state.rows(
      StateKind::leases, [&] { return account_.next_untold(); },
      [&](Writer& row, Ip address) { write_lease(row, leases_.at(address), now); });
  return state.take();
}

Result<> DhcpServer::load_state(BytesView message, Instant now) {
  return load_sections(message, [&](const StateSection& section) -> Result<> {
    switch (section.kind) {
      case StateKind::gone_leases:
        return read_rows(section, [&](Reader& row) {
          const Ip address = Ip::of4(row.u32());
          if (row.ok()) forget(address);
          return row.ok();
        });
      case StateKind::leases:
        return read_rows(section, [&](Reader& row) {
          const auto lease = read_lease(row, now);
          if (lease && has_place_for(*lease)) put(*lease);
          return lease.has_value();
        });
      default:
        return not_known(section);
    }
  });
}

void DhcpServer::put(const DhcpLease& lease) {
  if (const auto has = by_client_.find(lease.identifier); has != by_client_.end()) {
    forget(has->second);
  }
  forget(lease.address);
  leases_[lease.address] = lease;
  if (!lease.identifier.empty()) by_client_[lease.identifier] = lease.address;
  account_.changed(lease.address);
  if (lease.state != DhcpLease::State::offered) ++changes_;
}

}  // namespace godwit::net
