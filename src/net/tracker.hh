#pragma once
// A stateful packet filter and NAT for a router, which asks in two steps per packet:
//
//   frame ─▶ arrive(): its flow, and where it goes instead ─▶ (the route) ─▶
//         ─▶ leave(): the rules, and from whom it seems to be ─▶ sent
//
// As Linux's netfilter: tracked and destinations rewritten before the route, filtered between, the
// source rewritten last; a flow begins when its first packet leaves. Pure: time and a secret are
// given. One thread owns it. Nothing is allocated per packet.
//
// Not as Linux: fragments are not put together. Later ones follow the first; those that come before
// it are dropped ("fragment"). Checksums of layer 4 are not verified, but those of ICMP errors.
#include <optional>
#include <span>
#include <vector>

#include "net/filter.hh"
#include "net/flow_table.hh"
#include "net/fragment_table.hh"
#include "net/nat.hh"
#include "net/state.hh"

namespace godwit::net {

// What may begin a TCP flow beside SYN: any ACK (as nf_conntrack_tcp_loose), when it is not known
// because it is older than the table.
enum class PickUp : std::uint8_t { unless_new_matters, always, never };  // a rule names kNew

struct TrackerConfig {
  FilterConfig filter{};
  NatConfig nat{};
  PickUp pick_up = PickUp::unless_new_matters;
  FlowTimeouts timeouts{};
  std::size_t most_flows = 131'072;
  bool operator==(const TrackerConfig&) const = default;
};
Result<> check(const TrackerConfig& config);

// What arrive() found, for leave(): the packet is of a flow, begins one, is an ICMP error about
// one, or of none (neighbour discovery, which passes).
struct Ticket {
  enum class Kind : std::uint8_t { untracked, known, begun, related };
  Kind kind = Kind::untracked;
  Way way = Way::original;
  PacketState state = kNew;
  std::uint8_t icmp_type = 0;
  bool is_translated = false;
  PortIndex in = 0;
  FlowId flow{};
  Tuple arrived{}, leaving{};       // the packet as it came, and as it goes
  std::optional<TcpSegment> tcp{};  // of what is begun
};

struct FlowReport {
  Flow flow{};
  Nanoseconds remaining{};
};

class Tracker final {
 public:
  Tracker(TrackerConfig config, std::uint64_t seed);
  // Flows stay as they are, with their addresses; those that the new rules would refuse end.
  void configure(TrackerConfig config);

  // Before the route is looked up: what is forwarded, or answers what was masqueraded, gets its
  // destination, in the frame and in `packet`. ICMP errors are rewritten here in whole. `in`:
  // kItself for what the router sends. Empty: go on; else why it is dropped: "invalid" (of no
  // flow, and begins none), "fragment".
  std::string_view arrive(MutableBytes frame, IpPacket& packet, PortIndex in, Instant now,
                          Ticket& ticket);
  // When it is known where it leaves, `out`; kItself: it is for the router, and gets no other
  // source. `own`: the router's address there, of the packet's family. Empty: it passes; else why
  // it is dropped, and it is again as it came (for an ICMP error to quote, so not ICMP errors):
  // "rule", "policy", "reject" (see refusal.hh), "full", "ports-used-up", "no-address" to
  // masquerade with, "ended" in between.
  std::string_view leave(MutableBytes frame, IpPacket& packet, Ticket& ticket, PortIndex out,
                         Ip own, Instant now);
  // Both, where nothing is translated: with a `zone` of its own (a VLAN).
  std::string_view judge(BytesView frame, const IpPacket& packet, std::uint16_t zone,
                         const Crossing& crossing, Instant now);
  // As it came, before leave(): for an ICMP error of the router's own to quote.
  static void undo(MutableBytes frame, IpPacket& packet, const Ticket& ticket);

  Instant tick(Instant now);

  // For another instance (component.hh, state.hh): tracker_state.cc.
  void begin_state();
  void take_state(StateWriter& state, Instant now);
  std::size_t untold() const { return table_.untold(); }
  void end_state();
  // One that is not of a tracker's is not known.
  Result<> load_state(const StateSection& section, Instant now);

  std::vector<FlowReport> flows(Instant now, std::size_t most = ~std::size_t{0}) const;
  const std::vector<RuleCounters>& rules() const { return filter_.counters(); }
  const FlowTable& table() const { return table_; }

 private:
  // Of the packet in hand.
  struct Step {
    Crossing crossing{};
    Instant now{};
    std::size_t bytes = 0;
  };

  std::string_view find(const PacketReading& reading, const IpPacket& packet, Instant now,
                        Ticket& ticket);
  std::string_view find_fragment(const IpPacket& packet, Instant now, Ticket& ticket);
  std::string_view find_error(const PacketReading& reading, Instant now, Ticket& ticket);
  static void take(const FlowTable::Found& found, Ticket& ticket);
  std::string_view decide(const IpPacket& packet, const Step& step, Ticket& ticket);
  std::string_view filter(const Ticket& ticket, const Step& step);
  std::string_view begin(const Step& step, Ticket& ticket);

  TrackerConfig config_;
  std::uint64_t seed_;  // of what NAT chooses
  Filter filter_;
  FlowTable table_;
  FragmentTable fragments_;
  PortClaims claims_;
  bool is_seed_untold_ = false;
  bool picks_up_ = true;
};

}  // namespace godwit::net
