#pragma once
// Which ports want the frames of which group, as a switch overhears it (RFC 4541): between hosts,
// which report when they are asked, and routers, which ask. Where nobody asks nothing is known, and
// groups go to all. Bounded. Pure; owned by one thread.
#include <map>
#include <set>
#include <vector>

#include "net/account.hh"
#include "net/membership.hh"

namespace godwit::net {

class GroupTable final {
 public:
  struct Key {
    Vlan vlan = kUntagged;
    Mac group = 0;  // zero: who asks there
    PortIndex port = 0;
    auto operator<=>(const Key&) const = default;
  };
  struct Entry {
    Key key{};
    Instant until{};
  };

  // What came in at `port`.
  void heard(Vlan vlan, PortIndex port, const Membership& said, Instant now);
  // Somebody asks in this VLAN, so that who wants a group has said so.
  bool is_asked(Vlan vlan, Instant now) const;
  // And there was room to remember it.
  bool knows(Vlan vlan, Mac group, Instant now) const;
  bool is_wanted(Vlan vlan, Mac group, PortIndex port, Instant now) const;
  // Who asks gets all.
  bool asks(Vlan vlan, PortIndex port, Instant now) const;
  void forget_old(Instant now);
  void forget_port(PortIndex port);
  std::size_t size() const { return groups_.size(); }
  std::vector<Entry> entries() const;  // by key

  // ---- for another instance's table (state.hh) ----
  // Keeps account of what that one has not been told: at first, of all.
  void begin_account();
  void end_account() { account_.end(); }
  std::size_t untold() const { return account_.size(); }
  // Told, and no longer here; to be told before what is untold.
  std::optional<Key> next_gone() { return account_.next_gone(); }
  std::optional<Entry> next_untold();
  // As the other one had it, but for no longer than a report counts; what has no room is passed
  // over.
  void put(const Entry& entry, Instant now);
  void remove(const Key& key);

 private:
  using Until = std::map<PortIndex, Instant>;
  std::map<Vlan, Until> askers_;
  std::map<std::pair<Vlan, Mac>, Until> groups_;
  Account<Key> account_;
};

}  // namespace godwit::net
