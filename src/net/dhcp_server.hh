#pragma once
// A DHCPv4 server (RFC 2131) at one port, for hosts on its own network and those behind relays. It
// also answers ARP and ping at its address. Pure: leases are in memory; whoever runs it keeps
// leases() and gives them back.
#include <map>
#include <set>

#include "base/result.hh"
#include "net/account.hh"
#include "net/component.hh"
#include "net/dhcp_message.hh"

namespace godwit::net {

inline constexpr std::size_t kMostLeases = 65536;

struct DhcpNetwork {
  IpPrefix prefix{};   // with no bits behind
  Ip first{}, last{};  // that are leased; both unspecified: only what is reserved
  std::uint32_t lease_s = 3600;
  DhcpOptions options{};
  bool operator==(const DhcpNetwork&) const = default;
};

struct DhcpReservation {
  Mac mac = 0;
  Ip address{};
  bool operator==(const DhcpReservation&) const = default;
};

struct DhcpConfig {
  PortIndex port = 0;
  IpPrefix address{};  // the server's own
  Mac mac = 0;
  std::vector<DhcpNetwork> networks{};
  std::vector<DhcpReservation> reservations{};
  bool operator==(const DhcpConfig&) const = default;
};
Result<> check(const DhcpConfig& config);

struct DhcpLease {
  enum class State : std::uint8_t { offered, bound, declined };
  State state = State::offered;
  Ip address{};
  Mac mac = 0;
  Bytes identifier{};
  std::string host{};
  Instant ends{};
};

class DhcpServer final : public Component {
 public:
  explicit DhcpServer(DhcpConfig config);

  // Leases of addresses that it still has stay.
  void configure(DhcpConfig config);
  void handle(PortIndex from, std::span<const MutableBytes> frames, Instant now,
              Outlet& out) override;
  Instant tick(Instant now, Outlet& out) override;
  std::vector<PortCounters> counters() const override;

  void begin_state() override;
  Bytes take_state(std::size_t most, Instant now) override;
  std::size_t untold() const override;
  void end_state() override;
  Result<> load_state(BytesView message, Instant now) override;

  std::vector<DhcpLease> leases() const;  // by address
  void restore(const std::vector<DhcpLease>& leases);
  std::uint64_t changes() const { return changes_; }  // of what is bound or declined

 private:
  std::string_view receive(MutableBytes frame, Instant now);
  std::string_view serve(BytesView frame, const IpPacket& packet, Instant now);
  std::optional<DhcpAnswer> decide(const DhcpRequest& request, const DhcpNetwork& network,
                                   Instant now);
  std::optional<DhcpAnswer> offer(const DhcpRequest& request, const DhcpNetwork& network,
                                  Instant now);
  std::optional<DhcpAnswer> confirm(const DhcpRequest& request, const DhcpNetwork& network,
                                    Instant now);
  void answer(BytesView frame, const DhcpRequest& request, const DhcpAnswer& answer,
              const DhcpNetwork& network);
  const DhcpNetwork* network_of(const DhcpRequest& request) const;
  std::optional<Ip> choose(const DhcpRequest& request, const DhcpNetwork& network,
                           Instant now) const;
  bool may_have(const DhcpRequest& request, const DhcpNetwork& network, Ip address,
                Instant now) const;
  const DhcpReservation* reserved_for(Mac mac, const DhcpNetwork& network) const;
  void keep(const DhcpRequest& request, Ip address, DhcpLease::State state, Instant ends);
  void forget(Ip address);
  bool has_place_for(const DhcpLease& lease) const;
  void put(const DhcpLease& lease);
  void send(Bytes frame);

  DhcpConfig config_;
  std::map<Ip, Mac> reserved_;
  std::map<Ip, DhcpLease> leases_;
  std::map<Bytes, Ip> by_client_;
  Account<Ip> account_;
  std::vector<Bytes> outgoing_;  // of this call
  PortCounters counters_{};
  std::uint64_t changes_ = 0;
};

}  // namespace godwit::net
