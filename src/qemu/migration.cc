#include "qemu/migration.hh"

#include <utility>

#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

// cont -> query-status -> (running: done, else wait and again).
class ContLoop final : public std::enable_shared_from_this<ContLoop> {
 public:
  ContLoop(Qmp& qmp, Done done) : qmp_(qmp), qmp_alive_(qmp.lifetime()), done_(std::move(done)) {}

  void attempt() {
    ++attempts_;
    cont(qmp_, [self = shared_from_this()](Result<> result) {
      if (self->qmp_alive_.expired()) return self->done_(std::move(result));
      if (!result) self->last_error_ = result.error().text;
      self->look();
    });
  }

 private:
  void look() {
    query_status(qmp_, [self = shared_from_this()](Result<VmStatus> status) {
      if (status && status->running) return self->done_({});
      if (!status) return self->done_(std::unexpected(status.error()));
      if (self->attempts_ >= kContAttempts) {
        return self->done_(fail("vm {} does not continue: it is in state {} ({})", self->qmp_.vm(),
                                status->state, self->last_error_));
      }
      self->timer_ = self->qmp_.loop().after(kContInterval, [self, vm = self->qmp_.vm()] {
        if (self->qmp_alive_.expired()) {
          return self->done_(fail("vm {}: its QMP connection has ended", vm));
        }
        self->attempt();
      });
    });
  }

  Qmp& qmp_;
  std::weak_ptr<const bool> qmp_alive_;
  Done done_;
  std::string last_error_ = "no error given";
  int attempts_ = 0;
  os::Loop::Timer timer_;
};

bool is_active(MigrationStatus status) {
  switch (status) {
    case MigrationStatus::setup:
    case MigrationStatus::active:
    case MigrationStatus::device:
    case MigrationStatus::pre_switchover:
    case MigrationStatus::postcopy_active:
    case MigrationStatus::postcopy_paused:
    case MigrationStatus::postcopy_recover:
    case MigrationStatus::wait_unplug:
    case MigrationStatus::cancelling:
      return true;
    default:
      return false;
  }
}

std::optional<MigrationStatus> migration_status_of(const QmpEvent& event) {
  if (event.name != "MIGRATION") return std::nullopt;
  return parse_migration_status(text_at(event.data, "status"));
}

}  // namespace

void cont_until_running(Qmp& qmp, Done done) {
  std::make_shared<ContLoop>(qmp, std::move(done))->attempt();
}

OutgoingMigration::OutgoingMigration(Qmp& qmp, Events events)
    : qmp_(qmp), qmp_alive_(qmp.lifetime()), events_(std::move(events)) {}

// A callback that does nothing once this object is gone.
template <class Function>
auto OutgoingMigration::guarded(Function function) {
  return
      [alive = std::weak_ptr<bool>(alive_), function = std::move(function)](auto result) mutable {
        if (!alive.expired()) function(std::move(result));
      };
}

void OutgoingMigration::start(Settings settings) {
  // Sent at once, answered in order; the first refusal ends it.
  const auto check = [this] {
    return guarded([this](Result<> result) {
      if (!result) refused(result.error());
    });
  };
  set_migration_capabilities(qmp_, settings.capabilities, check());
  set_downtime_limit(qmp_, settings.downtime_limit, check());
  if (settings.capabilities.auto_converge) {
    set_throttle_trigger(qmp_, settings.throttle_trigger_percent, check());
  }
  if (settings.capabilities.postcopy_ram) {
    set_postcopy_bandwidth(qmp_, kNoPostcopyBandwidth, check());
  }
  set_migration_bandwidth(qmp_, settings.bandwidth_per_second,
                          guarded([this, uri = std::move(settings.uri), check](Result<> result) {
                            if (!result) return refused(result.error());
                            if (!ending_) migrate(qmp_, uri, check());
                          }));
}

void OutgoingMigration::start_postcopy() {
  migrate_start_postcopy(qmp_, guarded([this](Result<> result) {
                           if (!result) refused(result.error());
                         }));
}

void OutgoingMigration::proceed() {
  migrate_continue(qmp_, guarded([this](Result<> result) {
                     if (!result) refused(result.error());
                   }));
}

void OutgoingMigration::refused(const Error& error) {
  if (!ending_) abort(error.text);
}

void OutgoingMigration::abort(std::string reason) {
  if (ending_) return;
  ending_ = std::move(reason);
  if (qmp_alive_.expired()) return resume();
  query_migrate(qmp_, guarded([this](Result<MigrationInfo> info) {
                  if (qmp_alive_.expired() || (info && !is_active(info->status))) return resume();
                  cancel();  // also what QEMU did not tell of: it may be hung up for a while
                }));
}

