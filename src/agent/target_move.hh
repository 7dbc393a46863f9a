#pragma once
// A migration as its target host performs it: feeds events to migrate::Target and carries out the
// effects on the waiting QEMU, the held ports and the journal. Its steps are in target_move.cc,
// with what they need beside it: _prepare, _guest, _postcopy.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/disk_target.hh"
#include "agent/flip.hh"
#include "agent/memory_rescue.hh"
#include "agent/source_move.hh"
#include "agent/target_record.hh"
#include "agent/transfer_link.hh"
#include "migrate/target.hh"
#include "qemu/migration.hh"

namespace godwit::agent {

class TargetMove final {
 public:
  TargetMove(const SourceMove::Context& context, TargetRecord record);

  // migration.prepare
  // `group`: what the vm's memory shares with those that come with it; null: nothing.
  // `wants_elsewhere`: the source takes what its disks can be made of here.
  void prepare(PeerRequest request, const std::optional<codec::Settings>& codec,
               std::shared_ptr<SharedReader> group, bool wants_elsewhere);
  // migration.commit; behind: how long the vm's clock has stood still, if the source knows.
  void commit(PeerRequest request, std::optional<Nanoseconds> behind);
  // migration.abort; given_up: as an operator wants it, who wants nothing of it here.
  void abort(PeerRequest request, const std::string& reason, bool given_up);
  Result<> give_up();           // the operator's wish, before it owns the guest
  Result<> source_destroyed();  // the operator's word: run what has come whole
  void restart();
  void on_session_up();
  // migration.recover: by a new transfer.
  void recover(PeerRequest request, const stream::TransferId& transfer);
  void lost(const std::string& reason);  // migration.lost: what has not come never will
  bool carries(const stream::TransferId& transfer) const { return transfer == transfer_; }
  bool memory_follows() const { return record_.memory_follows; }
  // A lane of our transfer; `early` was read from it already.
  void use_lane(stream::LaneNumber number, std::unique_ptr<os::ByteStream> lane, BytesView early);
  // Owner or refused, and nothing left to do.
  bool settled() const;

  const TargetRecord& record() const { return record_; }
  std::vector<PortId> uplinks() const;  // that follow the vm
  nlohmann::json describe() const;

 private:
  void feed(migrate::TargetEvent event, std::string text = {});
  Result<> perform(migrate::TargetEffect effect);
  void perform_surely(migrate::TargetEffect effect);
  nlohmann::json journal_entry();
  void recorded();
  void discard_guest();
  void prepare_guest();
  void find_in_images(codec::Known known);
  void find_elsewhere(codec::Known known);
  void prepare_guest(codec::Known known);
  bool hold_ports();
  void stage_network();
  void follow_network();
  Vm* guest();
  void start_incoming(Vms::Incoming incoming, codec::Known known);
  bool takes_disks() const;
  void start_disks();
  void follow(Vm& vm);
  void look_at_guest();
  void end_link();
  void maybe_prepared();
  void maybe_loaded();
  void watch_rest(Vm& vm);
  void memory_complete();
  void use_recovered(std::unique_ptr<os::ByteStream> qemu, PeerRequest request);
  void ask_for_rest();
  void run_guest();
  void guest_runs(Instant since);
  void reply(const nlohmann::json& body);
  void notify_failed();
  void run_ports();
  void post_resume();
  void flip(Vm& vm);
  void correct_clock(Vm& vm);
  void tell_source(const char* what, const nlohmann::json& value);
  void reply_owns();

  SourceMove::Context context_;
  TargetRecord record_;
  std::optional<migrate::TargetState> published_;
  migrate::Target machine_;
  std::vector<PortId> ports_;
  std::vector<PortId> holding_;  // those of ports_ that we hold
  migrate::EventQueue<migrate::Target> queue_;
  std::optional<PeerRequest> preparing_;
  std::vector<PeerRequest> waiting_;  // commits and aborts without an answer yet
  Vm::Subscription subscription_;
  std::unique_ptr<HookRun> hooks_;
  std::unique_ptr<qemu::GuestAgent> flip_;
  std::unique_ptr<qemu::GuestClock> clock_;
  std::optional<Instant> clock_stood_since_;  // ours, when the source's vCPUs stopped
  std::unique_ptr<qemu::IncomingMigration> incoming_;
  std::optional<codec::Settings> codec_;  // that the source uses
  std::shared_ptr<SharedReader> group_;   // until the link has it
  stream::TransferId transfer_;           // that link_ is of
  std::unique_ptr<TransferLink> link_;
  bool wants_elsewhere_ = false;
  std::shared_ptr<const Elsewhere> elsewhere_;  // until disks_ has it; null: nothing
  std::unique_ptr<DiskTarget> disks_;           // of link_
  bool disks_ready_ = true, keeps_disks_ = true;
  std::unique_ptr<TargetRescue> rescue_;
  bool rescue_ready_ = false, in_postcopy_ = false, runs_ = false;
  bool listening_ = false, ports_held_ = false, guest_loaded_ = false, stream_verified_ = false;
  bool network_staged_ = true;
  Instant cont_at_{};
  Nanoseconds resume_took_{};  // from cont_at_ on
  Network::Held held_;         // known when no longer counting_
  bool counting_ = false, owes_reply_ = false;
  double cpu_at_begin_ = 0;
  os::Loop::Timer bound_, again_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
