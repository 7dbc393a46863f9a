#include "agent/libvirt_source.hh"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include "agent/fault.hh"
#include "agent/transfer_report.hh"
#include "migrate/bounds.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"

namespace godwit::agent {

using migrate::SourceState;

namespace {

constexpr Nanoseconds kProgressInterval = milliseconds(250);
constexpr Nanoseconds kAbortBound = seconds(10);
constexpr Nanoseconds kWritesBound = seconds(1);
constexpr Nanoseconds kLookAgain = milliseconds(500);
// Beyond the pause that it may have: what is left to do takes a few round trips and QEMU's loading.
constexpr Nanoseconds kStandBound = seconds(20);
constexpr std::uint64_t kMeasured = 1U << 20;  // bytes sent; fewer tell no rate

}  // namespace

LibvirtSource::LibvirtSource(const SourceMove::Context& context, LibvirtSourceRecord record)
    : context_(context),
      record_(std::move(record)),
      sockets_(context.config.run_dir, record_.move.id) {
  milestones_.begun = context_.loop.now();
  cpu_at_begin_ = process_cpu_seconds(::getpid());
}

LibvirtSource::~LibvirtSource() { close(); }

Result<> LibvirtSource::accept() {
  return context_.store.record("libvirt-source", record_.move.id.text(), to_json(record_));
}

void LibvirtSource::enter(SourceState state) {
  SourceRecord& move = record_.move;
  move.state = state;
  context_.store.put("libvirt-source", move.id.text(), to_json(record_));
  context_.events.publish("migration", {{"id", move.id.text()},
                                        {"vm", move.vm},
                                        {"tenant", move.tenant},
                                        {"by", move.by},
                                        {"state", shown_state()},
                                        {"reason", move.reason}});
  if (!migrate::is_final(state)) return;
  progress_timer_.reset();
  context_.events.publish_done(move.id, describe());
}

// ---- copying ----

void LibvirtSource::begin() {
  if (record_.move.state != SourceState::planned) return;
  enter(SourceState::preparing);
  publish_progress();
  prepare();
}

std::optional<codec::Settings> LibvirtSource::codec() const {
  if (!record_.move.compact) return std::nullopt;
  return codec_settings(record_.move, context_.peers.protocol(record_.move.to));
}

void LibvirtSource::prepare() {
  context_.peers.request(
      record_.move.to, "libvirt.prepare",
      {{"id", record_.move.id.text()},
       {"domain", to_json(record_.domain)},
       {"by", record_.move.by},
       {"codec", to_json(codec())}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired() || record_.move.state != SourceState::preparing) return;
        if (!reply) {
          return give_up(fmt::format("host {} cannot take {}: {}", record_.move.to, record_.move.vm,
                                     reply.error().text));
        }
        start();
      },
      migrate::kPrepareTimeout);
}

void LibvirtSource::start() {
  enter(SourceState::copying);
  milestones_.disks = context_.loop.now();
  try {
    passage_ = std::make_unique<LibvirtPassage>(
        context_.loop, context_.peers, record_, sockets_, codec(),
        LibvirtPassage::Events{.mark = [this](const stream::QemuMark& mark) { marked(mark); },
                               .memory_begins =
                                   [this] {
                                     if (passage_->disk_bytes())
                                       milestones_.disks_settled = context_.loop.now();
                                   },
                               .failed = [this](const std::string& why) { give_up(why); }});
  } catch (const SetupError& error) {
    return give_up(error.what());
  }
  migrate();
}

void LibvirtSource::marked(const stream::QemuMark& mark) {
  using Kind = stream::QemuMark::Kind;
  const Instant now = context_.loop.now();
  if (mark.kind == Kind::kRamBegan) milestones_.copying = now;
  if (mark.kind == Kind::kRoundEnded || mark.kind == Kind::kFinalRamBegan) {
    rounds_.push_back({.round = rounds_.size() + 1,
                       .bytes = mark.position - round_from_,
                       .duration = now - round_since_});
  }
  round_from_ = mark.position;
  round_since_ = now;
  if (mark.kind == Kind::kFinalRamEnded) milestones_.memory_ended = now;
  if (mark.kind != Kind::kFinalRamBegan) return;
  milestones_.stopped = milestones_.pre_switchover = milestones_.ports_paused = now;
  stand_timer_ = context_.loop.after(record_.move.max_downtime + kStandBound, [this] {
    give_up("the domain stood for too long: the link, or the target, is gone");
  });
}

