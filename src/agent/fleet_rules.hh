#pragma once
// The rules of all devices of the fleet, asked through this agent: each answers for its own
// (DeviceDriver). A device that cannot be asked is named, not passed over. Control thread.
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/device_driver.hh"
#include "agent/peers.hh"

namespace godwit::agent {

class FleetRules final {
 public:
  using Done = std::function<void(const nlohmann::json&)>;
  // `hosts`: all of the fleet.
  FleetRules(DeviceDriver& own, Peers& peers, std::vector<std::string> hosts)
      : own_(own), peers_(peers), hosts_(std::move(hosts)) {}

  // {rules: [{host, ...}], silent: [{host, reason}]}
  void list(Done done);
  // {hosts: [{host, ok, missing, ...}], silent}
  void verify(Done done);
  // {hosts: [{host, removed, written}], silent: [{host, reason}]}
  void repair(Done done);
  // What devices have for this guest goes, everywhere: {hosts: [{host, removed}], silent}.
  void forget(const std::string& guest, Done done);

 private:
  void ask_all(const std::string& method, const nlohmann::json& body, Done done);

  DeviceDriver& own_;
  Peers& peers_;
  std::vector<std::string> hosts_;
};

}  // namespace godwit::agent
