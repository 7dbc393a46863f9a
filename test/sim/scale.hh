#pragma once
// What a port costs where there are many: the figures of `godwit_sim --scale`. A cost that grows
// with the number of ports is a walk over all of them somewhere.
#include <cstddef>
#include <string>
#include <vector>

namespace godwit::sim {

struct ScaleRow {
  std::string of{}, metric{};
  double us_per_port = 0;  // of this machine's time
};

// Planning a topology of so many ports (half of vms, half of switches, at 50 hosts): for hosts that
// have nothing, and for hosts that have all of it.
std::vector<ScaleRow> scale_of_planning(std::size_t ports);
// So many ports at one host with wires to another host's: they are made, get a session and keys,
// send, stay, move to a third host, and go.
std::vector<ScaleRow> scale_of_engine(std::size_t ports);

}  // namespace godwit::sim
