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
// What changes while it waits for its turn is told as often.
constexpr Nanoseconds kTellInterval = milliseconds(100);
constexpr Nanoseconds kProgressInterval = milliseconds(250);
constexpr Nanoseconds kLongestTelling = seconds(10);  // once all was told

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

void ComponentSource::restart() {
  break_off();
  feed(SourceEvent::restarted);
}

void ComponentSource::break_off() {
  if (may_go_on(record_)) record_.broken_off = true;
}

void ComponentSource::went_on(const std::optional<MigrationId>& as) {
  if (as) record_.resumed_as = as->text();
  record_.broken_off = as.has_value();
  save();
  if (machine_.state() == SourceState::aborted) publish_done();
}

void ComponentSource::give_up() {
  if (goes_on(record_)) went_on(std::nullopt);
  record_.given_up = true;
  feed(SourceEvent::abort_requested, "aborted on request");
}

Result<> ComponentSource::set(const MoveChanges& changes) {
  if (changes.max_downtime || changes.on_diverge) {
    return fail(
        "{} has no {}: it stands as long as its last message takes, and always comes to it; of its "
        "move only the bandwidth can be set",
        record_.vm, changes.max_downtime ? "max_downtime" : "on_diverge");
  }
  if (!changes.bandwidth) return {};
  record_.bandwidth_bits_per_second = changes.bandwidth->bits_per_second;
  save();
  share_bandwidth(*changes.bandwidth);
  return {};
}

void ComponentSource::share_bandwidth(BitRate cap) {
  if (sender_) sender_->set_bandwidth(cap);
  if (next_) tell_some();  // it waits by the old one
}

void ComponentSource::regroup(const GroupPlace& place) {
  record_.group->cap = place.cap;
  record_.group->hold = place.hold;
  save();
}

void ComponentSource::save() {
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
      return begin_to_tell();
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
  if (!handed_over() && record_.state != SourceState::aborted) return;
  progress_timer_.reset();
  publish_done();
}

// Not before it is said which move goes on with it.
void ComponentSource::publish_done() {
  if (!goes_on(record_)) context_.events.publish_done(record_.id, describe());
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
        if (!context_.peers.is_up(record_.to)) break_off();
        feed(SourceEvent::target_failed,
             fmt::format("host {} cannot take {}: {}", record_.to, record_.vm, reply.error().text));
      },
      migrate::kPrepareTimeout);
}

// ---- what it knows ----

void ComponentSource::begin_to_tell() {
  sender_.emplace(context_.loop, context_.peers, record_.id, record_.to,
                  StateSender::Events{.answered =
                                          [this] {
                                            maybe_converged();
                                            if (more_) tell_some();
                                          },
                                      .failed =
                                          [this](const std::string& why) {
                                            feed(SourceEvent::memory_failed,
                                                 fmt::format("what {} knows did not reach host {}: "
                                                             "{}",
                                                             record_.vm, record_.to, why));
                                          }});
  sender_->set_bandwidth(BitRate{record_.bandwidth_bits_per_second});
  publish_progress();
  tell_some();
}

// What was not answered is told again, before the machine asks for more.
void ComponentSource::session_up() {
  if (sender_) sender_->send_again();
  feed(SourceEvent::session_up);
}

// What changes faster than it is told is told when it stands.
void ComponentSource::maybe_converged() {
  if (machine_.state() != SourceState::copying) return;
  const bool is_little = !more_ && sender_->is_idle();
  const bool is_long = all_told_ != Instant{} && context_.loop.now() - all_told_ > kLongestTelling;
  if (is_little || is_long) feed(SourceEvent::converged);
}

// As long as it is copied, and then until it is its turn.
void ComponentSource::tell_some() {
  const SourceState state = machine_.state();
  if (!sender_ || (state != SourceState::copying && state != SourceState::ready)) return;
  if (!sender_->has_room()) {
    more_ = true;  // when one is answered
    return;
  }
  if (const auto wait = sender_->wait()) {
    next_ = context_.loop.after(*wait, [this] { tell_some(); });
    return;
  }
  if (std::exchange(is_taking_, true)) return;
  context_.components.take_state(
      record_.component, Components::Take::some,
      [this, alive = std::weak_ptr(alive_)](const Components::Taken& taken) {
        if (!alive.expired()) tell(taken);
      });
}

void ComponentSource::tell(const Components::Taken& taken) {
  is_taking_ = false;
  const auto& messages = taken.messages;
  more_ = !messages.empty() && messages.back().size() >= Components::kStateBytes / 2;
  left_bytes_ = taken.left_bytes;
  for (const Bytes& each : messages) sender_->send(each, false);
  see_whether_all_was_told();
  if (more_) return tell_some();
  maybe_converged();
  next_ = context_.loop.after(kTellInterval, [this] { tell_some(); });
}

// Once: as much as there was at first, or as there is.
void ComponentSource::see_whether_all_was_told() {
  if (all_told_ != Instant{}) return;
  const auto told = static_cast<double>(sender_->sent().messages_bytes);
  if (!at_first_) at_first_ = told + left_bytes_;
  if (!more_ || told >= *at_first_) all_told_ = context_.loop.now();
}

// Both in the wire thread, in this order: no frame reaches it any more, and what it knows is final.
void ComponentSource::freeze() {
  next_.reset();
  frozen_ = context_.loop.now();
  context_.network.pause(record_.ports, {}, [] {});
  context_.components.take_state(
      record_.component, Components::Take::all,
      [this, alive = std::weak_ptr(alive_)](const Components::Taken& taken) {
        if (alive.expired() || machine_.state() != SourceState::switching) return;
        tell_last(taken);
      });
}

// However much it is: frames are held, and a cap is of what may wait.
void ComponentSource::tell_last(const Components::Taken& taken) {
  left_bytes_ = 0;
  for (const Bytes& each : taken.messages) sender_->send(each, false);
  sender_->send({}, true);
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
    const auto sent = sender_->sent();
    record_.report = {
        {"total_ms", to_ms(context_.loop.now() - begun_)},
        {"freeze_ms", to_ms(released_ - frozen_ + at_target)},
        {"pause_ms", to_ms(std::max(context_.loop.now() - frozen_ - rtt / 2, Nanoseconds(0)))},
        {"state_bytes", sent.messages_bytes},
        {"sent_bytes", sent.bytes},
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
  if (sender_ && !migrate::is_final(machine_.state())) json["progress"] = progress();
  return json;
}

void ComponentSource::publish_progress() {
  context_.events.publish_progress(record_.id, progress());
  progress_timer_ = context_.loop.after(kProgressInterval, [this] { publish_progress(); });
}

double ComponentSource::remaining_bytes() const {
  const auto sent = sender_ ? sender_->sent() : StateSender::Sent{};
  if (sent.messages_bytes == 0) return left_bytes_;
  return left_bytes_ * static_cast<double>(sent.bytes) / static_cast<double>(sent.messages_bytes);
}

nlohmann::json ComponentSource::progress() const {
  nlohmann::json json = {{"phase", shown_state()}};
  if (!sender_) return json;
  const auto sent = sender_->sent();
  const auto remaining = static_cast<std::uint64_t>(remaining_bytes());
  json.update({{"sent_bytes", sent.bytes},
               {"remaining_bytes", remaining},
               {"total_bytes", sent.bytes + remaining}});
  if (sent.rate.bits_per_second == 0) return json;
  json["rate_bps"] = sent.rate.bits_per_second;
  json["eta_s"] = static_cast<double>(remaining) / sent.rate.bytes_per_second();
  return json;
}

}  // namespace godwit::agent
