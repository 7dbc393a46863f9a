#pragma once
// The fabric migrates: guests, and the switches, routers, NATs and firewalls between them, move
// between hosts at random while guests talk, agents die, links are cut and lose, double and reorder
// datagrams. One seed is one run; one of kFullEvery is of 50 hosts and 500 ports, the others are
// smaller.
//
// Laws, at all times: a guest hears nothing twice, nothing of another tenant, nothing that its gate
// keeps out, and only where it is; no frame goes round. In fine weather: nothing is lost, and what
// goes to an address comes in order. When all is quiet: each port is live at one host in one epoch
// that its wire's other end knows, nothing is left elsewhere; everybody reaches whom the topology
// says, once each, and nobody else hears it.
#include <cstdint>
#include <string>

#include "fabric_agents.hh"
#include "fabric_traffic.hh"

namespace godwit::sim {

struct FabricOutcome {
  std::string failure;  // empty: all laws held
  std::uint64_t ports = 0, moves = 0, aborts = 0, restarts = 0, cuts = 0, heard = 0, full = 0;

  FabricOutcome& operator+=(const FabricOutcome& other) {
    ports += other.ports, moves += other.moves, aborts += other.aborts;
    restarts += other.restarts, cuts += other.cuts, heard += other.heard, full += other.full;
    return *this;
  }
};

class FabricScenario final {
 public:
  static constexpr std::uint64_t kFullEvery = 20;

  explicit FabricScenario(std::uint64_t seed, bool is_traced = false);
  FabricOutcome run();

 private:
  void run_for(Nanoseconds time);
  void fail(std::string text);
  void talk(std::size_t guest);
  void ask_for_moves();
  void trouble();
  void cut();
  void connect_elsewhere();
  void calm();
  void expect_reachability();
  void expect_heard(std::size_t first);
  // By all guests, not in the same moment.
  void spread(const std::function<void(std::size_t guest)>& act);

  Dice dice_;
  World world_;
  FabricPlan plan_;
  FabricAgents agents_;
  FabricTraffic traffic_;
  std::vector<std::vector<std::size_t>> spare_;  // by segment: ports of switches without a wire
  bool storm_ = true;
  bool reconnects_ = false;  // guests to other instances of their switches
  Nanoseconds pace_{};       // between events of one kind
  FabricOutcome outcome_;
};

}  // namespace godwit::sim
