#pragma once
// The vms of this host: run, stop, remove, adopt after a restart, and take in one that moves here.
// A vm that has stopped stays listed, with the reason, until it is removed.
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "agent/disks.hh"
#include "agent/events.hh"
#include "agent/vm.hh"
#include "qemu/host.hh"
#include "store/store.hh"

namespace godwit::agent {

class Network;

// As the API shows it: {port, mac, slot?, network?}.
nlohmann::json describe_nic(const qemu::NicSpec& nic);

// SIGKILL for a QEMU that is no vm of ours any more; it may have ended meanwhile.
void kill_qemu(const os::ProcessIdentity& process);

class Vms final {
 public:
  Vms(os::Loop& loop, const Config& config, store::Store& store, Network& network, Disks& disks,
      Events& events);

  // Probes the accelerator and QEMU (blocks for some seconds the first time), adopts what runs.
  void start();

  // POST /v1/vms. The error says what to change; nothing is left behind.
  Result<Vm*> run(const nlohmann::json& request);
  // Again, one that has stopped, with its disks. Not one that moves, which may run elsewhere.
  Result<Vm*> start(const std::string& name);
  // A waiting QEMU for a vm that moves here; its ports are HELD already.
  struct Incoming {
    Vm* vm = nullptr;
    os::Fd stream;    // memory goes in here, the return path comes out
    std::string uri;  // for qemu::IncomingMigration
  };
  Result<Incoming> run_incoming(const qemu::VmSpec& spec, const MigrationId& migration,
                                const std::optional<std::string>& from);
  // The waiting guest of this migration, alive or not; nothing once it has run here.
  bool is_arriving(const std::string& name, const MigrationId& migration);
  // It runs here: from now on it is a vm like any other.
  void arrived(const std::string& name);
  // Whether the vm of this name here is, or was, that process.
  bool is_process(const std::string& name, const os::ProcessIdentity& process);
  // Presses the ACPI power button, which a guest may ignore; with `force` SIGKILL, and `done` when
  // QEMU has ended.
  void stop(const std::string& name, bool force, std::function<void(Result<>)> done);
  // Removes a stopped vm; its ports stay, free for others. One with disks needs a word on them.
  Result<> remove(const std::string& name, std::optional<bool> with_disks);
  // For migrations: forgets the vm, whose ports are the migration's matter, and ends QEMU if it
  // lives, unless the caller will do that (soon: a vm of that name may come back). Of disks of one
  // that never ran here see Disks::break_off(), others stay.
  enum class Teardown { now, by_caller };
  void forget(const std::string& name, Teardown teardown = Teardown::now);
  // The same, of one that runs at the host `to` now: its disks here are of the past, unless it has
  // these.
  enum class PastDisks { stay, go, shared };
  void moved_away(const std::string& name, const std::string& to, PastDisks past);

  Vm* find(const std::string& name);
  // Running or not, as the API shows it.
  std::vector<nlohmann::json> list();
  std::optional<nlohmann::json> show(const std::string& name);
  // The host's name in front of a path of its own: where the console listens.
  const qemu::HostCapabilities& host();
  const std::string& notice() const { return notice_; }
  void save(const Vm& vm);
  // Of a vm that is here, running or not: as it is recorded from now on.
  std::optional<qemu::VmSpec> recorded_spec(const std::string& name);
  Result<> set_nics(const std::string& name, std::vector<qemu::NicSpec> nics);
  void publish(const qemu::VmSpec& spec, std::string_view event, std::string_view reason = {});

 private:
  Result<qemu::VmSpec> spec_of(const nlohmann::json& request);
  struct Arrival {
    int incoming_fd = -1;  // QEMU's end of the stream of a vm that moves here
    MigrationId migration;
  };
  Result<Incoming> launch(const qemu::VmSpec& spec, const std::optional<Arrival>& arrival);
  Vm* keep(VmRecord record, os::Child process);
  void adopt(const VmRecord& record);
  void ended(const std::string& name);
  nlohmann::json describe(const VmRecord& record, Vm* vm);

  os::Loop& loop_;
  const Config& config_;
  store::Store& store_;
  Network& network_;
  Disks& disks_;
  Events& events_;
  qemu::HostCapabilities host_;
  std::string notice_;
  std::map<std::string, std::unique_ptr<Vm>> vms_;
  std::map<std::string, Vm::Subscription> subscriptions_;
  std::map<std::string, std::vector<std::function<void(Result<>)>>> stopping_;
  // Forgotten, but QEMU has not ended yet: kept to be reaped.
  std::map<const Vm*, std::pair<std::unique_ptr<Vm>, Vm::Subscription>> ending_;
};

}  // namespace godwit::agent
