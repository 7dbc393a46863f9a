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
  if (takes_back()) hold_uplink();
  advance();
}

void Relocation::undo() {
  if (!is_staging()) return;
  staged_ = nullptr;
  told_.reset();
  record_.wanted = Phase::undone;
  lead_->undo();
  uplink_ = Uplink::there;
  context_.network.discard_held({record_.port});
  let_source_go();
  advance();
}

void Relocation::staging_failed(const std::string& why) {
  Done done = std::exchange(staged_, nullptr);
  undo();
  if (done) done(fail("{}", why));
}

void Relocation::staging() {
  if (staged_ && !lead_->refusal().empty()) return staging_failed(lead_->refusal());
  if (!staged_ || !lead_->is_staged() || uplink_ == Uplink::asking) return;
  if (uplink_ == Uplink::held) {
    if (const auto done = lead_->uplink_is_held(); !done) return staging_failed(done.error().text);
  }
  report_["staged_ms"] = elapsed_ms();
  std::exchange(staged_, nullptr)(report_);
}

void Relocation::restart() {
  lead_->restart();
  if (is_staging()) return;  // its move says how it goes on
  if (record_.wanted != Phase::undone) return follow(nullptr);
  let_source_go();
  advance();
}

void Relocation::advance() {
  if (is_over_) return;
  if (is_staging()) return staging();
  if (lead_->is_forwarded() && uplink_ == Uplink::led) {
    if (!report_.contains("forwarded_ms")) report_["forwarded_ms"] = elapsed_ms();
    pause_uplink();
  }
  if (is_here()) followed();
  if (lead_->is_over() && record_.source_told) end();
}

// ---- the uplink ----

void Relocation::follow(Done done) {
  followed_ = std::move(done);
  began_ = context_.loop.now();
  if (record_.wanted == Phase::undone || is_over_) return;
  if (uplink_ == Uplink::held) lead_->guest_runs();
  if (is_staging()) record_.wanted = Phase::flipped;
  if (has_run()) {
    uplink_ = Uplink::here;
    record_.here = true;
  }
  save();
  go_on();
}

// Also when the agent ended before it had said so.
bool Relocation::has_run() const {
  return uplink_ == Uplink::here || context_.network.guest_uplink(record_.port) != nullptr;
}

void Relocation::go_on() {
  switch (uplink_) {
    case Uplink::there:
      return hold_uplink();
    case Uplink::held:
      return lead_here();
    case Uplink::pausing:
      return pause_uplink();
    case Uplink::here:
      let_source_go();
      return clean_up();
    case Uplink::asking:
    case Uplink::led:
      return;  // until it is answered
  }
}

void Relocation::ask_source(const char* method, Peers::Reply reply) {
  context_.peers.request(
      record_.from, method, {{"port", record_.port.text()}, {"epoch", record_.epoch}},
      [reply = std::move(reply),
       alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& answer) mutable {
        if (!alive.expired()) reply(answer);
      },
      kSourceTimeout);
}

bool Relocation::source_is_gone() {
  const Instant now = context_.loop.now();
  if (context_.peers.is_up(record_.from)) return source_lost_.reset(), false;
  if (!source_lost_) source_lost_ = now;
  return now - *source_lost_ >= kSourcePatience;
}

// While it is staged nothing is: the guest may come without.
void Relocation::try_again(const std::string& why) {
  if (why != trouble_) {
    spdlog::warn("port {} does not follow from {} yet: {}", record_.name, record_.from, why);
  }
  trouble_ = why;
  if (uplink_ == Uplink::asking) uplink_ = Uplink::there;
  if (is_staging()) return advance();
  uplink_timer_ = context_.loop.after(kTryAgain, [this] { go_on(); });
}

void Relocation::hold_uplink() {
  uplink_ = Uplink::asking;
  if (source_is_gone()) {
    const auto held = hold_alone();
    return held ? uplink_held() : try_again(held.error().text);
  }
  ask_source("uplink.offer", [this](const Result<nlohmann::json>& reply) {
    if (uplink_ != Uplink::asking) return;  // it was undone
    reply ? offered(*reply) : try_again(reply.error().text);
  });
}

