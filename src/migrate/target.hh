#pragma once
// The target's half of a hand-over (see source.hh). It becomes the owner by a commit from the
// source, which the source sends only after it recorded `released`, or by the operator's word that
// the source is destroyed.
#include <cstdint>
#include <string>
#include <vector>

#include "migrate/state.hh"

namespace godwit::migrate {

enum class TargetEvent : std::uint8_t {
  begin,             // migration.prepare
  restarted,         // the agent came back and read `state` from its journal
  prepared,          // QEMU listens, ports are held, channels are up
  loaded,            // QEMU lives, has loaded everything, and the transfer's checksum agrees
  load_failed,       // either does not; text says which
  commit,            // migration.commit: the source has recorded `released`; whoever feeds this has
                     // looked at QEMU's pidfd first, so that a dead guest is never owned
  abort,             // migration.abort
  give_up,           // the operator's wish at the target: a refusal like any other
  source_destroyed,  // the operator's word (migration resolve --source-destroyed)
  guest_running,     // QEMU says RESUME
  guest_died,        // our QEMU is gone
  patience_ended,    // the bound of the present state passed
  session_up,        // the source can be told again
  failure_heard,     // the source answered notify_failed
};

enum class TargetEffect : std::uint8_t {
  record,         // write `state` to the journal and fsync; nothing after it before it is done
  note,           // the same, but nothing depends on it: if the disk is full, when it is not
  prepare_guest,  // QEMU -S -incoming, ports HELD at e+1, channels
  reply_prepared,
  run_guest,      // activate, cont
  run_ports,      // deliver held frames, MOVE to the peers
  post_resume,    // the operator's hooks; whatever they say, the guest stays
  reply_owns,     // answers commit and abort: the guest lives here
  reply_refuses,  // answers commit and abort: it never will
  discard_guest,  // kill the waiting QEMU, drop the held ports
  notify_failed,  // tell the source without being asked: it would copy to nobody for ever
  take_commit,    // the commit that came before the guest was loaded: its turn
  wait,           // patience_ended after bound(state)
};

class Target final {
 public:
  using State = TargetState;
  using Event = TargetEvent;
  using Effect = TargetEffect;

  // `state` and `refusal_told` as the journal has them.
  explicit Target(TargetState state = TargetState::planned, bool refusal_told = true)
      : state_(state), refusal_told_(refusal_told) {}

  std::vector<TargetEffect> handle(TargetEvent event, std::string text = {});
  // Instead of what follows a `record` that could not be written: the journal is as it was before.
  std::vector<TargetEffect> record_failed(const std::string& why);

  TargetState state() const { return state_; }
  const std::string& reason() const { return reason_; }
  // False while the source has not heard of a failure here.
  bool refusal_told() const { return refusal_told_; }
  bool operator==(const Target&) const = default;

 private:
  using Effects = std::vector<TargetEffect>;
  enum class Tell : std::uint8_t { if_asked, in_any_case };
  Effects enter(TargetState next, TargetEffect written, Effects then);
  Effects refuse(std::string reason, Tell tell);
  Effects restart();
  Effects in_preparing(TargetEvent event, std::string& text);
  Effects in_loaded(TargetEvent event, std::string& text);
  Effects in_owner(TargetEvent event);
  Effects in_refused(TargetEvent event);

  TargetState state_;
  bool refusal_told_;
  std::string reason_;
  bool commit_waits_ = false;       // commit overtook our own QEMU's `completed`
  bool by_operators_word_ = false;  // owner: the source is said to be destroyed
};

std::string_view to_text(TargetEvent event);
std::string_view to_text(TargetEffect effect);

}  // namespace godwit::migrate
