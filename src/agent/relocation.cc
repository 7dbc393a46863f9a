#include "agent/relocation.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

namespace godwit::agent {

using translate::Phase;

namespace {

constexpr const char* kKind = "relocation";
constexpr Nanoseconds kSourceTimeout = seconds(3);
constexpr Nanoseconds kHeldPatience = seconds(5);
constexpr Nanoseconds kTryAgain = seconds(1);
// A source that has been gone for so long is done without.
constexpr Nanoseconds kSourcePatience = seconds(5);

}  // namespace

Relocation::Relocation(const Context& context, RelocationRecord record, const MakeLead& make_lead)
    : context_(context),
      record_(std::move(record)),
      lead_(make_lead({.record = record_,
                       .save = [this] { save(); },
                       .source_is_gone = [this] { return source_is_gone(); },
                       .changed = [this] { advance(); }})),
      uplink_(record_.here ? Uplink::here : Uplink::there),
      report_(lead_->describe()),
      began_(context_.loop.now()) {
  report_["port"] = record_.name;
}

double Relocation::elapsed_ms() const { return to_ms(context_.loop.now() - began_); }

void Relocation::save() {
  record_.reached = lead_->reached();
  context_.store.put(kKind, record_.port.text(), to_json(record_));
}

// ---- before the guest stands ----

void Relocation::stage(Done done) {
  staged_ = std::move(done);
  record_.wanted = Phase::staged;
  lead_->stage();
  advance();
}

void Relocation::undo() {
  if (!is_staging()) return;
  staged_ = nullptr;
  record_.wanted = Phase::undone;
  lead_->undo();
  advance();
}

void Relocation::staging_failed(const std::string& why) {
  Done done = std::exchange(staged_, nullptr);
  undo();
  if (done) done(fail("{}", why));
}

void Relocation::staging() {
  if (staged_ && !lead_->refusal().empty()) return staging_failed(lead_->refusal());
  if (!lead_->is_staged()) return;
  report_["staged_ms"] = elapsed_ms();
  if (staged_) std::exchange(staged_, nullptr)(report_);
}

void Relocation::restart() {
  lead_->restart();
  if (is_staging()) return;  // its move says how it goes on
  if (record_.wanted != Phase::undone) return follow(nullptr);
  advance();
}

void Relocation::advance() {
  if (is_over_) return;
  if (is_staging()) return staging();
  if (lead_->is_forwarded() && uplink_ == Uplink::held) {
    if (!report_.contains("forwarded_ms")) report_["forwarded_ms"] = elapsed_ms();
    pause_uplink();
  }
  if (is_here()) followed();
  if (lead_->is_over() && (record_.wanted == Phase::undone || record_.source_told)) end();
}

// ---- the uplink ----

void Relocation::follow(Done done) {
  followed_ = std::move(done);
  began_ = context_.loop.now();
  if (record_.wanted == Phase::undone || is_over_) return;
  if (is_staging()) record_.wanted = Phase::flipped;
  save();
  if (uplink_ != Uplink::here) return move_uplink();
  release_uplink();
  clean_up();
}

void Relocation::ask_source(const char* method, Peers::Reply reply) {
  context_.peers.request(record_.from, method,
                         {{"port", record_.port.text()}, {"epoch", record_.epoch}},
                         std::move(reply), kSourceTimeout);
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
    save();
    release_uplink();
    return clean_up();
  }
  context_.network.discard_held({record_.port});
  uplink_ = Uplink::asking;
  if (source_is_gone()) return hold_uplink(record_.described);
  lead_->gather();
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
  const auto routed = context_.network.route_guest(record_.port, lead_->guest());
  if (!routed) return try_again(routed.error().text);
  uplink_ = Uplink::held;
  report_["held_ms"] = elapsed_ms();
  lead_->lead();
  await_source();
}

// It may go before it has said that it sends on.
void Relocation::await_source() {
  if (source_is_gone()) lead_->abandon_source();
  await_timer_ = context_.loop.after(kTryAgain, [this] { await_source(); });
  advance();
}

void Relocation::pause_uplink() {
  uplink_ = Uplink::pausing;
  await_timer_.reset();
  if (source_is_gone()) {
    lead_->abandon_source();
    return run_uplink();
  }
  ask_source("uplink.pause",
             [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
               if (alive.expired()) return;
               if (!reply) return try_again(reply.error().text);
               lead_->uplink_stands(*reply, [this] { run_uplink(); });
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
    if (!alive.expired()) clean_up();
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

void Relocation::clean_up() {
  lead_->uplink_is_here();
  advance();
}

void Relocation::followed() {
  if (!report_.contains("flipped_ms")) {
    report_.update(lead_->describe());
    report_["flipped_ms"] = elapsed_ms();
    context_.events.publish("relocation", describe());
  }
  if (followed_) std::exchange(followed_, nullptr)(report_);
}

void Relocation::end() {
  is_over_ = true;
  context_.store.erase(kKind, record_.port.text());
  context_.events.publish("relocation", describe());
}

nlohmann::json Relocation::describe() const {
  nlohmann::json json = {{"port", record_.name},
                         {"from", record_.from},
                         {"to", context_.config.name},
                         {"phase", translate::to_text(lead_->reached())},
                         {"uplink", record_.here ? "here" : "there"},
                         {"strategy", to_text(record_.strategy)},
                         {"lead", lead_->describe()},
                         {"steps", report_}};
  if (const std::string left = lead_->missing(); !left.empty()) json["waits_for"] = left;
  return json;
}

}  // namespace godwit::agent
