#pragma once
// The vm's second NIC, in the network of the host that it moves to (strategy secondary-nic, after
// Watanabe et al., "MAT"). All that takes time is done while the vm runs where it is:
//
//   at the host    an uplink, for an address that is free there
//   where it runs  a NIC is plugged into the vm, and wired to that uplink
//   in the guest   the address, a way out for what has it, duplicates and neighbours looked for
//
// What is left is to make it the way of all that begins anew, which the host does after RESUME. A
// vm that comes home, or to where it has been so, has such a NIC already.
#include <string>
#include <vector>

#include "cli/context.hh"

namespace godwit::cli {

struct SecondNic {
  std::string vm, host;  // and where it goes
  std::vector<std::string> resolvers{};
  json families{};    // of its addresses here, each of which it is to have there: "any4", "any6"
  std::string way{};  // the vm's NIC of that network; empty: it is to be made

  std::string uplink() const { return vm + "-at-" + host; }  // the port there
  std::string port() const { return vm + "-for-" + host; }   // the NIC's
};

// `planned`: what the agent says of the move, {network}. Throws Failure, with a remedy, if the vm
// cannot have one.
SecondNic plan_second_nic(const Context& context, const std::string& vm, const std::string& host,
                          std::vector<std::string> resolvers, const json& planned);
// Repeated, it goes on where it was. Throws Failure; then, and on Ctrl-C, it is taken back.
void make_second_nic(const Context& context, const SecondNic& nic);
// The naive order, to compare with: when the vm is there, and at once as its way out.
void make_second_nic_there(const Context& context, const SecondNic& nic);
// What of it cannot be taken back is told.
void take_back_second_nic(const Context& context, const SecondNic& nic);

}  // namespace godwit::cli
