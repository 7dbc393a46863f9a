#pragma once
// Which flow the fragments of a datagram belong to: only the first has ports, the others follow
// it. A few datagrams at once; of more, the oldest are forgotten. Nothing is kept waiting: what
// comes before its first fragment finds nothing.
#include <array>
#include <optional>

#include "net/flow_table.hh"
#include "net/packet.hh"

namespace godwit::net {

class FragmentTable final {
 public:
  struct Key {
    Ip source{}, destination{};
    std::uint32_t id = 0;
    std::uint16_t zone = 0;
    std::uint8_t protocol = 0;
    bool operator==(const Key&) const = default;
  };
  struct Member {
    FlowId flow{};
    Way way = Way::original;
  };
  void remember(const Key& key, Member member, Instant now);
  std::optional<Member> find(const Key& key, Instant now) const;

 private:
  static constexpr std::size_t kMost = 64;
  struct Entry {
    Key key{};
    Member member{};
    Instant ends{};
  };
  std::array<Entry, kMost> entries_{};
  std::size_t next_ = 0;
};

inline FragmentTable::Key fragment_key(const IpPacket& packet, std::uint16_t zone) {
  return {packet.source, packet.destination, packet.fragment_id, zone, packet.protocol};
}

}  // namespace godwit::net
