#pragma once
// Messages of two wire engines, docs/protocol/wire-move.md.
//
// Keys are asked for and offered over the session (TLS). Notices about moves go over the session
// and inside the channel they concern, whichever is faster, again and again until one
// acknowledgement comes back by either way; all of them are idempotent.
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.hh"
#include "wire/types.hh"

namespace godwit::wire {

// "The segment of this channel's label is complete: what was sealed under `generation` below
// `counter` belongs to it, and what follows is found elsewhere."
struct End {
  enum class Kind : std::uint8_t {
    flush = 1,  // the producer now addresses its peer at epoch `next`
    eof = 2,    // the producer goes on at epoch `next`, from another host
  };
  Kind kind{};
  Epoch next = 0;
  std::uint64_t serial = 0;      // made by the producer; a later one replaces an earlier one
  std::uint32_t generation = 0;  // 0: nothing was ever sent
  std::uint64_t counter = 0;

  bool operator==(const End&) const = default;
};

// "This port is live at `host`, and what it produces there begins with the segment addressed to the
// peer at epoch `first`." Also said after every reconnection, so that a peer that forgot learns it.
// An old host that is asked says where the port went; it does not know `first` then, which is 0.
struct Move {
  PortEpoch port;
  std::string host;
  Epoch first = 0;

  bool operator==(const Move&) const = default;
};

// "This port may soon be at `host`; let it open channels." Taken back by an empty host.
struct Announce {
  PortEpoch port;
  std::string host;

  bool operator==(const Announce&) const = default;
};

struct Location {
  Epoch epoch = 0;
  std::string host;

  bool operator==(const Location&) const = default;
};

// The old host tells the new one what it knows of the peer and, once paused, where delivery to the
// port stopped.
struct Handover {
  bool paused = false;
  Label current;
  Location peer;                    // where frames to the peer are to be sent
  Nanoseconds longest_rtt{};        // of the old host's channels; microseconds on the wire
  std::vector<Location> announced;  // where the peer may appear
  std::vector<Label> begins;        // {producer epoch, epoch it addresses first}

  bool operator==(const Handover&) const = default;
};

using Notice = std::variant<End, Move, Announce, Handover>;

// "I want to send on this channel: give me a key." Repeated under the same serial until answered;
// who does not know the channel, or the asker's right to it, says nothing: it may learn of it soon.
struct Want {
  ChannelId channel;
  std::uint32_t session = 0;  // tag of the session's secret; one of another session is ignored
  std::uint64_t serial = 0;
  bool has_aes = false;

  bool operator==(const Want&) const = default;
};

struct Offer {
  ChannelId channel;
  std::uint32_t session = 0;
  std::uint64_t serial = 0;  // of the Want
  std::uint32_t generation = 0;
  std::uint32_t receiver_index = 0;
  std::uint8_t algorithm = 0;  // crypto::AeadAlgorithm

  bool operator==(const Offer&) const = default;
};

struct Notify {
  ChannelId channel;
  std::uint64_t serial = 0;
  Notice notice;

  bool operator==(const Notify&) const = default;
};

struct Acknowledge {
  ChannelId channel;
  std::uint64_t serial = 0;

  bool operator==(const Acknowledge&) const = default;
};

// "Here is where I receive UDP, and the index under which I take path probes" (paths.hh). Repeated
// until taken; of a session only the first index counts.
struct Endpoints {
  std::uint32_t session = 0;
  std::uint64_t serial = 0;  // grows with each change
  std::uint32_t receiver_index = 0;
  bool relays = false;                 // forwards datagrams of its peers to its other peers
  std::vector<PeerAddress> addresses;  // best first

  bool operator==(const Endpoints&) const = default;
};

struct EndpointsTaken {
  std::uint32_t session = 0;
  std::uint64_t serial = 0;

  bool operator==(const EndpointsTaken&) const = default;
};

using ControlMessage = std::variant<Want, Offer, Notify, Acknowledge, Endpoints, EndpointsTaken>;

Bytes encode(const ControlMessage& message);
// Nothing for anything malformed, too long or of another version.
std::optional<ControlMessage> decode_control(BytesView bytes);

// The kinds of sealed in-channel messages (Sealer::message).
namespace in_channel {
inline constexpr std::uint8_t kPing = 1;  // u64 sender's clock; answered with kPong and the same
inline constexpr std::uint8_t kPong = 2;
inline constexpr std::uint8_t kNotify = 3;  // u64 serial, notice
inline constexpr std::uint8_t kAck = 4;     // u64 serial
// Of the path lane, under the key of a host pair (paths.hh).
inline constexpr std::uint8_t kProbe = 5;   // u64 token, u8 flags, zeros to the size that is probed
inline constexpr std::uint8_t kAnswer = 6;  // u64 token, the address that the probe came from
}  // namespace in_channel

Bytes encode_in_channel(std::uint64_t serial, const Notice& notice);
std::optional<std::pair<std::uint64_t, Notice>> decode_in_channel(BytesView bytes);

void write(Writer& out, const PeerAddress& address);
PeerAddress read_address(Reader& in);

inline constexpr std::size_t kMaxLocations = 8;   // in a Handover, of each list
inline constexpr std::size_t kMaxAddresses = 12;  // in Endpoints

}  // namespace godwit::wire