// One that is held is never held anew at the same epoch: others would use the keys of before.
void Relocation::offered(const nlohmann::json& described) {
  if (!context_.network.is_held(record_.port)) {
    if (const auto held = hold(described); !held) return try_again(held.error().text);
  }
  context_.network.when_prepared({record_.port}, kHeldPatience,
                                 [this, alive = std::weak_ptr(alive_)](const Result<>& done) {
                                   if (alive.expired() || uplink_ != Uplink::asking) return;
                                   done ? uplink_held() : try_again(done.error().text);
                                 });
}

Result<> Relocation::hold(nlohmann::json described) {
  context_.network.correct_wire(described);
  const auto held =
      context_.network.prepare_held(described, PortKind::uplink, record_.from, record_.epoch);
  if (!held) return std::unexpected(held.error());
  if (*held == record_.port) return {};
  context_.network.discard_held({*held});
  return fail("the source tells of another port");
}

Result<> Relocation::hold_alone() {
  if (!context_.network.is_held(record_.port)) return hold(record_.described);
  context_.network.correct_held(record_.port);
  return {};
}

void Relocation::uplink_held() {
  uplink_ = Uplink::held;
  is_staging() ? advance() : lead_here();
}

// From here on there is no way back: what is for the guest comes to this host's kernel, and waits.
void Relocation::lead_here() {
  const auto routed = context_.network.route_guest(record_.port, lead_->guest());
  if (!routed) return try_again(routed.error().text);
  uplink_ = Uplink::led;
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
    context_.network.correct_held(record_.port);
    return run_uplink();
  }
  if (told_) return uplink_stands();
  ask_source("uplink.pause", [this](const Result<nlohmann::json>& reply) {
    if (told_) return;  // it crossed
    if (!reply) return try_again(reply.error().text);
    told_ = *reply;
    uplink_stands();
  });
}

void Relocation::source_stands(const nlohmann::json& told) {
  if (told_ || uplink_ == Uplink::here || record_.wanted == Phase::undone) return;
  told_ = told;
  if (uplink_ == Uplink::pausing) uplink_stands();
}

void Relocation::uplink_stands() {
  lead_->uplink_stands(*told_, [this] { run_uplink(); });
}

void Relocation::run_uplink() {
  context_.store.begin_group();
  context_.network.run_uplink(record_.port, record_.described);
  uplink_ = Uplink::here;
  record_.here = true;
  save();
  (void)context_.store.end_group();  // on a full disk it waits
  report_["uplink_ms"] = elapsed_ms();
  let_source_go();
  context_.loop.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) clean_up();
  });
}

// An older agent's offer stands until it is asked for it.
bool Relocation::takes_back() const {
  return context_.peers.protocol(record_.from) >= kWithdrawProtocol;
}

// Of its uplink, or of what it has offered.
void Relocation::let_source_go() {
  if (record_.source_told || is_telling_) return;
  is_telling_ = true;
  const bool is_undone = record_.wanted == Phase::undone;
  ask_source(is_undone ? "uplink.withdraw" : "uplink.release",
             [this, is_undone](const Result<nlohmann::json>& reply) {
               is_telling_ = false;
               const bool is_old = context_.peers.is_up(record_.from) && !takes_back();
               if (reply || (is_undone && is_old)) {
                 record_.source_told = true;
                 save();
                 return advance();
               }
               tell_timer_ = context_.loop.after(kTryAgain, [this] { let_source_go(); });
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

const char* Relocation::place_of_uplink() const {
  if (uplink_ == Uplink::here) return "here";
  return uplink_ == Uplink::there || uplink_ == Uplink::asking ? "there" : "held";
}

nlohmann::json Relocation::describe() const {
  nlohmann::json json = {
      {"port", record_.name},        {"from", record_.from},
      {"to", context_.config.name},  {"phase", translate::to_text(lead_->reached())},
      {"uplink", place_of_uplink()}, {"strategy", to_text(record_.strategy)},
      {"lead", lead_->describe()},   {"steps", report_}};
  if (const std::string left = lead_->missing(); !left.empty()) json["waits_for"] = left;
  return json;
}

}  // namespace godwit::agent