void LibvirtSource::migrate() {
  const SourceRecord& move = record_.move;
  nlohmann::json targets = nlohmann::json::array();
  for (const auto& disk : record_.domain.moving_disks()) targets.push_back(disk.target);
  const nlohmann::json request = {
      {"target", "qemu+unix:///system?socket=" + sockets_.control.string()},
      {"memory", sockets_.memory.string()},
      {"disks", sockets_.disks.string()},
      {"targets", targets},
      {"throttle", move.on_diverge == migrate::OnDiverge::throttle},
      {"max_downtime_ms", move.max_downtime / milliseconds(1)}};
  may_have_left_ = true;
  program_ = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config,
      std::vector<std::string>{"migrate", record_.domain.uuid, request.dump()},
      [this](const Result<nlohmann::json>& outcome) { migrated(outcome); },
      [this](const nlohmann::json& job) { job_ = job; });
}

void LibvirtSource::migrated(const Result<nlohmann::json>& outcome) {
  stand_timer_.reset();
  again_.reset();
  program_.reset();
  if (!outcome) return give_up(outcome.error().text);
  milestones_.completed = context_.loop.now();
  release();
}

// ---- handing over: the domain is not here any more ----

void LibvirtSource::release() {
  record_.move.abort_told = true;  // if there was one it came too late
  enter(SourceState::released);
  commit();
}

void LibvirtSource::commit() {
  fault_point("libvirt", "released", "commit", Moment::before);
  milestones_.rtt = context_.peers.rtt(record_.move.to);
  context_.peers.request(
      record_.move.to, "libvirt.commit", {{"id", record_.move.id.text()}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired() || record_.move.state != SourceState::released) return;
        if (reply && qemu::flag_at(*reply, "owns")) return committed(*reply);
        if (reply && reply->contains("refuses")) {
          record_.move.reason = fmt::format(
              "domain {} has ended: it is not here any more, and at host {}: {}",
              record_.domain.name, record_.move.to, text_field_or(*reply, "refuses", ""));
          record_.move.abort_told = false;
          return aborted();
        }
        if (!reply) spdlog::warn("{}: {}; asking again", record_.move.vm, reply.error().text);
        again_ = context_.loop.after(kLookAgain, [this] { commit(); });
      },
      migrate::kCommitTimeout * 3);
}

void LibvirtSource::committed(const nlohmann::json& reply) {
  milestones_.owned = context_.loop.now();
  milestones_.resume_at_target = Nanoseconds(qemu::unsigned_at(reply, "resume_ns"));
  record_.move.handed_over_ms = os::wall_clock().count();
  if (passage_ && milestones_.completed != Instant{}) {
    migrate::Report report;
    fill(report, passage_->link());
    report.rounds = rounds_;
    if (const auto sent = passage_->disk_bytes()) {
      report.disks = {.total_bytes = qemu::unsigned_at(job_, "disk_total"), .sent_bytes = *sent};
    }
    migrate::fill_times(report, milestones_);
    report.source_cpu_seconds = process_cpu_seconds(::getpid()) - cpu_at_begin_;
    report.target_cpu_seconds = qemu::number_at(reply, "cpu_s");
    record_.move.report = migrate::to_json(report);
  }
  nlohmann::json paths = nlohmann::json::array();
  for (const auto& disk : record_.domain.moving_disks()) paths.push_back(disk.path);
  context_.store.put("libvirt-left", record_.domain.uuid,
                     {{"name", record_.domain.name}, {"to", record_.move.to}, {"disks", paths}});
  enter(SourceState::done);
  close();
  if (!record_.move.delete_source || paths.empty()) return;
  program_ = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config,
      std::vector<std::string>{"delete", record_.domain.uuid, paths.dump()},
      [this](const Result<nlohmann::json>& outcome) {
        if (outcome) context_.store.erase("libvirt-left", record_.domain.uuid);
        if (!outcome) spdlog::warn("{}: its disks stay: {}", record_.move.vm, outcome.error().text);
      });
}

