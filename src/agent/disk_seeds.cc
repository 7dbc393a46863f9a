#include "agent/disk_seeds.hh"

#include "agent/disk_scan.hh"
#include "disk/outbound.hh"

namespace godwit::agent {

DiskSeeds::DiskSeeds(const Clients& clients, const std::vector<qemu::DiskSpec>& disks,
                     TransferLink& link, std::function<void(std::string)> failed)
    : clients_(clients),
      disks_(disks),
      link_(link),
      failed_(std::move(failed)),
      digest_(link.seed_key()) {
  scan();
}

void DiskSeeds::scan() {
  if (disk_ == disks_.size()) return;
  there_.emplace(disks_[disk_].size);
  scan_disk(
      *clients_[disk_], disks_[disk_], Scan::own,
      [this, alive = std::weak_ptr(alive_)](disk::Extent extent) {
        if (!alive.expired()) there_->mark(extent);
      },
      [this, alive = std::weak_ptr(alive_)](const Result<>& done) {
        if (alive.expired()) return;
        if (!done) return failed_(done.error().text);
        read();
      });
}

void DiskSeeds::read() {
  const auto extent = there_->take(disk::Outbound::kReadBytes);
  if (!extent) {
    append(disk::SeedPart{.disk = disk_, .offset = disks_[disk_].size.bytes}, bytes_);
    ++disk_;
    offer();
    return scan();
  }
  block_.resize(extent->length);
  clients_[disk_]->read(
      extent->offset, block_,
      [this, offset = extent->offset, alive = std::weak_ptr(alive_)](const Result<>& done) {
        if (alive.expired()) return;
        if (!done) return failed_(done.error().text);
        disk::SeedPart part{.disk = disk_, .offset = offset};
        for (std::size_t at = 0; at < block_.size(); at += disk::kBlockBytes) {
          const std::size_t size = std::min<std::size_t>(disk::kBlockBytes, block_.size() - at);
          part.digests.push_back(digest_(BytesView(block_).subspan(at, size)));
        }
        append(part, bytes_);
        waits_ = true;
        offer();
      });
}

// The next is read when this was taken. The link may say that it has room from within.
void DiskSeeds::offer() {
  if (std::exchange(offering_, true)) return;
  const std::size_t taken = link_.offer_seeds(bytes_);
  bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(taken));
  offering_ = false;
  if (bytes_.empty() && std::exchange(waits_, false)) read();
}

}  // namespace godwit::agent
