#pragma once
// The QMP commands that Godwit uses, typed. Each is a free function over Qmp, so that the client
// itself knows no command. Field names follow QEMU's qapi/migration.json (7.2); fields that a QEMU
// leaves out are zero.
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.hh"
#include "qemu/qmp.hh"

namespace godwit::qemu {

template <class T>
using Answer = std::move_only_function<void(Result<T>)>;
using Done = Answer<void>;

// RunState of qapi/run-state.json: "running", "paused", "inmigrate", "postmigrate",
// "finish-migrate", "prelaunch", "shutdown", "internal-error", ...
struct VmStatus {
  bool running = false;  // vCPUs execute
  std::string state;
};

enum class MigrationStatus {
  none,
  setup,
  active,
  device,
  pre_switchover,
  postcopy_active,
  postcopy_paused,
  postcopy_recover,
  wait_unplug,
  colo,
  completed,
  failed,
  cancelling,
  cancelled,
  unknown,  // a name this build does not know
};
MigrationStatus parse_migration_status(std::string_view name);
std::string_view to_text(MigrationStatus status);

// query-migrate. Bytes are those of guest memory as QEMU counts them, not of the WAN.
struct MigrationInfo {
  MigrationStatus status = MigrationStatus::none;
  std::string error;  // error-desc
  std::uint64_t transferred_bytes = 0;
  std::uint64_t remaining_bytes = 0;
  std::uint64_t total_bytes = 0;
  std::uint64_t normal_bytes = 0;
  std::uint64_t zero_pages = 0;
  std::uint64_t page_bytes = 0;
  std::uint64_t dirty_sync_count = 0;        // memory rounds begun
  std::uint64_t dirty_pages_per_second = 0;  // over the last round
  std::uint64_t throttle_percent = 0;        // of the vCPUs' time that auto-converge takes
  milliseconds total_time{};
  milliseconds setup_time{};
  milliseconds downtime{};           // once completed
  milliseconds expected_downtime{};  // while active
};
MigrationInfo migration_info(const nlohmann::json& reply);

// The allow-list of design 7: capabilities that change the format of the stream or open further
// channels (multifd, compress, postcopy-preempt, ...) are not here and stay off.
struct MigrationCapabilities {
  bool events = true;
  bool return_path = true;
  bool pause_before_switchover = true;
  bool late_block_activate = true;
  bool auto_converge = false;
  bool postcopy_ram = false;
};
// The bandwidth is lifted by default: the transfer's own pacing and back-pressure decide.
inline constexpr ByteCount kUnlimitedMigrationBandwidth{1ULL << 40};
// Zero would end the migration after the first round in QEMU 7.2; 1 ms never fits a real guest.
inline constexpr milliseconds kNeverSwitchOver{1};

void query_status(Qmp& qmp, Answer<VmStatus> answer);
void query_migrate(Qmp& qmp, Answer<MigrationInfo> answer);
// Of the guest's writes to its disks, since QEMU began; zero: there were none.
void query_mean_write(Qmp& qmp, Answer<Nanoseconds> answer);
void set_migration_capabilities(Qmp& qmp, const MigrationCapabilities& on, Done done);
void set_downtime_limit(Qmp& qmp, milliseconds limit, Done done);
void set_migration_bandwidth(Qmp& qmp, ByteCount per_second, Done done);
// Of the pages that nobody asked for. Until the vm is handed over: next to none, so that QEMU's
// migration thread sleeps. One that was writing when migrate_cancel closed its socket could take it
// for a broken one, and would wait for its recovery instead of ending (QEMU 7.2).
inline constexpr ByteCount kNoPostcopyBandwidth{10};
void set_postcopy_bandwidth(Qmp& qmp, ByteCount per_second, Done done);
// What auto-converge waits for: twice a round in which the guest dirtied more than this share of
// what was sent.
void set_throttle_trigger(Qmp& qmp, unsigned percent, Done done);
// Rounds of QEMU's own announcements after a move. Wires tell their peers themselves, so none would
// do; but with none QEMU frees a timer of virtio-net when the vm is loaded, and crashes when its
// guest resets that device, as each that reboots does (7.2: virtio_net_reset, timer_del).
inline constexpr unsigned kAnnounceRounds = 1;
void set_announce_rounds(Qmp& qmp, unsigned rounds, Done done);
void migrate(Qmp& qmp, const std::string& uri, Done done);           // "unix:/run/..."
void migrate_incoming(Qmp& qmp, const std::string& uri, Done done);  // after -incoming defer
void migrate_continue(Qmp& qmp, Done done);                          // out of pre-switchover
// QEMU 7.2 may miss a cancel as it is about to wait there, and would stand for ever: out of that.
// Harmless, and an error, where it is not so.
void migrate_continue_cancelled(Qmp& qmp, Done done);
void migrate_cancel(Qmp& qmp, Done done);
// Post-copy, migration.rst of QEMU: the vCPUs' stop and what they need to run come next; the rest
// follows while they run at the target.
void migrate_start_postcopy(Qmp& qmp, Done done);
void migrate_pause(Qmp& qmp, Done done);  // its connection counts as broken
// Of a broken one, at the target first: listens at the URI. Out of band: the main loop may be
// waiting for a page.
void migrate_recover(Qmp& qmp, const std::string& uri, Done done);
void migrate_resume(Qmp& qmp, const std::string& uri, Done done);
// Of Qmp::pass_descriptor().
void close_descriptor(Qmp& qmp, std::string_view name, Done done);
void cont(Qmp& qmp, Done done);
void stop(Qmp& qmp, Done done);
void quit(Qmp& qmp, Done done);
void system_powerdown(Qmp& qmp, Done done);  // ACPI power button; the guest may ignore it

}  // namespace godwit::qemu
