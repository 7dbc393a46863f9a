#include "migrate/target.hh"

#include <utility>

#include "base/check.hh"

namespace godwit::migrate {

using T = TargetState;
using E = TargetEvent;
using F = TargetEffect;

std::vector<F> Target::enter(T next, F written, Effects then) {
  CHECK(is_allowed(state_, next), "{} -> {}", to_text(state_), to_text(next));
  state_ = next;
  then.insert(then.begin(), written);
  return then;
}

// Of a guest that is not whole a restart makes the same refusal; one that is whole could be asked
// for again.
std::vector<F> Target::refuse(std::string reason, Tell tell) {
  reason_ = std::move(reason);
  refusal_told_ = tell == Tell::if_asked;
  Effects then{F::reply_refuses};
  if (tell == Tell::in_any_case) then.push_back(F::notify_failed);
  then.push_back(F::discard_guest);
  return enter(T::refused, state_ == T::loaded ? F::record : F::note, std::move(then));
}

std::vector<F> Target::record_failed(const std::string& why) {
  switch (state_) {
    case T::preparing:  // nothing has begun
      reason_ = why;
      state_ = T::refused;
      return {F::discard_guest};
    case T::owner:
      reason_ = why;
      if (std::exchange(by_operators_word_, false)) {  // there may be no other copy: it waits here
        state_ = T::loaded;
        return {};
      }
      break;
    case T::refused:
      break;
    default:
      CHECK(false, "{} needs no record", to_text(state_));
  }
  // The journal says `loaded`. Without its QEMU that is a refusal too, so that goes first.
  state_ = T::refused;
  refusal_told_ = false;
  return {F::discard_guest, F::note, F::reply_refuses, F::notify_failed};
}

std::vector<F> Target::restart() {
  switch (state_) {
    case T::planned:
    case T::preparing:
      return refuse("the target's agent was restarted", Tell::in_any_case);
    // Everything is here and verified: the source may have released it. It will ask.
    case T::loaded:
      return {};
    case T::owner:
      return {F::run_guest, F::run_ports};
    case T::refused:
      return {F::discard_guest};
    case T::done:
      return {};
  }
  return {};
}

std::vector<F> Target::in_preparing(E event, std::string& text) {
  switch (event) {
    case E::prepared:
      return {F::reply_prepared};
    case E::loaded:
      return enter(T::loaded, F::note, commit_waits_ ? Effects{F::take_commit} : Effects{});
    // The source saw `completed`, so our QEMU has loaded; its event or the checksum is on its way.
    // Asked again, it does not wait anew: a source that was restarted asks for as long as it lives.
    case E::commit:
      if (std::exchange(commit_waits_, true)) return {};
      return {F::wait};
    case E::patience_ended:
      if (!commit_waits_) return {};
      return refuse("the guest's state did not arrive whole", Tell::if_asked);
    case E::load_failed:
    case E::give_up:
      return refuse(std::move(text), Tell::in_any_case);
    case E::guest_died:
      return refuse("QEMU ended at the target" + (text.empty() ? "" : ": " + text),
                    Tell::in_any_case);
    case E::abort:
      return refuse(std::move(text), Tell::if_asked);
    default:
      return {};
  }
}

std::vector<F> Target::in_loaded(E event, std::string& text) {
  switch (event) {
    case E::commit:
    case E::source_destroyed:
      by_operators_word_ = event == E::source_destroyed;
      return enter(T::owner, F::record, {F::run_guest, F::run_ports});
    case E::abort:
      return refuse(std::move(text), Tell::if_asked);
    case E::load_failed:
    case E::give_up:
      return refuse(std::move(text), Tell::in_any_case);
    case E::guest_died:
      return refuse("QEMU ended at the target" + (text.empty() ? "" : ": " + text),
                    Tell::in_any_case);
    default:
      return {};
  }
}

std::vector<F> Target::in_owner(E event) {
  switch (event) {
    case E::guest_running:
      return {F::reply_owns, F::post_resume};
    case E::commit:
    case E::abort:
      return {F::reply_owns};
    default:
      return {};
  }
}

std::vector<F> Target::in_refused(E event) {
  switch (event) {
    case E::commit:
    case E::abort:
      return {F::reply_refuses};
    case E::session_up:
      if (!refusal_told_) return {F::notify_failed};
      return {};
    case E::failure_heard:
      if (std::exchange(refusal_told_, true)) return {};
      return {F::note};
    default:
      return {};
  }
}

std::vector<F> Target::handle(E event, std::string text) {
  if (event == E::restarted) return restart();
  switch (state_) {
    case T::planned:
      if (event == E::begin) return enter(T::preparing, F::record, {F::prepare_guest});
      if (event == E::abort || event == E::commit) return refuse(std::move(text), Tell::if_asked);
      return {};
    case T::preparing:
      return in_preparing(event, text);
    case T::loaded:
      return in_loaded(event, text);
    case T::owner:
      return in_owner(event);
    case T::done:
      if (event == E::commit || event == E::abort) return {F::reply_owns};
      return {};
    case T::refused:
      return in_refused(event);
  }
  return {};
}

std::string_view to_text(TargetEvent event) {
  switch (event) {
    case E::begin:
      return "begin";
    case E::restarted:
      return "restarted";
    case E::prepared:
      return "prepared";
    case E::loaded:
      return "loaded";
    case E::load_failed:
      return "load_failed";
    case E::commit:
      return "commit";
    case E::abort:
      return "abort";
    case E::give_up:
      return "give_up";
    case E::source_destroyed:
      return "source_destroyed";
    case E::guest_running:
      return "guest_running";
    case E::guest_died:
      return "guest_died";
    case E::patience_ended:
      return "patience_ended";
    case E::session_up:
      return "session_up";
    case E::failure_heard:
      return "failure_heard";
  }
  return "?";
}

std::string_view to_text(TargetEffect effect) {
  switch (effect) {
    case F::record:
      return "record";
    case F::note:
      return "note";
    case F::prepare_guest:
      return "prepare_guest";
    case F::reply_prepared:
      return "reply_prepared";
    case F::run_guest:
      return "run_guest";
    case F::run_ports:
      return "run_ports";
    case F::post_resume:
      return "post_resume";
    case F::reply_owns:
      return "reply_owns";
    case F::reply_refuses:
      return "reply_refuses";
    case F::discard_guest:
      return "discard_guest";
    case F::notify_failed:
      return "notify_failed";
    case F::take_commit:
      return "take_commit";
    case F::wait:
      return "wait";
  }
  return "?";
}

}  // namespace godwit::migrate
