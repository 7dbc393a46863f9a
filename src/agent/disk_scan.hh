#pragma once
// What a disk of a vm has of its own, as its QEMU tells: not what reads as zeroes; of an overlay,
// not what its image has. Or what a bitmap of it says has changed.
#include <functional>

#include "disk/dirty_map.hh"
#include "qemu/block_client.hh"
#include "qemu/disk_spec.hh"

namespace godwit::agent {

enum class Scan { own, dirty };
// `has` is called for each such part, from the beginning on; `done` at the end, or with an error.
// Nothing is called once the client is gone.
void scan_disk(qemu::BlockClient& client, const qemu::DiskSpec& disk, Scan what,
               std::function<void(disk::Extent)> has, qemu::BlockClient::Done done);

// Of a qcow2 file that is served as it is, so many bytes: what its snapshots are made of
// (qemu/snapshot_map.hh).
void scan_snapshots(qemu::BlockClient& client, ByteCount file,
                    std::function<void(disk::Extent)> has, qemu::BlockClient::Done done);

}  // namespace godwit::agent
