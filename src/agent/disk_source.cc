#include "agent/disk_source.hh"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "agent/disk_scan.hh"
#include "qemu/block_jobs.hh"
#include "qemu/launch.hh"

namespace godwit::agent {
namespace {

using namespace std::chrono_literals;

constexpr Nanoseconds kLook = 100ms;
// Taken from QEMU and not yet by a lane: enough to keep compression and lanes busy. While the guest
// waits for its writes, which queue behind it, less.
constexpr std::uint64_t kMostWaiting = 2 << 20;
constexpr std::uint64_t kMostWaitingInStep = 256 << 10;
// So much goes within a second of memory's own way, and is what the memory may begin with.
constexpr std::uint64_t kLittle = 8 << 20;
// Of asynchronous disks, as a guest that writes never has none left.
constexpr std::uint64_t kLittleAtPause = 1 << 20;
// The guest writes as much as the lanes carry: only synchronously what is left gets less.
constexpr Nanoseconds kNoLess = 3s;
constexpr double kIsLess = 0.95;
// What the target holds back has to be written in the pause, and is lost if its host dies, or its
// QEMU, which holds back where a qcow2 has things: no more than of so long.
constexpr Nanoseconds kFlushEvery = 1s;
// A few round trips: what was changed shows.
constexpr Nanoseconds kPaceEvery = 500ms;
constexpr double kRateMemory = 0.8;  // of what the rate was a look ago

std::vector<nbd::Export> exports_of(const std::vector<qemu::DiskSpec>& disks) {
  std::vector<nbd::Export> exports;
  for (std::size_t i = 0; i < disks.size(); ++i) {
    exports.push_back({.name = qemu::disk_node(i), .size = disks[i].size});
  }
  return exports;
}

std::vector<qemu::DiskSpec> disks_of(const DiskSource::What& what, const qemu::VmSpec& vm) {
  const auto* once = std::get_if<DiskSource::Once>(&what);
  const bool sends_files = once != nullptr && !once->snapshots.empty();
  return sends_files ? qemu::files_of(once->snapshots, vm.disks) : vm.disks;
}

}  // namespace

DiskSource::DiskSource(os::Loop& loop, Vm& vm, TransferLink& link, What what, Events events)
    : loop_(loop),
      vm_(vm),
      link_(link),
      what_(std::move(what)),
      disks_(disks_of(what_, vm.spec())),
      events_(std::move(events)),
      outbound_(qemu::sizes_of(disks_), once() ? disk::Mode::async : std::get<disk::Mode>(what_),
                *this),
      packer_(loop, [this] { pump(); }),
      seed_reader_(qemu::sizes_of(disks_)) {
  if (!bitmap()) outbound_.compare(link_.seed_key());
  link_.use_disks({.bytes = [this](BytesView acks) { return take(acks); },
                   .seeds = [this](BytesView parts) { return take_seeds(parts); },
                   // With nothing to send it may take what it likes, many times a millisecond.
                   .room =
                       [this] {
                         if (!packer_.coded().empty() || outbound_.dirty_bytes() > 0) pump();
                       }});
}

DiskSource::~DiskSource() { link_.use_disks({}); }

void DiskSource::fail_with(const std::string& why) {
  if (std::exchange(failed_, true) || settled_) return;
  look_timer_.reset();
  // It may be one of our parts that tells us.
  loop_.post([this, why, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) events_.failed(fmt::format("disks of vm {}: {}", vm_.name(), why));
  });
}

// ---- beginning: QEMU's exports, our clients, the tap, then what there is ----

// On the way to the taps QEMU is asked for one thing after the other. If all is abandoned
// meanwhile, its answer is the end of the way: what it has begun by then is known, and can be taken
// back.
template <class Next>
qemu::Done DiskSource::asked(Next next) {
  asking_ = true;
  return [this, next = std::move(next), alive = std::weak_ptr(alive_)](const Result<>& done) {
    if (alive.expired()) return;
    asking_ = false;
    if (abandoned_) return take_down();
    if (!done) return fail_with(done.error().text);
    next();
  };
}

// An earlier move of the vm may have left taps and exports, or they may be about to end.
void DiskSource::start() {
  if (sends_snapshots()) {
    return qemu::open_files(vm_.qmp(), disks_with_snapshots(), asked([this] { serve(); }));
  }
  if (once()) return serve();  // which a move would not be beside
  qemu::query_mean_write(vm_.qmp(), [this, alive = std::weak_ptr(alive_)](const auto& mean) {
    if (!alive.expired()) usual_write_ = mean.value_or(Nanoseconds(0));
  });
  qemu::end_lost_taps(vm_.qmp(), vm_.spec().disks.size(), asked([this] { serve(); }));
}

