#include "agent/memory_rescue.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "migrate/policy.hh"
#include "os/random.hh"
#include "qemu/json.hh"
#include "qemu/kept_socket.hh"
#include "qemu/launch.hh"

namespace godwit::agent {
namespace {

using qemu::MigrationStatus;

constexpr Nanoseconds kMemoryLook = milliseconds(250);
constexpr Nanoseconds kAgain = seconds(1);
// The target's QEMU has to see its old connection closed; it may be in the middle of a page.
constexpr Nanoseconds kAttemptInterval = milliseconds(50);
constexpr int kAttempts = 200;
constexpr Nanoseconds kRecoverTimeout = seconds(20);

}  // namespace

MemoryRescue::MemoryRescue(os::Loop& loop, Vm& vm, Peers& peers, Settings settings, Events events)
    : loop_(loop),
      vm_(vm),
      peers_(peers),
      settings_(std::move(settings)),
      events_(std::move(events)) {
  qemu::set_postcopy_bandwidth(vm_.qmp(), qemu::kUnlimitedMigrationBandwidth,
                               [](const Result<>&) {});
  look();
}

// A callback that does nothing once this object is gone.
template <class Function>
auto MemoryRescue::guarded(Function function) {
  return [alive = std::weak_ptr(alive_), function = std::move(function)](auto result) mutable {
    if (!alive.expired()) function(std::move(result));
  };
}

void MemoryRescue::look() {
  qemu::query_migrate(vm_.qmp(), guarded([this](Result<qemu::MigrationInfo> info) {
                        if (!info) return again(info.error().text);
                        remaining_bytes_ = info->remaining_bytes;
                        act(*info);
                      }));
}

void MemoryRescue::again(const std::string& why) {
  spdlog::warn("vm {}: its memory does not follow to {} yet: {}", vm_.name(), settings_.to, why);
  if (connected_) asked_.reset();
  connected_ = asking_ = false;
  dialer_.reset();
  listener_.reset();
  // The link may be calling us.
  loop_.post([gone = std::shared_ptr<TransferLink>(std::move(link_))] {});
  timer_ = loop_.after(kAgain, [this] { look(); });
}

void MemoryRescue::act(const qemu::MigrationInfo& info) {
  switch (info.status) {
    case MigrationStatus::completed:
      return events_.completed();
    case MigrationStatus::postcopy_paused:
      if (connected_) return again("QEMU lost the connection");
      if (!asking_) ask_target();
      break;
    case MigrationStatus::postcopy_active:
      if (!connected_) qemu::migrate_pause(vm_.qmp(), [](const Result<>&) {});
      break;
    default:
      break;
  }
  timer_ = loop_.after(kMemoryLook, [this] { look(); });
}

void MemoryRescue::ask_target() {
  asking_ = true;
  if (!asked_) asked_ = os::random_id<stream::TransferId>();
  const auto transfer = *asked_;
  peers_.request(settings_.to, "migration.recover",
                 {{"id", settings_.id.text()}, {"transfer", transfer.text()}},
                 guarded([this, transfer](Result<nlohmann::json> reply) {
                   if (!reply) return again(reply.error().text);
                   if (qemu::flag_at(*reply, "complete")) return events_.completed();
                   connect(transfer);
                 }),
                 kRecoverTimeout);
}

void MemoryRescue::connect(const stream::TransferId& transfer) {
  connected_ = true;
  link_ = std::make_unique<TransferLink>(
      loop_, transfer, stream::Role::kSource, TransferLink::Disks::none, std::nullopt,
      TransferLink::Events{.mark = {},
                           .lane_lost = [this](stream::LaneNumber lane,
                                               const std::string&) { dialer_->dial_later(lane); },
                           .memory_verified = {},
                           .failed = [this](const std::string& why) { again(why); }});
  link_->set_bandwidth(settings_.bandwidth);
  link_->hurry({static_cast<std::uint64_t>(migrate::most_postcopy_backlog({}, Nanoseconds(0)))});
  dialer_ = std::make_unique<LaneDialer>(
      loop_, peers_, settings_.to, 1,
      LaneDialer::Events{.opened = [this](stream::LaneNumber number, auto lane) {
        link_->use_lane(number, std::move(lane));
      }});
  dialer_->dial();
  const std::string path = vm_.paths().migration().string();
  listener_ = os::Listener::unix_(loop_, path, 0600, [this](auto stream, const auto&) {
    link_->use_qemu(std::move(stream));
    loop_.post([this, alive = std::weak_ptr(alive_)] {
      if (!alive.expired()) listener_.reset();
    });
  });
  if (const auto granted = qemu::grant_to_qemu(path); !granted) return again(granted.error().text);
  qemu::migrate_resume(vm_.qmp(), "unix:" + path, guarded([this](Result<> done) {
                         if (!done) again(done.error().text);
                       }));
}

// What it says while our request is under way it said before it had that.
void MemoryRescue::target_has_none() {
  if (connected_) again("the target's agent lost the transfer");
}

void MemoryRescue::set_bandwidth(std::optional<BitRate> cap) {
  settings_.bandwidth = cap;
  if (link_) link_->set_bandwidth(cap);
}

TargetRescue::TargetRescue(os::Loop& loop, Vm& vm, Ready ready) : loop_(loop), vm_(vm) {
  const auto path = vm.paths().rescue();
  auto kept = qemu::find_kept_socket(vm.process(), path, qemu::SocketEnd::kConnected);
  const bool is_new = !kept;
  auto stream = is_new ? os::unix_connect(loop, path.string())
                       : os::adopt_stream(loop, *std::move(kept), "QEMU");
  auto ours = is_new ? stream->fd().duplicate() : os::Fd();
  auto left = [this, ready, ours = std::make_shared<os::Fd>(std::move(ours))] {
    vm_.qmp().pass_descriptor(qemu::kKeptRescue, std::move(*ours),
                              [alive = std::weak_ptr(alive_), ready](const auto& done) {
                                if (alive.expired()) return;
                                ready(done ? Result<>{} : std::unexpected(done.error()));
                              });
  };
  qmp_ = std::make_unique<qemu::Qmp>(
      loop, std::move(stream), vm.name(),
      qemu::Qmp::Events{.ready = std::move(left),
                        .event = [](const qemu::QmpEvent&) {},
                        .closed =
                            [vm = vm.name()](const std::string& reason) {
                              spdlog::warn("vm {}: out-of-band QMP: {}", vm, reason);
                            }},
      is_new ? qemu::Qmp::Mode::kOutOfBand : qemu::Qmp::Mode::kTakenOver);
}

void TargetRescue::recover(Recovered recovered) {
  if (recovered_) finish(fail("asked again"));
  recovered_ = std::move(recovered);
  attempts_ = 0;
  attempt();
}

void TargetRescue::attempt() {
  const auto socket = qemu::place_for_socket(vm_.paths().recovery());
  if (!socket) return finish(std::unexpected(socket.error()));
  qemu::migrate_recover(
      *qmp_, "unix:" + socket->string(),
      [this, alive = std::weak_ptr(alive_), socket = *socket](const Result<>& done) {
        if (alive.expired() || !recovered_) return;
        if (done) return finish(os::unix_connect(loop_, socket.string()));
        if (++attempts_ >= kAttempts) return finish(std::unexpected(done.error()));
        timer_ = loop_.after(kAttemptInterval, [this] { attempt(); });
      });
}

void TargetRescue::finish(Result<std::unique_ptr<os::ByteStream>> result) {
  timer_.reset();
  std::exchange(recovered_, {})(std::move(result));
}

}  // namespace godwit::agent
