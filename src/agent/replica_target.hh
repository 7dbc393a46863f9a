#pragma once
// One run of a replica as it comes in: a transfer, and a storage daemon that writes the disks. Or
// what snapshots are made of, which are disks once they are adopted. Owned by Replicas; control
// thread.
#include <memory>
#include <string>

#include "agent/disk_target.hh"
#include "agent/transfer_link.hh"
#include "qemu/disk_snapshots.hh"

namespace godwit::agent {

class ReplicaTarget final {
 public:
  struct Events {
    std::function<void()> ready;  // lanes may come
    std::function<void()>
        closed;  // all of the run is on stable storage; nothing was told of it yet
    std::function<void(std::string)> failed;  // once
  };
  struct Run {
    stream::TransferId id;
    std::string from;  // host
    qemu::VmSpec vm;
    bool same = false;                             // the source knows what differs
    std::vector<qemu::DiskSnapshots> snapshots{};  // if there are some: these, not the disks
  };

  // Into `paths`, of the disks or of a file for each that has snapshots, which are there; with a
  // socket in `directory`.
  ReplicaTarget(os::Loop& loop, Run run, std::vector<qemu::DiskPaths> paths,
                const std::filesystem::path& directory, Events events);

  ~ReplicaTarget();

  const Run& run() const { return run_; }
  // The run has closed; the files become disks of the vm, with the images that `disks` are on.
  void adopt(std::vector<qemu::DiskPaths> disks, std::function<void(Result<>)> done);
  void use_lane(stream::LaneNumber number, std::unique_ptr<os::ByteStream> lane, BytesView early) {
    link_.use_lane(number, std::move(lane), early);
  }
  // True of a run that has none to adopt.
  bool has_adopted_all() const { return to_adopt_ == run_.snapshots.size(); }

 private:
  qemu::VmSpec disks_that_come() const;
  void adopt_next();
  void adopted(const Result<>& result);
  void fail_with(const std::string& why);

  os::Loop& loop_;
  Run run_;
  std::vector<qemu::DiskPaths> paths_;
  Events events_;
  std::filesystem::path directory_;
  TransferLink link_;
  std::optional<DiskTarget> disks_;
  // While they are adopted, one after the other.
  std::vector<qemu::DiskPaths> adopt_into_;
  std::size_t to_adopt_ = 0;
  std::unique_ptr<qemu::SnapshotAdoption> adoption_;
  std::function<void(Result<>)> adopted_;
  bool closed_ = false, failed_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