void DiskSource::serve() {
  const auto socket = qemu::place_for_socket(vm_.paths().blocks());
  if (!socket) return fail_with(socket.error().text);
  qemu::export_nodes(vm_.qmp(), *socket, nodes(), bitmap(),
                     asked([this, path = socket->string()] { connect_clients(path); }));
}

std::vector<std::size_t> DiskSource::disks_with_snapshots() const {
  std::vector<std::size_t> disks;
  if (!sends_snapshots()) return disks;
  std::ranges::transform(once()->snapshots, std::back_inserter(disks), &qemu::DiskSnapshots::disk);
  return disks;
}

// That QEMU serves: of the disks, or of their files.
std::vector<std::string> DiskSource::nodes() const {
  std::vector<std::string> nodes;
  if (sends_snapshots()) {
    std::ranges::transform(disks_with_snapshots(), std::back_inserter(nodes), qemu::opened_file);
    return nodes;
  }
  for (std::size_t i = 0; i < disks_.size(); ++i) nodes.push_back(qemu::disk_node(i));
  return nodes;
}

void DiskSource::connect_clients(const std::string& socket) {
  for (const std::string& node : nodes()) {
    clients_.push_back(std::make_unique<qemu::BlockClient>(
        loop_, socket, node,
        [this](const Result<>& done) {
          if (!done) return fail_with(done.error().text);
          if (++connected_ == disks_.size()) once() ? scan() : tap();
        },
        bitmap()));
  }
}

void DiskSource::tap() {
  try {
    tap_ = std::make_unique<DiskTap>(
        loop_, vm_.paths().tap().string(), exports_of(disks_),
        DiskTap::Events{.write = [this](const DiskTap::Write& write) { written(write); },
                        .lost =
                            [this](const std::string& why) {
                              if (!settling_) fail_with("QEMU's mirror ended: " + why);
                            }});
  } catch (const SetupError& error) {
    return fail_with(error.what());
  }
  qemu::tap_disks(vm_.qmp(), vm_.paths().tap(), vm_.spec().disks.size(),
                  [this, go_on = asked([this] { scan(); }),
                   alive = std::weak_ptr(alive_)](const Result<>& done) mutable {
                    if (alive.expired()) return;
                    tapped_ = done.has_value();
                    go_on(done);
                  });
}

void DiskSource::scan() {
  scanning_ = true;
  to_scan_ = disks_.size();
  for (std::uint8_t i = 0; i < disks_.size(); ++i) scan(i);
}

// What a new disk lacks, or one on the image that ours is on; of a replica, what it lacks.
void DiskSource::scan(std::uint8_t disk) {
  const auto has = [this, disk](disk::Extent extent) { outbound_.mark(disk, extent); };
  const auto done = [this](const Result<>& result) {
    if (!result) return fail_with(result.error().text);
    if (--to_scan_ == 0) scanned();
  };
  if (sends_snapshots()) return scan_snapshots(*clients_[disk], disks_[disk].size, has, done);
  scan_disk(*clients_[disk], disks_[disk], bitmap() ? Scan::dirty : Scan::own, has, done);
}

void DiskSource::scanned() {
  total_bytes_ = outbound_.remaining_bytes();
  spdlog::info("vm {}: {} {} to copy or to compare", vm_.name(), to_text(ByteCount{total_bytes_}),
               sends_snapshots() ? "of its disks' snapshots" : "on its disks");
  least_since_ = looked_ = loop_.now();
  if (once()) {
    settling_ = untapped_ = true;
    outbound_.finish();
  }
  events_.begun();
  look();
}

// ---- the guest's writes ----

void DiskSource::written(const DiskTap::Write& write) {
  const disk::WriteToken token{.disk = static_cast<std::uint8_t>(write.disk),
                               .request = write.number};
  const disk::Extent extent{.offset = write.request.offset, .length = write.request.length};
  hearing_ = true;
  switch (write.request.command) {
    case nbd::Command::kWrite:
      outbound_.written(token, extent.offset, write.request.payload, loop_.now());
      break;
    case nbd::Command::kWriteZeroes:
      outbound_.zeroed(token, extent, loop_.now());
      break;
    case nbd::Command::kTrim:
      outbound_.discarded(token, extent);
      break;
    default:
      outbound_.flushed(token, loop_.now());
      break;
  }
  hearing_ = false;
  pump();
}

void DiskSource::answer(disk::WriteToken token) {
  const Nanoseconds took = tap_->answer(token.request);
  if (hearing_ && !outbound_.synchronous()) return;  // only marked
  ++writes_;
  writes_took_ += took;
  slowest_write_ = std::max(slowest_write_, took);
}

// ---- what goes out ----

void DiskSource::read(std::uint8_t disk, disk::Extent extent) {
  auto data = std::make_shared<Bytes>(extent.length);
  clients_[disk]->read(extent.offset, *data, [this, disk, extent, data](const Result<>& done) {
    if (!done) return fail_with(done.error().text);
    handled_bytes_ += extent.length;
    outbound_.read_done(disk, extent, *data);
    pump();
  });
}

