#include "agent/component_source.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/move_queue.hh"
#include "migrate/bounds.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"

namespace godwit::agent {

using migrate::SourceEffect;
using migrate::SourceEvent;
using migrate::SourceState;

namespace {

constexpr const char* kSourceKind = "component-source";
// On their way: 128 KiB each, 10 MB/s over 50 ms.
constexpr std::size_t kMostUnanswered = 4;
// What changes while it waits for its turn is told as often.
constexpr Nanoseconds kTellInterval = milliseconds(100);
constexpr unsigned kMostFailures = 3;
constexpr Nanoseconds kTellAgain = seconds(1);
constexpr Nanoseconds kLongestTelling = seconds(10);
// Longer than a session lasts that hears nothing: then the next one tells it again.
constexpr Nanoseconds kStateTimeout = seconds(60);

}  // namespace

ComponentSource::ComponentSource(const SourceMove::Context& context, SourceRecord record)
    : context_(context),
      record_(std::move(record)),
      machine_({.hold = record_.hold, .pause_on_diverge = false}, record_.state,
               record_.abort_told),
      queue_(machine_, queue_handlers<migrate::Source>(
                           "component-source", record_.id, machine_,
                           [this](SourceEffect effect) { return perform(effect); })),
      begun_(context_.loop.now()) {}

void ComponentSource::feed(SourceEvent event, std::string text) {
  queue_.feed(event, std::move(text));
}

Result<> ComponentSource::accept() {
  feed(SourceEvent::asked);
  if (machine_.state() == SourceState::planned) return {};
  return fail("nothing was changed: {}", machine_.reason());
}

void ComponentSource::give_up() {
  record_.given_up = true;
  feed(SourceEvent::abort_requested, "aborted on request");
}

// It has no limits: it stands as long as the last message takes.
Result<> ComponentSource::set(const MoveChanges&) { return {}; }

void ComponentSource::regroup(const GroupPlace& place) {
  record_.group->cap = place.cap;
  record_.group->hold = place.hold;
  context_.store.put(kSourceKind, record_.id.text(), to_json(record_));
}

// ---- effects ----

Result<> ComponentSource::perform(SourceEffect effect) {
  if (effect != SourceEffect::record) return perform_surely(effect), Result<>{};
  auto done = context_.store.record(kSourceKind, record_.id.text(), journal_entry());
  if (done) recorded();
  return done;
}

void ComponentSource::perform_surely(SourceEffect effect) {
  switch (effect) {
    case SourceEffect::note:
      context_.store.put(kSourceKind, record_.id.text(), journal_entry());
      return recorded();
    case SourceEffect::prepare_target:
      return prepare_target();
    case SourceEffect::start_memory:
      return context_.components.begin_state(record_.component);
    case SourceEffect::continue_memory:
      copying_since_ = context_.loop.now();
      return tell_some();
    case SourceEffect::pre_pause:  // hooks are for guests
      return feed(SourceEvent::pre_pause_done);
    case SourceEffect::allow_switchover:
      return feed(SourceEvent::at_pre_switchover);
    case SourceEffect::pause_ports:
      return freeze();
    case SourceEffect::continue_switchover:
      return feed(SourceEvent::memory_completed);
    case SourceEffect::commit_target:
      return commit_target();
    case SourceEffect::cancel_memory:
      next_.reset();
      return context_.components.end_state(record_.component);
    case SourceEffect::resume_guest:
      context_.components.resume(record_.component);
      return feed(SourceEvent::guest_resumed);
    case SourceEffect::resume_ports:
      return context_.network.resume(record_.ports);
    case SourceEffect::abort_target:
      return abort_target();
    case SourceEffect::release_ports:
      return context_.network.release(record_.ports, record_.epoch,
                                      [this, alive = std::weak_ptr(alive_)] {
                                        if (!alive.expired()) feed(SourceEvent::drained);
                                      });
    case SourceEffect::end_guest:
      return feed(SourceEvent::guest_ended);
    case SourceEffect::forget_guest:
      return forget();
    case SourceEffect::wait:
      return wait();
    case SourceEffect::record:          // see perform()
    case SourceEffect::post_resume:     // hooks are for guests
    case SourceEffect::recover_memory:  // post-copy's
    case SourceEffect::tell_lost:
      return;
  }
}

nlohmann::json ComponentSource::journal_entry() {
  record_.state = machine_.state();
  record_.reason = machine_.reason();
  record_.abort_told = machine_.abort_told();
  return to_json(record_);
}

void ComponentSource::recorded() {
  if (std::exchange(published_, record_.state) == record_.state) return;  // what was heard, only
  bound_.reset();
  context_.events.publish("migration", {{"id", record_.id.text()},
                                        {"vm", record_.vm},
                                        {"tenant", record_.tenant},
                                        {"by", record_.by},
                                        {"state", shown_state()},
                                        {"reason", record_.reason}});
  context_.events.publish_progress(record_.id, progress());
  if (handed_over() || record_.state == SourceState::aborted) {
    context_.events.publish_done(record_.id, describe());
  }
}

void ComponentSource::wait() {
  bound_ = context_.loop.after(migrate::bound_of(machine_.state(), Nanoseconds(0)),
                               [this] { feed(SourceEvent::patience_ended); });
}

void ComponentSource::prepare_target() {
  const auto* component = context_.components.find(record_.component);
  if (component == nullptr) return feed(SourceEvent::target_failed, "the component is gone");
  nlohmann::json ports = nlohmann::json::array();
  for (const PortId& port : record_.ports) {
    const auto described = context_.network.describe_nic(port);
    if (!described) return feed(SourceEvent::target_failed, described.error().text);
    ports.push_back(*described);
    context_.network.offer_move(port, record_.to, record_.epoch);
  }
  context_.peers.request(
      record_.to, "component.prepare",
      {{"id", record_.id.text()},
       {"component", fabric::to_json(*component)},
       {"ports", ports},
       {"epoch", record_.epoch},
       {"by", record_.by}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired()) return;
        if (reply) return feed(SourceEvent::target_prepared);
        feed(SourceEvent::target_failed,
             fmt::format("host {} cannot take {}: {}", record_.to, record_.vm, reply.error().text));
      },
      migrate::kPrepareTimeout);
}

