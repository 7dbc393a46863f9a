#pragma once
// The disks of this host's vms, in files: made with a vm, removed with it, and left behind by one
// that moved away or whose move to here broke off, until it comes again or its operator purges
// them. Hosts that see the same storage in DISK_DIR/vms pass disks on as they are: there what a
// host has no record of is another's.
//
//   DISK_DIR/vms/VM-ID/DISK.FORMAT      QEMU's; the id is the vm's own, wherever it runs
//   DISK_DIR/vms/VM-ID/DISK.snapshots   what comes to be a disk with snapshots
//   DISK_DIR/vms/VM-ID/tpm              state of its TPM
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "agent/images.hh"
#include "agent/storage_marker.hh"
#include "qemu/disk_snapshots.hh"
#include "qemu/vm_spec.hh"
#include "store/store.hh"

namespace godwit::agent {

class Disks final {
 public:
  Disks(const Config& config, store::Store& store, Images& images);

  // For a vm that begins here: {name, size?, image?, format?, bus?} as the API has it, checked
  // against the library; a disk from an image is as large as that unless it says more.
  Result<std::vector<qemu::DiskSpec>> specs_of(const nlohmann::json& disks,
                                               const std::string& tenant);
  // What cannot be made here, one line each: images that are missing or others, too little room.
  std::vector<std::string> refusals(const qemu::VmSpec& spec);
  // For another host, to see that it has the same storage. Of a vm with disks here; null if none
  // can be made: then that host takes nothing that it finds for its own.
  std::shared_ptr<const StorageMarker> mark(const qemu::VmSpec& spec) const;
  // The other host's part: what keeps QEMU here from the disks as they are. Empty: nothing.
  bool sees(const VmId& id, const StorageMarkerId& marker) const;
  std::string obstacle_to_sharing(const qemu::VmSpec& spec) const;
  // Why disks of a vm cannot be made here: there are files that are not ours. Empty: they can.
  std::string obstacle_to_receiving(const VmId& id);
  // New and empty. None is left when one fails.
  Result<> make(const qemu::VmSpec& spec);
  // For a vm that comes from the host `from`: what it left here, or what came of it before, stays,
  // for the move to make the same as there; what is not there, or another disk, is made anew.
  Result<> receive(const qemu::VmSpec& spec, const std::string& from);
  // The same for a replica. True: all of it is as replica_synced() with this word left it, or came
  // after that in a run that `synced` knows of; an empty word is nobody's.
  Result<bool> receive_replica(const qemu::VmSpec& spec, const std::string& from,
                               const std::string& synced);
  void replica_synced(const VmId& id, const std::string& word);
  // What is here of the vm has these inside of its files.
  bool has_snapshots(const qemu::VmSpec& spec, const std::vector<qemu::DiskSnapshots>& snapshots);
  // For files that come with what they are made of, to become disks: empty ones, in their order.
  Result<std::vector<qemu::DiskPaths>> receive_snapshots(
      const qemu::VmSpec& spec, const std::string& from,
      const std::vector<qemu::DiskSnapshots>& snapshots);
  // That `from` made here, unless the vm has come.
  void remove_replica(const VmId& id, const std::string& from);
  void arrived(const VmId& id);
  // It did not arrive: what came stays for the next move, if it is more than nothing.
  void break_off(const VmId& id);
  void remove_unfinished(const VmId& id);
  // What receive() would find.
  ByteCount there_already(const qemu::VmSpec& spec);
  // Where they are, or will be.
  std::vector<qemu::DiskPaths> paths(const qemu::VmSpec& spec) const;
  std::filesystem::path tpm(const VmId& id) const { return directory(id) / "tpm"; }
  // Names of vms with a disk on this image, of those that moved away and left theirs too.
  std::vector<std::string> vms_on(const std::string& image);
  // There is a vm with this id, that runs, stands, or waits for its memory.
  bool is_here(const VmId& id);
  // Of a vm with this id, whatever they are of.
  void remove(const VmId& id);

  // What they take of this host's room.
  ByteCount used_bytes(const qemu::VmSpec& spec) const;

  // The vm has moved away: its disks here are of the past.
  void leave(const qemu::VmSpec& spec, const std::string& to);
  // Removes what vms of this name and tenant left, unless they are on their way here.
  void purge_left(const std::string& vm, const std::string& tenant);
  // Of vms that moved away or were removed: nobody writes to their disks.
  std::vector<qemu::VmSpec> left();
  // As the API shows them: those of a vm here, and those that were left.
  std::vector<nlohmann::json> list_of(const qemu::VmSpec& spec) const;
  std::vector<nlohmann::json> list_left();

 private:
  std::filesystem::path directory(const VmId& id) const;
  std::filesystem::path file_of(const VmId& id, const qemu::DiskSpec& disk) const;
  Result<> make_directory(const VmId& id) const;
  // Makes what is not there.
  Result<> receive_into(const qemu::VmSpec& spec, const std::vector<bool>& there);
  // Of these disks, in their order, which are there to receive into.
  std::vector<bool> there(const qemu::VmSpec& spec);
  nlohmann::json describe(const qemu::VmSpec& spec, const qemu::DiskSpec& disk) const;

  const Config& config_;
  store::Store& store_;
  Images& images_;
};

}  // namespace godwit::agent
