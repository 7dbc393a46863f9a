#pragma once
// Snapshots inside of a disk's qcow2 file ("internal", qemu-img snapshot): states of the disk that
// the file keeps beside the present one, with or without a vm's state. What crosses to another host
// is a copy of what the file has of them (snapshot_map.hh), and of that a disk is made there.
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "os/child.hh"
#include "qemu/commands.hh"
#include "qemu/disk_spec.hh"

namespace godwit::qemu {

// As it was made: another one of the same name has another date.
struct Snapshot {
  std::string id, name;
  std::uint64_t state_bytes = 0;  // of the vm; zero: of the disk only
  std::uint64_t made_s = 0;       // since 1970
  std::uint64_t made_ns = 0;      // beyond that
  bool operator==(const Snapshot&) const = default;
};

struct DiskSnapshots {
  std::size_t disk = 0;  // of the vm's
  ByteCount file{};      // that has them; whole sectors
  std::vector<Snapshot> snapshots;
  bool operator==(const DiskSnapshots&) const = default;
};
// Their files as they cross: raw disks.
std::vector<DiskSpec> files_of(const std::vector<DiskSnapshots>& snapshots,
                               const std::vector<DiskSpec>& disks);
nlohmann::json to_json(const std::vector<DiskSnapshots>& disks);
// Of a vm with so many disks.
Result<std::vector<DiskSnapshots>> disk_snapshots(const nlohmann::json& json, std::size_t disks);
// "before-upgrade, nightly"
std::string names_of(const std::vector<Snapshot>& snapshots);

// Of those disks of a running vm that have some.
void query_snapshots(Qmp& qmp, const std::vector<DiskSpec>& disks,
                     Answer<std::vector<DiskSnapshots>> answer);
// Of a file that no QEMU writes. Blocks for some hundredths of a second.
Result<std::vector<Snapshot>> read_snapshots(const std::filesystem::path& file);

// Makes a disk of a file that has nothing but what the map of another told of: its present state is
// that of the last snapshot. By qemu-img, which also counts anew what refers to what. Destroying
// this ends it.
class SnapshotAdoption final {
 public:
  // `paths.file` is that file. `done` once, later.
  SnapshotAdoption(os::Loop& loop, DiskSpec disk, DiskPaths paths, std::vector<Snapshot> snapshots,
                   std::function<void(Result<>)> done);

 private:
  void next();
  Result<> cut_present();
  Result<> look();
  void exited(const os::ExitStatus& status);
  void end(Result<> result);

  os::Loop& loop_;
  DiskSpec disk_;
  DiskPaths paths_;
  std::vector<Snapshot> snapshots_;
  std::function<void(Result<>)> done_;
  std::vector<std::vector<std::string>> commands_;  // the next is the last
  os::Fd said_;                                     // a file in memory
  os::Child process_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::qemu
