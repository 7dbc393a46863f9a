#pragma once
// The messages of a session, byte by byte in docs/protocol/session.md:
//
//   u32 length | u8 version | u8 kind | u16 reserved | u64 id | text8 method | body
//
// `length` counts what follows it. Anything unknown (version, kind, a reserved bit, a method where
// none belongs) is refused: the two ends then do not speak the same language, and the connection
// ends.
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/bytes.hh"
#include "base/result.hh"
#include "os/byte_stream.hh"

namespace godwit::session {

constexpr std::uint8_t kFrameVersion = 1;
constexpr std::size_t kMaxBody = 1024 * 1024;
constexpr std::size_t kFrameHead = 1 + 1 + 2 + 8 + 1;  // after the length, before method and body
constexpr std::size_t kMaxMethod = 255;

enum class FrameKind : std::uint8_t {
  request = 1,  // answered by a reply or an error with the same id
  reply = 2,
  error = 3,  // body: text for a person
  push = 4,   // not answered
  ping = 5,   // answered by a pong with the same id
  pong = 6,
};

struct Frame {
  FrameKind kind = FrameKind::push;
  std::uint64_t id = 0;     // of a request, reply, error, ping, pong; 0 in a push
  std::string_view method;  // of a request or push: 1 to 255 of [a-z0-9._-]; else empty
  BytesView body;
};

// Appends the whole frame. CHECKs its limits.
void encode(const Frame& frame, Bytes& out);
// `bytes`: what follows the length. The frame's views point into it.
Result<Frame> decode(BytesView bytes);

// Takes one frame after the other out of a stream and never a byte more, so that what follows a
// frame may be something else (a relayed connection).
class FrameReader final {
 public:
  // `max_body` bounds what a peer can make us hold.
  explicit FrameReader(std::size_t max_body = kMaxBody) : max_body_(max_body) {}

  // The next frame, nothing when it has not arrived yet, or why the peer is to be refused. The
  // views are valid until the next call.
  Result<std::optional<Frame>> next(os::ByteStream& stream);

 private:
  // True when `buffer_` holds `size` bytes.
  bool fill(os::ByteStream& stream, std::size_t size);

  std::size_t max_body_;
  Bytes buffer_;          // grows with what arrived, not with what was announced
  std::size_t held_ = 0;  // bytes of it that arrived
  bool taken_ = false;    // the frame in it was handed out
};

}  // namespace godwit::session
