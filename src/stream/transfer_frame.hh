#pragma once
// Frames of a transfer lane; docs/protocol/transfer.md shows the bytes. The codec only: what a
// frame means is in transfer.hh.
#include <array>
#include <optional>
#include <vector>

#include "base/bytes.hh"
#include "base/id.hh"
#include "base/result.hh"

namespace godwit::stream {

using TransferId = Id<struct TransferTag>;
using StreamId = std::uint8_t;
using LaneNumber = std::uint8_t;  // 0 to kMaxLanes - 1; a new lane takes the place of its number's

inline constexpr std::uint8_t kTransferVersion = 1;
inline constexpr std::size_t kFrameHeader = 24;            // bytes
inline constexpr std::size_t kMaxDataPayload = 256 << 10;  // bytes; more is refused
inline constexpr std::size_t kMaxSmallPayload = 1 << 10;   // bytes, of every other frame
inline constexpr std::size_t kMaxStreams = 32;             // per transfer
inline constexpr std::size_t kMaxLanes = 16;               // per transfer, at a time
inline constexpr std::size_t kMaxResetText = 512;          // bytes

enum class FrameKind : std::uint8_t {
  kHello = 1,  // payload: Hello; the first frame of each side on each lane
  kData = 2,   // sequence: position of the first payload byte in the stream
  kAck = 3,    // sequence: all bytes before it were delivered; flag kFlagEnded
  kEnd = 4,    // sequence: total bytes of the stream; payload: its XXH3-128
  kReset = 5,  // the transfer is given up; payload: why, UTF-8
  kPing = 6,   // sequence: any number, sent back in
  kPong = 7,   //   this
};
inline constexpr std::uint16_t kFlagEnded = 1;  // of ACK and HELLO: END was verified too

struct FrameHeader {
  FrameKind kind{};
  StreamId stream = 0;  // 0 for frames of the whole transfer
  std::uint16_t flags = 0;
  std::uint32_t length = 0;  // of the payload, bytes
  std::uint64_t sequence = 0;
  std::uint64_t checksum = 0;  // XXH3-64 of the payload, seeded with the fields above
  bool operator==(const FrameHeader&) const = default;
};

// The seed binds the payload's sum to the header: a frame at a wrong place does not verify.
std::uint64_t checksum_seed(const FrameHeader& header);
std::uint64_t payload_checksum(const FrameHeader& header, BytesView head, BytesView tail = {});
void encode(const FrameHeader& header, MutableBytes header_bytes);
// nullopt: unknown kind or flag, or a length beyond the bound of its kind.
std::optional<FrameHeader> decode_header(BytesView header_bytes);
// Appends a whole frame with the sum filled in; for all kinds but DATA.
void append_frame(Bytes& out, FrameHeader header, BytesView payload = {});

enum class Role : std::uint8_t { kSource = 1, kTarget = 2 };

struct Hello {
  struct Incoming {  // one stream that the sender of the HELLO receives
    StreamId stream = 0;
    bool ended = false;
    std::uint64_t next_expected = 0;  // bytes received without a gap, delivered or not
    bool operator==(const Incoming&) const = default;
  };
  std::uint8_t version = kTransferVersion;
  Role role{};
  LaneNumber lane = 0;
  TransferId transfer{};
  std::vector<Incoming> incoming{};
  bool operator==(const Hello&) const = default;
};

Bytes encode(const Hello& hello);
// Errors name the field. A version other than ours is decoded no further than its number.
Result<Hello> decode_hello(BytesView payload);

// For the side that accepted a lane: which transfer is it for? nullopt: more bytes are needed (at
// most kFrameHeader + kMaxSmallPayload). The bytes are looked at only; feed them to the transfer.
std::optional<Result<Hello>> peek_hello(BytesView first_bytes_of_lane);

}  // namespace godwit::stream
