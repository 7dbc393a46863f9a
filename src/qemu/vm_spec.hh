#pragma once
// What a vm is: everything that must be the same at source and target for a migration to load.
// Values only; kept in the agent's store and sent to the target as JSON.
#include <nlohmann/json_fwd.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.hh"
#include "base/units.hh"
#include "qemu/disk_spec.hh"
#include "qemu/nic_network.hh"
#include "qemu/volume.hh"

namespace godwit::qemu {

inline constexpr unsigned kMaxCpus = 64;
inline constexpr std::size_t kMaxNics = 8;
// PCIe root ports that NICs can be plugged into while the vm runs.
inline constexpr unsigned kMaxNicSlots = 4;
inline constexpr unsigned kDefaultNicSlots = 2;  // of a new vm
inline constexpr std::uint64_t kPageBytes = 4096;
inline constexpr ByteCount kMinMemory{64ULL << 20};
inline constexpr ByteCount kMaxMemory{4ULL << 40};
inline constexpr std::size_t kMaxPathText = 4096;
inline constexpr std::size_t kMaxAppend = 2000;  // the kernel's COMMAND_LINE_SIZE is 2048

// TCG of QEMU 7.2 provides every feature of this model (checked with `enforce`), and so does every
// x86 server since 2010 under KVM; `max` and `host` are different on each host.
inline constexpr std::string_view kDefaultCpuModel = "Westmere-v1";

enum class Accelerator { kvm, tcg };
std::string_view to_text(Accelerator accelerator);
Result<Accelerator> parse_accelerator(std::string_view text);

struct NicSpec {
  PortId port;
  std::string name;  // the port's name
  std::string mac;   // "52:54:00:12:34:56", unicast
  // The root port that it was plugged into; absent: the vm was made with it.
  std::optional<unsigned> slot{};
  std::optional<NicNetwork> network{};  // if its guest was told
  bool operator==(const NicSpec&) const = default;
};

struct VmSpec {
  VmId id;
  std::string name;
  std::string tenant = "default";
  ByteCount memory{512ULL << 20};
  unsigned cpus = 1;
  std::string cpu_model{kDefaultCpuModel};
  std::string machine;  // versioned, e.g. "pc-q35-7.2"; newest_machine() of the host if not given
  Accelerator accelerator = Accelerator::tcg;
  std::string kernel;  // paths on the host; empty = none
  std::string initrd;
  std::string append;
  std::string image;                  // raw disk image on the host, read-only: it stays where it is
  std::vector<DiskSpec> disks;        // of its own, which move with it; the first is booted from
  std::vector<VolumeSpec> volumes{};  // at servers, where they stay when it moves
  bool guest_agent = false;           // a channel to qemu-guest-agent
  // UEFI: the size of its firmware's code, which is each host's own; its variables are the disk on
  // the bus pflash. Zero: BIOS.
  ByteCount uefi{};
  bool tpm = false;           // a TPM 2.0; one with disks only, beside which its state is
  unsigned nic_slots = 0;     // 0 to kMaxNicSlots; vms of versions before have none
  std::vector<NicSpec> nics;  // in PCI order; those in slots after all others
  bool operator==(const VmSpec&) const = default;
};

nlohmann::json to_json(const VmSpec& spec);
// Checks everything: types, names, ranges, duplicate MACs. The error names the field.
Result<VmSpec> vm_spec_from_json(const nlohmann::json& object);
// The same checks on a value.
Result<> check(const VmSpec& spec);

bool is_valid_mac(std::string_view text);  // six hex pairs, unicast
// A locally administered MAC made of the port's id: the same port always gets the same.
std::string default_mac(const PortId& port);

}  // namespace godwit::qemu
