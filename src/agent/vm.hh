#pragma once
// One vm on this host: its QEMU process, its QMP connection and what QEMU says of it. Owned by Vms;
// control thread. QEMU outlives the agent: destroying a Vm leaves it running.
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "agent/records.hh"
#include "os/child.hh"
#include "os/loop.hh"
#include "qemu/argv.hh"
#include "qemu/qmp.hh"

namespace godwit::agent {

class Vm final {
 public:
  // Those who follow a vm's events: a migration, and Vms itself.
  struct Listener {
    std::function<void(const qemu::QmpEvent&)> event;
    std::function<void(std::string reason)> died;
  };
  using Subscription = std::shared_ptr<const Listener>;

  Vm(os::Loop& loop, VmRecord record, qemu::VmPaths paths, os::Child process);

  const VmRecord& record() const { return record_; }
  VmRecord& record() { return record_; }
  const qemu::VmSpec& spec() const { return record_.spec; }
  const std::string& name() const { return record_.spec.name; }
  const qemu::VmPaths& paths() const { return paths_; }
  os::Child& process() { return process_; }
  bool alive() { return process_ && !process_.poll(); }
  // Valid until `died` is told; a broken connection is made anew.
  qemu::Qmp& qmp() { return *qmp_; }

  // "running", "paused", "incoming", "leaving", "stopped": from QEMU's events, asked once at the
  // start. "leaving": it runs elsewhere already, and its QEMU here has memory that is to follow.
  const std::string& state() const { return state_; }
  void leave();
  Instant since() const { return since_; }

  // Its one outgoing migration is somebody's recording: it cannot move.
  bool recorded() const { return !recording_.expired(); }
  void set_recording(std::weak_ptr<const bool> recording) { recording_ = std::move(recording); }

  // One of its NICs is on its way in or out: it cannot move.
  bool nics_change() const { return !nics_change_.expired(); }
  void set_nics_change(std::weak_ptr<const bool> under_way) { nics_change_ = std::move(under_way); }

  // Lasts as long as the returned object.
  [[nodiscard]] Subscription subscribe(Listener listener);
  // user + system time of the QEMU process, in seconds (proc(5), stat fields 14 and 15).
  double cpu_seconds() const;
  // SIGKILL; `died` follows.
  void kill();

 private:
  void connect();
  void on_event(const qemu::QmpEvent& event);
  void on_exit(const os::ExitStatus& status);
  void ask_status();

  os::Loop& loop_;
  VmRecord record_;
  qemu::VmPaths paths_;
  os::Child process_;
  std::unique_ptr<qemu::Qmp> qmp_;
  std::vector<std::unique_ptr<qemu::Qmp>> retired_;
  std::string state_ = "paused";
  bool leaving_ = false;
  Instant since_;
  std::list<std::weak_ptr<const Listener>> listeners_;
  std::weak_ptr<const bool> recording_, nics_change_;
  os::Loop::Timer reconnect_;
};

// user + system time of any process; 0 when it is gone.
double process_cpu_seconds(pid_t pid);

}  // namespace godwit::agent
