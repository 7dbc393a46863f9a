// Hostile control messages: what another host of the fleet can push over its session, and the
// in-channel notices it can seal. What decodes must mean the same when encoded again, and an engine
// with a live and a held port must take anything, in bounded memory.
#include "base/check.hh"
#include "wire/engine.hh"
#include "wire/key.hh"
#include "wire/sealer.hh"

namespace godwit::wire {
namespace {

struct NoSink : EngineSink {
  void to_port(PortId, std::span<const BytesView>) override {}
  void to_path(const PeerAddress&, const DatagramBatch&) override {}
  void relay(const PeerAddress&, BytesView, std::uint16_t) override {}
  void to_control(const std::string&, BytesView) override {}
  void event(const Event&) override {}
};

PortId port_id(std::uint8_t number) {
  PortId id;
  id.bytes.fill(static_cast<std::byte>(number));
  return id;
}

// Ports 1 (live, epoch 1) and 3 (held, epoch 2, from "b") with wires to port 2 at "b".
void feed_engine(BytesView input) {
  NoSink sink;
  std::uint64_t state = 1;
  Engine engine("a", sink, [&state] { return state += 0x9e3779b97f4a7c15ULL; });
  const Instant now{seconds(10)};
  const std::array<std::byte, 32> secret{};
  const PeerAddress address;
  engine.session_up("b", secret, true, {&address, 1}, now);
  engine.add_port({port_id(1), 1, "default"}, now);
  engine.connect({{}, port_id(1), port_id(2), 1, "b"}, now);
  const WireConfig wire{{}, port_id(3), port_id(2), 1, "b"};
  engine.prepare({port_id(3), 2, "default"}, "b", {&wire, 1}, now);
  Reader in(input);
  while (in.remaining() > 0) {
    const std::size_t size = std::min<std::size_t>(in.u8(), in.remaining());
    engine.control("b", in.bytes(size), now);
  }
  engine.tick(now + seconds(1));
}

// Remembers under which index the engine takes probes.
struct IndexSink final : NoSink {
  void to_control(const std::string&, BytesView message) override {
    const auto decoded = decode_control(message);
    CHECK(decoded);
    if (const auto* told = std::get_if<Endpoints>(&*decoded)) endpoints = *told;
  }
  Endpoints endpoints;
};

PeerAddress some_address(Reader& in) {
  PeerAddress address;
  address.port = in.u8();
  return address;
}

// Sealed messages of the probe lane: what another host of the fleet can make.
void feed_probes(BytesView input) {
  IndexSink sink;
  std::uint64_t state = 1;
  Engine engine("a", sink, [&state] { return state += 0x9e3779b97f4a7c15ULL; });
  Instant now{seconds(10)};
  const std::array<std::byte, 32> secret{};
  const PeerAddress address;
  engine.session_up("b", secret, true, {&address, 1}, now);
  engine.tick(now);
  Endpoints theirs{sink.endpoints.session, 1, 0x77770001, true, {address}};
  engine.control("b", encode(theirs), now);
  LaneKey lane{crypto::AeadAlgorithm::chacha20_poly1305, {}, sink.endpoints.receiver_index, 0};
  lane.key = derive_key(secret, {.wire = {},
                                 .epoch = 0,
                                 .direction = Direction::from_acceptor,
                                 .lane = 0xffff,
                                 .generation = 1,
                                 .algorithm = lane.algorithm});
  Sealer sealer(lane, kMaxPathMtu);
  Reader in(input);
  while (in.remaining() > 0) {
    const std::uint8_t kind = in.u8();
    const PeerAddress from = some_address(in);
    Bytes body = to_bytes(in.bytes(std::min<std::size_t>(in.u8(), in.remaining())));
    DatagramBatch batch;
    sealer.message(kind, body, batch);
    for (const DatagramRun& run : batch.runs()) {
      engine.datagrams(from, run.bytes, run.segment_size, now);
    }
    now += milliseconds(kind);
    engine.tick(now);
  }
  for (const PeerStats& peer : engine.peer_stats())
    CHECK(peer.paths.size() <= Limits().paths_per_peer);
}

}  // namespace
}  // namespace godwit::wire

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace godwit;
  const BytesView input(reinterpret_cast<const std::byte*>(data), size);
  if (const auto message = wire::decode_control(input)) {
    CHECK(wire::decode_control(wire::encode(*message)) == message);
  }
  if (const auto notice = wire::decode_in_channel(input)) {
    const Bytes again = wire::encode_in_channel(notice->first, notice->second);
    CHECK(wire::decode_in_channel(again) == notice);
  }
  wire::feed_engine(input);
  wire::feed_probes(input);
  return 0;
}
