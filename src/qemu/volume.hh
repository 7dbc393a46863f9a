#pragma once
// A volume: a disk of a vm at a server that the vm's hosts reach alike (network block storage).
// QEMU speaks to the server; the volume stays where it is when the vm moves.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "qemu/disk_nodes.hh"

namespace godwit::qemu {

inline constexpr std::size_t kMaxUri = 512;

struct VolumeSpec {
  std::string name;  // within the vm, as those of its disks
  DiskBus bus = DiskBus::virtio;
  std::string uri;  // see volume_nodes()
  bool operator==(const VolumeSpec&) const = default;
};

nlohmann::json to_json(const VolumeSpec& volume);
// {name, bus, uri}, all of them given; checked.
Result<VolumeSpec> volume_spec_from_json(const nlohmann::json& object);
Result<> check(const VolumeSpec& volume);

// As disk_nodes(): the server's block device, raw. Of a volume that check() accepts. URIs:
//
//   nbd://HOST[:PORT]/EXPORT            NBD's own form (doc/uri.md of the NBD project)
//   iscsi://HOST[:PORT]/TARGET/LUN      libiscsi's
//   nfs://HOST/EXPORT/FILE              libnfs' (RFC 2224)
//   rbd:POOL/IMAGE                      QEMU's; POOL/NAMESPACE/IMAGE; /etc/ceph has the rest
//
// None has a user or a password: they would be seen in QEMU's arguments.
std::vector<std::string> volume_nodes(const VolumeSpec& volume, const std::string& node,
                                      DiskAccess access = DiskAccess::write);

// Of their schemes, those of which QEMU has no driver here.
std::vector<std::string> missing_volume_drivers();

}  // namespace godwit::qemu
