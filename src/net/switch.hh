#pragma once
// An Ethernet switch (IEEE 802.1Q-2022): learns where addresses are, floods what it does not know,
// keeps VLANs apart, and IP groups where they are wanted. Stretched over sites it is several
// instances, one at each, whose trunk wires make a full mesh: what came from one is never sent to
// another (split horizon), so there is no loop, and no spanning tree.
//
//   frame ─▶ VLAN of its port or tag ─▶ source learned ─▶ one port, or all of the VLAN ─▶ tag of
//   that port
#include <bitset>
#include <map>
#include <optional>
#include <vector>

#include "base/result.hh"
#include "net/component.hh"
#include "net/group_table.hh"
#include "net/mac_table.hh"
#include "net/vlan.hh"

namespace godwit::net {

// Without more: a trunk of all VLANs, as wires are.
struct SwitchPort {
  std::optional<Vlan> access{};     // all of its frames are of this VLAN, and have no tag
  std::vector<Vlan> trunk{};        // which VLANs; none: all
  Vlan native = kUntagged;          // of a trunk: that of its frames without a tag
  bool isolated = false;            // reaches no other that is
  bool stretched = false;           // leads to another instance of this switch
  bool mirrored = false;            // what it gets and sends is copied to the mirror
  std::uint32_t flooded_per_s = 0;  // frames that may go from here to all; zero: any number
  bool operator==(const SwitchPort&) const = default;
};

struct StaticMac {
  Vlan vlan = kUntagged;
  Mac mac = 0;
  PortIndex port = 0;
  bool operator==(const StaticMac&) const = default;
};

struct SwitchConfig {
  std::map<PortIndex, SwitchPort> ports{};
  std::optional<PortIndex> mirror{};  // gets copies and nothing else; what it sends is dropped
  std::vector<StaticMac> macs{};
  Nanoseconds ageing = seconds(300);  // 802.1Q, table 8-6
  std::size_t most_macs = 16384;
  bool snooping = true;  // IP groups go only where somebody wants them (RFC 4541)
  bool operator==(const SwitchConfig&) const = default;
};
// Ports that there are, VLANs that there are.
Result<> check(const SwitchConfig& config);

class Switch final : public Component {
 public:
  // `seed`: see MacTable.
  Switch(SwitchConfig config, std::uint64_t seed);

  // Ports keep their counters, and what was learned of them.
  void configure(SwitchConfig config);
  void handle(PortIndex from, std::span<const MutableBytes> frames, Instant now,
              Outlet& out) override;
  Instant tick(Instant now, Outlet& out) override;
  std::vector<PortCounters> counters() const override;  // by index

  void begin_state() override;
  Bytes take_state(std::size_t most, Instant now) override;
  std::size_t untold() const override;
  void end_state() override;
  Result<> load_state(BytesView message, Instant now) override;

  const MacTable& macs() const { return macs_; }
  const GroupTable& groups() const { return groups_; }
  std::uint64_t not_learned() const { return not_learned_; }  // frames, the table being full
  std::uint64_t moved() const { return moved_; }              // addresses seen at another port

 private:
  struct Port {
    bool exists = false;
    SwitchPort settings{};
    std::bitset<4096> carries{};
    double flood_tokens = 0;  // frames
    Instant flood_refilled{};
    std::vector<BytesView> outgoing{};  // of this call
    PortCounters counters{};
  };
  // A frame in the two forms that ports want; each is made when it is first wanted.
  struct Forms {
    BytesView original{};
    std::optional<Vlan> tag{};
    Vlan vlan = kUntagged;
    BytesView bare{}, tagged{};
  };

  // Of what is flooded: all ports of the VLAN, those that ask for groups, or with them those that
  // want this one.
  struct Audience {
    enum Kind { all, askers, listeners } kind = all;
    Mac group = 0;
  };

  std::string_view forward(PortIndex from, BytesView frame, Instant now);
  bool carries(PortIndex port, Vlan vlan) const;
  std::string_view why_not(const Port& from, const Port& to, Vlan vlan) const;
  Audience audience(PortIndex from, const Forms& forms, Mac group, Instant now);
  bool hears(const Audience& audience, PortIndex port, Vlan vlan, Instant now) const;
  std::string_view flood(PortIndex from, Forms& forms, Audience audience, Instant now);
  void emit(PortIndex to, Forms& forms);
  void add(PortIndex to, BytesView frame);
  BytesView bare(Forms& forms);
  BytesView tagged(Forms& forms);
  Bytes& scratch();

  SwitchConfig config_;
  MacTable macs_;
  GroupTable groups_;
  std::vector<Port> ports_;
  std::vector<PortIndex> touched_;  // of this call: have something outgoing
  std::vector<Bytes> changed_;  // frames whose tag is another; the first changed_count_ are used
  std::size_t changed_count_ = 0;
  std::uint64_t not_learned_ = 0, moved_ = 0;
};

}  // namespace godwit::net
