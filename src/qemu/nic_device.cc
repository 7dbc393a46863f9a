#include "qemu/nic_device.hh"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "qemu/argv.hh"

namespace godwit::qemu {

std::string nic_slot_id(unsigned slot) { return fmt::format("nic-slot{}", slot); }

std::string nic_device_id(const NicSpec& nic, std::size_t index) {
  return nic.slot ? nic_slot_id(*nic.slot) + "-nic" : fmt::format("nic{}", index);
}

std::string nic_netdev_id(const NicSpec& nic, std::size_t index) {
  return nic.slot ? fmt::format("net-slot{}", *nic.slot) : fmt::format("net{}", index);
}

std::vector<std::string> nic_device_ids(const VmSpec& spec) {
  std::vector<std::string> ids;
  for (const NicSpec& nic : spec.nics) ids.push_back(nic_device_id(nic, ids.size()));
  return ids;
}

// The rings are as large as QEMU allows: a frame that meets a full ring when the vm stops is thrown
// away by QEMU (trapped_frame.hh).
nlohmann::ordered_json nic_device(const NicSpec& nic, std::size_t index) {
  return {{"driver", "virtio-net-pci"},
          {"id", nic_device_id(nic, index)},
          {"netdev", nic_netdev_id(nic, index)},
          {"mac", nic.mac},
          {"bus", nic.slot ? nic_slot_id(*nic.slot) : "pcie.0"},
          // A root port has one place.
          {"addr", fmt::format("{:#x}", nic.slot ? 0 : kFirstNicSlot + index)},
          {"disable-legacy", "on"},
          {"romfile", ""},
          {"rx_queue_size", 1024}};
}

}  // namespace godwit::qemu
