#include "wire/control.hh"

#include <algorithm>

#include "base/check.hh"
#include "base/host_name.hh"

namespace godwit::wire {
namespace {

constexpr std::uint8_t kVersion = 1;
// A bound on how long a peer can make us wait for a marker.
constexpr std::uint32_t kMaxRttMicroseconds = 2'000'000;

enum Type : std::uint8_t { kWant = 1, kOffer, kNotify, kAcknowledge, kEndpoints, kTaken };
enum NoticeType : std::uint8_t { kEnd = 1, kMove, kAnnounce, kHandover };

template <class Tag>
Id<Tag> read_id(Reader& in) {
  const BytesView raw = in.bytes(16);
  return raw.size() == 16 ? Id<Tag>::from(raw) : Id<Tag>{};
}
PortEpoch read_port(Reader& in) {
  const PortId port = read_id<PortTag>(in);
  return {port, in.u32()};
}
Label read_label(Reader& in) {
  const Epoch producer = in.u32();
  return {producer, in.u32()};
}
// A host's name, or nothing.
std::string read_host(Reader& in) {
  const std::string_view name = in.text8();
  if (!name.empty() && !is_valid_host(name)) in.fail();
  return std::string(name);
}

void write(Writer& out, const PortEpoch& port) { out.bytes(port.port.bytes).u32(port.epoch); }
void write(Writer& out, Label label) { out.u32(label.producer).u32(label.address); }
void write(Writer& out, const Location& location) { out.u32(location.epoch).text8(location.host); }
void write(Writer& out, const ChannelId& id) {
  out.bytes(id.wire.bytes);
  write(out, id.low);
  write(out, id.high);
  write(out, id.label);
}

ChannelId read_channel(Reader& in) {
  ChannelId id;
  id.wire = read_id<WireTag>(in);
  id.low = read_port(in);
  id.high = read_port(in);
  id.label = read_label(in);
  if (!(id.low < id.high)) in.fail();
  return id;
}

Location read_location(Reader& in) {
  const Epoch epoch = in.u32();
  return {epoch, read_host(in)};
}

struct NoticeWriter {
  Writer& out;
  void operator()(const End& end) const {
    out.u8(kEnd).u8(static_cast<std::uint8_t>(end.kind)).u32(end.next).u64(end.serial);
    out.u32(end.generation).u64(end.counter);
  }
  void operator()(const Move& move) const {
    out.u8(kMove);
    write(out, move.port);
    out.text8(move.host).u32(move.first);
  }
  void operator()(const Announce& announce) const {
    out.u8(kAnnounce);
    write(out, announce.port);
    out.text8(announce.host);
  }
  void operator()(const Handover& handover) const {
    out.u8(kHandover).u8(handover.paused ? 1 : 0);
    write(out, handover.current);
    write(out, handover.peer);
    const auto rtt = duration_cast<std::chrono::microseconds>(handover.longest_rtt).count();
    out.u32(static_cast<std::uint32_t>(std::clamp<std::int64_t>(rtt, 0, kMaxRttMicroseconds)));
    CHECK(handover.announced.size() <= kMaxLocations && handover.begins.size() <= kMaxLocations);
    out.u8(static_cast<std::uint8_t>(handover.announced.size()));
    for (const Location& location : handover.announced) write(out, location);
    out.u8(static_cast<std::uint8_t>(handover.begins.size()));
    for (const Label& label : handover.begins) write(out, label);
  }
};

End read_end(Reader& in) {
  End end;
  const std::uint8_t kind = in.u8();
  if (kind != 1 && kind != 2) in.fail();
  end.kind = static_cast<End::Kind>(kind);
  end.next = in.u32();
  end.serial = in.u64();
  end.generation = in.u32();
  end.counter = in.u64();
  return end;
}

Handover read_handover(Reader& in) {
  Handover handover;
  handover.paused = in.u8() != 0;
  handover.current = read_label(in);
  handover.peer = read_location(in);
  const std::uint32_t rtt = in.u32();
  if (rtt > kMaxRttMicroseconds) in.fail();
  handover.longest_rtt = std::chrono::microseconds(rtt);
  const std::size_t announced = in.u8();
  if (announced > kMaxLocations) in.fail();
  for (std::size_t i = 0; i < announced && in.ok(); ++i) {
    handover.announced.push_back(read_location(in));
  }
  const std::size_t begins = in.u8();
  if (begins > kMaxLocations) in.fail();
  for (std::size_t i = 0; i < begins && in.ok(); ++i) handover.begins.push_back(read_label(in));
  return handover;
}

Notice read_notice(Reader& in) {
  switch (in.u8()) {
    case kEnd:
      return read_end(in);
    case kMove: {
      Move move{read_port(in), read_host(in), 0};
      move.first = in.u32();
      if (move.host.empty()) in.fail();
      return move;
    }
    case kAnnounce: {
      const PortEpoch port = read_port(in);
      return Announce{port, read_host(in)};
    }
    case kHandover:
      return read_handover(in);
    default:
      in.fail();
      return End{};
  }
}

struct ControlWriter {
  Writer& out;
  void operator()(const Want& want) const {
    out.u8(kWant);
    write(out, want.channel);
    out.u32(want.session).u64(want.serial).u8(want.has_aes ? 1 : 0);
  }
  void operator()(const Offer& offer) const {
    out.u8(kOffer);
    write(out, offer.channel);
    out.u32(offer.session).u64(offer.serial).u32(offer.generation).u32(offer.receiver_index);
    out.u8(offer.algorithm);
  }
  void operator()(const Notify& notify) const {
    out.u8(kNotify);
    write(out, notify.channel);
    out.u64(notify.serial);
    std::visit(NoticeWriter{out}, notify.notice);
  }
  void operator()(const Acknowledge& acknowledge) const {
    out.u8(kAcknowledge);
    write(out, acknowledge.channel);
    out.u64(acknowledge.serial);
  }
  void operator()(const Endpoints& endpoints) const {
    CHECK(endpoints.addresses.size() <= kMaxAddresses);
    out.u8(kEndpoints).u32(endpoints.session).u64(endpoints.serial).u32(endpoints.receiver_index);
    out.u8(endpoints.relays ? 1 : 0).u8(static_cast<std::uint8_t>(endpoints.addresses.size()));
    for (const PeerAddress& address : endpoints.addresses) wire::write(out, address);
  }
  void operator()(const EndpointsTaken& taken) const {
    out.u8(kTaken).u32(taken.session).u64(taken.serial);
  }
};

Endpoints read_endpoints(Reader& in) {
  Endpoints endpoints;
  endpoints.session = in.u32();
  endpoints.serial = in.u64();
  endpoints.receiver_index = in.u32();
  endpoints.relays = in.u8() != 0;
  const std::size_t count = in.u8();
  if (count > kMaxAddresses) in.fail();
  for (std::size_t i = 0; i < count && in.ok(); ++i) {
    endpoints.addresses.push_back(read_address(in));
  }
  return endpoints;
}

ControlMessage read_message(Reader& in) {
  const std::uint8_t type = in.u8();
  if (type == kEndpoints) return read_endpoints(in);
  if (type == kTaken) {
    const std::uint32_t session = in.u32();
    return EndpointsTaken{session, in.u64()};
  }
  const ChannelId channel = read_channel(in);
  switch (type) {
    case kWant: {
      Want want{channel, in.u32(), 0, false};
      want.serial = in.u64();
      want.has_aes = in.u8() != 0;
      return want;
    }
    case kOffer: {
      Offer offer{channel, in.u32(), 0, 0, 0, 0};
      offer.serial = in.u64();
      offer.generation = in.u32();
      offer.receiver_index = in.u32();
      offer.algorithm = in.u8();
      return offer;
    }
    case kNotify: {
      const std::uint64_t serial = in.u64();
      return Notify{channel, serial, read_notice(in)};
    }
    case kAcknowledge:
      return Acknowledge{channel, in.u64()};
    default:
      in.fail();
      return Acknowledge{};
  }
}

}  // namespace

// A scope means something on its own host only.
void write(Writer& out, const PeerAddress& address) {
  out.bytes(address.address).u16(address.port);
}

PeerAddress read_address(Reader& in) {
  PeerAddress address;
  const BytesView raw = in.bytes(address.address.size());
  std::ranges::copy(raw, address.address.begin());
  address.port = in.u16();
  return address;
}

Bytes encode(const ControlMessage& message) {
  Bytes bytes;
  Writer out(bytes);
  out.u8(kVersion);
  std::visit(ControlWriter{out}, message);
  return bytes;
}

std::optional<ControlMessage> decode_control(BytesView bytes) {
  Reader in(bytes);
  if (in.u8() != kVersion) return std::nullopt;
  ControlMessage message = read_message(in);
  if (!in.finished()) return std::nullopt;
  return message;
}

Bytes encode_in_channel(std::uint64_t serial, const Notice& notice) {
  Bytes bytes;
  Writer out(bytes);
  out.u64(serial);
  std::visit(NoticeWriter{out}, notice);
  return bytes;
}

std::optional<std::pair<std::uint64_t, Notice>> decode_in_channel(BytesView bytes) {
  Reader in(bytes);
  const std::uint64_t serial = in.u64();
  Notice notice = read_notice(in);
  if (!in.finished()) return std::nullopt;
  return std::pair{serial, std::move(notice)};
}

}  // namespace godwit::wire
