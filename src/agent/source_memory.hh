#pragma once
// The memory of one vm on its way out: QEMU's conversation, the transfer and its lanes, and the
// policy that watches both. Owned by a SourceMove; control thread.
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "agent/lane_dialer.hh"
#include "agent/peers.hh"
#include "agent/transfer_link.hh"
#include "agent/vm.hh"
#include "migrate/lane_share.hh"
#include "migrate/policy.hh"
#include "migrate/report.hh"
#include "os/socket.hh"
#include "qemu/migration.hh"
#include "stream/qemu_parser.hh"

namespace godwit::agent {

class SourceMemory final {
 public:
  struct Settings {
    MigrationId id;
    std::string to;  // host
    migrate::PauseLimits limits;
    std::optional<BitRate> bandwidth;
    bool throttle = false;    // the vCPUs, where it would diverge
    bool postcopy = false;    // likewise: the rest follows
    bool hold = false;        // kept in step until the switch-over is allowed
    bool background = false;  // what the guest and its wires need comes first
    std::size_t lanes = 1;
    bool has_disks = false;                      // whose bytes come first: see begin()
    std::optional<TransferLink::Coding> coding;  // none: the memory stream passes as it is
  };
  struct Events {
    std::function<void()> converged;
    std::function<void(std::string)> diverged;  // with figures and remedies
    std::function<void()> pre_switchover;
    std::function<void()> follows{};  // post-copy: what the guest needs to run has left
    std::function<void()> completed;
    std::function<void(std::string)> failed;
    std::function<void()> running;                          // after abort(), or QEMU's own decision
    std::function<bool()> may_pause = [] { return true; };  // of a vm with disks: for them
    std::function<void()> about_to_stop = [] {};
  };
  struct Progress {
    std::uint64_t round = 0, remaining_bytes = 0, sent_bytes = 0, total_bytes = 0;
    BitRate rate;            // of the lane
    BitRate effective_rate;  // of memory: the lane's, and what encoding saves
    double dirty_bytes_per_second = 0;
    std::uint64_t throttle_percent = 0;
    Nanoseconds eta{}, predicted_pause{};
    std::uint32_t lanes_up = 0;
  };

  SourceMemory(os::Loop& loop, Vm& vm, Peers& peers, Settings settings,
               migrate::Milestones& milestones, Events events);

  // Begins while the target prepares itself: QEMU's dirty log, the lane, and what the lane carries
  // until it has found out what the path carries. All that is left follows after continue_all().
  void start();
  // Of a vm with disks, when they are nearly there: QEMU's part, which start() did not begin.
  void begin();
  TransferLink& link() { return *link_; }  // from start() on
  void continue_all();
  // From now on the vCPUs are stopped when the policy says so; after `diverged`, with
  // pause_on_diverge, whatever the pause will be.
  void allow_switchover();
  void proceed();
  // Post-copy: the guest runs at the target, QEMU here has the rest of its memory.
  void serve();
  // Also of a migration that an earlier agent began, or that has completed but was refused. Ends in
  // `running`, or in `failed`: then it may be asked again.
  void abort(const std::string& reason);
  void doubt_lanes() {
    if (link_) link_->doubt_lanes();
  }
  void set_limits(migrate::PauseLimits limits);
  void set_bandwidth(std::optional<BitRate> cap);
  // The same from those who share a cap, which changes all the time.
  void share_bandwidth(BitRate cap);

  Progress progress() const;
  // False where QEMU stopped the vm by itself.
  bool stop_asked() const { return stop_asked_; }
  void fill(migrate::Report& report) const;

 private:
  void follow_qemu();
  void maybe_continue();
  void begin_qemu();
  void on_ended(const qemu::OutgoingMigration::End& end);
  void on_status(qemu::MigrationStatus status);
  void on_event(const qemu::QmpEvent& event);
  void keep_socket(const os::SocketStream& qemu);
  void throw_away_kept();
  void look_at_rest();
  void poll();
  void judge(const qemu::MigrationInfo& info);
  void stop_guest();
  void start_postcopy();
  void bound_stand();
  void hold(ByteCount remaining);
  void hold_back(BitRate delivered);
  BitRate background_cap() const;
  BitRate unhindered(BitRate memory, BitRate lane) const;
  void go_all_out();
  void end_round(Instant now);
  void mark(const stream::QemuMark& mark);
  std::string divergence(const migrate::StopJudge::Verdict& verdict) const;

  os::Loop& loop_;
  Vm& vm_;
  Peers& peers_;
  Settings settings_;
  migrate::Milestones& milestones_;
  Events events_;
  migrate::StopJudge policy_;
  bool held_;
  LaneDialer dialer_;
  std::unique_ptr<TransferLink> link_;
  std::unique_ptr<os::Listener> listener_;
  std::unique_ptr<os::ByteStream> kept_;  // what an earlier agent left with QEMU
  std::unique_ptr<qemu::OutgoingMigration> outgoing_;
  Vm::Subscription subscription_;
  os::Loop::Timer poll_timer_, stand_timer_;
  bool begun_ = false, prepared_ = false, known_learnt_ = false, continued_ = false,
       switchover_allowed_ = false, stop_asked_ = false, stopped_ = false;
  bool aborting_ = false, outgoing_ended_ = false, ended_running_ = false;
  bool told_converged_ = false, told_diverged_ = false;
  Progress progress_;
  BitRate unhindered_rate_;  // in the background: the best that was delivered
  Instant synced_{};         // QEMU's last sync of its dirty bitmap
  migrate::LaneShare lane_share_;
  std::optional<Nanoseconds> predicted_pause_;  // as the guest was stopped
  std::vector<migrate::Round> rounds_;
  Instant round_start_{};
  std::uint64_t round_start_bytes_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
