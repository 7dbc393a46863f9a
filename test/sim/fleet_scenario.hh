#pragma once
// A fleet in a storm: guests move between hosts at random while agents die, power goes, links are
// cut, disks fill, clocks jump, and messages come late, twice and out of order. One seed is one
// run.
//
// Laws, after every event: those of Cloud. In the calm afterwards: every guest runs at one host,
// unless the last QEMU that had it was killed; all agents agree where, no move is left undecided,
// nothing of a guest is anywhere else, and its wire carries frames both ways.
#include <cstdint>
#include <string>

#include "cloud.hh"

namespace godwit::sim {

struct FleetOutcome {
  std::string failure;  // empty: all laws held
  std::uint64_t moves = 0, aborts = 0, deaths = 0, cuts = 0, lost = 0;

  FleetOutcome& operator+=(const FleetOutcome& other) {
    moves += other.moves, aborts += other.aborts, deaths += other.deaths;
    cuts += other.cuts, lost += other.lost;
    return *this;
  }
};

class FleetScenario final {
 public:
  explicit FleetScenario(std::uint64_t seed, bool is_traced = false);
  FleetOutcome run();

 private:
  void add_guests();
  void ask_for_moves();
  void traffic(const std::string& guest);
  void trouble();
  void kill_agent(const std::string& host);
  void lose_power(const std::string& host);
  void cut(const std::string& a, const std::string& b);
  void fill_disk(const std::string& host);
  void calm();
  void expect_order();
  void expect_guest(const Guest& guest);
  void expect_wire(const std::string& a, const std::string& b);
  std::string some_host();
  std::string some_guest();

  Dice dice_;
  Cloud cloud_;
  bool storm_ = true;
  FleetOutcome outcome_;
};

}  // namespace godwit::sim
