#pragma once
// The datagram of a wire: a clear header, a sealed body, a tag. docs/protocol/wire.md is the
// specification; datagram_test.cc holds the golden bytes.
//
//    0        1        2        3        4                      8
//   +--------+--------+--------+--------+----------------------+----------------------+
//   |ver|type| epoch  | index  | count  |    receiver index    |       counter        |
//   +--------+--------+--------+--------+----------------------+----------------------+
//   |  `--------- AAD, after the full epoch  |            the nonce (12 bytes)           |
//   +---------------------------------------------------------------------------------+
//   |  ciphertext: fragment, bundle or message                              | tag, 16  |
//   +---------------------------------------------------------------------------------+
//
// The whole header is authenticated: the last 12 bytes are the nonce, and the additional data is
// the full 32-bit epoch (of which the header shows the lowest byte) followed by the first 4 bytes.
#include <array>
#include <cstdint>
#include <optional>

#include "base/bytes.hh"
#include "base/id.hh"
#include "crypto/aead.hh"

namespace godwit::wire {

inline constexpr std::uint8_t kDatagramVersion = 1;
inline constexpr std::size_t kHeaderBytes = 16;
inline constexpr std::size_t kTagBytes = crypto::kAeadTagBytes;
inline constexpr std::size_t kDatagramOverhead = kHeaderBytes + kTagBytes;

// IPv6 (40) and UDP (8) headers: counted for IPv4 paths too, so that what fits does not depend on
// the address family a path happens to have.
inline constexpr std::size_t kIpUdpBytes = 48;
// Paths below are not supported: RFC 8899 starts its search at 1200 (BASE_PLPMTU).
inline constexpr std::size_t kMinPathMtu = 1200;
inline constexpr std::size_t kMaxPathMtu = 9216;

// What one sealed datagram can carry on a path with this IP MTU, in bytes.
constexpr std::size_t payload_capacity(std::size_t path_mtu) {
  return path_mtu - kIpUdpBytes - kDatagramOverhead;
}

// The frame as a TAP with IFF_VNET_HDR gives it: virtio_net_hdr, then Ethernet.
inline constexpr std::size_t kVnetBytes = 10;
inline constexpr std::size_t kEthernetBytes = 14;
inline constexpr std::size_t kMinFrameBytes = kVnetBytes + kEthernetBytes;
// One IP packet of 65,535 B behind Ethernet with one VLAN tag.
inline constexpr std::size_t kMaxFrameBytes = kVnetBytes + kEthernetBytes + 4 + 65'535;
// At the smallest path MTU the largest frame needs 59.
inline constexpr std::size_t kMaxFragments = 64;
static_assert(kMaxFrameBytes / payload_capacity(kMinPathMtu) < kMaxFragments);

enum class DatagramType : std::uint8_t {
  fragment = 0,  // one of `count` equal pieces of one frame
  bundle = 1,    // several small frames
  message = 2,   // one in-channel message
};

struct DatagramHeader {
  DatagramType type = DatagramType::bundle;
  std::uint8_t epoch = 0;  // lowest byte of the epoch
  std::uint8_t index = 0;  // of a fragment, below count; else 0
  std::uint8_t count = 0;  // of a fragment, 1 to kMaxFragments; else 0
  std::uint32_t receiver_index = 0;
  std::uint64_t counter = 0;

  bool operator==(const DatagramHeader&) const = default;
};

using HeaderBytes = std::span<std::byte, kHeaderBytes>;
void write_header(const DatagramHeader& header, HeaderBytes out);
// Empty: too short, another version, an unknown type, or inconsistent fragment fields.
std::optional<DatagramHeader> read_header(BytesView datagram);
// Where the datagram belongs, before any cryptography. Empty: too short or another version.
std::optional<std::uint32_t> receiver_index(BytesView datagram);
// The part of it that tells the receiving host (engine.hh).
constexpr std::uint16_t tag_of(std::uint32_t receiver_index) {
  return static_cast<std::uint16_t>(receiver_index >> 16);
}

// What two lane ends share for one direction: everything that sealing and opening need.
struct LaneKey {
  crypto::AeadAlgorithm algorithm = crypto::AeadAlgorithm::aes_256_gcm;
  crypto::AeadKey key;
  std::uint32_t receiver_index = 0;  // chosen by the receiver, unique at its host
  Epoch epoch = 0;
  crypto::AeadBackend backend = crypto::AeadBackend::automatic;  // benches and tests choose
};

// Additional data of each datagram under this key: full epoch, then header bytes 0 to 3.
using DatagramAad = std::array<std::byte, 8>;
DatagramAad make_aad(Epoch epoch, BytesView datagram);
crypto::AeadNonce nonce_of(BytesView datagram);

}  // namespace godwit::wire
