#pragma once
// A packet filter in a wire, which hosts do not see: what passes goes from one port to the other as
// it is. Rules as a router's (filter.hh), by these ports; flows as a tracker's (tracker.hh).
//
// ARP passes, and all of `pass`; so do IPv6 neighbour discovery and group membership. IP behind one
// VLAN tag is filtered, too, each VLAN by itself; what has two tags is dropped ("type") as all else
// is that is no IP. What is rejected is answered, in the name of whom it was for.
#include "net/component.hh"
#include "net/packet.hh"
#include "net/tracker.hh"

namespace godwit::net {

struct FirewallConfig {
  std::vector<PortIndex> ports{0, 1};  // two
  FilterConfig filter{};
  std::vector<std::uint16_t> pass{kTypeArp};  // EtherTypes, unfiltered
  PickUp pick_up = PickUp::unless_new_matters;
  FlowTimeouts timeouts{};
  std::size_t most_flows = TrackerConfig{}.most_flows;
  bool operator==(const FirewallConfig&) const = default;
};
Result<> check(const FirewallConfig& config);

class Firewall final : public Component {
 public:
  // `seed`: a secret, see FlowTable.
  Firewall(FirewallConfig config, std::uint64_t seed);

  // Flows go on; those that the new rules would refuse end, and their next packets are judged as
  // new ones.
  void configure(FirewallConfig config);
  void handle(PortIndex from, std::span<const MutableBytes> frames, Instant now,
              Outlet& out) override;
  Instant tick(Instant now, Outlet& out) override;
  std::vector<PortCounters> counters() const override;  // by index

  void begin_state() override;
  Bytes take_state(std::size_t most, Instant now) override;
  std::size_t untold() const override;
  void end_state() override;
  Result<> load_state(BytesView message, Instant now) override;

  const Tracker& tracker() const { return tracker_; }

 private:
  std::string_view judge(PortIndex from, PortIndex to, BytesView frame, Instant now);
  void answer(BytesView frame, const IpPacket& packet, Instant now);
  void send(PortIndex to, std::span<const BytesView> frames, Outlet& out);

  FirewallConfig config_;
  Tracker tracker_;
  std::vector<PortCounters> counters_;
  std::vector<BytesView> passed_;  // of this call
  std::vector<Bytes> answers_;     // the first answer_count_ are of this call
  std::size_t answer_count_ = 0;
  Instant second_{};  // the one in which so many were answered
  std::uint32_t answered_ = 0;
};

}  // namespace godwit::net
