#include "disk/record.hh"

#include <utility>

#include "base/check.hh"

namespace godwit::disk {
namespace {

bool has_extent(RecordKind kind) { return kind != RecordKind::kFlush && kind != RecordKind::kEnd; }

std::uint64_t longest(RecordKind kind) {
  if (kind == RecordKind::kWrite) return kMaxRecordData;
  return kind == RecordKind::kCopy ? kBlockBytes : kMaxRecordLength;
}

std::uint64_t data_of(RecordKind kind, std::uint64_t length) {
  if (kind == RecordKind::kCopy) return sizeof(Digest);
  return kind == RecordKind::kWrite ? length : 0;
}

}  // namespace

void append(const Record& record, Bytes& out) {
  CHECK(record.data.size() == data_of(record.kind, record.extent.length), "{} bytes for {}",
        record.data.size(), record.extent.length);
  CHECK(record.extent.length <= longest(record.kind));
  Writer(out)
      .u8(std::to_underlying(record.kind))
      .u8(record.disk)
      .u16(0)
      .u32(static_cast<std::uint32_t>(record.extent.length))
      .u64(record.extent.offset)
      .bytes(record.data);
}

void RecordReader::push(BytesView bytes) {
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(taken_));
  taken_ = 0;
  godwit::append(pending_, bytes);
}

Result<std::optional<Record>> RecordReader::next() {
  const BytesView rest = BytesView(pending_).subspan(taken_);
  if (rest.size() < kRecordHeader) return std::nullopt;
  if (ended_) return fail("a record of a disk after the last");
  Reader reader(rest);
  Record record{.kind = RecordKind{reader.u8()}, .disk = reader.u8()};
  const bool reserved_is_zero = reader.u16() == 0;
  record.extent.length = reader.u32();
  record.extent.offset = reader.u64();
  const auto [offset, length] = record.extent;
  if (!reserved_is_zero || record.kind < RecordKind::kWrite || record.kind > RecordKind::kCopy) {
    return fail("no record of a disk: kind {}", std::to_underlying(record.kind));
  }
  if (has_extent(record.kind)) {
    const bool within = record.disk < disks_.size() && offset <= disks_[record.disk].bytes &&
                        length <= disks_[record.disk].bytes - offset;
    if (!within || length == 0 || length > longest(record.kind)) {
      return fail("{} bytes at {} are not within disk {}", length, offset, record.disk);
    }
  } else if (length != 0 || offset != 0 || record.disk != 0) {
    return fail("a flush of disks with an extent");
  }
  const std::uint64_t data = data_of(record.kind, length);
  if (reader.remaining() < data) return std::nullopt;
  record.data = reader.bytes(data);
  taken_ += kRecordHeader + record.data.size();
  ended_ = record.kind == RecordKind::kEnd;
  return record;
}

}  // namespace godwit::disk
