#pragma once
// The virtio_net_hdr in front of each frame (virtio 1.2, 5.1.6; the 10-byte form, little-endian),
// and the check that keeps a peer from having the kernel refuse a frame, or worse.
//
// The header says how the frame's checksum is to be finished and how a super-frame is to be cut.
// It travels sealed, so guests' traffic needs no layer-4 checksum on the way; but a hostile peer
// can seal nonsense. What check_vnet() passes, a TAP write takes (virtio_net_hdr_to_skb() and
// tun_get_user() of Linux are the source of the rules; vnet_tap_test.cc asks the kernel).
#include <cstdint>
#include <optional>

#include "base/bytes.hh"
#include "wire/datagram.hh"

namespace godwit::wire {

inline constexpr std::uint8_t kVnetNeedsChecksum = 1;  // finish the sum from csum_start on
inline constexpr std::uint8_t kVnetDataValid = 2;

enum class GsoType : std::uint8_t { none = 0, tcp4 = 1, udp_fragments = 3, tcp6 = 4, udp = 5 };
inline constexpr std::uint8_t kGsoEcn = 0x80;  // with tcp4/tcp6: CWR is set on the first only

// Linux refuses, or cuts into needlessly many packets, segments below (TCP_MIN_GSO_SIZE).
inline constexpr std::uint16_t kMinGsoSize = 8;
// UDP_MAX_SEGMENTS of Linux before 6.9.
inline constexpr std::size_t kMaxUdpSegments = 64;
// Where a checksum may begin, from the start of the frame. Linux keeps it in 16 bits with its
// headroom added; real headers end far below.
inline constexpr std::uint16_t kMaxChecksumStart = 2048;

struct VnetHeader {
  std::uint8_t flags = 0;
  std::uint8_t gso = 0;          // GsoType, perhaps with kGsoEcn
  std::uint16_t header_len = 0;  // hint: how much of the frame is headers
  std::uint16_t gso_size = 0;    // payload bytes of each segment
  std::uint16_t csum_start = 0;  // from the start of the Ethernet header
  std::uint16_t csum_offset = 0;

  GsoType gso_type() const { return static_cast<GsoType>(gso & ~kGsoEcn); }
  bool operator==(const VnetHeader&) const = default;
};

VnetHeader read_vnet(std::span<const std::byte, kVnetBytes> bytes);
void write_vnet(const VnetHeader& header, std::span<std::byte, kVnetBytes> out);

// Where the headers of a TCP or UDP super-frame lie, as offsets from the Ethernet header.
struct SuperFrameLayout {
  bool is_ip6 = false;
  bool is_udp = false;
  std::size_t l3 = 0;       // IP header
  std::size_t l4 = 0;       // TCP or UDP header; csum_start
  std::size_t payload = 0;  // end of all headers
  std::size_t end = 0;      // by the IP header's length field
};

// Parses the headers of a super-frame (GSO type set) of which `ethernet` holds at least the
// headers, and perhaps not all of the rest. Empty: not what the vnet header claims.
std::optional<SuperFrameLayout> parse_super_frame(const VnetHeader& vnet, BytesView ethernet);

// True when a TAP takes this frame: vnet header, then Ethernet.
bool check_vnet(BytesView vnet_and_ethernet);

}  // namespace godwit::wire
