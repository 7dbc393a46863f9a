#pragma once
// The two QMP conversations of a live migration (design 7 and 9), each over a Qmp of its own vm:
//
//   source                                             target (-incoming defer -S)
//                                                      start(): capabilities, migrate-incoming
//   start(): capabilities, parameters, migrate
//     MIGRATION setup, active                            MIGRATION setup, active
//     ... rounds; the downtime limit is raised ...
//     STOP, MIGRATION pre-switchover -> pre_switchover()
//   proceed(): migrate-continue
//     MIGRATION device, completed -> completed()         MIGRATION completed -> loaded()
//   both paused: whoever owns the vm now is decided elsewhere; then cont() there
//
// Post-copy, if start_postcopy() is called instead of raising the limit: after proceed()
//     MIGRATION postcopy-active -> follows()             MIGRATION postcopy-active; paused:
//     loaded()
//     ... the rest, while the vm runs there ...          cont() ... MIGRATION completed
//     MIGRATION completed -> completed()                     -> complete()
//
// pause-before-switchover makes QEMU wait for proceed(); the return path makes `completed` mean
// that the target has loaded everything; -S and late-block-activate keep the target still.
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "qemu/commands.hh"

namespace godwit::qemu {

// From migrate_cancel to `cancelled`: QEMU joins its threads, which may hang in a full socket.
inline constexpr Nanoseconds kCancelPatience = seconds(10);
// cont is repeated this often: QEMU refuses it while it still finishes the migration.
inline constexpr int kContAttempts = 50;
inline constexpr Nanoseconds kContInterval = milliseconds(20);
// QEMU does not tell that it has loaded a post-copy's package: it is asked.
inline constexpr Nanoseconds kLoadedInterval = milliseconds(1);

// Repeats cont until query-status says that the vCPUs run.
void cont_until_running(Qmp& qmp, Done done);

class OutgoingMigration final {
 public:
  struct Settings {
    std::string uri;  // "unix:PATH"
    MigrationCapabilities capabilities = {};
    milliseconds downtime_limit = kNeverSwitchOver;
    ByteCount bandwidth_per_second = kUnlimitedMigrationBandwidth;
    unsigned throttle_trigger_percent = 50;  // with auto_converge; QEMU's own
  };
  // What abort() or a failure ended in.
  struct End {
    std::string reason;
    bool running = false;  // the vm was seen running again here
  };
  // Any of them may destroy the object.
  struct Events {
    std::move_only_function<void(MigrationStatus)> status;
    std::move_only_function<void()> pre_switchover;  // vCPUs stopped; proceed() or abort()
    std::move_only_function<void()> follows{};       // post-copy: all that the vm needs to run left
    std::move_only_function<void()> broken{};        // post-copy: QEMU lost its connection
    std::move_only_function<void()> completed;       // the target has all; both are paused
    // Cancelled, failed or refused, and cont was tried until it took: the last event.
    std::move_only_function<void(End)> ended;
  };

  OutgoingMigration(Qmp& qmp, Events events);

  void start(Settings settings);
  // To be followed by `stop`; the capability was set.
  void start_postcopy();
  void proceed();
  // From any state, also of a migration that an earlier agent began, and also after completed() as
  // long as the target was never continued: cancels what QEMU still does, then cont.
  void abort(std::string reason);
  // To be called with each event of the Qmp.
  void event(const QmpEvent& event);

  MigrationStatus status() const { return status_; }

 private:
  void changed(MigrationStatus status);
  void refused(const Error& error);
  void cancel();
  void resume();
  template <class Function>
  auto guarded(Function function);

  Qmp& qmp_;
  std::weak_ptr<const bool> qmp_alive_;
  Events events_;
  MigrationStatus status_ = MigrationStatus::none;
  std::optional<std::string> ending_;  // the reason, once it is to end
  bool resuming_ = false;
  os::Loop::Timer cancel_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class IncomingMigration final {
 public:
  struct Events {
    std::move_only_function<void()> listening;  // the source may connect to the URI
    // All that the vm needs to run is in; paused, disks not activated. Of a post-copy the rest of
    // the memory follows: `complete` comes after it.
    std::move_only_function<void(bool memory_follows)> loaded;
    std::move_only_function<void()> postcopy{};  // begins: pages that are missing are waited for
    std::move_only_function<void()> complete{};
    // QEMU 7.2 exits when an incoming migration fails: the Qmp's closed() may come instead.
    std::move_only_function<void(std::string reason)> failed;
  };

  IncomingMigration(Qmp& qmp, Events events);
  void start(std::string uri, MigrationCapabilities capabilities = {});
  void event(const QmpEvent& event);

 private:
  void look_for_package();
  void fail_once(std::string reason);

  Qmp& qmp_;
  std::weak_ptr<const bool> qmp_alive_;
  Events events_;
  bool over_ = false, loaded_ = false;
  os::Loop::Timer look_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::qemu
