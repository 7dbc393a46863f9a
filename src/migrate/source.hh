#pragma once
// The source's half of a hand-over as a pure state machine: events in, effects out, in the order in
// which they must happen. The agent performs the effects on QEMU, the wires and the session; the
// simulation performs them on doubles and stops between any two (test/sim).
//
//   asked ── record planned ──▶ begin ── prepare_target, start_memory ──▶ target_prepared ──
//   continue_memory ──▶ converged ── pre_pause ──▶ pre_pause_done ── allow_switchover ──▶
//   at_pre_switchover (vCPUs stopped) ── pause_ports ──▶ ports_paused ── continue_switchover ──▶
//   memory_completed ── record released, commit_target ──▶ target_owns ── release_ports, end_guest,
//   forget_guest ──▶ drained, guest_ended.
//
// In post-copy memory_follows comes instead of memory_completed, and QEMU here serves the rest of
// the memory while the guest runs at the target: it is ended after memory_completed.
//
// Two rules carry the safety: a `record` effect comes before every effect that depends on it, and
// after `released` no path leads to resume_guest but target_refuses and target_destroyed. What is
// only noted may be lost with the agent: one that is restarted from the state before does the same.
#include <cstdint>
#include <string>
#include <vector>

#include "migrate/state.hh"

namespace godwit::migrate {

enum class SourceEvent : std::uint8_t {
  asked,              // by the operator, and preflight agreed
  begin,              // at once, or at the hour that was asked for
  restarted,          // the agent came back and read `state` from its journal
  target_prepared,    // QEMU waits at the target, ports are held, channels are up
  target_failed,      // refused, or failed before it owned the guest
  memory_failed,      // QEMU or the transfer gave up; text says why
  converged,          // the policy predicts a pause within the limit
  diverged,           // it never will
  cutover,            // the operator ends --hold
  pre_pause_done,     // the operator's hooks agree, or there are none
  pre_pause_failed,   // they do not: the guest goes on
  at_pre_switchover,  // vCPUs stopped, QEMU waits for migrate-continue
  ports_paused,       // the guest's last frames are on their way
  memory_completed,   // QEMU at the target has loaded everything
  memory_follows,     // what the guest needs to run has left QEMU, the rest of its memory follows
  target_owns,        // the target's journal says owner
  target_refuses,     // the target's journal says refused
  target_destroyed,   // the operator's word (migration resolve --target-destroyed)
  abort_heard,        // the target answered abort_target
  session_up,         // the target can be asked again
  patience_ended,     // the bound of the present state passed
  abort_requested,    // the operator's or the client's wish
  drained,            // the forwarding lease is over
  guest_ended,        // end_guest has been done
  guest_resumed,      // vCPUs run here again (confirms resume_guest)
  guest_died,         // our QEMU is gone
};

enum class SourceEffect : std::uint8_t {
  record,            // write `state` to the journal and fsync; nothing after it before it is done
  note,              // the same, but nothing depends on it: if the disk is full, when it is not
  prepare_target,    // migration.prepare over the session
  start_memory,      // lane, capabilities, migrate; a first piece of the memory may leave
  continue_memory,   // the target is prepared: the rest follows
  pre_pause,         // the operator's hooks, while the guest runs
  allow_switchover,  // let QEMU stop the vCPUs when what remains fits
  pause_ports,       // drain the guest's last frames, EOF to the peers, forward from here on
  continue_switchover,  // migrate-continue
  commit_target,        // migration.commit: idempotent, repeated until answered
  cancel_memory,        // migrate_cancel, close the lane
  resume_guest,         // cont, until the vCPUs are seen to run
  resume_ports,         // deliver what was forwarded ourselves; the target's epoch is burned
  post_resume,          // the operator's hooks, after an abort: what pre_pause did may be undone
  abort_target,         // migration.abort: idempotent, repeated until answered
  release_ports,        // forward for the lease, then let go
  end_guest,            // QEMU here quits, soon; it holds no running vCPUs any more
  forget_guest,         // the vm's record leaves this host
  recover_memory,       // after a restart: QEMU here serves what is left of the memory again
  tell_lost,            // migration.lost: memory that the guest at the target lacks is gone
  wait,                 // patience_ended after bound(state)
};

struct SourceOptions {
  bool hold = false;              // stay in `ready` until cutover
  bool pause_on_diverge = false;  // --on-diverge pause
  bool operator==(const SourceOptions&) const = default;
};

class Source final {
 public:
  using State = SourceState;
  using Event = SourceEvent;
  using Effect = SourceEffect;

  // `state`, `abort_told` and `memory_follows` as the journal has them.
  explicit Source(SourceOptions options, SourceState state = SourceState::planned,
                  bool abort_told = true, bool memory_follows = false);

  // What to do now, in order. An event that does not fit the state gives nothing: events are
  // late, doubled or reordered as a matter of course.
  std::vector<SourceEffect> handle(SourceEvent event, std::string text = {});
  // Instead of what follows a `record` that could not be written: the journal is as it was before.
  std::vector<SourceEffect> record_failed(const std::string& why);

  void set_pause_on_diverge(bool pause) { options_.pause_on_diverge = pause; }

  SourceState state() const { return state_; }
  // Why it is aborting or undecided; empty otherwise.
  const std::string& reason() const { return reason_; }
  // Released, and the target did not answer within its bound: an operator may have to decide.
  bool undecided() const { return undecided_; }
  bool switchover_allowed() const { return switchover_allowed_; }
  // False while the target has not heard of an abort.
  bool abort_told() const { return abort_told_; }
  // Post-copy: the guest was handed over, or is about to be, and QEMU here still has of its memory.
  bool memory_follows() const { return memory_follows_; }
  // Nothing is left to do or to say.
  bool over() const { return is_final(state_) && abort_told_; }
  bool operator==(const Source&) const = default;

 private:
  using Effects = std::vector<SourceEffect>;
  Effects enter(SourceState next, SourceEffect written, Effects then);
  Effects abort(std::string reason);
  Effects give_back();
  Effects let_go();
  Effects memory_lost();
  Effects prepare_pause();
  Effects allow_switchover();
  Effects switch_over();
  Effects stopped_by_qemu();
  Effects restart();
  Effects in_planned(SourceEvent event, std::string& text);
  Effects in_preparing(SourceEvent event, std::string& text);
  Effects in_copying(SourceEvent event, std::string& text);
  Effects in_ready(SourceEvent event, std::string& text);
  Effects in_switching(SourceEvent event, std::string& text);
  Effects in_released(SourceEvent event, std::string& text);
  Effects in_abort(SourceEvent event);
  Effects in_committed(SourceEvent event);

  SourceOptions options_;
  SourceState state_;
  bool abort_told_;
  bool memory_follows_;
  bool memory_lost_ = false;
  bool restarted_ = false;
  std::string reason_;
  bool undecided_ = false;
  bool pre_pause_begun_ = false;  // not journalled: after a restart it may have been
  bool switchover_allowed_ = false;
  bool drained_ = false, guest_ended_ = false;
  bool stopped_early_ = false;  // QEMU stopped the vCPUs before it was allowed to
};

std::string_view to_text(SourceEvent event);
std::string_view to_text(SourceEffect effect);

}  // namespace godwit::migrate
