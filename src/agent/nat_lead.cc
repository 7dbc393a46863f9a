#include "agent/nat_lead.hh"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qemu/json.hh"
#include "translate/rule_json.hh"

namespace godwit::agent {

using translate::Phase;

namespace {

constexpr Nanoseconds kRuleTimeout = seconds(3);
// Devices that have not answered by then are named, and the move is refused.
constexpr Nanoseconds kStagePatience = seconds(10);
// Nothing came to the source in so many looks: what knew the guest there knows better.
constexpr Nanoseconds kQuietLook = seconds(1);
constexpr unsigned kQuietLooks = 3;

translate::DeviceIndex host_in(const translate::Fabric& fabric, const std::string& name) {
  const auto found = fabric.find(name);
  if (!found || !fabric.devices[*found].is_host()) {
    fail_setup("the fabric has no host {} any more", name);
  }
  return *found;
}

// After a restart: devices that had not answered are not known any more, so all are asked again,
// and say that they have it.
Phase begun_again_at(Phase reached) {
  return reached == Phase::undone ? Phase::before : std::min(reached, Phase::forwarded);
}

}  // namespace

translate::GuestMove NatLead::move_of(const translate::Fabric& fabric, const std::string& to,
                                      const RelocationRecord& record) {
  return {.from = host_in(fabric, record.from),
          .to = host_in(fabric, to),
          .addresses = record.addresses};
}

NatLead::NatLead(const Context& context, std::shared_ptr<const translate::Fabric> fabric,
                 Owner owner)
    : context_(context),
      fabric_(std::move(fabric)),
      owner_(std::move(owner)),
      rollout_(*fabric_, move_of(*fabric_, context_.config.name, owner_.record),
               owner_.record.epoch, begun_again_at(owner_.record.reached)) {}

// ---- as the uplink follows ----

void NatLead::stage() {
  rollout_.stage();
  owner_.save();
  patience_ = context_.loop.after(kStagePatience, [this] {
    late_ = fmt::format("{}: not answered within {}", missing(), to_text(kStagePatience));
    owner_.changed();
  });
  pump();
}

void NatLead::undo() {
  patience_.reset();
  rollout_.undo();
  owner_.save();
  pump();
}

void NatLead::restart() {
  if (owner_.record.wanted != Phase::undone) return;  // the uplink's steps say how it goes on
  rollout_.undo();
  pump();
}

void NatLead::lead() {
  rollout_.flip();
  owner_.save();
  pump();
}

void NatLead::abandon_source() {
  rollout_.abandon(rollout_.move().from);
  pump();
}

void NatLead::uplink_stands(const nlohmann::json& /*told*/, std::function<void()> done) { done(); }

void NatLead::uplink_is_here() {
  rollout_.flip();
  watch_quiet();
  pump();
}

std::vector<GuestAddress> NatLead::guest() const {
  return guest_at(*fabric_, rollout_.move().to, owner_.record.addresses);
}

bool NatLead::is_over() const {
  if (reached() == Phase::undone) return true;
  return reached() == Phase::settled && !rollout_.is_waiting();
}

std::string NatLead::refusal() const { return rollout_.is_refused() ? missing() : late_; }

std::string NatLead::missing() const {
  std::vector<std::string> texts;
  const bool is_refused = rollout_.is_refused();
  for (const auto& [device, why] : rollout_.missing()) {
    if (is_refused && why.empty()) continue;
    const auto& each = fabric_->devices[device];
    std::string text = each.agent == each.name
                           ? fmt::format("device {}", each.name)
                           : fmt::format("device {} (agent {})", each.name, each.agent);
    if (!why.empty()) text += ": " + why;
    texts.push_back(std::move(text));
  }
  return fmt::format("{}", fmt::join(texts, "; "));
}

nlohmann::json NatLead::describe() const {
  std::size_t rules = 0;
  const auto tables = tables_at(*fabric_, rollout_.move(), Phase::settled);
  for (const auto& [device, its] : tables) rules += its.size();
  return {{"addresses", to_json(guest())}, {"rules", rules}, {"devices", tables.size()}};
}

// ---- rules ----

void NatLead::pump() {
  pump_timer_.reset();
  for (const auto& request : rollout_.due(context_.loop.now())) send(request);
  if (const auto next = rollout_.next()) {
    pump_timer_ = context_.loop.at(*next, [this] { pump(); });
  }
}

void NatLead::send(const translate::Rollout::Request& request) {
  const std::string& agent = fabric_->devices[request.device].agent;
  const std::string guest = owner_.record.port.text();
  if (agent == context_.config.name) {
    auto done = context_.device.set(guest, owner_.record.name, request.version, request.rules);
    context_.loop.post([this, request, done = std::move(done), alive = std::weak_ptr(alive_)] {
      if (!alive.expired()) answered(request, done);
    });
    return;
  }
  context_.peers.request(
      agent, "rule.set",
      {{"guest", guest},
       {"name", owner_.record.name},
       {"epoch", request.version.epoch},
       {"phase", translate::to_text(request.version.phase)},
       {"rules", translate::to_json(request.rules)}},
      [this, request, agent, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired()) return;
        if (reply) return answered(request, {});
        // Without a session it has said nothing: it is asked again.
        if (context_.peers.is_up(agent)) answered(request, std::unexpected(reply.error()));
      },
      kRuleTimeout);
}

void NatLead::answered(const translate::Rollout::Request& request, const Result<>& result) {
  const auto before = rollout_.reached();
  if (result) {
    rollout_.has(request.device, request.version);
  } else {
    rollout_.refused(request.device, request.version, result.error().text);
  }
  if (rollout_.reached() != before) owner_.save();
  if (is_staged()) patience_.reset();
  owner_.changed();
  watch_quiet();
  pump();
}

// ---- after it ----

// From when all lead here, and the guest is served from here.
void NatLead::watch_quiet() {
  if (!owner_.record.here || !is_led() || quiet_timer_ || rollout_.wanted() == Phase::settled) {
    return;
  }
  look_for_quiet();
}

void NatLead::look_for_quiet() {
  quiet_timer_ = context_.loop.after(kQuietLook, [this] {
    if (owner_.source_is_gone()) {
      abandon_source();
      return quiet(packets_.value_or(0));
    }
    nlohmann::json addresses = nlohmann::json::array();
    for (const auto& each : owner_.record.addresses) addresses.push_back(each.address.text());
    context_.peers.request(
        owner_.record.from, "rule.departed", {{"addresses", addresses}},
        [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
          if (alive.expired()) return;
          if (!reply) return look_for_quiet();
          std::uint64_t packets = 0;
          for (const auto& each : qemu::member(*reply, "packets")) {
            if (each.is_number_unsigned()) packets += each.get<std::uint64_t>();
          }
          quiet(packets);
        },
        kRuleTimeout);
  });
}

void NatLead::quiet(std::uint64_t packets) {
  quiet_for_ = packets_ == packets ? quiet_for_ + 1 : 0;
  packets_ = packets;
  if (quiet_for_ < kQuietLooks) return look_for_quiet();
  quiet_timer_.reset();
  owner_.record.wanted = Phase::settled;
  rollout_.settle();
  owner_.save();
  owner_.changed();
  pump();
}

}  // namespace godwit::agent