// ---- aborting: libvirt lets it go on here, unless its caller died ----

Result<> LibvirtSource::abort(const std::string& reason) {
  switch (record_.move.state) {
    case SourceState::aborting:
    case SourceState::aborted:
      return {};
    case SourceState::released:
      return fail("{} is handed over and waits for host {}'s word: it cannot be aborted",
                  record_.move.vm, record_.move.to);
    case SourceState::done:
      return fail("{} has moved: migrate it back instead", record_.move.vm);
    default:
      record_.move.given_up = true;
      give_up(reason);
      return {};
  }
}

void LibvirtSource::target_failed(const std::string& reason) {
  if (!migrate::is_final(record_.move.state)) give_up(reason);
}

// What is under way ends first, and tells.
void LibvirtSource::give_up(const std::string& reason) {
  SourceRecord& move = record_.move;
  if (move.state == SourceState::released || migrate::is_final(move.state)) return;
  const bool is_first = move.state != SourceState::aborting;
  if (is_first) {
    move.reason = reason;
    move.abort_told = move.state == SourceState::planned;
    enter(SourceState::aborting);
  }
  if (program_ && is_first) {
    again_ = context_.loop.after(kAbortBound, [this] { give_up({}); });
    // Writes of the guest that a dead link keeps let it not stand: they fail with QEMU's parts.
    stand_timer_ = context_.loop.after(kWritesBound, [this] { close(); });
    return program_->abort([this] {
      spdlog::info("{}: nothing is in flight", record_.move.vm);
      close();
    });
  }
  close();
  if (!program_) return look();
  // What it began libvirt ends when its connections do.
  context_.loop.post([this, gone = std::shared_ptr<LibvirtProgram>(std::move(program_)),
                      alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) look();
  });
}

// Is it here?
void LibvirtSource::look() {
  close();
  if (!may_have_left_) return aborted();
  program_ = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config, std::vector<std::string>{"describe", record_.domain.uuid},
      [this](const Result<nlohmann::json>& found) { looked(found); });
}

void LibvirtSource::looked(const Result<nlohmann::json>& found) {
  program_.reset();
  const auto state = found ? found->value("state", nlohmann::json::object()) : nlohmann::json();
  if (!found || qemu::flag_at(state, "job")) {
    if (!found) spdlog::error("{}: {}; trying again", record_.move.vm, found.error().text);
    again_ = context_.loop.after(kLookAgain, [this] { look(); });
    return;
  }
  if (qemu::flag_at(state, "active")) return qemu::flag_at(state, "paused") ? let_run() : aborted();
  // It has ended by itself, or libvirt handed it over and nobody heard.
  release();
}

void LibvirtSource::let_run() {
  program_ = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config, std::vector<std::string>{"run", record_.domain.uuid},
      [this](const Result<nlohmann::json>& done) {
        program_.reset();
        if (done && !done->contains("gone")) return aborted();
        if (!done) spdlog::error("{}: {}; trying again", record_.move.vm, done.error().text);
        again_ = context_.loop.after(kLookAgain, [this] { look(); });
      });
}

void LibvirtSource::aborted() {
  enter(SourceState::aborted);
  close();
  tell_abort();
}

void LibvirtSource::tell_abort() {
  if (record_.move.abort_told) return;
  context_.peers.request(
      record_.move.to, "libvirt.abort",
      {{"id", record_.move.id.text()}, {"reason", record_.move.reason}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired()) return;
        if (!reply) {
          again_ = context_.loop.after(migrate::kTellAgain, [this] { tell_abort(); });
          return;
        }
        record_.move.abort_told = true;
        context_.store.put("libvirt-source", record_.move.id.text(), to_json(record_));
      },
      migrate::kAbortTimeout);
}

// It may be calling.
void LibvirtSource::close() {
  stand_timer_.reset();
  if (passage_) {
    passage_->silence();
    context_.loop.post([gone = std::shared_ptr<LibvirtPassage>(std::move(passage_))] {});
    return;
  }
  std::error_code ignored;  // an earlier agent's
  std::filesystem::remove_all(sockets_.directory, ignored);
}

