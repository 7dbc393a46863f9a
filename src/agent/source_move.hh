#pragma once
// A migration as its source host performs it: feeds events to migrate::Source and carries out the
// effects on QEMU (through SourceMemory), the ports, the target's agent and the journal. Its steps
// are in source_move.cc, with what they need beside it: _memory, _disks, _postcopy, _guest, _told.
#include <memory>
#include <optional>
#include <string>

#include "agent/clock.hh"
#include "agent/disk_source.hh"
#include "agent/events.hh"
#include "agent/flip.hh"
#include "agent/hooks.hh"
#include "agent/known_memory.hh"
#include "agent/memory_rescue.hh"
#include "agent/move.hh"
#include "agent/network.hh"
#include "agent/peers.hh"
#include "agent/replica_source.hh"
#include "agent/source_memory.hh"
#include "agent/vms.hh"
#include "migrate/bounds.hh"
#include "migrate/event_queue.hh"
#include "migrate/report.hh"
#include "migrate/source.hh"
#include "store/store.hh"

namespace godwit::agent {

class Components;
class Contents;
class Relocations;
class Replicas;
class Volumes;

class SourceMove final : public Move {
 public:
  struct Context {
    os::Loop& loop;
    const Config& config;
    store::Store& store;
    Network& network;
    Components& components;
    Vms& vms;
    Disks& disks;
    Replicas& replicas;
    KnownMemory& known;
    Contents& contents;
    Volumes& volumes;
    Relocations& relocations;
    Peers& peers;
    Events& events;
    Nanoseconds give_back_bound = migrate::kGiveBackBound;  // tests wait less
  };

  SourceMove(const Context& context, SourceRecord record);

  Result<> accept() override;
  void begin() override;
  void restart() override;
  // How hooks and clock fared where the vm runs now: told when they are through.
  void hooks_ended(const HookOutcome& outcome);
  void clock_corrected(const ClockReport& report);
  void network_moved(const nlohmann::json& told);
  void flipped(const FlipReport& report);
  using Move::feed;
  void feed(migrate::SourceEvent event, std::string text) override;
  void give_up() override;
  void doubt_lanes() {
    if (memory_) memory_->doubt_lanes();
  }
  void session_up();
  Result<> set(const MoveChanges& changes) override;
  void share(const std::shared_ptr<SharedIndex>& index) override { shared_ = index; }
  void break_off() override;
  void went_on(const std::optional<MigrationId>& as) override;
  // Post-copy: what carried the memory was lost with an agent, or the target's knows it no more.
  void recover_memory();
  void target_needs_memory();  // by its word
  void share_bandwidth(BitRate cap) override;
  void regroup(const GroupPlace& place) override;
  double remaining_bytes() const override;
  double dirty_bytes_per_second() const override;

  const SourceRecord& record() const override { return record_; }
  migrate::SourceState state() const override { return machine_.state(); }
  const std::string& reason() const override { return machine_.reason(); }
  nlohmann::json describe() const override;
  nlohmann::json progress() const override;
  static nlohmann::json disk_progress(const DiskSource::Progress& disks);
  bool over() const override { return machine_.over(); }
  // Not even memory is to follow.
  bool handed_over() const override;
  bool network_follows() const override;
  bool stuck() const override { return !stuck_.empty(); }

 private:
  Result<> perform(migrate::SourceEffect effect);
  void perform_surely(migrate::SourceEffect effect);
  nlohmann::json journal_entry();
  void save();
  void recorded();
  void publish_state();
  void prepare_target();
  void start_memory();
  void hold_replicas();
  void send_snapshots(Vm& vm, std::vector<qemu::DiskSnapshots> snapshots);
  void snapshots_sent(const Result<>& result);
  bool copies_disks(const Vm& vm) const;
  void start_disks(Vm& vm);
  void maybe_converged();
  void proceed();
  void let_go_of_disks(std::function<void()> then);
  migrate::PauseLimits limits() const;
  std::size_t lanes() const;
  void diverged(std::string why);
  void resumed();
  void let_run();
  HookCall hook_call(HookMoment moment, std::string outcome) const;
  void pre_pause();
  void post_resume();
  void ports_armed();
  void pause_ports();
  void commit_target();
  void abort_target();
  void resume_guest();
  void memory_failed(std::string why);
  void become_stuck();
  void memory_completed();
  void tell_lost();
  void end_guest();
  void wait();
  void follow(Vm& vm);
  void owned(const nlohmann::json& reply);
  void publish_progress();
  // Of QEMU, its guest's with it, and of the agent, since the move began; in seconds.
  double cpu_spent(const Vm& vm) const;
  void tell_followers();
  void publish_done();
  std::string shown_state() const;
  std::optional<codec::Settings> codec() const;
  std::optional<SharedPlace> shared_place() const;

  Context context_;
  SourceRecord record_;
  std::weak_ptr<SharedIndex> shared_;  // the group's, while that is live
  std::optional<std::pair<migrate::SourceState, bool>> published_;  // and whether memory follows
  migrate::Source machine_;
  migrate::EventQueue<migrate::Source> queue_;
  Vm::Subscription subscription_;
  std::unique_ptr<SourceMemory> memory_;
  std::shared_ptr<const bool> replicas_held_;  // while the move is under way
  std::unique_ptr<ReplicaSource> snapshots_;   // before anything else
  std::vector<qemu::DiskSnapshots> snapshots_there_{};
  DiskSource::Progress sent_of_snapshots_{};
  std::unique_ptr<DiskSource> disks_;  // after memory_, whose link it uses
  bool network_is_late_ = false;       // nobody waits for what is told of it
  bool memory_converged_ = false, disks_settled_ = false, proceeds_ = false;
  std::unique_ptr<MemoryRescue> rescue_;
  bool memory_broken_ = false;
  std::unique_ptr<HookRun> hooks_;
  std::unique_ptr<qemu::GuestClock> clock_;
  migrate::Milestones milestones_;
  migrate::Report report_;
  double cpu_at_begin_ = 0;
  std::string divergence_;   // what was said when it diverged
  std::string not_resumed_;  // why, while it aborts: the last answer of QEMU's
  std::string stuck_;        // what is told of it
  os::Loop::Timer bound_, progress_timer_, retry_, again_, teardown_, network_patience_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
