#include "agent/state_message.hh"

#include "base/check.hh"

namespace godwit::agent {
namespace {

// Tables of some thousand entries: what they have in common is near.
constexpr int kWindowBits = 20;
constexpr int kLevel = 1;

}  // namespace

StatePacker::StatePacker(MigrationId id) : id_(id), compressor_(kWindowBits) {}

Bytes StatePacker::pack(std::uint64_t number, BytesView message) {
  CHECK(message.size() <= kMostStateBytes, "{} bytes", message.size());
  Bytes body = to_bytes(id_.bytes);
  Writer(body).u64(number).u32(static_cast<std::uint32_t>(message.size()));
  compressor_.compress(message, kLevel, body);
  return body;
}

Result<StateMessage> state_message(BytesView body) {
  Reader reader(body);
  const BytesView id = reader.bytes(MigrationId{}.bytes.size());
  StateMessage message;
  message.number = reader.u64();
  message.length = reader.u32();
  if (!reader.ok()) return fail("a component's state is cut short");
  if (message.length == 0 || message.length > kMostStateBytes) {
    return fail("a component's state has {} bytes in one message; {} is the most", message.length,
                kMostStateBytes);
  }
  message.id = MigrationId::from(id);
  message.coded = to_bytes(reader.rest());
  return message;
}

StateUnpacker::StateUnpacker() : decompressor_(kWindowBits) {}

Result<Bytes> StateUnpacker::unpack(const StateMessage& message) {
  Bytes plain(message.length);
  if (decompressor_.decompress(message.coded, plain)) return plain;
  return fail("message {} of a component's state cannot be decompressed", message.number);
}

}  // namespace godwit::agent
