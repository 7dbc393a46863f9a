// Pushes of a component's state from a hostile peer: one after the other into one stream. What is
// unpacked is no longer than a message may be; what we pack of it comes back.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "agent/state_message.hh"
#include "base/check.hh"

using namespace godwit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Reader reader(std::as_bytes(std::span(data, size)));
  agent::StateUnpacker unpacker;
  while (reader.ok() && reader.remaining() > 0) {
    const auto message = agent::state_message(reader.bytes(reader.u16()));
    if (!message) return 0;
    const auto plain = unpacker.unpack(*message);
    if (!plain) return 0;
    CHECK(!plain->empty() && plain->size() <= agent::kMostStateBytes, "{} bytes", plain->size());
    const Bytes body = agent::StatePacker(message->id).pack(message->number, *plain);
    const auto again = agent::state_message(body);
    CHECK(again && again->id == message->id && again->number == message->number);
    CHECK(agent::StateUnpacker().unpack(*again) == *plain);
  }
  return 0;
}
