#pragma once
// One run of a replica as it comes in: a transfer, and a storage daemon that writes the disks.
// Owned by Replicas; control thread.
#include <memory>
#include <string>

#include "agent/disk_target.hh"
#include "agent/transfer_link.hh"

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
    bool same = false;  // the source knows what differs
  };

  // Into `paths`; with a socket in `directory`.
  ReplicaTarget(os::Loop& loop, Run run, std::vector<qemu::DiskPaths> paths,
                const std::filesystem::path& directory, Events events);

  ~ReplicaTarget();

  const Run& run() const { return run_; }
  void use_lane(stream::LaneNumber number, std::unique_ptr<os::ByteStream> lane, BytesView early) {
    link_.use_lane(number, std::move(lane), early);
  }

 private:
  void fail_with(const std::string& why);

  os::Loop& loop_;
  Run run_;
  Events events_;
  std::filesystem::path directory_;
  TransferLink link_;
  std::optional<DiskTarget> disks_;
  bool failed_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