void DiskSource::send(const disk::Record& record) { append(record, records_); }

std::size_t DiskSource::take(BytesView acknowledgements) {
  append(acks_, acknowledgements);
  // Not from within the transfer.
  if (std::exchange(hears_, true)) return acknowledgements.size();
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    hears_ = false;
    if (const auto good = acknowledged(); !good) return fail_with(good.error().text);
    pump();
    maybe_settled();
  });
  return acknowledgements.size();
}

Result<> DiskSource::acknowledged() {
  const std::size_t whole = acks_.size() / disk::kAckBytes * disk::kAckBytes;
  for (std::size_t at = 0; at < whole; at += disk::kAckBytes) {
    const auto number = from_big_endian<std::uint64_t>(acks_.data() + at);
    const bool is_passed_over = (number & disk::kNotThere) != 0;
    if (is_passed_over ? !outbound_.not_there(number & ~disk::kNotThere)
                       : !outbound_.acknowledged(number)) {
      return fail("the target acknowledges what is not");
    }
  }
  acks_.erase(acks_.begin(), acks_.begin() + static_cast<std::ptrdiff_t>(whole));
  return {};
}

// Not from within the transfer. Some at a time: they are looked up until their blocks are read.
std::size_t DiskSource::take_seeds(BytesView parts) {
  seeds_wait_ = !outbound_.wants_digests();
  if (seeds_wait_) return 0;
  seed_reader_.push(parts);
  if (std::exchange(learning_, true)) return parts.size();
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) learn();
  });
  return parts.size();
}

void DiskSource::learn() {
  learning_ = false;
  auto part = seed_reader_.next();
  for (; part && *part; part = seed_reader_.next()) {
    if (!outbound_.learn(**part)) return fail_with("the target tells what it has in no order");
  }
  if (!part) return fail_with(part.error().text);
  pump();
}

void DiskSource::pump() {
  if (pumping_ || failed_ || settled_) return;
  pumping_ = true;
  const std::uint64_t most = outbound_.synchronous() ? kMostWaitingInStep : kMostWaiting;
  const std::uint64_t waiting = packer_.waiting() + link_.unsent_of_disks();
  if (to_scan_ == 0 && scanning_) {
    outbound_.pump(most - std::min(most, waiting), loop_.now());
  }
  if (!records_.empty()) packer_.push(std::exchange(records_, {}));
  if (seeds_wait_ && outbound_.wants_digests()) {
    seeds_wait_ = false;
    link_.take_seeds();
  }
  offer();
  pumping_ = false;
  if (settling_) maybe_settled();
}

void DiskSource::offer() {
  while (!packer_.coded().empty()) {
    const std::size_t taken = link_.offer_disks(packer_.coded());
    packer_.took(taken);
    if (taken == 0) return;
  }
  if (settling_ && outbound_.end_sent() && packer_.idle()) link_.end_disks();
}

// ---- when the memory may follow, and when the guest may stand ----

void DiskSource::look() {
  const std::weak_ptr alive(alive_);  // what is told here may be the end of the move
  const Instant now = loop_.now();
  const double passed = std::chrono::duration<double>(now - looked_).count();
  if (passed > 0) {
    const double rate = static_cast<double>(handled_bytes_ - handled_before_) / passed;
    rate_ = rate_ == 0 ? rate : rate_ * kRateMemory + rate * (1 - kRateMemory);
    handled_before_ = handled_bytes_;
    looked_ = now;
  }
  packer_.adapt(link_.unsent_of_disks() > 0);
  const std::uint64_t remaining = outbound_.remaining_bytes();
  const bool is_stuck = outbound_.acked() == std::exchange(acked_before_, outbound_.acked());
  if (static_cast<double>(remaining) < static_cast<double>(least_remaining_) * kIsLess) {
    least_remaining_ = remaining;
    least_since_ = now;
  } else if (is_stuck) {
    least_since_ = now;  // the lanes are down: it says nothing of the guest
  }
  const bool never_less = now - least_since_ >= kNoLess;
  const bool little = remaining <= kLittle && outbound_.all_known();
  if (!ready_ && !once() && (little || never_less)) {
    ready_ = true;
    outbound_.keep_in_step();
    spdlog::info("vm {}: disks {}, {} left, {} were at the target, {} elsewhere there", vm_.name(),
                 outbound_.synchronous() ? "in step" : "copied", to_text(ByteCount{remaining}),
                 to_text(ByteCount{outbound_.same_bytes()}),
                 to_text(ByteCount{outbound_.elsewhere_bytes()}));
    events_.ready();
    if (alive.expired()) return;
  }
  if (now - flushed_ >= kFlushEvery) {
    flushed_ = now;
    outbound_.flush_ahead();
  }
  look_at_writes(now);
  pump();
  if (const bool may = may_pause(); may != std::exchange(could_pause_, may) && may) {
    events_.in_step();
    if (alive.expired()) return;
  }
  if (!settled_) look_timer_ = loop_.after(kLook, [this] { look(); });
}

