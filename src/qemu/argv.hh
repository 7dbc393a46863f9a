#pragma once
// The QEMU command line as a pure function of the vm. Devices have fixed ids and PCI addresses and
// nothing is left to QEMU's defaults, so that source and target build identical machines (QEMU,
// docs/devel/migration.rst). Only paths, descriptors and -incoming differ between them.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "qemu/firmware.hh"
#include "qemu/vm_spec.hh"

namespace godwit::qemu {

inline constexpr std::string_view kQemuBinary = "qemu-system-x86_64";
// PCI slots on the root bus: NIC i sits at kFirstNicSlot + i. Below are QEMU's own (host bridge 0;
// q35 keeps 0x1f for the ICH9).
inline constexpr unsigned kImageSlot = 0x02;
inline constexpr unsigned kFirstNicSlot = 0x03;
inline constexpr unsigned kNicSlotsSlot = 0x0b;  // all root ports for NICs, a function each
inline constexpr unsigned kGuestAgentSlot = 0x10;
inline constexpr unsigned kFirstDiskSlot = 0x11;  // of virtio disks
inline constexpr unsigned kScsiSlot = kFirstDiskSlot + kMaxDisks;

// The files of one vm on one host, all in its own directory.
struct VmPaths {
  std::filesystem::path directory;  // /run/godwit/vms/NAME; 0711
  std::filesystem::path qmp() const { return directory / "qmp.sock"; }
  std::filesystem::path console() const { return directory / "console.sock"; }
  std::filesystem::path guest_agent() const { return directory / "guest-agent.sock"; }
  std::filesystem::path log() const { return directory / "qemu.log"; }
  std::filesystem::path rescue() const { return directory / "rescue.sock"; }
  // QEMU makes its socket in there.
  std::filesystem::path recovery() const { return directory / "recovery"; }
  std::filesystem::path blocks() const { return directory / "blocks"; }  // the same, for disks
  std::filesystem::path tap() const { return directory / "tap.sock"; }   // of disks that leave
  std::filesystem::path migration() const { return directory / "migrate.sock"; }  // while it leaves
  // Copies for QEMU's user, where it may not read the originals.
  std::filesystem::path kernel() const { return directory / "kernel"; }
  std::filesystem::path initrd() const { return directory / "initrd"; }
};

// Descriptors are numbered as in QEMU's process. The two sockets already listen when QEMU starts,
// so nobody has to wait for them to appear.
struct QemuInput {
  std::string binary{kQemuBinary};
  int qmp_fd = 3;
  int console_fd = 4;
  std::vector<int> tap_fds;        // one per NIC
  std::vector<DiskPaths> disks{};  // one per disk
  int guest_agent_fd = -1;         // if the vm has the channel
  int tpm_fd = -1;                 // if it has a TPM: connected to its emulator
  std::optional<Firmware> uefi{};  // if it has
  // The target of a migration: a connected stream socket, read after migrate-incoming; afterwards
  // the vm stays paused until cont.
  std::optional<int> incoming_fd = std::nullopt;
  // With it, for a post-copy: a second QMP monitor, for commands out of band. Listens already.
  int rescue_fd = -1;
};

std::vector<std::string> qemu_argv(const VmSpec& spec, const QemuInput& input);

// Text inside a QEMU option value: a comma is doubled.
std::string escape_option(std::string_view text);

}  // namespace godwit::qemu
