#pragma once
// An IP packet in a frame: where its parts are, and the internet checksum (RFC 1071). Offsets are
// from the frame's first byte, which is that of its vnet header (wire/vnet.hh).
#include <cstdint>
#include <optional>

#include "base/bytes.hh"
#include "base/ip.hh"
#include "net/mac_table.hh"
#include "wire/vnet.hh"

namespace godwit::net {

inline constexpr std::size_t kMacsAt = wire::kVnetBytes;  // destination, source
inline constexpr std::size_t kTypeAt = kMacsAt + 12;
inline constexpr std::size_t kPayloadAt = kTypeAt + 2;  // of a frame without a tag
inline constexpr std::uint16_t kTypeIp4 = 0x0800, kTypeArp = 0x0806, kTypeIp6 = 0x86dd;
inline constexpr Mac kBroadcast = 0xffffffffffff;

inline constexpr std::size_t kIp4Bytes = 20, kIp6Bytes = 40, kUdpBytes = 8, kTcpBytes = 20;
enum Protocol : std::uint8_t { kIcmp = 1, kTcp = 6, kUdp = 17, kIcmp6 = 58 };

void write_mac(Mac mac, std::byte* at);
void append_mac(Mac mac, Bytes& out);
// Begins a frame anew: an empty vnet header, addresses and type.
void write_ethernet(Mac destination, Mac source, std::uint16_t type, Bytes& out);

struct IpPacket {
  bool is_ip4 = true;
  std::size_t l3 = 0;   // IP header
  std::size_t l4 = 0;   // what its `protocol` is, behind options and extension headers
  std::size_t end = 0;  // by the header's length; of a quoted packet perhaps behind the frame's
  Ip source{}, destination{};
  std::uint8_t protocol = 0;
  std::uint8_t hops = 0;              // time to live, hop limit
  std::uint16_t fragment_offset = 0;  // bytes; only the first fragment has an l4 header
  bool has_more = false;              // fragments
  std::uint32_t fragment_id = 0;
  bool is_fragment() const { return fragment_offset != 0 || has_more; }
  bool has_l4(BytesView frame, std::size_t bytes) const {
    return fragment_offset == 0 && l4 + bytes <= frame.size() && l4 + bytes <= end;
  }
};
// Of the IP header at `l3`. Empty: it is none, damaged (a wrong IPv4 header checksum, too), or
// longer than the frame, which `is_quoted` ones may be (in ICMP errors).
std::optional<IpPacket> read_ip(BytesView frame, std::size_t l3, bool is_quoted = false);
// Of a frame without a tag.
std::optional<IpPacket> read_ip_frame(BytesView frame);

// Where an IPv4 or IPv6 packet goes and comes from, in a frame that is made here.
struct IpEnds {
  Mac source_mac = 0, destination_mac = 0;
  Ip source{}, destination{};
  std::uint8_t hops = 64;
};
// A frame anew, with all but the payload: of `bytes`, which is to be appended.
void write_ip(const IpEnds& ends, std::uint8_t protocol, std::size_t bytes, Bytes& out);
// A frame with a UDP datagram.
void write_udp(const IpEnds& ends, std::uint16_t source, std::uint16_t destination,
               BytesView payload, Bytes& out);
// Sets the hop limit, with the IPv4 header's checksum.
void set_hops(MutableBytes frame, const IpPacket& packet, std::uint8_t hops);

// The ones' complement sum, not folded; goes on from another of an even number of bytes.
std::uint64_t sum_of(BytesView bytes, std::uint64_t sum = 0);
std::uint16_t fold(std::uint64_t sum);
inline std::uint16_t checksum_of(BytesView bytes, std::uint64_t sum = 0) {
  return static_cast<std::uint16_t>(~fold(sum_of(bytes, sum)));
}
// Of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1); `bytes`: of the layer-4 header and payload.
std::uint64_t pseudo_sum(Ip source, Ip destination, std::uint8_t protocol, std::size_t bytes);

// What a change of some fields does to a checksum over them (RFC 1624, equation 3).
class ChecksumChange final {
 public:
  void replace(std::uint16_t old_word, std::uint16_t new_word) {
    sum_ += static_cast<std::uint16_t>(~old_word);
    sum_ += new_word;
  }
  void replace(Ip old_ip, Ip new_ip);
  // To a checksum, and to one that is still the plain sum of the pseudo-header (vnet.hh).
  void apply(std::byte* field) const;
  void apply_to_seed(std::byte* field) const;

 private:
  std::uint64_t sum_ = 0;
};

}  // namespace godwit::net
