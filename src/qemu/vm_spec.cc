#include "qemu/vm_spec.hh"

#include <algorithm>
#include <cctype>
#include <set>

#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

// Characters that QEMU's option syntax or a kernel command line could take for something else are
// refused in names that we put there.
bool is_plain_word(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_';
  });
}

// What is too much is so for any check.
unsigned number_field(const json& object, const char* key) {
  return static_cast<unsigned>(std::min<std::uint64_t>(unsigned_at(object, key), 1U << 20));
}

bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
}

Result<> check_path(std::string_view field, const std::string& path) {
  if (path.empty()) return {};
  if (path.front() != '/') return fail("{} must be an absolute path, not \"{}\"", field, path);
  if (path.size() > kMaxPathText || !is_printable(path)) return fail("{} is no usable path", field);
  return {};
}

Result<> check_slot(const VmSpec& spec, const NicSpec& nic, std::set<unsigned>& taken) {
  if (!nic.slot && !taken.empty()) {
    return fail("the NIC {} must come before those that were plugged in", nic.name);
  }
  if (!nic.slot) return {};
  if (*nic.slot >= spec.nic_slots) {
    return fail("the NIC {} is in slot {} of {}", nic.name, *nic.slot, spec.nic_slots);
  }
  if (!taken.insert(*nic.slot).second) {
    return fail("two NICs are in slot {}: {} is one", *nic.slot, nic.name);
  }
  return {};
}

Result<> check_nics(const VmSpec& spec) {
  if (spec.nics.size() > kMaxNics) {
    return fail("{} NICs are more than the most of {}", spec.nics.size(), kMaxNics);
  }
  if (spec.nic_slots > kMaxNicSlots) {
    return fail("{} slots for NICs are more than the most of {}", spec.nic_slots, kMaxNicSlots);
  }
  std::set<std::string> macs;
  std::set<PortId> ports;
  std::set<unsigned> slots;
  for (const NicSpec& nic : spec.nics) {
    if (!is_valid_name(nic.name)) return fail("\"{}\" is no valid port name", nic.name);
    if (nic.port.is_zero()) return fail("the NIC {} has no port id", nic.name);
    if (!is_valid_mac(nic.mac)) {
      return fail("\"{}\" is no unicast MAC address like 52:54:00:12:34:56", nic.mac);
    }
    if (!macs.insert(nic.mac).second) return fail("the MAC {} is given twice", nic.mac);
    if (!ports.insert(nic.port).second) return fail("the port {} is given twice", nic.name);
    if (auto ok = check_slot(spec, nic, slots); !ok) return ok;
  }
  return {};
}

Result<> check_volumes(const VmSpec& spec) {
  if (spec.disks.size() + spec.volumes.size() > kMaxDisks) {
    return fail("{} disks are more than the most of {}", spec.disks.size() + spec.volumes.size(),
                kMaxDisks);
  }
  std::set<std::string_view> names;
  for (const DiskSpec& disk : spec.disks) names.insert(disk.name);
  for (const VolumeSpec& volume : spec.volumes) {
    if (auto ok = check(volume); !ok) return ok;
    if (!names.insert(volume.name).second) return fail("the disk {} is given twice", volume.name);
  }
  return {};
}

}  // namespace

std::string_view to_text(Accelerator accelerator) {
  return accelerator == Accelerator::kvm ? "kvm" : "tcg";
}

Result<Accelerator> parse_accelerator(std::string_view text) {
  if (text == "kvm") return Accelerator::kvm;
  if (text == "tcg") return Accelerator::tcg;
  return fail("\"{}\" is no accelerator: kvm or tcg", text);
}

bool is_valid_mac(std::string_view text) {
  if (text.size() != 17) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (i % 3 == 2 ? c != ':' : (std::isxdigit(c) == 0 || std::isupper(c) != 0)) return false;
  }
  const Bytes first = from_hex(text.substr(0, 2));
  return (std::to_integer<unsigned>(first.front()) & 1U) == 0;
}

std::string default_mac(const PortId& port) {
  const auto at = [&port](std::size_t i) { return std::to_integer<unsigned>(port.bytes[i]); };
  return fmt::format("52:54:{:02x}:{:02x}:{:02x}:{:02x}", at(0), at(1), at(2), at(3));
}

