#include "qemu/host.hh"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "os/child.hh"
#include "qemu/firmware.hh"
#include "qemu/json.hh"
#include "qemu/tpm.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr std::size_t kMostMachines = 1000;  // bounds for what a peer sends
constexpr std::size_t kMostCpuModels = 2000;

struct Version {
  unsigned major = 0;
  unsigned minor = 0;
  auto operator<=>(const Version&) const = default;
};

// "7.2.22" or "7.2"; zeros for anything else.
Version parse_version(std::string_view text) {
  Version version;
  const char* const end = text.data() + text.size();
  const auto [dot, error] = std::from_chars(text.data(), end, version.major);
  if (error != std::errc{} || dot == end || *dot != '.') return {};
  if (std::from_chars(dot + 1, end, version.minor).ec != std::errc{}) return {};
  return version;
}

void take_version(const json& reply, HostCapabilities& host) {
  const json& qemu = member(reply, "qemu");
  host.qemu_version = fmt::format("{}.{}.{}", unsigned_at(qemu, "major"),
                                  unsigned_at(qemu, "minor"), unsigned_at(qemu, "micro"));
}

void take_machines(const json& reply, HostCapabilities& host) {
  for (const json& machine : reply) {
    const std::string name = text_at(machine, "name");
    const std::size_t dash = name.rfind('-');
    // An unversioned machine means something else in each QEMU.
    if (dash == std::string::npos || parse_version(name.substr(dash + 1)) == Version{}) continue;
    host.machines.push_back(name);
  }
  std::ranges::sort(host.machines);
}

void take_cpu_models(const json& reply, HostCapabilities& host) {
  for (const json& model : reply) {
    auto& missing = host.cpu_models[text_at(model, "name")];
    for (const json& feature : member(model, "unavailable-features")) {
      if (feature.is_string()) missing.push_back(feature.get<std::string>());
    }
  }
}

constexpr std::string_view kQuestions =
    R"({"execute":"qmp_capabilities"}
{"execute":"query-version","id":"version"}
{"execute":"query-machines","id":"machines"}
{"execute":"query-cpu-definitions","id":"cpus"}
{"execute":"quit"}
)";

// MemTotal and MemAvailable are in KiB (proc(5)).
std::uint64_t meminfo_kib(std::string_view field) {
  std::ifstream file("/proc/meminfo");
  std::string name;
  std::uint64_t value = 0;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    if (words >> name >> value && name == field) return value;
  }
  return 0;
}

void check_cpu_model(const VmSpec& spec, const HostCapabilities& host, std::string_view host_name,
                     std::vector<std::string>& out) {
  const auto model = host.cpu_models.find(spec.cpu_model);
  if (model == host.cpu_models.end()) {
    out.push_back(fmt::format("QEMU {} of {} does not know the CPU model {}", host.qemu_version,
                              host_name, spec.cpu_model));
  } else if (!model->second.empty()) {
    out.push_back(fmt::format("{} cannot provide the CPU model {}: it lacks {}", host_name,
                              spec.cpu_model, fmt::join(model->second, ", ")));
  }
}

}  // namespace

Result<HostCapabilities> probe_host(Accelerator accelerator, const std::string& binary) {
  os::Command command;
  command.argv = {
      binary,        "-machine",        "none",     "-accel", std::string(to_text(accelerator)),
      "-nodefaults", "-no-user-config", "-display", "none",   "-qmp",
      "stdio"};
  const auto output = os::run(std::move(command), kQuestions, kHostProbeLimit);
  if (!output) return std::unexpected(output.error());
  HostCapabilities host;
  host.accelerator = accelerator;
  std::istringstream lines(output->out);
  for (std::string line; std::getline(lines, line);) {
    const json object = json::parse(line, nullptr, false);
    const std::string id = text_at(object, "id");
    const json& reply = member(object, "return");
    if (id == "version") take_version(reply, host);
    if (id == "machines" && reply.is_array()) take_machines(reply, host);
    if (id == "cpus" && reply.is_array()) take_cpu_models(reply, host);
  }
  const Version version = parse_version(host.qemu_version);
  if (version < Version{kOldestQemu[0], kOldestQemu[1]}) {
    return fail("{} is QEMU \"{}\", Godwit needs {}.{} or newer: {}", binary, host.qemu_version,
                kOldestQemu[0], kOldestQemu[1], output->err.substr(0, 500));
  }
  if (newest_machine(host).empty() || host.cpu_models.empty()) {
    return fail("{} told no q35 machines or CPU models", binary);
  }
  refresh_memory(host);
  return host;
}

