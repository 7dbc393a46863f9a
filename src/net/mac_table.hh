#pragma once
// Where each MAC address of each VLAN was last seen (IEEE 802.1Q-2022, 8.8, the filtering
// database). Bounded: when it is full nothing more is learned, and what is not known is flooded, as
// in any switch. Pure; owned by one thread.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/units.hh"
#include "net/component.hh"
#include "net/vlan.hh"

namespace godwit::net {

using Mac = std::uint64_t;  // the address in the low 48 bits, first byte first
inline Mac mac_at(const std::byte* at) {
  return std::uint64_t{from_big_endian<std::uint16_t>(at)} << 32 |
         from_big_endian<std::uint32_t>(at + 2);
}
inline bool is_group(Mac mac) { return (mac >> 40 & 1) != 0; }  // broadcast too
std::string to_text(Mac mac);                                   // "52:54:00:12:34:56"

class MacTable final {
 public:
  struct Entry {
    Vlan vlan = 0;
    Mac mac = 0;
    PortIndex port = 0;
    bool is_static = false;
    Instant seen{};
  };
  // `seed`: a secret, so that nobody can choose addresses that collide.
  MacTable(std::size_t most, Nanoseconds ageing, std::uint64_t seed);
  ~MacTable();

  enum class Learned { known, moved, full };  // known: by now
  // Where it was seen becomes where it is, at once.
  Learned learn(Vlan vlan, Mac mac, PortIndex port, Instant now);
  // What is there beyond `most` stays until it is old.
  void limit(std::size_t most, Nanoseconds ageing);
  // It stays, whatever is seen.
  void pin(Vlan vlan, Mac mac, PortIndex port);
  std::optional<PortIndex> find(Vlan vlan, Mac mac, Instant now) const;
  void forget_if(const std::function<bool(const Entry&)>& is_wrong);
  void forget_old(Instant now);

  // ---- for another instance's table (state.hh) ----
  // Keeps account of what that one has not been told: at first, all that was learned.
  void begin_account();
  void end_account();
  std::size_t untold() const;
  // Told, and no longer here; to be told before what is untold.
  std::optional<Entry> next_gone();
  std::optional<Entry> next_untold();
  // As the other one had it; what is pinned stays, and what has no room is passed over.
  void put(const Entry& entry);
  void remove(Vlan vlan, Mac mac);

  std::size_t size() const;
  std::vector<Entry> entries() const;  // by VLAN and address

 private:
  struct Map;
  template <class IsWrong>
  void erase_if(IsWrong is_wrong);

  std::size_t most_;
  Nanoseconds ageing_;
  std::unique_ptr<Map> map_;
};

}  // namespace godwit::net
