#include "disk/seed.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::disk {

void append(const SeedPart& part, Bytes& out) {
  CHECK(part.digests.size() <= kMostSeedDigests);
  Writer writer(out);
  writer.u8(part.disk).u8(0).u16(static_cast<std::uint16_t>(part.digests.size()));
  writer.u32(0).u64(part.offset);
  for (const Digest& digest : part.digests) writer.bytes(digest);
}

void SeedReader::push(BytesView bytes) {
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(taken_));
  taken_ = 0;
  godwit::append(pending_, bytes);
}

Result<std::optional<ToldPart>> SeedReader::next() {
  const BytesView rest = BytesView(pending_).subspan(taken_);
  if (rest.size() < kSeedHeader) return std::nullopt;
  Reader reader(rest);
  if (rest[1] == std::byte{1} || rest[1] == std::byte{2}) return next_of_none(reader);
  SeedPart part{.disk = reader.u8()};
  const std::uint8_t reserved = reader.u8();
  const std::size_t count = reader.u16();
  const std::uint32_t more_reserved = reader.u32();
  part.offset = reader.u64();
  if (reserved != 0 || more_reserved != 0 || part.disk >= disks_.size() ||
      count > kMostSeedDigests) {
    return fail("no digests of a disk");
  }
  const std::uint64_t size = disks_[part.disk].bytes;
  const bool begins_a_block = part.offset < size && part.offset % kBlockBytes == 0;
  const std::uint64_t most = (size - std::min(part.offset, size) + kBlockBytes - 1) / kBlockBytes;
  if (!(begins_a_block || part.offset == size) || count > most) {
    return fail("digests of {} blocks at {} are not within disk {}", count, part.offset, part.disk);
  }
  if (reader.remaining() < count * sizeof(Digest)) return std::nullopt;
  part.digests.resize(count);
  for (Digest& digest : part.digests)
    std::ranges::copy(reader.bytes(sizeof(Digest)), digest.begin());
  taken_ += kSeedHeader + count * sizeof(Digest);
  return part;
}

// Of no disk: the key, or names.
Result<std::optional<ToldPart>> SeedReader::next_of_none(Reader reader) {
  const bool has_no_disk = reader.u8() == 0;
  const bool is_key = reader.u8() == 2;
  const std::size_t count = reader.u16();
  const bool is_reserved = reader.u32() == 0 && reader.u64() == 0;
  if (!has_no_disk || !is_reserved || count > (is_key ? 0 : kMostNamesOfPart)) {
    return fail("no names of blocks");
  }
  const std::size_t size = is_key ? sizeof(KeyPart::key) : count * sizeof(Name);
  if (reader.remaining() < size) return std::nullopt;
  taken_ += kSeedHeader + size;
  if (is_key) {
    KeyPart part;
    std::ranges::copy(reader.bytes(size), part.key.begin());
    return part;
  }
  CataloguePart part;
  part.names.resize(count);
  for (Name& name : part.names) name = reader.u32();
  return part;
}

bool Seed::learn(const SeedPart& part) {
  if (part.offset < known_to_) return false;
  std::uint64_t at = part.offset;
  for (const Digest& digest : part.digests) {
    if (!changed_.is_dirty(at)) digests_.emplace(at / kBlockBytes, digest);
    at += kBlockBytes;
  }
  known_to_ = std::min(at, size_);
  return true;
}

void Seed::change(Extent extent) {
  changed_.mark(extent);
  if (digests_.empty() || extent.length == 0) return;
  const std::uint64_t first = extent.offset / kBlockBytes, last = (extent.end() - 1) / kBlockBytes;
  if (last - first >= digests_.size()) {
    std::erase_if(digests_,
                  [&](const auto& each) { return each.first >= first && each.first <= last; });
    return;
  }
  for (std::uint64_t block = first; block <= last; ++block) digests_.erase(block);
}

const Digest* Seed::digest_at(std::uint64_t offset) const {
  const auto found = digests_.find(offset / kBlockBytes);
  return found == digests_.end() ? nullptr : &found->second;
}

}  // namespace godwit::disk
