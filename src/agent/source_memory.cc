#include "agent/source_memory.hh"

#include <spdlog/spdlog.h>
#include <algorithm>
#include <chrono>

#include "agent/transfer_report.hh"
#include "qemu/kept_socket.hh"
#include "qemu/launch.hh"

namespace godwit::agent {
namespace {

// QEMU updates its figures at each sync; between them `remaining` is what moves.
// QEMU is asked how far it is, on its main loop: seldom while the end is far, but at each sync.
constexpr Nanoseconds kPollInterval = milliseconds(50);
constexpr Nanoseconds kFar = seconds(2);
constexpr Nanoseconds kPollIntervalFar = milliseconds(200);
constexpr Nanoseconds kRestInterval = milliseconds(250);  // in post-copy
// From `stop` to pre-switchover: QEMU has to write what it holds already. Then the guest goes on.
constexpr Nanoseconds kStandBound = seconds(5);
constexpr std::uint64_t kLeastRound = 4096;  // bytes
// Of the stream of any vm (the smallest has 600 KiB) so little that QEMU cannot be through with it
// and stop the vCPUs, also when its socket and its own buffer (240 KiB) are full.
constexpr ByteCount kBeforePrepared{256 << 10};
// The share of the path's rate that a move in the background takes, and the least.
constexpr std::uint64_t kBackgroundShare = 4;
constexpr BitRate kLeastBackground{20'000'000};
// QEMU raises its throttle by 10 % up to this; only then a move that throttles diverges.
constexpr std::uint64_t kMostThrottlePercent = 99;
// See hold(); the least of a second: a page fits 1 ms at 4 MiB/s.
constexpr std::uint64_t kHeldPerSecond = 4;  // of what remains
constexpr ByteCount kHeldLeast{2 << 20};

// Of QEMU's bytes, those that were given to the lane and not yet acknowledged.
double in_flight(const stream::TransferStats& stats, BitRate memory) {
  const stream::OutStats& out = stats.out.at(stream::kMemoryStream);
  const double lane = stats.delivery_rate.bytes_per_second();
  if (lane <= 0) return 0;
  return static_cast<double>(out.sent - out.acked) * memory.bytes_per_second() / lane;
}

ByteCount whole(double bytes) { return {static_cast<std::uint64_t>(bytes)}; }

}  // namespace

SourceMemory::SourceMemory(os::Loop& loop, Vm& vm, Peers& peers, Settings settings,
                           migrate::Milestones& milestones, Events events)
    : loop_(loop),
      vm_(vm),
      peers_(peers),
      settings_(std::move(settings)),
      milestones_(milestones),
      events_(std::move(events)),
      policy_(settings_.limits),
      held_(settings_.hold),
      dialer_(loop, peers, settings_.to, settings_.lanes,
              {.opened =
                   [this](stream::LaneNumber number, auto lane) {
                     link_->use_lane(number, std::move(lane), {}, settings_.lanes);
                   },
               .failed =
                   [this](std::string why) {
                     if (!aborting_) events_.failed(std::move(why));
                   }}) {
  subscription_ = vm_.subscribe(
      {.event = [this](const qemu::QmpEvent& event) { on_event(event); }, .died = {}});
  follow_qemu();
}

// By the connection that it has now.
void SourceMemory::follow_qemu() {
  outgoing_ended_ = false;
  outgoing_ = std::make_unique<qemu::OutgoingMigration>(
      vm_.qmp(),
      qemu::OutgoingMigration::Events{
          .status = [this](qemu::MigrationStatus status) { on_status(status); },
          .pre_switchover =
              [this] {
                stand_timer_.reset();
                milestones_.pre_switchover = loop_.now();
                events_.pre_switchover();
              },
          .follows =
              [this] {
                milestones_.completed = loop_.now();
                if (events_.follows) events_.follows();
              },
          .broken =
              [this] {
                events_.failed(fmt::format("QEMU of vm {} lost its connection", vm_.name()));
              },
          .completed =
              [this] {
                if (milestones_.completed == Instant{}) {
                  milestones_.completed = loop_.now();
                }
                events_.completed();
              },
          .ended = [this](const qemu::OutgoingMigration::End& end) { on_ended(end); }});
}

// QEMU may end a migration by itself, and then lets the guest run: that is told as a failure first;
// the abort() that answers it learns that the guest runs already.
void SourceMemory::on_ended(const qemu::OutgoingMigration::End& end) {
  poll_timer_.reset();
  if (link_) link_->abort(end.reason);
  outgoing_ended_ = true;
  ended_running_ = end.running;
  if (aborting_ && end.running) return events_.running();
  events_.failed(end.reason);
}

void SourceMemory::start() {
  known_learnt_ = !settings_.coding;
  link_ = std::make_unique<TransferLink>(
      loop_, stream::TransferId::from(settings_.id.bytes), stream::Role::kSource,
      settings_.has_disks ? TransferLink::Disks::some : TransferLink::Disks::none, settings_.coding,
      TransferLink::Events{.mark = [this](const stream::QemuMark& each) { mark(each); },
                           .lane_lost =
                               [this](stream::LaneNumber lane, const std::string& reason) {
                                 spdlog::warn("vm {}: lane {} to {} lost ({}), connecting again",
                                              vm_.name(), lane, settings_.to, reason);
                                 dialer_.dial_later(lane);
                               },
                           .known_learnt =
                               [this] {
                                 known_learnt_ = true;
                                 maybe_continue();
                               },
                           .memory_verified = {},
                           .failed =
                               [this](const std::string& why) {
                                 if (!aborting_) events_.failed(why);
                               }});
  if (settings_.postcopy) link_->throw_away_after_abort();
  link_->set_bandwidth(settings_.bandwidth);
  link_->take_only(kBeforePrepared);
  link_->bound_backlog({.most = whole(migrate::kLeastBacklogBytes)});
  dialer_.dial();
  if (!settings_.has_disks) begin();
}

void SourceMemory::begin() {
  begun_ = true;
  begin_qemu();
  maybe_continue();
}

void SourceMemory::continue_all() {
  prepared_ = true;
  maybe_continue();
}

// What the target knows need not be sent: that is heard first.
void SourceMemory::maybe_continue() {
  if (!begun_ || !prepared_ || !known_learnt_ || continued_) return;
  continued_ = true;
  milestones_.copying = round_start_ = loop_.now();
  link_->take_only(std::nullopt);
  poll();
}

void SourceMemory::begin_qemu() {
  const std::string path = vm_.paths().migration().string();
  listener_ = os::Listener::unix_(loop_, path, 0600, [this](auto stream, const auto&) {
    if (settings_.postcopy) keep_socket(*stream);
    link_->use_qemu(std::move(stream));
    loop_.post([this, alive = std::weak_ptr(alive_)] {
      if (!alive.expired()) listener_.reset();
    });
  });
  if (const auto granted = qemu::grant_to_qemu(path); !granted) {
    return events_.failed(granted.error().text);
  }
  outgoing_->start(
      {.uri = "unix:" + path,
       .capabilities = {.auto_converge = settings_.throttle, .postcopy_ram = settings_.postcopy},
       .throttle_trigger_percent = static_cast<unsigned>(migrate::kDivergeShare * 100)});
}

// In post-copy QEMU does not give the guest back once its socket is closed. If we are killed, QEMU
// itself holds our end open, and who comes after us finds it there.
void SourceMemory::keep_socket(const os::SocketStream& qemu) {
  vm_.qmp().pass_descriptor(qemu::kKeptMigration, qemu.fd().duplicate(),
                            [this, alive = std::weak_ptr(alive_)](const auto& done) {
                              if (!alive.expired() && !done) events_.failed(done.error().text);
                            });
}

// QEMU may stand in a write to a socket that nobody reads, and answers nothing meanwhile.
void SourceMemory::throw_away_kept() {
  auto found =
      qemu::find_kept_socket(vm_.process(), vm_.paths().migration(), qemu::SocketEnd::kAccepted);
  if (!found) return;
  kept_ = os::adopt_stream(loop_, *std::move(found), "QEMU");
  kept_->start({.readable =
                    [this] {
                      static thread_local Bytes nowhere(256 << 10);
                      while (kept_->read(nowhere) > 0) {
                      }
                    },
                .writable = [] {},
                .closed = [](const std::string&) {}});
}

void SourceMemory::on_event(const qemu::QmpEvent& event) {
  if (event.name == "STOP" && continued_ && !stopped_) {
    stopped_ = true;
    milestones_.stopped = event.happened;
    if (!predicted_pause_) predicted_pause_ = progress_.predicted_pause;  // QEMU did it by itself
    end_round(milestones_.stopped);
  }
  if (event.name == "MIGRATION_PASS" && continued_ && !stopped_) {
    synced_ = event.happened;
    end_round(synced_);
    poll();
  }
  outgoing_->event(event);
}

void SourceMemory::on_status(qemu::MigrationStatus status) {
  spdlog::info("vm {}: migration {}", vm_.name(), qemu::to_text(status));
}

void SourceMemory::end_round(Instant now) {
  const std::uint64_t bytes = link_ ? link_->memory().offered : 0;
  const bool is_round = bytes >= round_start_bytes_ + kLeastRound;
  if (!is_round && rounds_.empty()) return;  // QEMU announces its first pass with the header
  if (is_round) rounds_.push_back({.round = rounds_.size() + 1, .bytes = 0, .duration = {}});
  rounds_.back().bytes += bytes - round_start_bytes_;
  rounds_.back().duration += now - round_start_;
  round_start_ = now;
  round_start_bytes_ = bytes;
}

void SourceMemory::mark(const stream::QemuMark& mark) {
  if (mark.kind == stream::QemuMark::Kind::kFirstDevice && stopped_) {
    milestones_.memory_ended = loop_.now();
  }
}

void SourceMemory::poll() {
  if (stopped_ || aborting_) return;
  qemu::query_migrate(vm_.qmp(), [this, alive = std::weak_ptr(alive_)](const auto& info) {
    if (alive.expired() || stopped_ || aborting_) return;
    if (info) judge(*info);
    poll_timer_ =
        loop_.after(progress_.eta > kFar ? kPollIntervalFar : kPollInterval, [this] { poll(); });
  });
}

void SourceMemory::judge(const qemu::MigrationInfo& info) {
  if (held_) hold({info.remaining_bytes});
  const auto stats = link_->stats();
  const TransferLink::Memory memory = link_->memory();
  hold_back(stats.delivery_rate);
  // Held back, the lane shows less than the last pages will have.
  const BitRate rate = settings_.background ? unhindered(memory.memory_rate, stats.delivery_rate)
                                            : memory.memory_rate;
  const stream::OutStats& out = stats.out.at(stream::kMemoryStream);
  const double page = static_cast<double>(info.page_bytes);
  const migrate::MemorySample sample{
      .at = loop_.now(),
      .round = info.dirty_sync_count,
      .remaining_bytes = static_cast<double>(info.remaining_bytes),
      .since_sync = loop_.now() - synced_,
      .dirty_bytes_per_second = static_cast<double>(info.dirty_pages_per_second) * page,
      .backlog_bytes = static_cast<double>(memory.encoded.memory - memory.memory_taken +
                                           memory.offered - memory.encoded.raw),
      .in_flight_bytes = in_flight(stats, rate),
      .delivered_bytes_per_second = rate.bytes_per_second(),
      .lane_share = lane_share_.at(
          info.dirty_sync_count,
          {.offered = memory.offered, .raw = memory.encoded.raw, .coded = memory.encoded.coded}),
      .lane_backlog_bytes = static_cast<double>(memory.lane_backlog),
      .lane_in_flight_bytes = static_cast<double>(out.sent - out.acked),
      .lane_bytes_per_second =
          (settings_.background ? unhindered_rate_ : link_->path_rate()).bytes_per_second(),
      .rtt = peers_.rtt(settings_.to),
      .sent_bytes = static_cast<double>(memory.offered),
      .memory_bytes = static_cast<double>(info.total_bytes)};
  const auto verdict = policy_.judge(sample);
  migrate::MemorySample on_the_lane = sample;
  on_the_lane.lane_bytes_per_second = 0;
  on_the_lane.delivered_bytes_per_second =
      (settings_.background ? unhindered_rate_ : stats.delivery_rate).bytes_per_second();
  link_->bound_backlog(
      {.most = whole(migrate::most_backlog(on_the_lane, policy_.limits(), migrate::PauseCosts{})),
       .beyond = whole(migrate::least_waiting(on_the_lane)),
       .memory = whole(migrate::most_memory_behind(sample))});
  progress_ = {.round = info.dirty_sync_count,
               .remaining_bytes = info.remaining_bytes,
               .sent_bytes = memory.acked,
               .total_bytes = info.total_bytes,
               .rate = stats.delivery_rate,
               .effective_rate = memory.rate,
               .dirty_bytes_per_second = sample.dirty_bytes_per_second,
               .throttle_percent = info.throttle_percent,
               .eta = verdict.eta,
               .predicted_pause = verdict.predicted_pause,
               .lanes_up = stats.lanes_up};
  spdlog::debug(
      "vm {}: round {} remaining {} dirty {:.0f}/s backlog {:.0f} rate {:.0f}/s "
      "fits {} pause {}",
      vm_.name(), sample.round, info.remaining_bytes, sample.dirty_bytes_per_second,
      sample.backlog_bytes, sample.delivered_bytes_per_second, verdict.fits,
      to_text(verdict.predicted_pause));
  if (verdict.diverges && settings_.background) {
    spdlog::info("vm {}: it does not converge in the background, going all out", vm_.name());
    go_all_out();
    policy_.set_limits(policy_.limits());  // which counts its rounds anew
    return;
  }
  if (verdict.diverges && settings_.throttle && info.throttle_percent < kMostThrottlePercent) {
    policy_.set_limits(policy_.limits());  // rounds count anew: QEMU throttles further
    return;
  }
  if (verdict.diverges && !std::exchange(told_diverged_, true)) {
    events_.diverged(divergence(verdict));
    if (!policy_.limits().pause_on_diverge) return;
  }
  if (verdict.fits && !std::exchange(told_converged_, true)) events_.converged();
  if (!switchover_allowed_ || stop_asked_) return;
  const bool anyway = told_diverged_ && policy_.limits().pause_on_diverge && verdict.best_now;
  if (!anyway && !verdict.stop_now) return;
  if (!events_.may_pause()) return;
  if (anyway && settings_.postcopy) {
    predicted_pause_ = migrate::predicted_pause(sample, 0, migrate::PauseCosts{});
    return start_postcopy();
  }
  predicted_pause_ = verdict.pause_now;
  stop_guest();
}

void SourceMemory::start_postcopy() {
  stop_asked_ = true;
  events_.about_to_stop();
  go_all_out();
  link_->hurry(whole(migrate::most_postcopy_backlog(progress_.rate, peers_.rtt(settings_.to))));
  qemu::stop(vm_.qmp(), [this, alive = std::weak_ptr(alive_)](const Result<>& done) {
    if (!alive.expired() && !done) events_.failed(done.error().text);
  });
  outgoing_->start_postcopy();
  bound_stand();
}

void SourceMemory::serve() {
  qemu::set_postcopy_bandwidth(vm_.qmp(), qemu::kUnlimitedMigrationBandwidth,
                               [](const Result<>&) {});
  look_at_rest();
}

void SourceMemory::look_at_rest() {
  qemu::query_migrate(vm_.qmp(), [this, alive = std::weak_ptr(alive_)](const auto& info) {
    if (alive.expired()) return;
    const TransferLink::Memory memory = link_->memory();
    if (info) progress_.remaining_bytes = info->remaining_bytes;
    progress_.sent_bytes = memory.acked;
    progress_.rate = link_->stats().delivery_rate;
    progress_.effective_rate = memory.rate;
    progress_.lanes_up = link_->stats().lanes_up;
    const double rate = std::max(memory.rate.bytes_per_second(), 1.0);
    progress_.eta = std::chrono::duration_cast<Nanoseconds>(
        std::chrono::duration<double>(static_cast<double>(progress_.remaining_bytes) / rate));
    poll_timer_ = loop_.after(kRestInterval, [this] { look_at_rest(); });
  });
}

// The first round trips find out what the path carries; from then on a move in the background
// leaves most of it, and of the CPUs that feed it, to the guests.
void SourceMemory::hold_back(BitRate delivered) {
  if (!settings_.background) return;
  const bool known = delivered > unhindered_rate_;
  unhindered_rate_ = std::max(unhindered_rate_, delivered);
  if (!known) return;
  link_->set_bandwidth(background_cap());
}

BitRate SourceMemory::background_cap() const {
  BitRate cap =
      std::max(kLeastBackground, BitRate{unhindered_rate_.bits_per_second / kBackgroundShare});
  if (settings_.bandwidth) cap = std::min(cap, *settings_.bandwidth);
  return cap;
}

// What the path would carry of memory if all of it were ours.
BitRate SourceMemory::unhindered(BitRate memory, BitRate lane) const {
  if (lane.bits_per_second == 0) return memory;
  const double share = static_cast<double>(unhindered_rate_.bits_per_second) /
                       static_cast<double>(lane.bits_per_second);
  return {static_cast<std::uint64_t>(static_cast<double>(memory.bits_per_second) * share)};
}

void SourceMemory::go_all_out() {
  settings_.background = false;
  if (link_) link_->set_bandwidth(settings_.bandwidth);
}

// QEMU could stop the vCPUs itself, from its migration thread; its main loop reads the TAPs
// meanwhile, and a frame that it reads while the vCPUs come to a stand is dropped. `stop` runs in
// the main loop. QEMU then finds that all that is left fits, and goes on to pre-switchover.
void SourceMemory::stop_guest() {
  stop_asked_ = true;
  events_.about_to_stop();
  go_all_out();
  const auto check = [this] {
    return [this, alive = std::weak_ptr(alive_)](const Result<>& done) {
      if (!alive.expired() && !done) events_.failed(done.error().text);
    };
  };
  qemu::stop(vm_.qmp(), check());
  qemu::set_downtime_limit(vm_.qmp(), duration_cast<milliseconds>(migrate::kMaxQemuDowntimeLimit),
                           check());
  bound_stand();
}

void SourceMemory::bound_stand() {
  stand_timer_ = loop_.after(kStandBound, [this] {
    events_.failed(fmt::format("vm {} stood for {} and its last memory did not leave", vm_.name(),
                               to_text(kStandBound)));
  });
}

std::string SourceMemory::divergence(const migrate::StopJudge::Verdict& verdict) const {
  return fmt::format(
      "vm {} will not converge below {}: it dirties {}/s, the link carries {}/s, the expected "
      "pause is {}; {}",
      vm_.name(), to_text(policy_.limits().max_downtime),
      to_text(ByteCount{static_cast<std::uint64_t>(progress_.dirty_bytes_per_second)}),
      to_text(ByteCount{progress_.rate.bits_per_second / 8}), to_text(verdict.predicted_pause),
      settings_.postcopy ? "it goes on at the target, its memory follows (--on-diverge postcopy)"
      : policy_.limits().pause_on_diverge ? "it is paused anyway, as asked for (--on-diverge pause)"
                                          : "allow a longer pause (--max-downtime), more bandwidth "
                                            "(--bandwidth), or pause anyway (--on-diverge pause)");
}

// A move that is held must not be over by itself: QEMU stops the vCPUs when what is left fits 1 ms
// at the rate of its last 100 ms. Writing a quarter second's share of what remains it always has
// more left, as the guest dirties meanwhile what sets the pace; of a guest that writes next to
// nothing no page fits.
void SourceMemory::hold(ByteCount remaining) {
  const ByteCount pace{std::max(kHeldLeast.bytes, remaining.bytes * kHeldPerSecond)};
  qemu::set_migration_bandwidth(vm_.qmp(), pace, [](const Result<>&) {});
}

void SourceMemory::allow_switchover() {
  switchover_allowed_ = true;
  if (std::exchange(held_, false)) {
    qemu::set_migration_bandwidth(vm_.qmp(), qemu::kUnlimitedMigrationBandwidth,
                                  [](const Result<>&) {});
  }
  if (link_) link_->leave_group();
  policy_.renew();
  // Told while the move was held, and passed over: if it is so still it must be told again.
  if (!policy_.limits().pause_on_diverge) told_diverged_ = false;
  poll();  // the last sync may be fresh still
}

void SourceMemory::proceed() { outgoing_->proceed(); }

void SourceMemory::abort(const std::string& reason) {
  poll_timer_.reset();
  stand_timer_.reset();
  dialer_.stop();
  listener_.reset();
  aborting_ = true;
  if (link_) link_->abort(reason);
  if (!link_) throw_away_kept();
  if (!ended_running_) {
    if (outgoing_ended_) follow_qemu();  // in vain: once more
    return outgoing_->abort(reason);
  }
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) events_.running();
  });
}

void SourceMemory::set_limits(migrate::PauseLimits limits) {
  if (limits.max_downtime != policy_.limits().max_downtime) told_diverged_ = false;
  policy_.set_limits(limits);
}

void SourceMemory::set_bandwidth(std::optional<BitRate> cap) {
  settings_.bandwidth = cap;
  unhindered_rate_ = {};  // in the background: found out anew
  if (link_) link_->set_bandwidth(cap);
}

void SourceMemory::share_bandwidth(BitRate cap) {
  settings_.bandwidth = cap;
  if (link_) link_->set_bandwidth(settings_.background ? background_cap() : cap);
}

SourceMemory::Progress SourceMemory::progress() const { return progress_; }

void SourceMemory::fill(migrate::Report& report) const {
  report.rounds = rounds_;
  report.predicted_pause = predicted_pause_;
  if (!link_) return;
  agent::fill(report, *link_);
}

}  // namespace godwit::agent
