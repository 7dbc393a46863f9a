#pragma once
// NICs that are plugged into a running vm, and out of it; and what its guest is told of them, by
// its qemu-guest-agent.
//
//   plug:    port and TAPs ─▶ recorded ─▶ QEMU has it          taken back if QEMU refuses
//   unplug:  the guest lets go of it ─▶ recorded ─▶ the port is free for others
//
// An agent that dies meanwhile asks QEMU, once it is back, which of them are there. Control thread.
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "agent/network.hh"
#include "agent/vms.hh"
#include "qemu/guest_network.hh"
#include "qemu/nic_plug.hh"

namespace godwit::agent {

class VmNics final {
 public:
  using Answer = std::move_only_function<void(Result<nlohmann::json>)>;

  VmNics(os::Loop& loop, const Config& config, Vms& vms, Network& network)
      : loop_(loop), config_(config), vms_(vms), network_(network) {}

  void start();  // after Vms::start()

  // API: of a vm that is at rest. `request`: {port, mac?}; answers with the NIC as the vm has it.
  void plug(const std::string& vm, const nlohmann::json& request, Answer answer);
  void unplug(const std::string& vm, const std::string& port, Answer answer);
  // {addresses, gateways?, resolvers?, mtu?, default?, drop_old?}; answers with what the guest did.
  void configure(const std::string& vm, const std::string& port, const nlohmann::json& request,
                 Answer answer);
  void deconfigure(const std::string& vm, const std::string& port, Answer answer);

 private:
  struct Unplugging {
    Vm::Subscription events;
    std::unique_ptr<qemu::NicUnplug> qemu;
    std::shared_ptr<const bool> under_way;
  };

  Result<Vm*> running(const std::string& name);
  Result<qemu::NicSpec> free_nic(Vm& vm, const nlohmann::json& request);
  void forget(const std::string& vm, const qemu::NicSpec& nic);
  Result<qemu::GuestAgent*> ask_guest(Vm& vm);
  void end_conversation(const std::string& vm);
  Result<> set_network(const std::string& vm, const std::string& port,
                       std::optional<qemu::NicNetwork> network);

  os::Loop& loop_;
  const Config& config_;
  Vms& vms_;
  Network& network_;
  std::map<std::string, Unplugging> unplugging_;                      // by vm
  std::map<std::string, std::unique_ptr<qemu::GuestAgent>> talking_;  // by vm
};

}  // namespace godwit::agent
