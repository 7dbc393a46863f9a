#pragma once
// Datagrams of guests that have addresses of several networks: who asked an address is answered
// from it (os/asked_addresses.hh), where the uplinks of these addresses are. Which guests these are
// the ports and wires say, whom they answer the kernel's tracking. Control thread, in one network
// namespace.
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/network.hh"
#include "os/asked_addresses.hh"
#include "os/loop.hh"
#include "store/store.hh"

namespace godwit::agent {

class AskedAddresses final {
 public:
  AskedAddresses(os::Loop& loop, Network& network, store::Store& store)
      : loop_(loop), network_(network), store_(store) {}

  void start();
  // Also where somebody took the rules away.
  void look();
  // Guests have come, have gone, or have other addresses, and connections with them.
  void update();

 private:
  std::vector<os::ManyHomed> wanted();
  void know(const std::vector<Network::GuestNic>& nics);
  void write();
  void remember();
  void keep();
  void tell(const Result<>& done);

  os::Loop& loop_;
  Network& network_;
  store::Store& store_;
  // By NIC, also of one that has gone on by wire, whose uplink stayed.
  std::map<PortId, std::string> vms_;
  nlohmann::json kept_;  // of it
  std::vector<os::ManyHomed> written_;
  std::string trouble_;  // that was told
  os::Loop::Timer remembering_;
};

}  // namespace godwit::agent