void OutgoingMigration::cancel() {
  cancel_timer_ = qmp_.loop().after(kCancelPatience, [this] { resume(); });
  migrate_cancel(qmp_, guarded([this](Result<> result) {
                   if (!result) resume();
                 }));
  migrate_continue_cancelled(qmp_, [](const Result<>&) {});
}

void OutgoingMigration::resume() {
  if (std::exchange(resuming_, true)) return;
  cancel_timer_.reset();
  auto ended = guarded([this](Result<> result) {
    End end{.reason = ending_.value_or(""), .running = result.has_value()};
    if (!result) end.reason += "; " + result.error().text;
    if (events_.ended) events_.ended(std::move(end));
  });
  if (qmp_alive_.expired()) return ended(Result<>(fail("its QMP connection has ended")));
  cont_until_running(qmp_, std::move(ended));
}

void OutgoingMigration::event(const QmpEvent& event) {
  if (const auto status = migration_status_of(event)) changed(*status);
}

void OutgoingMigration::changed(MigrationStatus status) {
  status_ = status;
  const std::weak_ptr<bool> alive = alive_;
  if (events_.status) events_.status(status);
  if (alive.expired()) return;
  switch (status) {
    case MigrationStatus::pre_switchover:
      if (!ending_ && events_.pre_switchover) events_.pre_switchover();
      return;
    case MigrationStatus::postcopy_active:
      if (!ending_ && events_.follows) events_.follows();
      return;
    case MigrationStatus::postcopy_paused:
      if (!ending_ && events_.broken) events_.broken();
      return;
    case MigrationStatus::completed:
      // abort() came too late to cancel: nothing was released, so the source may still go on.
      if (ending_) return resume();
      if (events_.completed) events_.completed();
      return;
    case MigrationStatus::cancelled:
    case MigrationStatus::failed:
      if (ending_) return resume();
      // QEMU gives the cause only in query-migrate.
      query_migrate(qmp_, guarded([this, status](Result<MigrationInfo> info) {
                      if (ending_) return;
                      std::string reason = info ? info->error : info.error().text;
                      if (reason.empty()) reason = "no cause given";
                      ending_ = fmt::format("migration of vm {} {} in QEMU: {}", qmp_.vm(),
                                            to_text(status), reason);
                      resume();
                    }));
      return;
    default:
      return;
  }
}

IncomingMigration::IncomingMigration(Qmp& qmp, Events events)
    : qmp_(qmp), qmp_alive_(qmp.lifetime()), events_(std::move(events)) {}

void IncomingMigration::start(std::string uri, MigrationCapabilities capabilities) {
  const auto guard = [this](auto next) {
    return [alive = std::weak_ptr<bool>(alive_), this,
            next = std::move(next)](Result<> result) mutable {
      if (alive.expired()) return;
      if (!result) return fail_once(result.error().text);
      next();
    };
  };
  set_migration_capabilities(qmp_, capabilities, guard([] {}));
  set_announce_rounds(qmp_, kAnnounceRounds, guard([this, guard, uri = std::move(uri)] {
                        if (over_) return;
                        migrate_incoming(qmp_, uri, guard([this] {
                                           if (events_.listening) events_.listening();
                                         }));
                      }));
}

void IncomingMigration::event(const QmpEvent& event) {
  const auto status = migration_status_of(event);
  if (!status || over_) return;
  if (*status == MigrationStatus::completed) {
    over_ = true;
    const std::weak_ptr alive(alive_);
    if (!std::exchange(loaded_, true) && events_.loaded) events_.loaded(false);
    if (!alive.expired() && events_.complete) events_.complete();
  } else if (*status == MigrationStatus::postcopy_active) {
    if (events_.postcopy) events_.postcopy();
    look_for_package();
  } else if (*status == MigrationStatus::failed || *status == MigrationStatus::cancelled) {
    fail_once(fmt::format("QEMU of vm {} could not load the migration (see its log)", qmp_.vm()));
  }
}

void IncomingMigration::look_for_package() {
  if (loaded_ || over_) return;
  if (qmp_alive_.expired()) return fail_once("its QMP connection has ended");
  query_status(qmp_, [this, alive = std::weak_ptr(alive_)](Result<VmStatus> status) {
    if (alive.expired() || loaded_ || over_) return;
    if (qmp_alive_.expired()) return fail_once(status.error().text);
    if (!status || status->state != "paused") {
      look_ = qmp_.loop().after(kLoadedInterval, [this] { look_for_package(); });
      return;
    }
    loaded_ = true;
    if (events_.loaded) events_.loaded(true);
  });
}

void IncomingMigration::fail_once(std::string reason) {
  if (std::exchange(over_, true)) return;
  if (events_.failed) events_.failed(std::move(reason));
}

}  // namespace godwit::qemu
