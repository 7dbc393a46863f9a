#pragma once
// The bytes of an encoded memory stream: batches, one after the other. Layout, operations and
// golden bytes: docs/protocol/codec.md.
//
//   batch = header | plain, compressed or not
//   plain = operations | literals          (literals: what the operations take from, in order)
#include <cstdint>
#include <optional>

#include "base/bytes.hh"
#include "base/result.hh"

namespace godwit::codec {

// Bytes of QEMU's stream that a batch is closed after. Larger ones compress better and come later:
// 1 MiB is 20 ms of what QEMU writes at 400 Mbit/s.
inline constexpr std::size_t kBatchBytes = 1 << 20;
// A page of zeros is 9 bytes of it, and a page for who takes it: 2,048 of them fill a batch.
inline constexpr std::size_t kZeroPageWeight = 512;
// Bounds of what a decoder takes; an opaque item and a page beyond kBatchBytes, and their
// operations.
inline constexpr std::size_t kMaxRaw = 2 * kBatchBytes;
inline constexpr std::size_t kMaxPlain = 2 * kMaxRaw;
// Of a stream, each with memory of its own at both ends.
inline constexpr int kMaxWindows = 4;

enum class Method : std::uint8_t { kStored = 0, kZstd = 1 };

enum class BatchKind : std::uint8_t {
  kPlain = 0xc0,       // operations
  kLast = 0xc1,        // no more batches; the coded bytes are the stream's digest
  kCheckpoint = 0xc2,  // the coded bytes are the digest of what came so far
};

struct BatchHeader {
  static constexpr std::size_t kSize = 16;
  Method method{};
  BatchKind kind = BatchKind::kPlain;
  std::uint8_t page_bits = 0;    // 12 to 16; 0: no page in it
  std::uint8_t window = 0;       // in which it was compressed
  std::uint32_t coded = 0;       // bytes that follow
  std::uint32_t plain = 0;       // bytes of operations and literals
  std::uint32_t operations = 0;  // bytes of operations
  bool operator==(const BatchHeader&) const = default;
};
// Before it is compressed: operations and literals, or a digest.
struct PlainBatch {
  BatchKind kind = BatchKind::kPlain;
  std::uint8_t page_bits = 0;
  std::uint32_t operations = 0;  // bytes of these
  Bytes bytes;
  std::uint64_t raw_end = 0;     // of QEMU's stream, so much up to its end
  std::uint64_t memory_end = 0;  // the same, of the vm's memory: a page of zeros is a page
};

void write(const BatchHeader& header, std::byte* at);
Result<BatchHeader> parse_header(BytesView bytes);  // kSize bytes

// What becomes of pages. The low four bits of an operation.
enum class Encoding : std::uint8_t {
  kOpaque = 0,   // no page: bytes from the literals
  kZero = 1,     // a page of QEMU's own zero record
  kLiteral = 2,  // the page, from the literals
  kKept = 3,     // likewise; both ends keep it
  kSame = 4,     // as it is kept
  kDelta = 5,    // as it is kept but for some words, and kept so
  kCopy = 6,     // as another page is kept
  kKnown = 7,    // as the target's host knows it from before (known_pages.hh)
  kGroup = 8,    // as a vm of the same group offered it (group.hh)
};
inline constexpr std::size_t kEncodings = 9;
std::string_view to_text(Encoding encoding);

inline constexpr std::uint8_t kEncodingMask = 0x0f;
inline constexpr std::uint8_t kNamed = 0x10;    // the record names its block: text8 follows
inline constexpr std::uint8_t kMoved = 0x20;    // not the page after the one before: varint follows
inline constexpr std::uint8_t kOffered = 0x40;  // of literals: to the vms of the same group

// LEB128: seven bits a byte, least first.
void append_varint(Bytes& out, std::uint64_t value);
std::uint64_t varint(Reader& reader);
// Zigzag: small numbers of either sign become small ones of none.
inline std::uint64_t zigzag(std::uint64_t difference) {
  return (difference << 1U) ^ (0 - (difference >> 63U));
}
inline std::uint64_t unzigzag(std::uint64_t value) { return (value >> 1U) ^ (0 - (value & 1U)); }

}  // namespace godwit::codec
