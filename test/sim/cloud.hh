#pragma once
// What outlives agents: hosts with their disks, QEMUs and guests; and the laws that hold whatever
// is killed or cut. Agents run the real hand-over machines (agent.hh), hosts the real wire engines
// (world.hh).
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent.hh"
#include "store/disk.hh"
#include "world.hh"

namespace godwit::sim {

// A process of a host. It runs on when the agent dies, not when the power goes.
struct Qemu {
  std::string host, guest;
  bool alive = true;
  bool running = false;      // its vCPUs
  bool incoming = false;     // started to take a guest in
  bool loaded = false;       // ... and has
  std::uint64_t memory = 0;  // the guest's history that it holds
};

// One vm with one NIC. `history` grows whenever its vCPUs begin to run: whoever lets them run must
// hold all of it.
struct Guest {
  std::string name;
  PortId port;
  WireId wire;
  std::string peer;  // the guest at the other end of the wire
  std::uint64_t history = 0;
  std::optional<std::string> runs_at;
  Instant stood_since{};
  Nanoseconds longest_stand{};
  bool was_killed = false;  // a process that had all of it

  std::uint64_t sent = 0;
  std::set<std::uint64_t> received{};  // of the other guest's frames
};

class Cloud final {
 public:
  Cloud(std::uint64_t seed, Weather weather, std::size_t hosts);

  World& world() { return world_; }
  Dice& dice() { return world_.dice(); }
  Agent* agent(const std::string& host);
  store::MemoryDisk& disk(const std::string& host) { return *hosts_.at(host).disk; }
  std::shared_ptr<store::MemoryDisk> disk_of(const std::string& host) {
    return hosts_.at(host).disk;
  }
  Guest& guest(const std::string& name) { return guests_.at(name); }
  std::map<std::string, Guest>& guests() { return guests_; }
  Guest& guest_of(const PortId& port);

  // ---- what happens to it ----
  void boot();
  // A guest that runs at `host`, with a wire to `peer`, which may come later.
  void add_guest(const std::string& name, const std::string& host, const std::string& peer);
  void kill_agent(const std::string& host);
  void start_agent(const std::string& host);
  // False: there is none.
  bool kill_qemu(const std::string& host, const std::string& guest);
  // Ends all processes of the host. What was not written is lost.
  void power_off(const std::string& host);
  void run_for(Nanoseconds time);

  // ---- for agents: processes, by number ----
  std::uint64_t spawn(Qemu qemu);
  Qemu* process(std::uint64_t number);  // nullptr when it has ended
  void kill(std::uint64_t number);
  void resume(std::uint64_t number);
  void pause(std::uint64_t number);

  // No process holds all of it any more.
  bool is_lost(const std::string& guest) const;
  std::size_t processes_of(const std::string& guest) const;
  // From wherever it runs to the other end of its wire.
  void send_frame(const std::string& guest);

  // Empty: all laws held so far.
  const std::string& failure() const { return failure_; }
  void fail(std::string text);
  // Called at each point of a hand-over, before and after its effects; may throw Killed.
  std::function<void(const std::string& host, const migrate::Point&)> on_point =
      [](const std::string&, const migrate::Point&) {};
  std::uint64_t moves = 0, aborts = 0;

 private:
  struct Machine {
    std::shared_ptr<store::MemoryDisk> disk;
    std::unique_ptr<Agent> agent;
    std::vector<std::unique_ptr<Agent>> dead;  // timers of theirs still come
  };
  void check();
  void strike(std::uint64_t process);  // by a fault, not by an agent
  void arrived(const std::string& host, PortId port, BytesView frame);

  World world_;
  std::map<std::string, Machine> hosts_;
  std::map<std::string, Guest> guests_;
  std::map<std::uint64_t, Qemu> processes_;
  std::uint64_t next_process_ = 1;
  std::string failure_;
};

}  // namespace godwit::sim
