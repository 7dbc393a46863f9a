#pragma once
// Where the things of a file are, or will be: hosts for places, places for the ends of wires.
#include <map>
#include <optional>
#include <set>

#include "topology/model.hh"

namespace godwit::topology {

class Places final {
 public:
  // Finds all; adds what it does not find to `problems`.
  Places(const Desired& desired, const Actual& actual, std::vector<Problem>& problems);

  // The host of desired.components[i] and so on; empty: a problem.
  const std::vector<std::string>& components() const { return components_; }
  const std::vector<std::string>& ports() const { return ports_; }
  const std::vector<std::string>& vms() const { return vms_; }
  struct Wire {
    PortPlace a, b;
    const WantedWire* wanted;
  };
  const std::vector<Wire>& wires() const { return wires_; }
  // All ports of the file: its own, those of its components and of its vms' NICs.
  bool is_wanted(const PortPlace& port) const { return all_ports_.contains(port); }

  const Thing* component(const std::string& host, const std::string& name) const;
  const Thing* port(const PortPlace& port) const;
  const Thing* vm(const std::string& name, const std::string& tenant) const;
  // The wire at a port.
  const topology::Wire* wire(const PortPlace& port) const;

 private:
  using Index = std::map<PortPlace, const Thing*>;

  std::string host_for(const WantedThing& thing, const Index& present);
  std::string host_of_component(const WantedThing& thing);
  std::string host_of_port(const WantedThing& thing);
  std::string host_of_vm(const WantedThing& thing);
  void add_port(const std::string& host, const std::string& name, const std::string& where);
  void find_ports();
  void find_wires();
  std::optional<PortPlace> end(const std::string& text, const std::string& where);
  std::string all_places() const;

  const Desired& desired_;
  const Actual& actual_;
  std::vector<Problem>& problems_;
  Index component_at_, port_at_;
  std::multimap<std::string, const Thing*> made_component_;
  std::map<std::string, const Thing*> vm_named_;
  std::map<PortPlace, const topology::Wire*> wire_at_;
  std::map<std::string, std::set<std::string>> hosts_of_port_;    // of the file, by port's name
  std::map<std::string, std::set<std::string>> hosts_that_have_;  // likewise of the hosts
  std::map<PortPlace, std::string> said_place_;  // in the file, of components' ports
  std::set<std::string> placeless_;              // ports whose host is a problem
  std::vector<std::string> components_, ports_, vms_;
  std::vector<Wire> wires_;
  std::set<PortPlace> all_ports_;
};

}  // namespace godwit::topology
