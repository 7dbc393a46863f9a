#pragma once
// Tells the source what a vm's disks have at its target already: a digest of each block that is
// there (disk/seed.hh). They are read from QEMU's exports, while records come in.
//
// Owned by a DiskTarget, which owns the clients, too; control thread.
#include <memory>
#include <vector>

#include "agent/transfer_link.hh"
#include "crypto/keyed_hash.hh"
#include "disk/seed.hh"
#include "qemu/block_client.hh"
#include "qemu/disk_spec.hh"

namespace godwit::agent {

class DiskSeeds final {
 public:
  using Clients = std::vector<std::unique_ptr<qemu::BlockClient>>;

  // One client for each disk, ready. To be destroyed after them, as they read into it.
  DiskSeeds(const Clients& clients, const std::vector<qemu::DiskSpec>& disks, TransferLink& link,
            std::function<void(std::string)> failed);

  // The link may take more than before.
  void room() { offer(); }

 private:
  void scan();
  void read();
  void offer();

  const Clients& clients_;
  const std::vector<qemu::DiskSpec>& disks_;
  TransferLink& link_;
  std::function<void(std::string)> failed_;
  crypto::KeyedHash digest_;
  std::uint8_t disk_ = 0;                  // whose turn it is
  std::optional<disk::DirtyMap> there_;    // of it, what is not read yet
  Bytes block_, bytes_;                    // read; not taken by the link yet
  bool waits_ = false, offering_ = false;  // the next read, for the link
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
