#include "agent/replica_source.hh"

#include <nlohmann/json.hpp>

#include "agent/paced_socket.hh"
#include "os/random.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr Nanoseconds kBeginTimeout = seconds(30);
constexpr Nanoseconds kEndTimeout = seconds(10);
// qemu-img reads all of the tables of a disk there.
constexpr Nanoseconds kAdoptTimeout = std::chrono::minutes(10);

}  // namespace

ReplicaSource::ReplicaSource(os::Loop& loop, Vm& vm, Peers& peers, Settings settings, Events events)
    : loop_(loop),
      vm_(vm),
      peers_(peers),
      settings_(std::move(settings)),
      events_(std::move(events)),
      id_(os::random_id<stream::TransferId>()),
      word_(id_.text()),
      dialer_(loop, peers, settings_.to, lanes_to_fill_a_path(),
              {.opened =
                   [this](stream::LaneNumber number, auto lane) {
                     link_->use_lane(number, std::move(lane), {}, lanes_to_fill_a_path());
                   },
               .failed = [this](const std::string& why) { end(fail("{}", why)); }}) {
  subscription_ = vm_.subscribe(
      {.event = {}, .died = [this](const std::string& reason) { end(fail("{}", reason)); }});
}

// What the next one takes are our changes, too, unless they were dropped.
ReplicaSource::~ReplicaSource() {
  if (!ended_) tell_end();
}

void ReplicaSource::tell_end() {
  peers_.request(settings_.to, "replica.end", {{"id", word_}}, [](const auto&) {}, kEndTimeout);
}

void ReplicaSource::look_for_target() {
  if (!link_ || ended_) return;
  peers_.request(
      settings_.to, "replica.knows", {{"id", word_}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired() || !reply || qemu::flag_at(*reply, "known")) return;
        const std::string why = qemu::text_at(*reply, "why");
        end(fail("host {}: {}", settings_.to,
                 why.empty() ? "it knows of this no more: its agent was restarted" : why));
      },
      kEndTimeout);
}

// A file's snapshots are there or not.
void ReplicaSource::start() {
  if (sends_snapshots()) return ask_target(qemu::Changes::unknown);
  qemu::take_changes(
      vm_.qmp(), vm_.spec().disks, bitmap(settings_.to),
      [this, alive = std::weak_ptr(alive_)] {
        if (alive.expired()) return false;
        events_.lost();
        return true;
      },
      [this, alive = std::weak_ptr(alive_)](const Result<qemu::Changes>& changes) {
        if (alive.expired()) return;
        if (!changes) return end(std::unexpected(changes.error()));
        ask_target(*changes);
      });
}

void ReplicaSource::ask_target(qemu::Changes changes) {
  const std::string synced = changes == qemu::Changes::known ? settings_.synced : "";
  peers_.request(
      settings_.to, "replica.begin",
      {{"id", word_},
       {"spec", qemu::to_json(vm_.spec())},
       {"synced", synced},
       {"snapshots", qemu::to_json(settings_.snapshots)}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired() || ended_) return;
        if (!reply) return end(fail("host {}: {}", settings_.to, reply.error().text));
        if (qemu::flag_at(*reply, "there")) return end({});
        send(qemu::flag_at(*reply, "same"));
      },
      kBeginTimeout);
}

void ReplicaSource::send(bool same) {
  compares_ = !same;
  if (compares_ && events_.lost) events_.lost();
  link_ = std::make_unique<TransferLink>(
      loop_, id_, stream::Role::kSource, TransferLink::Disks::some, std::nullopt,
      TransferLink::Events{.mark = {},
                           .lane_lost =
                               [this](stream::LaneNumber lane, const std::string&) {
                                 dialer_.dial_later(lane);
                                 look_for_target();  // it may have given up
                               },
                           .memory_verified = {},
                           .failed = [this](const std::string& why) { end(fail("{}", why)); }});
  if (settings_.bandwidth.bits_per_second != 0) link_->set_bandwidth(settings_.bandwidth);
  DiskSource::Once once{.bitmap = {}, .snapshots = settings_.snapshots};
  if (same) once.bitmap = qemu::taken_bitmap(bitmap(settings_.to));
  disks_ = std::make_unique<DiskSource>(
      loop_, vm_, *link_, once,
      DiskSource::Events{.begun = [] {},
                         .ready = [] {},
                         .in_step = [] {},
                         .settled = [this] { sends_snapshots() ? adopt() : end({}); },
                         .failed = [this](const std::string& why) { end(fail("{}", why)); }});
  disks_->start();
  dialer_.dial();
}

// The target makes disks of them.
void ReplicaSource::adopt() {
  peers_.request(
      settings_.to, "replica.adopt", {{"id", word_}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired()) return;
        end(reply ? Result<>{} : fail("host {}: {}", settings_.to, reply.error().text));
      },
      kAdoptTimeout);
}

void ReplicaSource::set_bandwidth(BitRate cap) {
  settings_.bandwidth = cap;
  if (link_) {
    link_->set_bandwidth(cap.bits_per_second != 0 ? std::optional(cap) : std::nullopt);
  }
}

std::optional<DiskSource::Progress> ReplicaSource::progress() const {
  return disks_ ? std::optional(disks_->progress()) : std::nullopt;
}

void ReplicaSource::end(Result<> result) {
  if (std::exchange(ended_, true)) return;
  dialer_.stop();
  tell_end();
  // One of our parts is telling us.
  loop_.post([this, result, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    if (!result || sends_snapshots()) return events_.ended(result);
    qemu::drop_changes(vm_.qmp(), vm_.spec().disks.size(), bitmap(settings_.to),
                       [this, alive](const Result<>& dropped) {
                         if (!alive.expired()) events_.ended(dropped);
                       });
  });
}

}  // namespace godwit::agent