Result<> check(const VmSpec& spec) {
  if (!is_valid_name(spec.name)) return fail("\"{}\" is no valid vm name", spec.name);
  if (!is_valid_name(spec.tenant)) return fail("\"{}\" is no valid tenant", spec.tenant);
  if (spec.memory < kMinMemory || spec.memory > kMaxMemory || spec.memory.bytes % kPageBytes != 0) {
    return fail("memory of {} must be whole pages of 4 KiB, from {} to {}", to_text(spec.memory),
                to_text(kMinMemory), to_text(kMaxMemory));
  }
  if (spec.cpus < 1 || spec.cpus > kMaxCpus) {
    return fail("{} cpus: must be 1 to {}", spec.cpus, kMaxCpus);
  }
  if (!is_plain_word(spec.cpu_model)) return fail("\"{}\" is no CPU model", spec.cpu_model);
  if (!spec.machine.empty() && !is_plain_word(spec.machine)) {
    return fail("\"{}\" is no machine type", spec.machine);
  }
  for (const auto& [field, path] :
       {std::pair{"kernel", &spec.kernel}, std::pair{"initrd", &spec.initrd},
        std::pair{"image", &spec.image}}) {
    if (auto ok = check_path(field, *path); !ok) return ok;
  }
  if (spec.kernel.empty() && spec.image.empty() && spec.disks.empty() && spec.volumes.empty()) {
    return fail("vm {} has nothing to boot: give a kernel, a disk or an image", spec.name);
  }
  if (spec.kernel.empty() && (!spec.initrd.empty() || !spec.append.empty())) {
    return fail("initrd and append need a kernel");
  }
  if (spec.append.size() > kMaxAppend || !is_printable(spec.append)) {
    return fail("append must be at most {} printable characters", kMaxAppend);
  }
  if (auto ok = check(spec.disks); !ok) return ok;
  if (auto ok = check_volumes(spec); !ok) return ok;
  const auto variables = std::ranges::count(spec.disks, DiskBus::pflash, &DiskSpec::bus);
  if (variables != (spec.uefi.bytes == 0 ? 0 : 1)) {
    return fail("vm {} has {} disks of UEFI variables", spec.name, variables);
  }
  if (spec.tpm && spec.disks.empty()) return fail("a TPM needs a disk to keep its state beside");
  return check_nics(spec);
}

json to_json(const VmSpec& spec) {
  json nics = json::array();
  for (const NicSpec& nic : spec.nics) {
    json each = {{"port", nic.port.text()}, {"name", nic.name}, {"mac", nic.mac}};
    if (nic.slot) each["slot"] = *nic.slot;
    if (nic.network) each["network"] = to_json(*nic.network);
    nics.push_back(std::move(each));
  }
  json disks = json::array();
  for (const DiskSpec& disk : spec.disks) disks.push_back(to_json(disk));
  json volumes = json::array();
  for (const VolumeSpec& volume : spec.volumes) volumes.push_back(to_json(volume));
  return {{"id", spec.id.text()},
          {"name", spec.name},
          {"tenant", spec.tenant},
          {"memory_bytes", spec.memory.bytes},
          {"cpus", spec.cpus},
          {"cpu_model", spec.cpu_model},
          {"machine", spec.machine},
          {"accelerator", to_text(spec.accelerator)},
          {"kernel", spec.kernel},
          {"initrd", spec.initrd},
          {"append", spec.append},
          {"image", spec.image},
          {"guest_agent", spec.guest_agent},
          {"uefi_bytes", spec.uefi.bytes},
          {"tpm", spec.tpm},
          {"disks", std::move(disks)},
          {"volumes", std::move(volumes)},
          {"nic_slots", spec.nic_slots},
          {"nics", std::move(nics)}};
}

Result<VmSpec> vm_spec_from_json(const json& object) {
  if (!object.is_object()) return fail("a vm is a JSON object");
  VmSpec spec;
  const auto id = VmId::parse(text_at(object, "id"));
  if (!id) return fail("id of a vm must be 32 hex digits");
  spec.id = *id;
  spec.name = text_at(object, "name");
  spec.tenant = text_at(object, "tenant");
  spec.memory = ByteCount{unsigned_at(object, "memory_bytes")};
  spec.cpus = number_field(object, "cpus");
  spec.cpu_model = text_at(object, "cpu_model");
  spec.machine = text_at(object, "machine");
  const auto accelerator = parse_accelerator(text_at(object, "accelerator"));
  if (!accelerator) return std::unexpected(accelerator.error());
  spec.accelerator = *accelerator;
  spec.kernel = text_at(object, "kernel");
  spec.initrd = text_at(object, "initrd");
  spec.append = text_at(object, "append");
  spec.image = text_at(object, "image");
  spec.guest_agent = flag_at(object, "guest_agent");
  spec.uefi = ByteCount{unsigned_at(object, "uefi_bytes")};
  spec.tpm = flag_at(object, "tpm");
  // Agents of versions before say nothing of disks, or of volumes.
  if (const json& disks = member(object, "disks"); disks.is_array()) {
    for (const json& each : disks) {
      auto disk = disk_spec_from_json(each);
      if (!disk) return std::unexpected(disk.error());
      spec.disks.push_back(*std::move(disk));
    }
  }
  if (const json& volumes = member(object, "volumes"); volumes.is_array()) {
    for (const json& each : volumes) {
      auto volume = volume_spec_from_json(each);
      if (!volume) return std::unexpected(volume.error());
      spec.volumes.push_back(*std::move(volume));
    }
  }
  spec.nic_slots = number_field(object, "nic_slots");
  const json& nics = member(object, "nics");
  if (!nics.is_array()) return fail("nics of vm {} must be an array", spec.name);
  for (const json& nic : nics) {
    const auto port = PortId::parse(text_at(nic, "port"));
    if (!port) return fail("port of a NIC must be 32 hex digits");
    spec.nics.push_back({.port = *port, .name = text_at(nic, "name"), .mac = text_at(nic, "mac")});
    if (!member(nic, "slot").is_null()) spec.nics.back().slot = number_field(nic, "slot");
    if (member(nic, "network").is_null()) continue;
    auto network = nic_network_from_json(member(nic, "network"));
    if (!network) return std::unexpected(network.error());
    spec.nics.back().network = *std::move(network);
  }
  if (auto ok = check(spec); !ok) return std::unexpected(ok.error());
  return spec;
}

}  // namespace godwit::qemu
