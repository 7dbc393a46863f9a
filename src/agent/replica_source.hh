#pragma once
// One run of a replica: what a vm's disks have that the replica has not goes to its host, by a
// transfer of its own. Only what the dirty bitmaps say, where the replica is as the last run left
// it; else all of both is compared. Or, before a move, the snapshots that are in the disks' files.
// Owned by Replicas or a SourceMove; control thread.
#include <memory>
#include <string>

#include "agent/disk_source.hh"
#include "agent/lane_dialer.hh"
#include "agent/peers.hh"
#include "agent/transfer_link.hh"
#include "qemu/dirty_bitmaps.hh"

namespace godwit::agent {

class ReplicaSource final {
 public:
  struct Settings {
    std::string to;      // host
    std::string synced;  // the id of the last run that came whole; empty: none
    BitRate bandwidth;   // zero: no cap
    std::vector<qemu::DiskSnapshots> snapshots{};  // if there are some: these, not the disks
  };
  struct Events {
    // What `synced` says is of no use any more: this run, or one after it, compares.
    std::function<void()> lost;
    std::function<void(Result<>)> ended;  // once; not when this is destroyed
  };

  // `vm` runs here, and no move has it.
  ReplicaSource(os::Loop& loop, Vm& vm, Peers& peers, Settings settings, Events events);
  ~ReplicaSource();

  void start();
  void set_bandwidth(BitRate cap);
  // Whether its host still takes it, whose agent may be another: the run ends if not.
  void look_for_target();
  const std::string& word() const { return word_; }  // this run's
  // Nothing before there is anything to tell.
  std::optional<DiskSource::Progress> progress() const;
  bool compares() const { return compares_; }

  // Of a vm's disks, for its replica at a host.
  static std::string bitmap(const std::string& to) { return "godwit-replica-" + to; }

 private:
  bool sends_snapshots() const { return !settings_.snapshots.empty(); }
  void ask_target(qemu::Changes changes);
  void send(bool same);
  void end(Result<> result);
  void adopt();
  void tell_end();

  os::Loop& loop_;
  Vm& vm_;
  Peers& peers_;
  Settings settings_;
  Events events_;
  stream::TransferId id_;
  std::string word_;
  bool compares_ = true, ended_ = false;
  LaneDialer dialer_;
  std::unique_ptr<TransferLink> link_;
  std::unique_ptr<DiskSource> disks_;
  Vm::Subscription subscription_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
