// What is left of a move by endpoint once the guest is led to here: a relay, and what was agreed
// with correspondents' hosts, until no connection needs them.
#include "agent/endpoint_lead.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "os/wall_clock.hh"
#include "translate/rule.hh"

namespace godwit::agent {

using translate::Phase;
using translate::RuleKind;

namespace {

// What left for the relay before its last sender heard of the move has come by then.
constexpr Nanoseconds kUnderWay = seconds(1);

}  // namespace

void EndpointLead::uplink_is_here() {
  stands_ = true;
  parts_.relays.guest_is_back(owner_.record.port);
  has_left_ = has_left_ || parts_.relays.gone(owner_.record.port);
  if (reached_ < Phase::forwarded) lead();
  // The agent may have ended between the last answer and its record.
  if (reached_ == Phase::forwarded && all_are_told()) reached_ = Phase::flipped;
  if (!here_since_) here_since_ = context_.loop.now();
  if (relay_until_ == 0) relay_until_ = os::wall_clock_seconds() + relay_limit_s_;
  save_connections();
  save();
  for (std::size_t i = 0; i < correspondents_.size(); ++i) {
    const Correspondents& each = correspondents_[i];
    const bool is_to_be = !each.has_answered || !each.awaited.empty();
    if (is_to_be && !each.was_told && !each.is_asked) update(i);
  }
  watch();
}

Result<EndpointLead::Alive> EndpointLead::count() const {
  const auto connections = EndpointKernel::connections_of(addresses());
  if (!connections) return std::unexpected(connections.error());
  Alive alive;
  // What is not listed the correspondent's host does not know: it comes by the relay.
  const std::set<Ends> listed = inherited_ends();
  for (const auto& each : *connections) {
    if ((each.mark & os::kInheritedMark) == 0) continue;
    const bool is_own = !is_renamed(each);
    if (is_own && (is_home() || context_.network.guests().contains(each.peer))) continue;
    const bool is_led = is_own && listed.contains(ends_of(each)) && is_direct(each.peer);
    ++(is_led ? alive.direct : alive.relayed);
  }
  // Tracking here knows those only that have said something since: they may all live.
  alive.relayed = std::max(alive.relayed, left_out_);
  return alive;
}

void EndpointLead::watch() {
  watch_ = context_.loop.after(parts_.look_interval, [this] { watch(); });
  if (reached_ < Phase::forwarded) return;
  const auto alive = count();
  if (!alive) return tell(alive.error().text);
  alive_now_ = *alive;
  if (has_left_) return watch_stay();
  const bool is_late = is_given_up_ || os::wall_clock_seconds() >= relay_until_;
  const bool is_idle =
      alive->relayed == 0 && here_since_ && context_.loop.now() - *here_since_ >= kUnderWay;
  if (!relay_.empty() && (is_idle || is_late)) {
    return end_relay(alive->relayed, is_late);
  }
  if (relay_.empty() && (alive->direct == 0 || is_given_up_)) end_correspondents();
}

bool EndpointLead::give_up() {
  if (reached_ < Phase::flipped) return false;
  is_given_up_ = true;
  watch();
  return true;
}

// What it still served is reset: its packets are refused from now on.
void EndpointLead::end_relay(std::size_t relayed, bool is_late) {
  ask_source("endpoint.end", {{"reset", relayed}}, kEndpointTimeout,
             [this, relayed, is_late](const Result<nlohmann::json>& reply) {
               if (!reply) tell(reply.error().text);
               // A source that is gone ends its own when it is time.
               if (relay_.empty() || (!reply && !is_late)) return;
               if (relayed > 0) {
                 spdlog::warn("guest {}: the time of its relay is over, {} connections are reset",
                              owner_.record.name, relayed);
               }
               cut_ += relayed;
               remove_relay();
               if (const auto done = write(); !done) tell(done.error().text);
               context_.events.publish("relay", {{"guest", owner_.record.name},
                                                 {"event", "ended"},
                                                 {"connections_reset", relayed}});
             });
}

void EndpointLead::end_correspondents() {
  for (std::size_t i = 0; i < correspondents_.size(); ++i) {
    if (!correspondents_[i].is_ended) end_at(i);
  }
  end_if_all();
}

// Of a host whose correspondents have moved on when it is over at their next hosts.
void EndpointLead::end_at(std::size_t index) {
  const Correspondents& each = correspondents_[index];
  std::vector<std::string> ended;
  for (const auto& other : correspondents_) {
    if (other.with == each.with && other.is_ended) ended.push_back(other.host);
  }
  parts_.source.ask(
      each.host, "flow.end",
      {{"guest", owner_.record.port.text()},
       {"with", each.with},
       {"epoch", owner_.record.epoch},
       {"ended", ended},
       {"proof", proof_of(each.secret, "end", owner_.record.port.text(), owner_.record.epoch,
                          context_.config.name, on_the_way_)}},
      [this, index, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired() || !reply) return;  // at the next look, again
        correspondents_[index].is_ended = !reply->contains("passed");
        for (const std::size_t next : moved_on(index, *reply)) end_at(next);
        end_if_all();
      });
}

// What stays is the guest's new address, where it is.
void EndpointLead::end_if_all() {
  if (is_over_ || !std::ranges::all_of(correspondents_, &Correspondents::is_ended)) return;
  if (has_left_ && (!relay_.empty() || parts_.relays.gone(owner_.record.port))) return;
  watch_.reset();
  const std::string port = owner_.record.port.text();
  if (has_left_) {
    if (const auto gone = context_.device.forget(port); !gone) tell(gone.error().text);
  } else if (!is_given_up_ && !is_home()) {
    translate::Rules rules;
    for (const auto& each : owner_.record.addresses) {
      rules.push_back({.kind = RuleKind::answer, .match = each.to_locator});
      rules.push_back(
          {.kind = RuleKind::arrive, .match = each.to_locator, .becomes = each.address});
    }
    std::ranges::sort(rules);
    const auto done = context_.device.set(
        port, owner_.record.name, {.epoch = owner_.record.epoch, .phase = Phase::settled}, rules);
    if (!done) tell(done.error().text);
  }
  parts_.kernel.drop(name());
  forget_dead();
  parts_.associations.forget_adopted(addresses());
  context_.store.erase(kConnectionsKind, port);
  reached_ = Phase::settled;
  is_over_ = true;
  context_.loop.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) owner_.changed();
  });
}

// Nothing serves them any more, and tracking would know them for days: the next move would take
// them along, or one that begins with the same ports would be taken for them.
void EndpointLead::forget_dead() const {
  auto connections = EndpointKernel::connections_of(addresses());
  if (!connections) return;
  std::erase_if(*connections, [this](const auto& each) {
    return !has_left_ && !(is_home() ? is_renamed(each) : (each.mark & os::kInheritedMark) != 0);
  });
  if (connections->empty()) return;
  if (const auto done = parts_.kernel.forget(*std::move(connections)); !done) {
    spdlog::warn("guest {}: {}", owner_.record.name, done.error().text);
  }
}

}  // namespace godwit::agent
