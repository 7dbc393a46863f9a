#pragma once
// godwit migrate --strategy secondary-nic (after Watanabe et al., MAT): the guest is at home in the
// target's network before it is there.
//
//   an uplink at the target, for a lodger ── a wire ── a second NIC, plugged into the guest and
//   set up by its qemu-guest-agent ─▶ the move, whose connections live on (endpoint)
//   ─▶ the guest's default route goes by the second NIC
//
// Planned here, by requests that each are harmless if repeated; like topologies are.
#include <string>

#include "cli/context.hh"

namespace godwit::cli {

struct SecondNic {
  std::string vm, to;  // host
  std::string port{};  // the NIC's, and its uplink's is this and "-net"
  json addresses{};    // of the guest there
  double configured_ms = 0, flipped_ms = 0;
};

// Before the move. Throws Failure, with nothing left of it.
SecondNic plug_second_nic(const Context& context, const std::string& vm, const std::string& to);
void configure_second_nic(const Context& context, SecondNic& nic);
// When it runs there.
void flip_to_second_nic(const Context& context, SecondNic& nic);
std::string second_nic_text(const SecondNic& nic);
void take_back_second_nic(const Context& context, const SecondNic& nic);

}  // namespace godwit::cli
