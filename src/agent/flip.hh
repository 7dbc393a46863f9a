#pragma once
// A vm that has come to the network of one of its NICs (strategy secondary-nic, after Watanabe et
// al.): from now on that is its way for all that begins anew. It was configured before the move, or
// the vm is at home, so this is all that is left to do after RESUME.
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/vm.hh"
#include "qemu/guest_network.hh"

namespace godwit::agent {

struct FlipReport {
  std::string port;  // of the NIC
  Nanoseconds took{};
  std::string why{};                 // it was not done; empty: it was
  std::vector<std::string> notes{};  // what the guest could not do besides, in its words
};
nlohmann::json to_json(const FlipReport& report);
FlipReport flip_report(const nlohmann::json& json);  // a peer's

// `told` is called once, from the loop unless nothing can be asked; the conversation lasts as long
// as the returned object.
std::unique_ptr<qemu::GuestAgent> flip_to(os::Loop& loop, const Vm& vm, const PortId& nic,
                                          std::function<void(const FlipReport&)> told);

}  // namespace godwit::agent
