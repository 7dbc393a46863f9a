#include "session/frame.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::session {
namespace {

constexpr std::size_t kLength = 4;
constexpr std::size_t kGrowth = 64 * 1024;

bool is_valid_method(std::string_view method) {
  return !method.empty() && std::ranges::all_of(method, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

bool has_method(FrameKind kind) { return kind == FrameKind::request || kind == FrameKind::push; }
bool has_body(FrameKind kind) { return kind != FrameKind::ping && kind != FrameKind::pong; }

}  // namespace

void encode(const Frame& frame, Bytes& out) {
  CHECK(frame.body.size() <= kMaxBody, "{} bytes", frame.body.size());
  CHECK(has_method(frame.kind) ? is_valid_method(frame.method) : frame.method.empty(), "'{}'",
        frame.method);
  Writer(out)
      .u32(static_cast<std::uint32_t>(kFrameHead + frame.method.size() + frame.body.size()))
      .u8(kFrameVersion)
      .u8(static_cast<std::uint8_t>(frame.kind))
      .u16(0)
      .u64(frame.id)
      .text8(frame.method)
      .bytes(frame.body);
}

Result<Frame> decode(BytesView bytes) {
  Reader reader(bytes);
  const unsigned version = reader.u8();
  const unsigned kind = reader.u8();
  const unsigned reserved = reader.u16();
  Frame frame{.id = reader.u64(), .method = reader.text8(), .body = {}};
  frame.body = reader.rest();
  if (!reader.ok()) return fail("message cut short");
  if (version != kFrameVersion) return fail("message of unknown version {}", version);
  if (kind < 1 || kind > 6) return fail("message of unknown kind {}", kind);
  if (reserved != 0) return fail("message with unknown flags {:#x}", reserved);
  frame.kind = static_cast<FrameKind>(kind);
  if (has_method(frame.kind) ? !is_valid_method(frame.method) : !frame.method.empty()) {
    return fail("message of kind {} with a bad method", kind);
  }
  if (!has_body(frame.kind) && !frame.body.empty()) return fail("ping or pong with a body");
  if (frame.body.size() > kMaxBody) return fail("message too large");
  return frame;
}

bool FrameReader::fill(os::ByteStream& stream, std::size_t size) {
  while (held_ < size) {
    if (buffer_.size() == held_) buffer_.resize(std::min(size, held_ + kGrowth));
    const std::size_t room = std::min(buffer_.size(), size) - held_;
    const std::size_t got = stream.read(MutableBytes(buffer_).subspan(held_, room));
    if (got == 0) return false;
    held_ += got;
  }
  return true;
}

Result<std::optional<Frame>> FrameReader::next(os::ByteStream& stream) {
  if (std::exchange(taken_, false)) {
    held_ = 0;
    if (buffer_.size() > kGrowth) buffer_ = {};  // one large message does not cost for ever
  }
  if (!fill(stream, kLength)) return std::nullopt;
  const std::size_t length = from_big_endian<std::uint32_t>(buffer_.data());
  if (length < kFrameHead) return fail("message cut short");
  if (length > kFrameHead + kMaxMethod + max_body_) {
    return fail("message of {} bytes; {} is the most", length, max_body_);
  }
  if (!fill(stream, kLength + length)) return std::nullopt;
  taken_ = true;
  auto frame = decode(BytesView(buffer_).subspan(kLength, length));
  if (!frame) return std::unexpected(frame.error());
  return *frame;
}

}  // namespace godwit::session
