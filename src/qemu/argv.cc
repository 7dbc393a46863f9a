#include "qemu/argv.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.hh"
#include "qemu/disk_nodes.hh"
#include "qemu/nic_device.hh"

namespace godwit::qemu {
namespace {

using Arguments = std::vector<std::string>;

void add(Arguments& to, std::initializer_list<std::string> more) {
  to.insert(to.end(), more.begin(), more.end());
}

// RFC 4122 writes 16 bytes as 8-4-4-4-12 hex digits.
std::string uuid_text(const VmId& id) {
  std::string text = id.text();
  for (const std::size_t at : {20U, 16U, 12U, 8U}) text.insert(at, 1, '-');
  return text;
}

std::string accelerator_option(Accelerator accelerator) {
  // One translation cache bounded in size, threads as many as vCPUs.
  return accelerator == Accelerator::kvm ? "kvm" : "tcg,thread=multi,tb-size=256";
}

// Code that is there for all, and variables of the vm's own.
std::string add_uefi(Arguments& argv, const VmSpec& spec, const QemuInput& input) {
  if (spec.uefi.bytes == 0) return {};
  CHECK(input.uefi.has_value(), "vm {} without firmware", spec.name);
  const auto variables = std::ranges::find(spec.disks, DiskBus::pflash, &DiskSpec::bus);
  add(argv, {"-blockdev", fmt::format("driver={},node-name=uefi-code,read-only=on,"
                                      "file.driver=file,file.locking=off,file.filename={}",
                                      to_text(input.uefi->code_format),
                                      escape_option(input.uefi->code.string()))});
  return fmt::format(",pflash0=uefi-code,pflash1={}",
                     disk_node(static_cast<std::size_t>(variables - spec.disks.begin())));
}

void add_machine(Arguments& argv, const VmSpec& spec, const QemuInput& input) {
  CHECK(!spec.machine.empty(), "vm {} without machine type", spec.name);
  const auto kib = spec.memory.bytes >> 10U;
  const std::string firmware = add_uefi(argv, spec, input);
  add(argv,
      {"-machine",
       fmt::format("{},memory-backend=ram0,usb=off,dump-guest-core=off,graphics=off{}",
                   spec.machine, firmware),
       "-accel", accelerator_option(spec.accelerator),
       // enforce: refuse to start rather than give the guest less than the model promises.
       "-cpu", fmt::format("{},enforce", spec.cpu_model), "-smp",
       fmt::format("{0},sockets=1,cores={0},threads=1", spec.cpus), "-m", fmt::format("{}K", kib),
       "-object", fmt::format("memory-backend-ram,id=ram0,size={}K", kib)});
}

std::string listening_socket(std::string_view id, int fd) {
  return fmt::format("socket,id={},fd={},server=on,wait=off", id, fd);
}

void add_monitor_and_console(Arguments& argv, const QemuInput& input) {
  add(argv, {"-chardev", listening_socket("qmp", input.qmp_fd), "-mon", "chardev=qmp,mode=control",
             "-chardev", listening_socket("console", input.console_fd), "-device",
             "isa-serial,chardev=console,id=serial0"});
}

// The name is the one that qemu-guest-agent looks for in the guest.
void add_guest_agent(Arguments& argv, const QemuInput& input) {
  add(argv, {"-chardev", listening_socket("agent", input.guest_agent_fd), "-device",
             fmt::format("virtio-serial-pci,id=agent-bus,bus=pcie.0,addr={:#x},max_ports=2,"
                         "disable-legacy=on",
                         kGuestAgentSlot),
             "-device",
             "virtserialport,id=agent-port,bus=agent-bus.0,nr=1,chardev=agent,"
             "name=org.qemu.guest_agent.0"});
}

void add_tpm(Arguments& argv, const QemuInput& input) {
  add(argv, {"-chardev", fmt::format("socket,id=tpm,fd={}", input.tpm_fd), "-tpmdev",
             "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"});
}

void add_boot(Arguments& argv, const VmSpec& spec) {
  if (!spec.kernel.empty()) add(argv, {"-kernel", spec.kernel});
  if (!spec.initrd.empty()) add(argv, {"-initrd", spec.initrd});
  if (!spec.append.empty()) add(argv, {"-append", spec.append});
  if (!spec.image.empty()) {
    add(argv,
        {"-blockdev",
         fmt::format("driver=raw,node-name=image,read-only=on,file.driver=file,"
                     "file.locking=off,file.filename={}",
                     escape_option(spec.image)),
         "-device",
         fmt::format("virtio-blk-pci,id=image-dev,drive=image,bus=pcie.0,addr={:#x}", kImageSlot)});
  }
}

bool is_scsi(DiskBus bus) { return bus == DiskBus::scsi || bus == DiskBus::cdrom; }

// A slot, or a number on the SCSI bus, is one disk's or volume's whatever the others are.
void add_drive(Arguments& argv, std::size_t index, const std::string& name, DiskBus bus,
               std::vector<std::string> nodes, bool boots) {
  for (auto& each : nodes) add(argv, {"-blockdev", std::move(each)});
  if (bus == DiskBus::pflash) return;  // see add_uefi()
  const std::string place =
      is_scsi(bus)
          ? fmt::format("scsi-{},bus=scsi.0,scsi-id={}", bus == DiskBus::cdrom ? "cd" : "hd", index)
          : fmt::format("virtio-blk-pci,bus=pcie.0,addr={:#x},disable-legacy=on",
                        kFirstDiskSlot + index);
  const std::string boot = boots ? fmt::format(",bootindex={}", index + 1) : "";
  add(argv, {"-device", fmt::format("{0},id={1}-dev,drive={1},serial={2}{3}", place,
                                    disk_node(index), name, boot)});
}

void add_disks(Arguments& argv, const VmSpec& spec, const std::vector<DiskPaths>& paths) {
  CHECK(paths.size() == spec.disks.size(), "vm {}: {} paths for {} disks", spec.name, paths.size(),
        spec.disks.size());
  if (std::ranges::any_of(spec.disks, is_scsi, &DiskSpec::bus) ||
      std::ranges::any_of(spec.volumes, is_scsi, &VolumeSpec::bus)) {
    add(argv, {"-device", fmt::format("virtio-scsi-pci,id=scsi,bus=pcie.0,addr={:#x},"
                                      "disable-legacy=on",
                                      kScsiSlot)});
  }
  const bool boots = spec.kernel.empty();
  for (std::size_t i = 0; i < spec.disks.size(); ++i) {
    const DiskSpec& disk = spec.disks[i];
    add_drive(argv, i, disk.name, disk.bus, disk_nodes(disk, paths[i], disk_node(i)), boots);
  }
  for (std::size_t i = 0; i < spec.volumes.size(); ++i) {
    const VolumeSpec& volume = spec.volumes[i];
    const std::size_t index = spec.disks.size() + i;
    add_drive(argv, index, volume.name, volume.bus, volume_nodes(volume, disk_node(index)), boots);
  }
}

// Empty, most of them: a bus for what is plugged in later. The chassis is the guest's name for it.
void add_nic_slots(Arguments& argv, unsigned count) {
  for (unsigned slot = 0; slot < count; ++slot) {
    add(argv, {"-device", fmt::format("pcie-root-port,id={},bus=pcie.0,addr={:#x}.{:#x},"
                                      "multifunction=on,chassis={},port={}",
                                      nic_slot_id(slot), kNicSlotsSlot, slot, slot + 1, slot)});
  }
}

std::string option_text(const nlohmann::ordered_json& device) {
  std::string text;
  for (const auto& [key, value] : device.items()) {
    const std::string word = value.is_string() ? value.get<std::string>() : value.dump();
    text += text.empty() ? word : fmt::format(",{}={}", key, word);
  }
  return text;
}

void add_nics(Arguments& argv, const VmSpec& spec, const std::vector<int>& tap_fds) {
  CHECK(tap_fds.size() == spec.nics.size(), "vm {}: {} TAPs for {} NICs", spec.name, tap_fds.size(),
        spec.nics.size());
  add_nic_slots(argv, spec.nic_slots);
  for (std::size_t i = 0; i < spec.nics.size(); ++i) {
    // QEMU finds the vnet header by itself from the descriptor (IFF_VNET_HDR).
    add(argv, {"-netdev",
               fmt::format("tap,id={},fd={},vhost=off", nic_netdev_id(spec.nics[i], i), tap_fds[i]),
               "-device", option_text(nic_device(spec.nics[i], i))});
  }
}

}  // namespace

std::string escape_option(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += c;
    if (c == ',') out += ',';
  }
  return out;
}

std::vector<std::string> qemu_argv(const VmSpec& spec, const QemuInput& input) {
  Arguments argv{input.binary};
  add(argv, {"-name", fmt::format("guest={},debug-threads=on", spec.name), "-uuid",
             uuid_text(spec.id), "-nodefaults", "-no-user-config", "-display", "none", "-sandbox",
             "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"});
  add_machine(argv, spec, input);
  add_monitor_and_console(argv, input);
  add_boot(argv, spec);
  add_disks(argv, spec, input.disks);
  add_nics(argv, spec, input.tap_fds);
  if (spec.guest_agent) add_guest_agent(argv, input);
  if (spec.tpm) add_tpm(argv, input);
  if (input.incoming_fd) {
    add(argv, {"-incoming", "defer", "-S", "-chardev", listening_socket("rescue", input.rescue_fd),
               "-mon", "chardev=rescue,mode=control"});
  }
  return argv;
}

}  // namespace godwit::qemu