void DiskSource::look_at_writes(Instant now) {
  if (settling_ || now - paced_ < kPaceEvery) return;
  paced_ = now;
  const std::int64_t writes = writes_ - std::exchange(writes_then_, writes_);
  const Nanoseconds took = writes_took_ - std::exchange(writes_took_then_, writes_took_);
  const auto cap = pace_.look(writes == 0 ? Nanoseconds(0) : took / writes, link_.path_rate());
  held_back_ = cap.value_or(BitRate{});
  link_.hold_back(cap);
}

bool DiskSource::may_pause() const {
  if (!ready_) return false;
  if (what_ == What(disk::Mode::async)) {
    return outbound_.all_known() && outbound_.remaining_bytes() <= kLittleAtPause;
  }
  return outbound_.in_step();
}

// ---- the end ----

void DiskSource::release_writes() {
  look_timer_.reset();
  outbound_.release_writes();
}

void DiskSource::settle() {
  link_.hold_back(std::nullopt);  // nobody waits any more
  settling_ = true;
  look_timer_.reset();
  outbound_.finish();
  qemu::untap_disks(vm_.qmp(), vm_.spec().disks.size(), asked([this] {
                      untapped_ = true;
                      maybe_settled();
                    }));
  pump();
}

// Our clients go before QEMU's server does: see qemu::stop_exports().
void DiskSource::abandon(std::function<void()> done) {
  failed_ = true;
  look_timer_.reset();
  outbound_.finish();
  clients_.clear();
  const bool is_under_way = static_cast<bool>(std::exchange(abandoned_, std::move(done)));
  if (!asking_ && !is_under_way) take_down();
}

void DiskSource::take_down() {
  if (untapped_) return unexported_ ? abandoned_() : unexport();
  if (!tapped_) return untap_by_force();
  qemu::untap_disks(vm_.qmp(), vm_.spec().disks.size(),
                    [this, alive = std::weak_ptr(alive_)](const Result<>& untapped) {
                      if (alive.expired()) return;
                      untapped ? unexport() : untap_by_force();
                    });
}

// Taps that are not whole yet, or do not end when they are asked to. One that stays nevertheless is
// there for whoever comes next.
void DiskSource::untap_by_force() {
  qemu::end_lost_taps(vm_.qmp(), vm_.spec().disks.size(),
                      [this, alive = std::weak_ptr(alive_)](const Result<>& untapped) {
                        if (alive.expired()) return;
                        if (!untapped) {
                          spdlog::warn("vm {}: its disks' taps: {}", vm_.name(),
                                       untapped.error().text);
                        }
                        unexport();
                      });
}

void DiskSource::unexport() {
  if (std::exchange(unexporting_, true)) return;
  qemu::stop_exports(vm_.qmp(), [this, alive = std::weak_ptr(alive_)](const Result<>&) {
    if (alive.expired()) return;
    qemu::close_files(vm_.qmp(), disks_with_snapshots(), [this, alive](const Result<>&) {
      if (alive.expired()) return;
      unexported_ = true;
      abandoned_ ? abandoned_() : maybe_settled();
    });
  });
}

void DiskSource::maybe_settled() {
  if (!settling_ || settled_ || failed_) return;
  if (outbound_.end_sent() && untapped_ && !unexported_) unexport();
  if (!unexported_ || !outbound_.finished()) return;
  settled_ = true;
  look_timer_.reset();
  // It may be the end of this.
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) events_.settled();
  });
}

DiskSource::Progress DiskSource::progress() const {
  Progress progress{.total_bytes = total_bytes_,
                    .remaining_bytes = outbound_.remaining_bytes(),
                    .sent_bytes = packer_.coded_bytes(),
                    .same_bytes = outbound_.same_bytes(),
                    .elsewhere_bytes = outbound_.elsewhere_bytes(),
                    .rate = {static_cast<std::uint64_t>(rate_ * 8)},
                    .ready = ready_,
                    .synchronous = outbound_.synchronous(),
                    .mean_write = writes_ > 0 ? writes_took_ / writes_ : Nanoseconds(0),
                    .slowest_write = slowest_write_,
                    .usual_write = usual_write_,
                    .held_back = held_back_};
  if (rate_ >= 1) {
    progress.eta = std::chrono::duration_cast<Nanoseconds>(
        std::chrono::duration<double>(static_cast<double>(progress.remaining_bytes) / rate_));
  }
  return progress;
}

}  // namespace godwit::agent