// ---- what it knows ----

void ComponentSource::send(Bytes message, bool is_last) {
  told_bytes_ += message.size();
  unanswered_.push_back(
      {.number = next_number_++, .message = std::move(message), .is_last = is_last, .failures = 0});
  ask(unanswered_.back());
}

void ComponentSource::ask(const Message& message) {
  context_.peers.request(
      record_.to, "component.state",
      {{"id", record_.id.text()},
       {"number", message.number},
       {"state", to_hex(message.message)},
       {"last", message.is_last}},
      [this, number = message.number,
       alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (!alive.expired()) told(number, reply);
      },
      kStateTimeout);
}

// What was not answered is told again, before the machine asks for more.
void ComponentSource::session_up() {
  tell_again();
  feed(SourceEvent::session_up);
}

void ComponentSource::tell_again() {
  if (!context_.peers.is_up(record_.to)) return;
  for (const Message& each : unanswered_) ask(each);
}

void ComponentSource::told(std::uint64_t number, const Result<nlohmann::json>& reply) {
  if (!reply) {
    // Of a session that has ended: the next one tells it again. A target that refuses does so
    // again.
    const auto found = std::ranges::find(unanswered_, number, &Message::number);
    if (found == unanswered_.end()) return;
    if (++found->failures < kMostFailures) {
      retry_ = context_.loop.after(kTellAgain, [this] { tell_again(); });
      return;
    }
    return feed(SourceEvent::memory_failed,
                fmt::format("what {} knows did not reach host {}: {}", record_.vm, record_.to,
                            reply.error().text));
  }
  while (!unanswered_.empty() && unanswered_.front().number <= number) unanswered_.pop_front();
  maybe_converged();
  if (more_) tell_some();
}

// What changes faster than it is told is told when it stands.
void ComponentSource::maybe_converged() {
  if (machine_.state() != SourceState::copying) return;
  const bool is_little = !more_ && unanswered_.empty();
  if (is_little || context_.loop.now() - copying_since_ > kLongestTelling) {
    feed(SourceEvent::converged);
  }
}

// As long as it is copied, and then until it is its turn.
void ComponentSource::tell_some() {
  const SourceState state = machine_.state();
  if (state != SourceState::copying && state != SourceState::ready) return;
  if (unanswered_.size() >= kMostUnanswered) {
    more_ = true;  // when one is answered
    return;
  }
  if (std::exchange(is_taking_, true)) return;
  context_.components.take_state(
      record_.component, Components::Take::some,
      [this, alive = std::weak_ptr(alive_)](std::vector<Bytes> messages) {
        if (!alive.expired()) tell(std::move(messages));
      });
}