void refresh_memory(HostCapabilities& host) {
  host.memory_total = ByteCount{meminfo_kib("MemTotal:") * 1024};
  host.memory_available = ByteCount{meminfo_kib("MemAvailable:") * 1024};
}

json to_json(const HostCapabilities& host) {
  return {{"qemu_version", host.qemu_version},
          {"accelerator", to_text(host.accelerator)},
          {"machines", host.machines},
          {"cpu_models", host.cpu_models},
          {"memory_total_bytes", host.memory_total.bytes},
          {"memory_available_bytes", host.memory_available.bytes}};
}

Result<HostCapabilities> host_capabilities_from_json(const json& object) {
  HostCapabilities host;
  host.qemu_version = text_at(object, "qemu_version");
  const auto accelerator = parse_accelerator(text_at(object, "accelerator"));
  if (!accelerator) return std::unexpected(accelerator.error());
  host.accelerator = *accelerator;
  const json& machines = member(object, "machines");
  const json& models = member(object, "cpu_models");
  if (!machines.is_array() || machines.size() > kMostMachines || !models.is_object() ||
      models.size() > kMostCpuModels) {
    return fail("host capabilities need machines and cpu_models");
  }
  for (const json& machine : machines) {
    if (machine.is_string()) host.machines.push_back(machine.get<std::string>());
  }
  for (const auto& [name, features] : models.items()) {
    auto& missing = host.cpu_models[name];
    for (const json& feature : features) {
      if (feature.is_string()) missing.push_back(feature.get<std::string>());
    }
  }
  host.memory_total = ByteCount{unsigned_at(object, "memory_total_bytes")};
  host.memory_available = ByteCount{unsigned_at(object, "memory_available_bytes")};
  return host;
}

std::string newest_machine(const HostCapabilities& host) {
  constexpr std::string_view kPrefix = "pc-q35-";
  std::string newest;
  Version best;
  for (const std::string& machine : host.machines) {
    if (!machine.starts_with(kPrefix)) continue;
    const Version version = parse_version(std::string_view(machine).substr(kPrefix.size()));
    if (version > best) best = version, newest = machine;
  }
  return newest;
}

ByteCount trackable_memory(ByteCount wanted, const HostCapabilities& host) {
  constexpr std::uint64_t kFastPathUnit = 64 * 4096;
  constexpr std::uint64_t kTwoPages = 2 * 4096;
  constexpr int kMendedIn = 9;
  const bool broken =
      host.accelerator == Accelerator::tcg && std::atoi(host.qemu_version.c_str()) < kMendedIn;
  if (!broken || wanted.bytes % kFastPathUnit != 0) return wanted;
  return {wanted.bytes + kTwoPages};
}

namespace {

// Its code is part of what the guest sees, and moves with its memory; all that must be the same is
// its size.
void check_firmware(const VmSpec& spec, std::string_view host_name, std::vector<std::string>& out) {
  const auto firmware = find_uefi(spec.machine);
  if (!firmware) {
    out.push_back(
        fmt::format("vm {} has UEFI firmware, of which {} has none for QEMU: install it "
                    "(Debian: ovmf)",
                    spec.name, host_name));
  } else if (firmware->code_size != spec.uefi) {
    out.push_back(fmt::format("the UEFI firmware of vm {} has {} bytes, that of {} ({}) has {}",
                              spec.name, spec.uefi.bytes, host_name, firmware->code.string(),
                              firmware->code_size.bytes));
  }
}

}  // namespace

std::vector<std::string> refusals(const VmSpec& spec, const HostCapabilities& host,
                                  std::string_view host_name) {
  std::vector<std::string> out;
  if (host.accelerator != spec.accelerator) {
    out.push_back(fmt::format("vm {} runs under {}, {} offers {}", spec.name,
                              to_text(spec.accelerator), host_name, to_text(host.accelerator)));
  }
  if (std::ranges::find(host.machines, spec.machine) == host.machines.end()) {
    out.push_back(fmt::format("QEMU {} of {} does not know the machine type {}", host.qemu_version,
                              host_name, spec.machine));
  }
  check_cpu_model(spec, host, host_name, out);
  if (spec.uefi.bytes != 0) check_firmware(spec, host_name, out);
  if (spec.tpm && !has_tpm_emulator()) {
    out.push_back(
        fmt::format("vm {} has a TPM, for which {} needs swtpm: install it (Debian: swtpm)",
                    spec.name, host_name));
  }
  if (host.memory_available < spec.memory) {
    out.push_back(fmt::format("{} has {} of memory available, vm {} needs {}", host_name,
                              to_text(host.memory_available), spec.name, to_text(spec.memory)));
  }
  return out;
}

}  // namespace godwit::qemu