// ---- after a restart, and when a session comes up ----

// What libvirt did for an earlier agent it gave up when that died.
void LibvirtSource::restart() {
  SourceRecord& move = record_.move;
  may_have_left_ = true;
  if (move.state == SourceState::released) return commit();
  if (migrate::is_final(move.state)) return tell_abort();
  if (move.state != SourceState::aborting) move.reason = "the agent was restarted";
  move.abort_told = false;
  enter(SourceState::aborting);
  look();
}

void LibvirtSource::on_session_up() {
  if (record_.move.state == SourceState::released) return commit();
  if (record_.move.state == SourceState::aborted) return tell_abort();
  if (record_.move.state != SourceState::copying) return;
  context_.peers.request(
      record_.move.to, "libvirt.knows", {{"id", record_.move.id.text()}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired() || !reply || qemu::flag_at(*reply, "known")) return;
        give_up(fmt::format("the agent of host {} was restarted", record_.move.to));
      },
      migrate::kNotifyTimeout);
}

void LibvirtSource::doubt_lanes() {
  if (passage_) passage_->link().doubt_lanes();
}

Result<> LibvirtSource::set(const MoveChanges& changes) {
  if (changes.max_downtime || changes.on_diverge) {
    return fail("of a libvirt domain's move only the bandwidth can be changed");
  }
  if (!changes.bandwidth) return {};
  record_.move.bandwidth_bits_per_second = changes.bandwidth->bits_per_second;
  context_.store.put("libvirt-source", record_.move.id.text(), to_json(record_));
  if (passage_) passage_->link().set_bandwidth(*changes.bandwidth);
  return {};
}

// ---- telling ----

void LibvirtSource::publish_progress() {
  context_.events.publish_progress(record_.move.id, progress());
  progress_timer_ = context_.loop.after(kProgressInterval, [this] { publish_progress(); });
}

std::string LibvirtSource::shown_state() const {
  const SourceState state = record_.move.state;
  return state == SourceState::released ? "switching" : std::string(migrate::to_text(state));
}

nlohmann::json LibvirtSource::progress() const {
  nlohmann::json json = {{"phase", shown_state()}};
  if (!passage_) return json;
  TransferLink& link = passage_->link();
  const auto stats = link.stats();
  const std::uint64_t sent = stats.lane_bytes_out;
  json.update({{"round", qemu::unsigned_at(job_, "memory_iteration")},
               {"remaining_bytes", qemu::unsigned_at(job_, "memory_remaining")},
               {"total_bytes", record_.domain.memory.bytes},
               {"sent_bytes", sent},
               {"lane_up", stats.lanes_up > 0},
               {"lanes_up", stats.lanes_up}});
  if (const auto disks = passage_->disk_bytes()) {
    const std::uint64_t remaining = qemu::unsigned_at(job_, "disk_remaining");
    json["disks"] = {{"phase", remaining > 0 ? "copying" : "in-step"},
                     {"total_bytes", qemu::unsigned_at(job_, "disk_total")},
                     {"remaining_bytes", remaining},
                     {"same_bytes", 0},  // libvirt does not ask
                     {"elsewhere_bytes", 0},
                     {"sent_bytes", *disks}};
  }
  migrate::Report so_far;
  fill(so_far, link);
  json["encodings"] = migrate::to_json(so_far.encodings);
  const BitRate rate = link.memory().memory_rate;
  if (sent < kMeasured || rate.bits_per_second == 0) return json;
  const auto remaining = static_cast<double>(qemu::unsigned_at(job_, "memory_remaining"));
  json.update({{"rate_bps", stats.delivery_rate.bits_per_second},
               {"effective_rate_bps", rate.bits_per_second},
               {"eta_s", remaining / rate.bytes_per_second()}});
  return json;
}

nlohmann::json LibvirtSource::describe() const {
  const SourceRecord& move = record_.move;
  nlohmann::json json = agent::describe(move, context_.config.name, shown_state());
  if (!migrate::is_final(move.state)) json["progress"] = progress();
  return json;
}

}  // namespace godwit::agent
