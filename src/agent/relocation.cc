#include "agent/relocation.hh"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qemu/json.hh"
#include "translate/rule_json.hh"

namespace godwit::agent {

using translate::Phase;

namespace {

constexpr const char* kKind = "relocation";
constexpr Nanoseconds kAskTimeout = seconds(3);
// Devices that have not answered by then are named, and the move is refused.
constexpr Nanoseconds kStagePatience = seconds(10);
constexpr Nanoseconds kHeldPatience = seconds(5);
constexpr Nanoseconds kTryAgain = seconds(1);
// A source that has been gone for so long is done without.
constexpr Nanoseconds kSourcePatience = seconds(5);
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

translate::GuestMove Relocation::move_of(const translate::Fabric& fabric, const std::string& to,
                                         const RelocationRecord& record) {
  return {.from = host_in(fabric, record.from),
          .to = host_in(fabric, to),
          .addresses = record.addresses};
}

Relocation::Relocation(const Context& context, std::shared_ptr<const translate::Fabric> fabric,
                       RelocationRecord record)
    : context_(context),
      fabric_(std::move(fabric)),
      record_(std::move(record)),
      rollout_(*fabric_, move_of(*fabric_, context_.config.name, record_), record_.epoch,
               begun_again_at(record_.reached)),
      uplink_(record_.here ? Uplink::here : Uplink::there),
      began_(context_.loop.now()) {
  const auto move = rollout_.move();
  std::size_t rules = 0;
  const auto tables = tables_at(*fabric_, move, Phase::settled);
  for (const auto& [device, its] : tables) rules += its.size();
  report_ = {{"port", record_.name},
             {"addresses", to_json(guest_at(*fabric_, move.to, record_.addresses))},
             {"rules", rules},
             {"devices", tables.size()}};
}

double Relocation::elapsed_ms() const { return to_ms(context_.loop.now() - began_); }

void Relocation::save() {
  record_.reached = rollout_.reached();
  context_.store.put(kKind, record_.port.text(), to_json(record_));
}

// ---- rules ----

void Relocation::stage(Done done) {
  staged_ = std::move(done);
  record_.wanted = Phase::staged;
  rollout_.stage();
  save();
  patience_ = context_.loop.after(kStagePatience, [this] {
    staging_failed(fmt::format("{}: not answered within {}", missing(), to_text(kStagePatience)));
  });
  pump();
}

void Relocation::undo() {
  if (!is_staging()) return;
  patience_.reset();
  staged_ = nullptr;
  record_.wanted = Phase::undone;
  rollout_.undo();
  save();
  pump();
}

void Relocation::staging_failed(const std::string& why) {
  Done done = std::exchange(staged_, nullptr);
  undo();
  if (done) done(fail("{}", why));
}

void Relocation::restart() {
  if (is_staging()) return;  // its move says how it goes on
  if (record_.wanted != Phase::undone) return follow(nullptr);
  rollout_.undo();
  pump();
}

void Relocation::pump() {
  pump_timer_.reset();
  if (is_over_) return;
  for (const auto& request : rollout_.due(context_.loop.now())) send(request);
  if (const auto next = rollout_.next()) {
    pump_timer_ = context_.loop.at(*next, [this] { pump(); });
  }
}

void Relocation::send(const translate::Rollout::Request& request) {
  const std::string& agent = fabric_->devices[request.device].agent;
  const std::string guest = record_.port.text();
  if (agent == context_.config.name) {
    auto done = context_.device.set(guest, record_.name, request.version, request.rules);
    context_.loop.post([this, request, done = std::move(done), alive = std::weak_ptr(alive_)] {
      if (!alive.expired()) answered(request, done);
    });
    return;
  }
  context_.peers.request(
      agent, "rule.set",
      {{"guest", guest},
       {"name", record_.name},
       {"epoch", request.version.epoch},
       {"phase", translate::to_text(request.version.phase)},
       {"rules", translate::to_json(request.rules)}},
      [this, request, agent, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired()) return;
        if (reply) return answered(request, {});
        // Without a session it has said nothing: it is asked again.
        if (context_.peers.is_up(agent)) answered(request, std::unexpected(reply.error()));
      },
      kAskTimeout);
}

void Relocation::answered(const translate::Rollout::Request& request, const Result<>& result) {
  const auto before = rollout_.reached();
  if (result) {
    rollout_.has(request.device, request.version);
  } else {
    rollout_.refused(request.device, request.version, result.error().text);
  }
  if (rollout_.reached() != before) save();
  advance();
  pump();
}

std::string Relocation::missing() const {
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

void Relocation::advance() {
  if (is_over_) return;
  if (is_staging()) {
    if (staged_ && rollout_.is_refused()) return staging_failed(missing());
    if (!rollout_.is_reached()) return;
    patience_.reset();
    report_["staged_ms"] = elapsed_ms();
    if (staged_) std::exchange(staged_, nullptr)(report_);
    return;
  }
  const Phase reached = rollout_.reached();
  if (reached == Phase::undone) return end();
  if (reached >= Phase::forwarded && uplink_ == Uplink::held) {
    if (!report_.contains("forwarded_ms")) report_["forwarded_ms"] = elapsed_ms();
    pause_uplink();
  }
  if (is_here()) followed();
  if (rollout_.is_reached() && rollout_.wanted() == Phase::settled && !rollout_.is_waiting() &&
      record_.source_told) {
    end();
  }
}

// ---- the uplink ----

void Relocation::follow(Done done) {
  followed_ = std::move(done);
  began_ = context_.loop.now();
  if (record_.wanted == Phase::undone || is_over_) return;
  if (is_staging()) record_.wanted = Phase::flipped;
  save();
  if (uplink_ == Uplink::here) {
    rollout_.flip();
    release_uplink();
    advance();
    return pump();
  }
  move_uplink();
}

void Relocation::ask_source(const char* method, Peers::Reply reply) {
  context_.peers.request(record_.from, method,
                         {{"port", record_.port.text()}, {"epoch", record_.epoch}},
                         std::move(reply), kAskTimeout);
}

bool Relocation::source_is_gone() {
  const Instant now = context_.loop.now();
  if (context_.peers.is_up(record_.from)) return source_lost_.reset(), false;
  if (!source_lost_) source_lost_ = now;
  return now - *source_lost_ >= kSourcePatience;
}

void Relocation::try_again(const std::string& why) {
  if (why != trouble_) {
    spdlog::warn("port {} does not follow from {} yet: {}", record_.name, record_.from, why);
  }
  trouble_ = why;
  if (uplink_ != Uplink::pausing) uplink_ = Uplink::there;
  uplink_timer_ = context_.loop.after(
      kTryAgain, [this] { uplink_ == Uplink::pausing ? pause_uplink() : move_uplink(); });
}

void Relocation::move_uplink() {
  if (context_.network.guest_uplink(record_.port) != nullptr) {  // it ran when the agent ended
    uplink_ = Uplink::here;
    record_.here = true;
    rollout_.flip();
    save();
    release_uplink();
    advance();
    return pump();
  }
  context_.network.discard_held({record_.port});
  uplink_ = Uplink::asking;
  if (source_is_gone()) return hold_uplink(record_.described);
  ask_source("uplink.offer",
             [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
               if (alive.expired()) return;
               if (!reply) return try_again(reply.error().text);
               hold_uplink(*reply);
             });
}

void Relocation::hold_uplink(nlohmann::json described) {
  context_.network.correct_wire(described);
  const auto held =
      context_.network.prepare_held(described, PortKind::uplink, record_.from, record_.epoch);
  if (!held) return try_again(held.error().text);
  if (*held != record_.port) {
    context_.network.discard_held({*held});
    return try_again("the source tells of another port");
  }
  if (source_is_gone()) return uplink_held();
  context_.network.when_prepared({record_.port}, kHeldPatience,
                                 [this, alive = std::weak_ptr(alive_)](const Result<>& done) {
                                   if (alive.expired()) return;
                                   if (!done) return try_again(done.error().text);
                                   uplink_held();
                                 });
}

// From here on there is no way back: what is for the guest comes to this host's kernel, and waits.
void Relocation::uplink_held() {
  const auto guest = guest_at(*fabric_, rollout_.move().to, record_.addresses);
  if (const auto routed = context_.network.route_guest(record_.port, guest); !routed) {
    return try_again(routed.error().text);
  }
  uplink_ = Uplink::held;
  report_["held_ms"] = elapsed_ms();
  rollout_.flip();
  save();
  await_source();
}

// It may go before it has said that it sends on.
void Relocation::await_source() {
  if (source_is_gone()) rollout_.abandon(rollout_.move().from);
  patience_ = context_.loop.after(kTryAgain, [this] { await_source(); });
  advance();
  pump();
}

void Relocation::pause_uplink() {
  uplink_ = Uplink::pausing;
  patience_.reset();
  if (source_is_gone()) {
    rollout_.abandon(rollout_.move().from);
    return run_uplink();
  }
  ask_source("uplink.pause",
             [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
               if (alive.expired()) return;
               if (!reply) return try_again(reply.error().text);
               run_uplink();
             });
}

void Relocation::run_uplink() {
  context_.store.begin_group();
  context_.network.run_uplink(record_.port);
  uplink_ = Uplink::here;
  record_.here = true;
  save();
  (void)context_.store.end_group();  // on a full disk it waits
  report_["uplink_ms"] = elapsed_ms();
  release_uplink();
  context_.loop.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    advance();
    pump();
  });
}

