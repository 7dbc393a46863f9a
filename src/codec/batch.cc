#include "codec/batch.hh"

namespace godwit::codec {
namespace {

constexpr int kVarintBits = 7;
constexpr std::uint8_t kVarintMore = 0x80;
constexpr std::uint8_t kMinPageBits = 12;
constexpr std::uint8_t kMaxPageBits = 16;

}  // namespace

void write(const BatchHeader& header, std::byte* at) {
  to_big_endian(static_cast<std::uint8_t>(header.kind), at);
  to_big_endian(static_cast<std::uint8_t>(header.method), at + 1);
  to_big_endian(header.page_bits, at + 2);
  to_big_endian(header.window, at + 3);
  to_big_endian(header.coded, at + 4);
  to_big_endian(header.plain, at + 8);
  to_big_endian(header.operations, at + 12);
}

Result<BatchHeader> parse_header(BytesView bytes) {
  Reader reader(bytes);
  const std::uint8_t kind = reader.u8();
  const std::uint8_t method = reader.u8();
  BatchHeader header{.method = Method{method},
                     .kind = BatchKind{kind},
                     .page_bits = reader.u8(),
                     .window = reader.u8(),
                     .coded = 0,
                     .plain = 0,
                     .operations = 0};
  header.coded = reader.u32();
  header.plain = reader.u32();
  header.operations = reader.u32();
  const bool page_bits_fit = header.page_bits == 0 ||
                             (header.page_bits >= kMinPageBits && header.page_bits <= kMaxPageBits);
  const bool plain = header.kind == BatchKind::kPlain;
  const bool known =
      plain || header.kind == BatchKind::kLast || header.kind == BatchKind::kCheckpoint;
  if (!reader.ok() || !known || method > 1 || header.window >= kMaxWindows || !page_bits_fit ||
      header.plain > kMaxPlain || header.operations > header.plain || header.coded > kMaxPlain ||
      (header.method == Method::kStored && plain && header.coded != header.plain)) {
    return fail("encoded memory: this is no batch: {}", to_hex(bytes));
  }
  return header;
}

std::string_view to_text(Encoding encoding) {
  switch (encoding) {
    case Encoding::kOpaque:
      return "opaque";
    case Encoding::kZero:
      return "zero";
    case Encoding::kLiteral:
      return "literal";
    case Encoding::kKept:
      return "kept";
    case Encoding::kSame:
      return "same";
    case Encoding::kDelta:
      return "delta";
    case Encoding::kCopy:
      return "copy";
    case Encoding::kKnown:
      return "known";
    case Encoding::kGroup:
      return "group";
  }
  return "?";
}

void append_varint(Bytes& out, std::uint64_t value) {
  while (value >= kVarintMore) {
    out.push_back(static_cast<std::byte>(value | kVarintMore));
    value >>= kVarintBits;
  }
  out.push_back(static_cast<std::byte>(value));
}

std::uint64_t varint(Reader& reader) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += kVarintBits) {
    const std::uint8_t byte = reader.u8();
    value |= std::uint64_t{byte & ~kVarintMore & 0xffU} << shift;
    if ((byte & kVarintMore) == 0) return value;
  }
  reader.fail();
  return 0;
}

}  // namespace godwit::codec
