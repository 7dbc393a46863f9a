#pragma once
// What crosses for disks: changes of the source's, in the order in which they have to be made at
// the target, and how many were made. Bytes: docs/protocol/disks.md.
//
//    0      1      2        4          8                  16
//    +------+------+--------+----------+------------------+
//    | kind | disk | 0      | length   | offset           | WRITE: length bytes; COPY: a digest
//    +------+------+--------+----------+------------------+
#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.hh"
#include "base/result.hh"
#include "disk/catalogue.hh"
#include "disk/dirty_map.hh"

namespace godwit::disk {

inline constexpr std::size_t kRecordHeader = 16;             // bytes
inline constexpr std::uint32_t kMaxRecordData = 1 << 20;     // of WRITE
inline constexpr std::uint32_t kMaxRecordLength = 1U << 30;  // of ZERO
inline constexpr std::size_t kMaxDisksOnTheWay = 256;        // of one vm: `disk` is a byte
// An acknowledgement: records made so far, in all; or, with this bit, the number of a COPY that was
// passed over, as what it names is not there.
inline constexpr std::size_t kAckBytes = 8;
inline constexpr std::uint64_t kNotThere = std::uint64_t{1} << 63;

enum class RecordKind : std::uint8_t {
  kWrite = 1,
  kZero = 2,   // without data; the target may free what it had there
  kFlush = 3,  // of all disks: what came before is on stable storage when it is acknowledged
  kEnd = 4,    // the same, and nothing comes any more
  kCopy = 5,   // of a block that the target has elsewhere
};

struct Record {
  RecordKind kind{};
  std::uint8_t disk = 0;  // its place in the vm
  Extent extent{};        // of WRITE, ZERO and COPY
  BytesView data{};       // of WRITE; of COPY its digest
};

void append(const Record& record, Bytes& out);

// Cuts a stream of any chunks into records.
class RecordReader final {
 public:
  // Sizes of the vm's disks.
  explicit RecordReader(std::vector<ByteCount> disks) : disks_(std::move(disks)) {}

  void push(BytesView bytes);
  // The next whole record, its data valid until the next call of push(). An error: these are no
  // records, or not of these disks; the stream is of no more use.
  Result<std::optional<Record>> next();

 private:
  std::vector<ByteCount> disks_;
  Bytes pending_;
  std::size_t taken_ = 0;
  bool ended_ = false;
};

}  // namespace godwit::disk
