#pragma once
// Numbers of the NBD protocol, fixed newstyle: github.com/NetworkBlockDevice/nbd, doc/proto.md (as
// of 2026-05). What of it we speak, and the bytes: docs/protocol/nbd.md. Names are the protocol's
// without NBD_; integers on the wire are big-endian.
#include <cstddef>
#include <cstdint>

namespace godwit::nbd {

inline constexpr std::uint64_t kInitMagic = 0x4e42444d41474943;    // "NBDMAGIC"
inline constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr std::uint64_t kOptionReplyMagic = 0x3e889045565a9;
inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr std::uint32_t kStructuredReplyMagic = 0x668e33ef;

inline constexpr std::size_t kOptionHeader = 16;       // bytes: magic, option, length
inline constexpr std::size_t kRequestHeader = 28;      // bytes
inline constexpr std::size_t kSimpleReply = 16;        // bytes, without data
inline constexpr std::size_t kStructuredHeader = 20;   // bytes, of each chunk
inline constexpr std::size_t kOffsetField = 8;         // bytes, in front of a chunk's data
inline constexpr std::size_t kErrorChunk = 6;          // bytes: the error, and no text
inline constexpr std::size_t kExportNameZeroes = 124;  // bytes, unless kNoZeroes was agreed

// Of the handshake; the client's 32 bits have the same two.
inline constexpr std::uint16_t kFixedNewstyle = 1 << 0;
inline constexpr std::uint16_t kNoZeroes = 1 << 1;

enum class Option : std::uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
};

enum class OptionReply : std::uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kUnsupported = (1u << 31) + 1,
  kInvalid = (1u << 31) + 3,
  kUnknown = (1u << 31) + 6,
  kTooBig = (1u << 31) + 9,
};

enum class Info : std::uint16_t { kExport = 0, kName = 1, kBlockSize = 3 };

// Transmission flags: what an export can do.
inline constexpr std::uint16_t kHasFlags = 1 << 0;
inline constexpr std::uint16_t kReadOnly = 1 << 1;
inline constexpr std::uint16_t kSendFlush = 1 << 2;
inline constexpr std::uint16_t kSendFua = 1 << 3;
inline constexpr std::uint16_t kSendTrim = 1 << 5;
inline constexpr std::uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr std::uint16_t kSendDf = 1 << 7;
inline constexpr std::uint16_t kSendFastZero = 1 << 11;

enum class Command : std::uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kWriteZeroes = 6,
};

// Command flags.
inline constexpr std::uint16_t kFua = 1 << 0;       // reply only when it is on stable storage
inline constexpr std::uint16_t kNoHole = 1 << 1;    // of WRITE_ZEROES: allocate
inline constexpr std::uint16_t kDf = 1 << 2;        // of READ: one chunk, which ours always is
inline constexpr std::uint16_t kFastZero = 1 << 4;  // of WRITE_ZEROES: kNotSupported if slow

// The protocol's own numbers, whatever errno has on this machine.
enum class ErrorCode : std::uint32_t {
  kNone = 0,
  kNotPermitted = 1,   // EPERM
  kIo = 5,             // EIO
  kNoMemory = 12,      // ENOMEM
  kInvalid = 22,       // EINVAL
  kNoSpace = 28,       // ENOSPC
  kOverflow = 75,      // EOVERFLOW
  kNotSupported = 95,  // ENOTSUP: only of WRITE_ZEROES with kFastZero
  kShutdown = 108,     // ESHUTDOWN: the client ends the connection
};

inline constexpr std::uint16_t kChunkDone = 1 << 0;  // structured reply flag: the last of its reply
enum class ChunkType : std::uint16_t { kOffsetData = 1, kError = (1 << 15) + 1 };

}  // namespace godwit::nbd