void Relocation::release_uplink() {
  if (record_.source_told || is_releasing_) return;
  is_releasing_ = true;
  ask_source("uplink.release",
             [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
               if (alive.expired()) return;
               is_releasing_ = false;
               if (reply) {
                 record_.source_told = true;
                 save();
                 return advance();
               }
               release_timer_ = context_.loop.after(kTryAgain, [this] { release_uplink(); });
             });
}

// ---- after it ----

void Relocation::followed() {
  if (quiet_timer_ || rollout_.wanted() == Phase::settled) return;
  if (!report_.contains("flipped_ms")) {
    report_["flipped_ms"] = elapsed_ms();
    context_.events.publish("relocation", describe());
  }
  if (followed_) std::exchange(followed_, nullptr)(report_);
  watch_quiet();
}

void Relocation::watch_quiet() {
  quiet_timer_ = context_.loop.after(kQuietLook, [this] {
    if (source_is_gone()) {
      rollout_.abandon(rollout_.move().from);
      return quiet(packets_.value_or(0));
    }
    nlohmann::json addresses = nlohmann::json::array();
    for (const auto& each : record_.addresses) addresses.push_back(each.address.text());
    context_.peers.request(
        record_.from, "rule.departed", {{"addresses", addresses}},
        [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
          if (alive.expired()) return;
          if (!reply) return watch_quiet();
          std::uint64_t packets = 0;
          for (const auto& each : qemu::member(*reply, "packets")) {
            if (each.is_number_unsigned()) packets += each.get<std::uint64_t>();
          }
          quiet(packets);
        },
        kAskTimeout);
  });
}

void Relocation::quiet(std::uint64_t packets) {
  quiet_for_ = packets_ == packets ? quiet_for_ + 1 : 0;
  packets_ = packets;
  if (quiet_for_ < kQuietLooks) return watch_quiet();
  quiet_timer_.reset();
  record_.wanted = Phase::settled;
  rollout_.settle();
  save();
  advance();
  pump();
}

void Relocation::end() {
  is_over_ = true;
  pump_timer_.reset();
  context_.store.erase(kKind, record_.port.text());
  context_.events.publish("relocation", describe());
}

nlohmann::json Relocation::describe() const {
  nlohmann::json json = {{"port", record_.name},
                         {"from", record_.from},
                         {"to", context_.config.name},
                         {"phase", translate::to_text(rollout_.reached())},
                         {"uplink", record_.here ? "here" : "there"},
                         {"steps", report_}};
  if (const std::string left = missing(); !left.empty()) json["waits_for"] = left;
  return json;
}

}  // namespace godwit::agent
