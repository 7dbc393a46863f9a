#include "migrate/source.hh"

#include <utility>

#include "base/check.hh"

namespace godwit::migrate {

using S = SourceState;
using E = SourceEvent;
using F = SourceEffect;

Source::Source(SourceOptions options, SourceState state, bool abort_told, bool memory_follows)
    : options_(options),
      state_(state),
      abort_told_(abort_told),
      memory_follows_(memory_follows),
      pre_pause_begun_(state != S::planned && !is_final(state)) {}

std::vector<F> Source::enter(S next, F written, Effects then) {
  CHECK(is_allowed(state_, next), "{} -> {}", to_text(state_), to_text(next));
  state_ = next;
  then.insert(then.begin(), written);
  return then;
}

// A restart before `released` aborts too, so this need not be on disk before it is done.
std::vector<F> Source::abort(std::string reason) {
  reason_ = std::move(reason);
  abort_told_ = false;
  memory_follows_ = false;
  return enter(S::aborting, F::note, give_back());
}

// The guest first: whatever the network and the target do, its vCPUs run again. Before the pause
// resume_guest and resume_ports find nothing to do.
std::vector<F> Source::give_back() {
  return {F::cancel_memory, F::resume_guest, F::resume_ports, F::abort_target};
}

std::vector<F> Source::let_go() {
  if (!memory_follows_) {
    Effects all{F::release_ports, F::end_guest, F::forget_guest, F::wait};
    if (memory_lost_) all.push_back(F::tell_lost);
    return all;
  }
  if (restarted_) return {F::release_ports, F::recover_memory, F::wait};
  return {F::release_ports, F::wait};
}

// The guest may run at the target, and waits there for pages that nobody has.
std::vector<F> Source::memory_lost() {
  memory_follows_ = false;
  memory_lost_ = true;
  reason_ = "QEMU ended here before all of the guest's memory had followed it";
  if (state_ == S::released) return {F::note};
  return {F::note, F::tell_lost, F::end_guest, F::forget_guest};
}

std::vector<F> Source::record_failed(const std::string& why) {
  reason_ = why;
  switch (state_) {
    case S::planned:  // nothing has begun
      state_ = S::aborted;
      return {};
    case S::preparing:
    case S::released:  // not said to anyone yet
      return abort(why);
    case S::aborting:  // the operator's word: to be said again when it can be kept
      state_ = S::released;
      undecided_ = true;
      return {F::wait};
    default:
      CHECK(false, "{} needs no record", to_text(state_));
      return {};
  }
}

std::vector<F> Source::prepare_pause() {
  if (std::exchange(pre_pause_begun_, true)) return {};
  return {F::pre_pause};
}

std::vector<F> Source::allow_switchover() {
  if (std::exchange(switchover_allowed_, true)) return {};
  return {F::allow_switchover};
}

std::vector<F> Source::switch_over() {
  switchover_allowed_ = true;
  return enter(S::switching, F::note, {F::pause_ports, F::wait});
}

// A guest that writes nothing at all between two looks of QEMU leaves it with nothing to send, and
// QEMU ends the copying whatever its limit is. The hooks are asked all the same: their word can
// still end the move.
std::vector<F> Source::stopped_by_qemu() {
  if (switchover_allowed_) return switch_over();
  stopped_early_ = true;
  return prepare_pause();
}

std::vector<F> Source::restart() {
  restarted_ = true;
  switch (state_) {
    case S::planned:
    case S::preparing:
    case S::copying:
    case S::ready:
    case S::switching:
      return abort("the source's agent was restarted");
    case S::released:
      return {F::commit_target, F::wait};
    case S::committed:
      return enter(S::draining, F::note, let_go());
    case S::draining:
      return let_go();
    case S::aborting:
      return give_back();
    case S::done:
    case S::aborted:
      return {};
  }
  return {};
}

std::vector<F> Source::in_planned(E event, std::string& text) {
  if (event == E::asked) return {F::record};
  if (event == E::begin) {
    return enter(S::preparing, F::record, {F::prepare_target, F::start_memory, F::wait});
  }
  if (event == E::abort_requested) return abort(std::move(text));
  return {};
}

std::vector<F> Source::in_preparing(E event, std::string& text) {
  switch (event) {
    case E::target_prepared:
      return enter(S::copying, F::note, {F::continue_memory});
    case E::patience_ended:
      return abort("the target did not get ready in time");
    // No guest has so little memory that QEMU could be through with it.
    case E::at_pre_switchover:
      return abort("QEMU stopped the guest before the target was ready");
    case E::target_failed:
    case E::memory_failed:
    case E::abort_requested:
      return abort(std::move(text));
    case E::guest_died:
      return abort("the guest's QEMU ended");
    default:
      return {};
  }
}

std::vector<F> Source::in_copying(E event, std::string& text) {
  switch (event) {
    case E::diverged:
      if (!options_.pause_on_diverge) return abort(std::move(text));
      [[fallthrough]];
    case E::converged:
      if (pre_pause_begun_) return {};  // no holding back any more
      if (options_.hold) return enter(S::ready, F::note, {});
      return prepare_pause();
    case E::cutover:
      options_.hold = false;
      return {};
    case E::pre_pause_done:
      if (!pre_pause_begun_) return {};
      return stopped_early_ ? switch_over() : allow_switchover();
    case E::at_pre_switchover:
      return stopped_by_qemu();
    case E::pre_pause_failed:
    case E::target_failed:
    case E::memory_failed:
    case E::abort_requested:
      return abort(std::move(text));
    case E::target_refuses:
      return abort("the target gave up: " + text);
    case E::guest_died:
      return abort("the guest's QEMU ended");
    default:
      return {};
  }
}

std::vector<F> Source::in_ready(E event, std::string& text) {
  if (event == E::cutover) {
    options_.hold = false;
    return enter(S::copying, F::note, prepare_pause());
  }
  switch (event) {
    case E::converged:
    case E::diverged:
    case E::pre_pause_done:
      return {};
    // Held any longer it would stand.
    case E::at_pre_switchover:
      return enter(S::copying, F::note, stopped_by_qemu());
    default:
      return in_copying(event, text);
  }
}

std::vector<F> Source::in_switching(E event, std::string& text) {
  switch (event) {
    case E::ports_paused:
      return {F::continue_switchover};
    case E::memory_follows:
      memory_follows_ = true;
      return enter(S::released, F::record, {F::commit_target, F::wait});
    case E::memory_completed:
      return enter(S::released, F::record, {F::commit_target, F::wait});
    case E::patience_ended:
      return abort("the hand-over did not finish within its bound");
    case E::guest_resumed:
      return abort("QEMU resumed the guest by itself");
    case E::pre_pause_failed:
    case E::target_failed:
    case E::target_refuses:
    case E::memory_failed:
    case E::abort_requested:
      return abort(std::move(text));
    // The target may have loaded everything; memory_completed, if it was on its way, is lost with
    // QEMU, so the target's word decides. It cannot own the guest before `released` is recorded.
    case E::guest_died:
      return abort("the guest's QEMU ended during the hand-over");
    default:
      return {};
  }
}

std::vector<F> Source::in_released(E event, std::string& text) {
  switch (event) {
    case E::target_owns:
      undecided_ = false;
      if (!memory_lost_) reason_.clear();
      return enter(S::committed, F::note, let_go());
    case E::target_refuses:
      undecided_ = false;
      return abort("the target refused: " + text);  // if this is forgotten, it says so again
    case E::target_destroyed:
      undecided_ = false;
      reason_ = "the operator says that the target is destroyed";
      abort_told_ = false;
      return enter(S::aborting, F::record, give_back());
    case E::patience_ended:
      undecided_ = true;
      reason_ = "the target does not say whether it owns the guest";
      return {F::commit_target, F::wait};
    case E::session_up:
      return {F::commit_target};
    case E::memory_completed:
      if (std::exchange(memory_follows_, false)) return {F::note};
      return {};
    case E::guest_died:
      if (memory_follows_) return memory_lost();
      return {};
    default:
      return {};
  }
}

std::vector<F> Source::in_abort(E event) {
  switch (event) {
    case E::guest_resumed:
      if (state_ != S::aborting) return {};
      return enter(S::aborted, F::note, pre_pause_begun_ ? Effects{F::post_resume} : Effects{});
    case E::guest_died:
      if (state_ == S::aborting) return enter(S::aborted, F::note, {});
      return {};
    case E::abort_heard:
      if (std::exchange(abort_told_, true)) return {};
      return {F::note};
    case E::session_up:
      if (!abort_told_) return {F::abort_target};
      return {};
    default:
      return {};
  }
}

// It is not done before our QEMU was ended: nobody would do it after a restart.
std::vector<F> Source::in_committed(E event) {
  drained_ |= event == E::drained;
  guest_ended_ |= event == E::guest_ended;
  if (memory_follows_ && event == E::memory_completed) {
    memory_follows_ = false;
    return {F::note, F::end_guest, F::forget_guest};
  }
  if (memory_follows_ && event == E::guest_died) return memory_lost();
  if (state_ == S::committed) {
    if (event == E::patience_ended) return enter(S::draining, F::note, {F::wait});
    return {};
  }
  if ((drained_ || event == E::patience_ended) && guest_ended_) return enter(S::done, F::note, {});
  if (event == E::patience_ended) return {F::wait};
  return {};
}

std::vector<F> Source::handle(E event, std::string text) {
  if (event == E::restarted) return restart();
  switch (state_) {
    case S::planned:
      return in_planned(event, text);
    case S::preparing:
      return in_preparing(event, text);
    case S::copying:
      return in_copying(event, text);
    case S::ready:
      return in_ready(event, text);
    case S::switching:
      return in_switching(event, text);
    case S::released:
      return in_released(event, text);
    case S::committed:
    case S::draining:
      return in_committed(event);
    case S::aborting:
    case S::aborted:
      return in_abort(event);
    case S::done:
      return {};
  }
  return {};
}

std::string_view to_text(SourceEvent event) {
  switch (event) {
    case E::asked:
      return "asked";
    case E::begin:
      return "begin";
    case E::restarted:
      return "restarted";
    case E::target_prepared:
      return "target_prepared";
    case E::target_failed:
      return "target_failed";
    case E::memory_failed:
      return "memory_failed";
    case E::converged:
      return "converged";
    case E::diverged:
      return "diverged";
    case E::cutover:
      return "cutover";
    case E::pre_pause_done:
      return "pre_pause_done";
    case E::pre_pause_failed:
      return "pre_pause_failed";
    case E::at_pre_switchover:
      return "at_pre_switchover";
    case E::ports_paused:
      return "ports_paused";
    case E::memory_completed:
      return "memory_completed";
    case E::memory_follows:
      return "memory_follows";
    case E::target_owns:
      return "target_owns";
    case E::target_refuses:
      return "target_refuses";
    case E::target_destroyed:
      return "target_destroyed";
    case E::abort_heard:
      return "abort_heard";
    case E::session_up:
      return "session_up";
    case E::patience_ended:
      return "patience_ended";
    case E::abort_requested:
      return "abort_requested";
    case E::drained:
      return "drained";
    case E::guest_ended:
      return "guest_ended";
    case E::guest_resumed:
      return "guest_resumed";
    case E::guest_died:
      return "guest_died";
  }
  return "?";
}

std::string_view to_text(SourceEffect effect) {
  switch (effect) {
    case F::record:
      return "record";
    case F::note:
      return "note";
    case F::prepare_target:
      return "prepare_target";
    case F::start_memory:
      return "start_memory";
    case F::continue_memory:
      return "continue_memory";
    case F::pre_pause:
      return "pre_pause";
    case F::allow_switchover:
      return "allow_switchover";
    case F::pause_ports:
      return "pause_ports";
    case F::continue_switchover:
      return "continue_switchover";
    case F::commit_target:
      return "commit_target";
    case F::cancel_memory:
      return "cancel_memory";
    case F::resume_guest:
      return "resume_guest";
    case F::resume_ports:
      return "resume_ports";
    case F::post_resume:
      return "post_resume";
    case F::abort_target:
      return "abort_target";
    case F::release_ports:
      return "release_ports";
    case F::end_guest:
      return "end_guest";
    case F::forget_guest:
      return "forget_guest";
    case F::recover_memory:
      return "recover_memory";
    case F::tell_lost:
      return "tell_lost";
    case F::wait:
      return "wait";
  }
  return "?";
}

}  // namespace godwit::migrate
