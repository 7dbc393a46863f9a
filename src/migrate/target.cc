#include "migrate/target.hh"

#include <utility>

#include "base/check.hh"

namespace godwit::migrate {

using T = TargetState;
using E = TargetEvent;
using F = TargetEffect;

std::vector<F> Target::enter(T next, Effects then) {
  CHECK(is_allowed(state_, next), "{} -> {}", to_text(state_), to_text(next));
  state_ = next;
  then.insert(then.begin(), F::record);
  return then;
}

std::vector<F> Target::refuse(std::string reason, Effects then) {
  reason_ = std::move(reason);
  then.push_back(F::discard_guest);
  return enter(T::refused, std::move(then));
}

std::vector<F> Target::restart() {
  switch (state_) {
    case T::planned:
    case T::preparing:
      return refuse("the target's agent was restarted", {F::notify_failed});
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
      return enter(T::loaded, commit_waits_ ? Effects{F::take_commit} : Effects{});
    // The source saw `completed`, so our QEMU has loaded; its event or the checksum is on its way.
    // Asked again, it does not wait anew: a source that was restarted asks for as long as it lives.
    case E::commit:
      if (std::exchange(commit_waits_, true)) return {};
      return {F::wait};
    case E::patience_ended:
      if (!commit_waits_) return {};
      return refuse("the guest's state did not arrive whole", {F::reply_refuses});
    case E::load_failed:
    case E::give_up:
      return refuse(std::move(text), {F::reply_refuses, F::notify_failed});
    case E::guest_died:
      return refuse("QEMU ended at the target" + (text.empty() ? "" : ": " + text),
                    {F::reply_refuses, F::notify_failed});
    case E::abort:
      return refuse(std::move(text), {F::reply_refuses});
    default:
      return {};
  }
}

std::vector<F> Target::in_loaded(E event, std::string& text) {
  switch (event) {
    case E::commit:
    case E::source_destroyed:
      return enter(T::owner, {F::run_guest, F::run_ports});
    case E::abort:
      return refuse(std::move(text), {F::reply_refuses});
    case E::load_failed:
    case E::give_up:
      return refuse(std::move(text), {F::reply_refuses, F::notify_failed});
    case E::guest_died:
      return refuse("QEMU ended at the target" + (text.empty() ? "" : ": " + text),
                    {F::reply_refuses, F::notify_failed});
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

std::vector<F> Target::handle(E event, std::string text) {
  if (event == E::restarted) return restart();
  switch (state_) {
    case T::planned:
      if (event == E::begin) return enter(T::preparing, {F::prepare_guest});
      if (event == E::abort || event == E::commit)
        return refuse(std::move(text), {F::reply_refuses});
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
      if (event == E::commit || event == E::abort) return {F::reply_refuses};
      return {};
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
  }
  return "?";
}

std::string_view to_text(TargetEffect effect) {
  switch (effect) {
    case F::record:
      return "record";
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
