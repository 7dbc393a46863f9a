#pragma once
// Which addresses become which (NAT; RFC 3022, RFC 4787, RFC 5382). Rules are asked about the first
// packet of a flow, in order; the flow keeps what was decided.
//
//   arrives ─▶ forward, one_to_one: destination ─▶ filter ─▶ one_to_one, masquerade: source ─▶
//
// Hairpin (RFC 4787, REQ-9): what leaves where it came from, its destination having been rewritten,
// gets the router's own address as its source, so that the answer comes back here.
#include "net/filter.hh"
#include "net/flow_table.hh"
#include "net/port_claims.hh"
#include "net/rewrite.hh"

namespace godwit::net {

struct IpRange {
  Ip first{}, last{};
  bool operator==(const IpRange&) const = default;
};

// Many behind few. A port is kept where it is free, else one is taken by a hash; either way an
// inside address and port have the same one for all destinations, as long as there are enough
// (port_claims.hh). One inside address has always the same one outside (RFC 4787, REQ-2).
struct Masquerade {
  std::vector<PortIndex> out{};  // empty: all, but not kItself
  std::vector<IpPrefix> from{};  // empty: all
  std::optional<IpRange> to{};   // empty: the router's own at that port
  PortRange ports{.first = 1024};
  bool operator==(const Masquerade&) const = default;
};

// What comes for one address, or some of its ports, goes to another.
struct Forward {
  std::vector<PortIndex> in{};  // empty: all, so also from inside
  Ip address{};
  std::optional<std::uint8_t> protocol{};  // empty: all; kIcmp: ICMPv6, too
  PortRange ports{};                       // of TCP and UDP
  Ip to{};
  std::uint16_t to_port = 0;  // of the first of `ports`, the others follow; zero: the same
  bool operator==(const Forward&) const = default;
};

// Each address of one is one of the other.
struct OneToOne {
  std::vector<PortIndex> out{};  // where the source is rewritten; empty: all
  IpPrefix outside{}, inside{};
  bool operator==(const OneToOne&) const = default;
};

struct NatConfig {
  std::vector<Masquerade> masquerade{};
  std::vector<Forward> forward{};
  std::vector<OneToOne> one_to_one{};
  bool operator==(const NatConfig&) const = default;
  bool is_empty() const { return masquerade.empty() && forward.empty() && one_to_one.empty(); }
};
Result<> check(const NatConfig& config);

// Of a new flow's first packet: where it goes instead.
std::optional<Endpoint> forwarded(const NatConfig& config, const Tuple& tuple, PortIndex in);

// What its source may become.
struct SourceChoice {
  Ip ip{};
  PortRange ports{};
  bool may_change_port = true;
  bool is_shared = false;  // others have this address, too
};
struct Crossing {  // of a router by a flow's first packet
  PortIndex in = 0, out = 0;
  Ip own{};  // the router's address at `out`
};
// Empty: it stays as it is. `leaving`: with its new destination. An unspecified address: there is
// none for it.
std::optional<SourceChoice> masqueraded(const NatConfig& config, const Tuple& arrived,
                                        const Tuple& leaving, const Crossing& crossing,
                                        std::uint64_t seed);

// What the flows of one router have.
struct NatState {
  FlowTable& flows;
  PortClaims& claims;
};
// Of a flow that has been begun elsewhere, with the seed that it was begun with: its outside port
// is its inside endpoint's, here, too.
void claim_again(const NatConfig& config, PortClaims& claims, const Flow& flow, std::uint64_t seed);
// Gives `flow` a tuple of replies that is nobody else's. False: there is none.
bool choose_reply(const NatState& state, Flow& flow, const Tuple& leaving,
                  const SourceChoice& choice, Instant now);

}  // namespace godwit::net
