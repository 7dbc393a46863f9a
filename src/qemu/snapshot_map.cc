#include "qemu/snapshot_map.hh"

#include <algorithm>
#include <bit>

namespace godwit::qemu {
namespace {

constexpr std::uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
constexpr std::size_t kHeaderBytes = 104;     // of version 3
constexpr std::size_t kVersion2Bytes = 72;
constexpr std::uint32_t kLeastClusterBits = 9, kMostClusterBits = 21;

// Incompatible features.
constexpr std::uint64_t kNotClosed = 1 << 0, kCorrupt = 1 << 1, kDataFile = 1 << 2,
                        kCompressionType = 1 << 3, kExtendedTables = 1 << 4;
constexpr std::uint64_t kKnown =
    kNotClosed | kCorrupt | kDataFile | kCompressionType | kExtendedTables;
constexpr std::size_t kFeaturesAt = 72, kAutoclearAt = 88;
constexpr std::uint32_t kEndOfExtensions = 0, kBitmaps = 0x23852875;

// QEMU's limits: an entry of the snapshots' table, and a first-level table.
constexpr std::uint64_t kMostEntry = 40 + 1024 + 2 * 65535 + 8;
constexpr std::uint32_t kMostSnapshots = 65536;
constexpr std::uint64_t kMostFirstLevel = 32 << 20;
constexpr std::uint64_t kReadBytes = 1 << 20;  // of a table at once

constexpr std::uint64_t kOffsetBits = 0x00ff'ffff'ffff'fe00;  // of an entry of either table
constexpr std::uint64_t kCompressed = 1ULL << 62;
constexpr std::uint64_t kSector = 512;

struct Header {
  std::uint32_t version = 0, cluster_bits = 0, crypt = 0, first_level_entries = 0, snapshots = 0;
  std::uint64_t first_level = 0, snapshots_at = 0, features = 0;
  std::uint32_t length = kVersion2Bytes;
};

Result<Header> read_header(BytesView bytes) {
  Reader reader(bytes);
  Header header;
  const std::uint32_t magic = reader.u32();
  header.version = reader.u32();
  reader.bytes(8 + 4);  // the backing file's name
  header.cluster_bits = reader.u32();
  reader.bytes(8);  // the virtual size
  header.crypt = reader.u32();
  header.first_level_entries = reader.u32();
  header.first_level = reader.u64();
  reader.bytes(8 + 4);  // reference counts
  header.snapshots = reader.u32();
  header.snapshots_at = reader.u64();
  if (header.version == 3) {
    header.features = reader.u64();
    reader.bytes(8 + 8 + 4);  // other features, reference counts' order
    header.length = reader.u32();
  }
  const bool is_one =
      reader.ok() && magic == kMagic && (header.version == 2 || header.version == 3);
  if (!is_one) return fail("it is no qcow2 file");
  if (header.cluster_bits < kLeastClusterBits || header.cluster_bits > kMostClusterBits ||
      header.snapshots > kMostSnapshots ||
      header.first_level_entries > kMostFirstLevel / sizeof(std::uint64_t)) {
    return fail("its header is damaged");
  }
  if (header.crypt != 0) return fail("it is encrypted as a qcow2 file");
  if ((header.features & kDataFile) != 0) return fail("its data are in another file");
  if ((header.features & kCorrupt) != 0) return fail("QEMU has found it corrupt");
  if ((header.features & ~kKnown) != 0) return fail("it has features that are not known here");
  return header;
}

}  // namespace

SnapshotMap::SnapshotMap(ByteCount file, std::function<void(FilePart)> has)
    : file_(file.bytes),
      has_(std::move(has)),
      wanted_(FilePart{.offset = 0, .length = std::min<std::uint64_t>(file_, kHeaderBytes)}) {}

Result<> SnapshotMap::take(BytesView bytes) {
  switch (step_) {
    case Step::header:
      return take_header(bytes);
    case Step::table:
      return take_snapshots(bytes);
    case Step::first_level:
      if (auto done = take_first_level(bytes); !done) return done;
      return want_next();
    case Step::second_level:
      take_second_level(bytes);
      return want_next();
  }
  return {};
}

// Clusters at the file's end need not be there as a whole: the rest are zeroes.
void SnapshotMap::tell(std::uint64_t offset, std::uint64_t length) {
  if (offset < file_) has_({.offset = offset, .length = std::min(length, file_ - offset)});
}

Result<> SnapshotMap::want(Step step, std::uint64_t offset, std::uint64_t length) {
  if (offset >= file_) return fail("it is damaged: a table is behind its end");
  step_ = step;
  wanted_ = FilePart{.offset = offset, .length = std::min(length, file_ - offset)};
  return {};
}

Result<> SnapshotMap::take_header(BytesView bytes) {
  const auto header = read_header(bytes);
  if (!header) return std::unexpected(header.error());
  cluster_ = std::uint64_t{1} << header->cluster_bits;
  if ((header->features & kExtendedTables) != 0) entry_bytes_ = 16;
  tell(0, cluster_);
  snapshots_ = header->snapshots;
  if (snapshots_ == 0) return want_next();
  return want(Step::table, header->snapshots_at, kReadBytes);
}

// Some entries of it, of which the last may be cut off.
Result<> SnapshotMap::take_snapshots(BytesView bytes) {
  std::uint64_t at = 0;
  while (snapshots_ > 0) {
    Reader reader(bytes.subspan(at));
    const std::uint64_t offset = reader.u64();
    const std::uint64_t entries = reader.u32();
    const std::uint64_t id_and_name = reader.u16() + std::uint64_t{reader.u16()};
    reader.bytes(4 + 4 + 8 + 4);  // date, clock, size of the vm's state
    const std::uint64_t extra = reader.u32();
    reader.bytes(extra + id_and_name);
    if (!reader.ok()) break;
    if (entries > kMostFirstLevel / sizeof(std::uint64_t)) return fail("a snapshot is damaged");
    first_level_.push_back({.offset = offset, .length = entries * sizeof(std::uint64_t)});
    tell(offset, first_level_.back().length);
    at = (bytes.size() - reader.remaining() + 7) / 8 * 8;
    at = std::min<std::uint64_t>(at, bytes.size());
    --snapshots_;
  }
  const std::uint64_t offset = wanted_->offset;
  tell(offset, at);
  if (snapshots_ == 0) return want_next();
  if (bytes.size() - at >= kMostEntry || at == 0) return fail("its table of snapshots is damaged");
  return want(Step::table, offset + at, kReadBytes);
}

Result<> SnapshotMap::take_first_level(BytesView bytes) {
  Reader reader(bytes);
  while (reader.remaining() >= sizeof(std::uint64_t)) {
    const std::uint64_t offset = reader.u64() & kOffsetBits;
    if (offset == 0 || known_.contains(offset)) continue;
    if (offset % cluster_ != 0) return fail("a snapshot's table is damaged");
    known_.insert(offset);
    second_level_.push_back(offset);
    tell(offset, cluster_);
  }
  return {};
}

void SnapshotMap::take_second_level(BytesView bytes) {
  // Of compressed clusters: where they begin, and how many sectors they reach into after that.
  const std::uint64_t cluster_bits = static_cast<std::uint64_t>(std::countr_zero(cluster_));
  const std::uint64_t sectors_at = 62 - (cluster_bits - 8);
  const std::uint64_t sectors_mask = (std::uint64_t{1} << (cluster_bits - 8)) - 1;
  for (std::size_t at = 0; at + sizeof(std::uint64_t) <= bytes.size(); at += entry_bytes_) {
    const auto entry = from_big_endian<std::uint64_t>(bytes.data() + at);
    if ((entry & kCompressed) != 0) {
      const std::uint64_t offset = entry & ((std::uint64_t{1} << sectors_at) - 1);
      const std::uint64_t sectors = ((entry >> sectors_at) & sectors_mask) + 1;
      tell(offset / kSector * kSector, sectors * kSector);
    } else if (const std::uint64_t offset = entry & kOffsetBits; offset != 0) {
      tell(offset, cluster_);
    }
  }
}

Result<> SnapshotMap::want_next() {
  while (!first_level_.empty()) {
    FilePart& table = first_level_.back();
    if (table.length == 0) {
      first_level_.pop_back();
      continue;
    }
    const FilePart now{.offset = table.offset, .length = std::min(table.length, kReadBytes)};
    table.offset += now.length;
    table.length -= now.length;
    return want(Step::first_level, now.offset, now.length);
  }
  wanted_.reset();
  if (second_level_.empty()) return {};
  const std::uint64_t offset = second_level_.back();
  second_level_.pop_back();
  return want(Step::second_level, offset, cluster_);
}

// What clears auto-clear features ends the extension that lists bitmaps, too.
Result<WithoutPresent> without_present(BytesView start_of_file) {
  const auto header = read_header(start_of_file);
  if (!header) return std::unexpected(header.error());
  WithoutPresent without{
      .header = to_bytes(start_of_file),
      .table = {.offset = header->first_level,
                .length = std::uint64_t{header->first_level_entries} * sizeof(std::uint64_t)}};
  if (header->version == 3) {
    to_big_endian(header->features & ~kNotClosed, without.header.data() + kFeaturesAt);
    to_big_endian(std::uint64_t{0}, without.header.data() + kAutoclearAt);
  }
  std::uint64_t at = header->length;
  while (at + 8 <= without.header.size()) {
    std::byte* extension = without.header.data() + at;
    const auto type = from_big_endian<std::uint32_t>(extension);
    if (type == kBitmaps) to_big_endian(kEndOfExtensions, extension);
    if (type == kBitmaps || type == kEndOfExtensions) break;
    at += 8 + (std::uint64_t{from_big_endian<std::uint32_t>(extension + 4)} + 7) / 8 * 8;
  }
  return without;
}

}  // namespace godwit::qemu
