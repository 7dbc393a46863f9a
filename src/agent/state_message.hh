#pragma once
// A component's state on its way, byte by byte in docs/protocol/components.md: what a push
// "component.state" carries, for the request that follows it.
//
//   id (16) | u64 number | u32 length of the message | the message, compressed
//
// Compressed are all messages of a move as one stream, so that each refers to those before it; who
// reads takes them in the order of their numbers. What is read here comes from another host.
#include "base/bytes.hh"
#include "base/id.hh"
#include "base/result.hh"
#include "codec/zstd.hh"

namespace godwit::agent {

inline constexpr const char* kStatePush = "component.state";
inline constexpr std::size_t kMostStateBytes = 512 << 10;  // of a message; ours are half as long

struct StateMessage {
  MigrationId id{};
  std::uint64_t number = 0;  // from 1
  std::uint32_t length = 0;
  Bytes coded{};
};

class StatePacker final {
 public:
  explicit StatePacker(MigrationId id);
  // The push's body.
  Bytes pack(std::uint64_t number, BytesView message);

 private:
  const MigrationId id_;
  codec::Compressor compressor_;
};

// Of a push; unpacked only when it is its turn.
Result<StateMessage> state_message(BytesView body);

class StateUnpacker final {
 public:
  StateUnpacker();
  // After an error there is nothing that could follow.
  Result<Bytes> unpack(const StateMessage& message);

 private:
  codec::Decompressor decompressor_;
};

}  // namespace godwit::agent