void ComponentSource::tell(std::vector<Bytes> messages) {
  is_taking_ = false;
  more_ = !messages.empty() && messages.back().size() >= Components::kStateBytes / 2;
  for (Bytes& each : messages) send(std::move(each), false);
  if (more_) return tell_some();
  maybe_converged();
  next_ = context_.loop.after(kTellInterval, [this] { tell_some(); });
}

// Both in the wire thread, in this order: no frame reaches it any more, and what it knows is final.
void ComponentSource::freeze() {
  next_.reset();
  frozen_ = context_.loop.now();
  context_.network.pause(record_.ports, {}, [] {});
  context_.components.take_state(
      record_.component, Components::Take::all,
      [this, alive = std::weak_ptr(alive_)](std::vector<Bytes> messages) {
        if (alive.expired() || machine_.state() != SourceState::switching) return;
        tell_last(std::move(messages));
      });
}

void ComponentSource::tell_last(std::vector<Bytes> messages) {
  for (Bytes& each : messages) send(std::move(each), false);
  send({}, true);
  feed(SourceEvent::ports_paused);
}

// ---- the hand-over ----

void ComponentSource::commit_target() {
  if (released_ == Instant{}) released_ = context_.loop.now();
  context_.peers.request(
      record_.to, "component.commit", {{"id", record_.id.text()}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired() || !reply) return;  // unanswered: the bound asks again
        if (qemu::flag_at(*reply, "owns")) return owned(*reply);
        if (reply->contains("refuses")) {
          feed(SourceEvent::target_refuses, text_field_or(*reply, "refuses", ""));
        }
      },
      migrate::kCommitTimeout);
}

// The component forwards nowhere from its freeze here until its ports run there.
void ComponentSource::owned(const nlohmann::json& reply) {
  if (machine_.state() != SourceState::released) return;
  record_.handed_over_ms = os::wall_clock().count();
  if (frozen_ != Instant{}) {
    const Nanoseconds rtt = context_.peers.rtt(record_.to);
    const Nanoseconds at_target(qemu::unsigned_at(reply, "freeze_ns"));
    record_.report = {
        {"total_ms", to_ms(context_.loop.now() - begun_)},
        {"freeze_ms", to_ms(released_ - frozen_ + at_target)},
        {"pause_ms", to_ms(std::max(context_.loop.now() - frozen_ - rtt / 2, Nanoseconds(0)))},
        {"state_bytes", told_bytes_},
        {"held",
         {{"frames", qemu::unsigned_at(reply, "held_frames")},
          {"dropped", qemu::unsigned_at(reply, "held_dropped")}}}};
  }
  feed(SourceEvent::target_owns);
}

void ComponentSource::abort_target() {
  context_.peers.request(
      record_.to, "component.abort", {{"id", record_.id.text()}, {"reason", machine_.reason()}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired()) return;
        if (reply) return feed(SourceEvent::abort_heard);
        if (!context_.peers.is_up(record_.to)) return;  // the next session tells it again
        again_ =
            context_.loop.after(migrate::kTellAgain, [this] { feed(SourceEvent::session_up); });
      },
      migrate::kAbortTimeout);
}

// After a restart this may be said again, when it has long come back.
bool ComponentSource::has_come_back() const {
  return std::ranges::any_of(record_.ports, [this](const PortId& port) {
    const auto described = context_.network.describe_nic(port);
    return described && epoch_field(described->at("port"), "epoch", 1) >= record_.epoch;
  });
}

void ComponentSource::forget() {
  if (!has_come_back()) context_.components.moved_away(record_.component);
}

// ---- what is told ----

bool ComponentSource::handed_over() const {
  const SourceState state = machine_.state();
  return state == SourceState::committed || state == SourceState::draining ||
         state == SourceState::done;
}

std::string ComponentSource::shown_state() const {
  if (machine_.state() != SourceState::released) return std::string(to_text(machine_.state()));
  return machine_.undecided() ? "undecided" : "switching";
}

nlohmann::json ComponentSource::describe() const {
  nlohmann::json json = agent::describe(record_, context_.config.name, shown_state());
  if (!machine_.reason().empty()) json["reason"] = machine_.reason();
  if (record_.group) json["group"] = record_.group->id.text();
  return json;
}

nlohmann::json ComponentSource::progress() const {
  return {{"phase", shown_state()}, {"sent_bytes", told_bytes_}};
}

}  // namespace godwit::agent
