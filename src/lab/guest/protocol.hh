#pragma once
// Datagrams between the lab's client (src/lab/probe*) and the lab's vm (godwit-guest). Both sides
// are ours and the lab is closed, still everything is checked. Header only: the guest is linked
// without libraries. Big-endian:
//
//   u32 magic "GWLT" | u8 version 1 | u8 kind | u16 packets per second wanted
//   u64 client id    | u64 sequence | u64 counter | u64 left (ns, vm's clock) | u64 index
//   padding
//
// probe  client -> vm   sequence: 0, 1, 2, ... of this client; asks for a stream of so many packets
// echo   vm -> client   the probe's fields but for left; index: 0, 1, 2, ... of all echoes to this
//                       client
// stream vm -> client   sequence: 0, 1, 2, ...; counter: the vm's memory counter
//
// The vm's memory counter grows by one each tick, a thousandth of a second, and at 1,000 packets
// per second each tick sends one: between any two stream packets it then differs exactly as their
// sequences do. If it does not, the vm's memory was rolled back or two instances ran.
//
// left: when the packets before had left the vm. Its packets leave in batches, which share it: that
// of the next batch tells when this one had left. The vm's clock stands still while it is paused,
// so the difference over a silence is the part of it in which the vm ran and had not come to
// sending.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/bytes.hh"

namespace godwit::lab {

inline constexpr std::uint16_t kEchoPort = 7007;     // TCP: echoes bytes; UDP: the datagrams above
inline constexpr std::uint16_t kControlPort = 7008;  // TCP: one text line in, one JSON line out
inline constexpr std::uint16_t kMptcpPort = 7009;    // MPTCP: echoes bytes
// The guest's clock: its counter grows once each tick.
inline constexpr unsigned kTicksPerSecond = 1000;
inline constexpr std::uint16_t kMaxPacketsPerSecond = 10'000;
inline constexpr std::size_t kPacketHeader = 48;
inline constexpr std::size_t kPacketBytes = 128;  // the usual size, padding included
inline constexpr std::size_t kMaxPacketBytes = 1472;

enum class PacketKind : std::uint8_t { probe = 1, echo = 2, stream = 3 };

struct Packet {
  PacketKind kind = PacketKind::probe;
  std::uint16_t wanted_per_second = 0;
  std::uint64_t client = 0;
  std::uint64_t sequence = 0;
  std::uint64_t counter = 0;
  std::uint64_t left_ns = 0;
  std::uint64_t index = 0;
  bool operator==(const Packet&) const = default;
};

inline constexpr std::uint32_t kPacketMagic = 0x47574c54;
inline constexpr std::uint8_t kPacketVersion = 1;

inline std::array<std::byte, kPacketHeader> encode(const Packet& packet) {
  std::array<std::byte, kPacketHeader> out{};
  to_big_endian<std::uint32_t>(kPacketMagic, out.data());
  out[4] = std::byte{kPacketVersion};
  out[5] = static_cast<std::byte>(packet.kind);
  to_big_endian<std::uint16_t>(packet.wanted_per_second, out.data() + 6);
  to_big_endian<std::uint64_t>(packet.client, out.data() + 8);
  to_big_endian<std::uint64_t>(packet.sequence, out.data() + 16);
  to_big_endian<std::uint64_t>(packet.counter, out.data() + 24);
  to_big_endian<std::uint64_t>(packet.left_ns, out.data() + 32);
  to_big_endian<std::uint64_t>(packet.index, out.data() + 40);
  return out;
}

inline std::optional<Packet> decode_packet(BytesView bytes) {
  Reader reader(bytes);
  const std::uint32_t magic = reader.u32();
  const std::uint8_t version = reader.u8();
  const std::uint8_t kind = reader.u8();
  Packet packet;
  packet.kind = static_cast<PacketKind>(kind);
  packet.wanted_per_second = reader.u16();
  packet.client = reader.u64();
  packet.sequence = reader.u64();
  packet.counter = reader.u64();
  packet.left_ns = reader.u64();
  packet.index = reader.u64();
  if (!reader.ok() || magic != kPacketMagic || version != kPacketVersion) return std::nullopt;
  if (kind < 1 || kind > 3) return std::nullopt;
  return packet;
}

// Byte `offset` of TCP connection `connection`: both sides know what must arrive.
inline std::byte pattern_byte(std::uint64_t connection, std::uint64_t offset) {
  std::uint64_t x = (connection + 1) * 0x9e3779b97f4a7c15ULL + (offset >> 3U);
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;  // splitmix64
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
  x ^= x >> 31U;
  return static_cast<std::byte>(x >> (8 * (offset & 7U)));
}

}  // namespace godwit::lab
