#pragma once
// A NIC as QEMU has it: a TAP (its netdev) and a virtio device. The same whether it is on the
// command line or plugged in later, so that a vm that got one can move.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "qemu/vm_spec.hh"

namespace godwit::qemu {

// Ids in QEMU. `index`: its place among the vm's NICs.
std::string nic_device_id(const NicSpec& nic, std::size_t index);
std::string nic_netdev_id(const NicSpec& nic, std::size_t index);
std::string nic_slot_id(unsigned slot);  // of the root port
std::vector<std::string> nic_device_ids(const VmSpec& spec);

// Arguments of device_add, in the order in which -device wants them.
nlohmann::ordered_json nic_device(const NicSpec& nic, std::size_t index);

}  // namespace godwit::qemu
