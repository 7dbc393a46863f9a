#include "stream/transfer_frame.hh"

#include <algorithm>

#include "base/check.hh"
#include "stream/stream_hash.hh"

namespace godwit::stream {
namespace {

constexpr std::uint32_t kHelloMagic = 0x47575452;  // "GWTR"

bool is_known(std::uint8_t kind) {
  return kind >= static_cast<std::uint8_t>(FrameKind::kHello) &&
         kind <= static_cast<std::uint8_t>(FrameKind::kPong);
}

void encode_identity(const FrameHeader& header, std::byte* at) {
  at[0] = static_cast<std::byte>(header.kind);
  at[1] = static_cast<std::byte>(header.stream);
  to_big_endian(header.flags, at + 2);
  to_big_endian(header.length, at + 4);
  to_big_endian(header.sequence, at + 8);
}

}  // namespace

std::uint64_t checksum_seed(const FrameHeader& header) {
  std::array<std::byte, 16> identity;
  encode_identity(header, identity.data());
  // Two fixed words into one seed; the multiplier (golden ratio) keeps them from cancelling.
  return from_big_endian<std::uint64_t>(identity.data()) * 0x9E3779B97F4A7C15u ^
         from_big_endian<std::uint64_t>(identity.data() + 8);
}

std::uint64_t payload_checksum(const FrameHeader& header, BytesView head, BytesView tail) {
  return checksum(checksum_seed(header), head, tail);
}

void encode(const FrameHeader& header, MutableBytes out) {
  CHECK(out.size() == kFrameHeader);
  encode_identity(header, out.data());
  to_big_endian(header.checksum, out.data() + 16);
}

std::optional<FrameHeader> decode_header(BytesView bytes) {
  Reader reader(bytes);
  const std::uint8_t kind = reader.u8();
  FrameHeader header;
  header.stream = reader.u8();
  header.flags = reader.u16();
  header.length = reader.u32();
  header.sequence = reader.u64();
  header.checksum = reader.u64();
  if (!reader.finished() || !is_known(kind) || header.flags > kFlagEnded) return std::nullopt;
  header.kind = FrameKind{kind};
  const bool is_data = header.kind == FrameKind::kData;
  if (header.length > (is_data ? kMaxDataPayload : kMaxSmallPayload)) return std::nullopt;
  if (is_data && header.length == 0) return std::nullopt;
  return header;
}

void append_frame(Bytes& out, FrameHeader header, BytesView payload) {
  CHECK(payload.size() <= kMaxSmallPayload, "{} bytes in a small frame", payload.size());
  header.length = static_cast<std::uint32_t>(payload.size());
  header.checksum = payload_checksum(header, payload);
  std::array<std::byte, kFrameHeader> bytes;
  encode(header, bytes);
  append(out, bytes);
  append(out, payload);
}

Bytes encode(const Hello& hello) {
  CHECK(hello.incoming.size() <= kMaxStreams && hello.lane < kMaxLanes);
  Bytes out;
  Writer writer(out);
  writer.u32(kHelloMagic).u8(hello.version).u8(static_cast<std::uint8_t>(hello.role));
  writer.u8(hello.lane).u8(static_cast<std::uint8_t>(hello.incoming.size()));
  writer.bytes(hello.transfer.bytes);
  for (const Hello::Incoming& each : hello.incoming) {
    writer.u8(each.stream).u8(each.ended ? 1 : 0).u16(0).u64(each.next_expected);
  }
  return out;
}

Result<Hello> decode_hello(BytesView payload) {
  Reader reader(payload);
  if (reader.u32() != kHelloMagic) return fail("transfer lane: not a HELLO (wrong magic number)");
  Hello hello;
  hello.version = reader.u8();
  if (hello.version != kTransferVersion) {
    return fail(
        "transfer lane: the peer speaks version {}, this agent version {}: update the older",
        hello.version, kTransferVersion);
  }
  const std::uint8_t role = reader.u8();
  if (role != 1 && role != 2) return fail("transfer lane: HELLO with unknown role {}", role);
  hello.role = Role{role};
  hello.lane = reader.u8();
  if (hello.lane >= kMaxLanes) return fail("transfer lane: HELLO of lane number {}", hello.lane);
  const std::size_t count = reader.u8();
  if (count > kMaxStreams) return fail("transfer lane: HELLO names {} streams", count);
  if (const BytesView id = reader.bytes(16); !id.empty()) hello.transfer = TransferId::from(id);
  for (std::size_t i = 0; i < count; ++i) {
    Hello::Incoming each;
    each.stream = reader.u8();
    const std::uint8_t flags = reader.u8();
    if (flags > 1 || reader.u16() != 0) return fail("transfer lane: HELLO with unknown flags");
    each.ended = flags == 1;
    each.next_expected = reader.u64();
    hello.incoming.push_back(each);
  }
  if (!reader.finished())
    return fail("transfer lane: HELLO of {} bytes is cut or too long", payload.size());
  return hello;
}

std::optional<Result<Hello>> peek_hello(BytesView bytes) {
  if (bytes.size() < kFrameHeader) return std::nullopt;
  const auto header = decode_header(bytes.first(kFrameHeader));
  if (!header || header->kind != FrameKind::kHello) {
    return fail("transfer lane: the first frame is not a HELLO");
  }
  if (bytes.size() < kFrameHeader + header->length) return std::nullopt;
  const BytesView payload = bytes.subspan(kFrameHeader, header->length);
  if (payload_checksum(*header, payload) != header->checksum) {
    return fail("transfer lane: HELLO with a wrong checksum");
  }
  return decode_hello(payload);
}

}  // namespace godwit::stream
