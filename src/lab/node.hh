#pragma once
// A node of the lab, a host or a site's router: a process of ours as PID 1 of new PID, mount,
// network, UTS and IPC namespaces. It reaps what is orphaned inside, and everything in the node
// dies with it; it dies with the holder. `lab kill` is a SIGKILL to it: a power loss.
#include <string>

#include "lab/host_mounts.hh"
#include "os/child.hh"

namespace godwit::lab {

struct NodeSpec {
  std::string name;
  bool forwards = false;  // routers
  HostMounts mounts;
};

// Returns when the node is ready for its interfaces; throws SetupError with the node's own words.
// The caller is its parent, and must have one thread only.
os::ProcessIdentity start_node(const NodeSpec& spec);

// Ends the node and all its processes, and waits for that.
void stop_node(const os::ProcessIdentity& init);

}  // namespace godwit::lab
