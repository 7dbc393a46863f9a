// A guest that came by endpoint has gone on: what it came with, and who knows it by its address
// here, is served by the next relay for as long as that is there.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/endpoint_lead.hh"
#include "os/wall_clock.hh"

namespace godwit::agent {

using translate::Phase;

namespace {

// What it sent by its uplink here has come by then.
constexpr Nanoseconds kLastSent = seconds(1);

}  // namespace

void EndpointLead::guest_left() {
  if (has_left_) return;
  has_left_ = true;
  save();
  watch_ = context_.loop.after(kLastSent, [this] { watch(); });
}

void EndpointLead::guest_stays() {
  if (!std::exchange(has_left_, false)) return;
  save();
  watch();
}

void EndpointLead::relay_ended() {
  watch_ = context_.loop.after(Nanoseconds(0), [this] { watch(); });
}

// Its own address needs nothing of this host: it is at home, or not to be reached from here.
bool EndpointLead::is_over_here() const {
  if (!has_left_) return false;
  const auto gone = parts_.relays.gone(owner_.record.port);
  return !gone || gone->is_home;
}

// Until they know they send to here.
std::string EndpointLead::relay_needed_by() const {
  for (const auto& each : correspondents_) {
    if (is_over_here() && each.has_answered && !each.is_ended) return "host " + each.host;
  }
  return {};
}

// Its address is found there: what the hosts before this one do for it is over, but for what knows
// it by others.
void EndpointLead::tell_of_home() {
  if (!renames_ && !relay_.empty()) return end_relay(0, true);
  if (!renames_ || is_home_told_) return;
  ask_source("endpoint.home", {}, kEndpointTimeout, [this](const Result<nlohmann::json>& reply) {
    if (reply) is_home_told_ = true;  // else at the next look, again
  });
}

void EndpointLead::watch_stay() {
  alive_now_.direct = 0;                                                     // from where it is now
  if (context_.network.guest_uplink(owner_.record.port) != nullptr) return;  // it is about to go
  const auto gone = parts_.relays.gone(owner_.record.port);
  if (gone && gone->is_home) tell_of_home();
  const bool is_late = !gone || os::wall_clock_seconds() >= relay_until_;
  if (!relay_.empty() && (alive_now_.relayed == 0 || is_late)) {
    end_relay(alive_now_.relayed, is_late);
  }
  // Who has heard from the next host since says that it is over.
  if (is_over_here()) end_correspondents();
}

}  // namespace godwit::agent
