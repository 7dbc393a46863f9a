#pragma once
// Tells the source what a vm's disks have at their target already: a digest of each block that is
// there (disk/seed.hh). They are read from QEMU's exports, while records come in. Before that, what
// this host has elsewhere (disk/catalogue.hh).
//
// Owned by a DiskTarget, which owns the clients, too; control thread.
#include <memory>
#include <vector>

#include "agent/disk_digests.hh"
#include "agent/elsewhere.hh"
#include "agent/transfer_link.hh"

namespace godwit::agent {

class DiskSeeds final {
 public:
  using Clients = std::vector<std::unique_ptr<qemu::BlockClient>>;

  // One client for each disk, ready. To be destroyed after them, as they read into it. `elsewhere`
  // may be null.
  DiskSeeds(const Clients& clients, const std::vector<qemu::DiskSpec>& disks,
            const Elsewhere* elsewhere, TransferLink& link,
            std::function<void(std::string)> failed);

  // The link may take more than before.
  void room() { offer(); }

 private:
  void next();
  void offer();

  const Clients& clients_;
  const std::vector<qemu::DiskSpec>& disks_;
  TransferLink& link_;
  std::function<void(std::string)> failed_;
  crypto::KeyedHash digest_;
  std::vector<disk::Name> names_;          // of what is elsewhere
  std::size_t named_ = 0;                  // of these
  std::uint8_t disk_ = 0;                  // whose turn it is
  std::optional<DiskDigests> digests_;     // of it
  Bytes bytes_;                            // not taken by the link yet
  bool waits_ = false, offering_ = false;  // the next part, for the link
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
