#pragma once
// Digests of what a disk has of its own, part after part, as its export is read.
#include <functional>
#include <optional>

#include "crypto/keyed_hash.hh"
#include "disk/seed.hh"
#include "qemu/block_client.hh"
#include "qemu/disk_spec.hh"

namespace godwit::agent {

class DiskDigests final {
 public:
  // What was read, at the disk's offset; zeroes that have no place are not read.
  using Seen = std::function<void(std::uint64_t offset, BytesView bytes)>;
  // As the disk `number` of the parts. To be destroyed after the client, which reads into it.
  DiskDigests(qemu::BlockClient& client, const qemu::DiskSpec& disk, std::uint8_t number,
              crypto::KeyedHash& digest, Seen seen = {})
      : client_(client), disk_(disk), number_(number), digest_(digest), seen_(std::move(seen)) {}

  using Part = std::function<void(Result<disk::SeedPart>)>;
  // The next, later; the last is that at the disk's size. Nothing is told once the client is gone.
  void next(Part part);

 private:
  void read(Part part);

  qemu::BlockClient& client_;
  const qemu::DiskSpec& disk_;
  std::uint8_t number_;
  crypto::KeyedHash& digest_;
  Seen seen_;
  std::optional<disk::DirtyMap> there_;  // what is not read yet
  Bytes block_;
};

}  // namespace godwit::agent
