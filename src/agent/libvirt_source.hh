#pragma once
// A libvirt domain's move, at its source. libvirt drives QEMU and makes the hand-over, through
// sockets of ours; what passes them goes to the target's agent as a vm's memory and disks do:
//
//   godwit-libvirt migrate ---> libvirt ---control---> TunnelEntry ==> the target's libvirt
//                                  | QEMU --memory--> TransferLink ==> LibvirtTarget --> its QEMU
//                                  '      --disks---> MirrorSource ==>        "      --> its QEMU
//
// libvirt is told to leave the domain paused at the target, so it never runs there before we say
// so; and we do only when libvirt has ended it here. So whether the domain is still here decides
// what becomes of it, whoever died meanwhile (docs/ARCHITECTURE.md).
//
//   planned -> preparing -> copying -> released -> done
//                  any before released -> aborting -> aborted
//
// Control thread.
#include <memory>
#include <string>

#include "agent/libvirt_passage.hh"
#include "agent/libvirt_program.hh"
#include "agent/source_move.hh"

namespace godwit::agent {

class LibvirtSource final {
 public:
  LibvirtSource(const SourceMove::Context& context, LibvirtSourceRecord record);
  ~LibvirtSource();

  // Recorded: from now on it is known, also after a restart.
  Result<> accept();
  void begin();
  void restart();
  // Fails when it is too late.
  Result<> abort(const std::string& reason);
  void target_failed(const std::string& reason);
  void on_session_up();
  void doubt_lanes();
  Result<> set(const MoveChanges& changes);

  const LibvirtSourceRecord& record() const { return record_; }
  bool over() const { return migrate::is_final(record_.move.state) && record_.move.abort_told; }
  nlohmann::json describe() const;
  nlohmann::json progress() const;

 private:
  void enter(migrate::SourceState state);
  void prepare();
  void start();
  void marked(const stream::QemuMark& mark);
  void migrate();
  void migrated(const Result<nlohmann::json>& outcome);
  void give_up(const std::string& reason);
  void look();
  void looked(const Result<nlohmann::json>& found);
  void let_run();
  void aborted();
  void tell_abort();
  void release();
  void commit();
  void committed(const nlohmann::json& reply);
  void close();
  void publish_progress();
  std::optional<codec::Settings> codec() const;
  std::string shown_state() const;

  const SourceMove::Context context_;
  LibvirtSourceRecord record_;
  LibvirtSockets sockets_;
  std::unique_ptr<LibvirtPassage> passage_;
  std::unique_ptr<LibvirtProgram> program_;
  nlohmann::json job_;  // as libvirt told last
  migrate::Milestones milestones_;
  std::vector<migrate::Round> rounds_;
  std::uint64_t round_from_ = 0;  // bytes of QEMU's stream
  Instant round_since_{};
  double cpu_at_begin_ = 0;     // of the agent; QEMU is libvirt's
  bool may_have_left_ = false;  // libvirt was asked to hand it over
  os::Loop::Timer progress_timer_, again_, stand_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
