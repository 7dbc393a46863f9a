#include "agent/disk_seeds.hh"

#include <algorithm>

namespace godwit::agent {

DiskSeeds::DiskSeeds(const Clients& clients, const std::vector<qemu::DiskSpec>& disks,
                     const Elsewhere* elsewhere, TransferLink& link,
                     std::function<void(std::string)> failed)
    : clients_(clients),
      disks_(disks),
      link_(link),
      failed_(std::move(failed)),
      digest_(elsewhere == nullptr ? link.seed_key() : elsewhere->key()) {
  if (elsewhere != nullptr) {
    names_ = elsewhere->names();
    disk::KeyPart part;
    std::ranges::copy(elsewhere->key(), part.key.begin());
    append(part, bytes_);
  }
  next();
}

void DiskSeeds::next() {
  if (named_ < names_.size()) {
    const auto from = names_.begin() + static_cast<std::ptrdiff_t>(named_);
    const std::size_t count = std::min(disk::kMostNamesOfPart, names_.size() - named_);
    append(disk::CataloguePart{.names = {from, from + static_cast<std::ptrdiff_t>(count)}}, bytes_);
    named_ += count;
    waits_ = true;
    return offer();
  }
  if (disk_ == disks_.size()) return;
  if (!digests_) digests_.emplace(*clients_[disk_], disks_[disk_], disk_, digest_);
  digests_->next([this, alive = std::weak_ptr(alive_)](const Result<disk::SeedPart>& part) {
    if (alive.expired()) return;
    if (!part) return failed_(part.error().text);
    append(*part, bytes_);
    if (part->digests.empty()) {
      digests_.reset();
      ++disk_;
    }
    waits_ = true;
    offer();
  });
}

// The next is made when this was taken. The link may say that it has room from within.
void DiskSeeds::offer() {
  if (std::exchange(offering_, true)) return;
  const std::size_t taken = link_.offer_seeds(bytes_);
  bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(taken));
  offering_ = false;
  if (bytes_.empty() && std::exchange(waits_, false)) next();
}

}  // namespace godwit::agent
