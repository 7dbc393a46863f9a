#include "agent/disk_digests.hh"

#include <algorithm>

#include "agent/disk_scan.hh"
#include "disk/outbound.hh"

namespace godwit::agent {

void DiskDigests::next(Part part) {
  if (there_) return read(std::move(part));
  there_.emplace(disk_.size);
  scan_disk(
      client_, disk_, Scan::own, [this](disk::Extent extent) { there_->mark(extent); },
      [this, part = std::move(part)](const Result<>& done) mutable {
        if (!done) return part(std::unexpected(done.error()));
        read(std::move(part));
      });
}

void DiskDigests::read(Part part) {
  const auto extent = there_->take(disk::Outbound::kReadBytes);
  if (!extent) return part(disk::SeedPart{.disk = number_, .offset = disk_.size.bytes});
  block_.resize(extent->length);
  client_.read(extent->offset, block_,
               [this, offset = extent->offset, part = std::move(part)](const Result<>& done) {
                 if (!done) return part(std::unexpected(done.error()));
                 if (seen_) seen_(offset, block_);
                 disk::SeedPart digests{.disk = number_, .offset = offset};
                 for (std::size_t at = 0; at < block_.size(); at += disk::kBlockBytes) {
                   const std::size_t size =
                       std::min<std::size_t>(disk::kBlockBytes, block_.size() - at);
                   digests.digests.push_back(digest_(BytesView(block_).subspan(at, size)));
                 }
                 part(std::move(digests));
               });
}

}  // namespace godwit::agent
