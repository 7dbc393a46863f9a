#include "agent/vms.hh"

#include <spdlog/spdlog.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/fault.hh"
#include "agent/network.hh"
#include "agent/preflight_target.hh"
#include "agent/volumes.hh"
#include "os/random.hh"
#include "os/socket.hh"
#include "os/tcp.hh"
#include "qemu/accelerator.hh"
#include "qemu/commands.hh"
#include "qemu/firmware.hh"
#include "qemu/launch.hh"

namespace godwit::agent {
namespace {

constexpr Nanoseconds kLastMoments = seconds(1);  // from SIGKILL to the end of a QEMU

// The kernel's default holds a hundred megabytes of a vm's pages of zeros.
constexpr ByteCount kUnreadByQemu{32 << 10};

Result<> add_firmware(const std::string& kind, nlohmann::json& spec) {
  if (kind == "bios") return {};
  if (kind != "uefi") return fail("'{}' is no firmware: bios or uefi", kind);
  const auto firmware = qemu::find_uefi(spec["machine"].get<std::string>());
  if (!firmware) return fail("there is no UEFI firmware for QEMU here: install it (Debian: ovmf)");
  const qemu::DiskSpec variables{.name = "uefi-vars",
                                 .format = qemu::DiskFormat::raw,
                                 .bus = qemu::DiskBus::pflash,
                                 .size = firmware->variables_size};
  spec["uefi_bytes"] = firmware->code_size.bytes;
  spec["disks"].push_back(qemu::to_json(variables));
  return {};
}

}  // namespace

nlohmann::json describe_nic(const qemu::NicSpec& nic) {
  nlohmann::json json = {{"port", nic.name}, {"mac", nic.mac}};
  if (nic.slot) json["slot"] = *nic.slot;
  if (nic.network) json["network"] = qemu::to_json(*nic.network);
  return json;
}

Vms::Vms(os::Loop& loop, const Config& config, store::Store& store, Network& network, Disks& disks,
         Events& events)
    : loop_(loop),
      config_(config),
      store_(store),
      network_(network),
      disks_(disks),
      events_(events) {}

void Vms::start() {
  const auto probe =
      qemu::probe_accelerator({.kernel = {}, .cache_file = config_.run_dir / "accelerator.json"});
  notice_ = probe.notice;
  if (!notice_.empty()) spdlog::warn("{}", notice_);
  const auto host = qemu::probe_host(probe.accelerator);
  if (!host) fail_setup("cannot learn what QEMU can do here: {}", host.error().text);
  host_ = *host;
  for (const auto& document : store_.list("vm")) adopt(vm_record(document.body));
}

void Vms::adopt(const VmRecord& record) {
  if (!record.stopped.empty()) return;
  auto process = os::Child::adopt(record.process);
  if (!process) {
    VmRecord stopped = record;
    stopped.stopped = "QEMU ended while the agent was away";
    store_.put("vm", record.spec.name, to_json(stopped));
    for (const auto& nic : record.spec.nics) network_.detach_nic(nic.port);
    return;
  }
  for (const auto& nic : record.spec.nics) {
    if (const auto done = network_.reattach_nic(nic.port, *process); !done) {
      spdlog::error("vm {}: port {} stays cut: {}", record.spec.name, nic.name, done.error().text);
    }
  }
  keep(record, std::move(*process));
  spdlog::info("vm {} adopted, pid {}", record.spec.name, record.process.pid);
}

Vm* Vms::keep(VmRecord record, os::Child process) {
  const std::string name = record.spec.name;
  auto vm = std::make_unique<Vm>(loop_, std::move(record), qemu::VmPaths{config_.vm_dir(name)},
                                 std::move(process));
  Vm* raw = vm.get();
  subscriptions_[name] = raw->subscribe({.event =
                                             [this, raw](const qemu::QmpEvent& event) {
                                               if (event.name == "STOP" || event.name == "RESUME" ||
                                                   event.name == "SHUTDOWN") {
                                                 publish(raw->spec(), event.name);
                                               }
                                             },
                                         .died =
                                             [this, raw](const std::string& reason) {
                                               publish(raw->spec(), "ended", reason);
                                               save(*raw);
                                               for (const auto& nic : raw->spec().nics)
                                                 network_.detach_nic(nic.port);
                                               ended(raw->name());
                                             }});
  vms_[name] = std::move(vm);
  return raw;
}

void Vms::publish(const qemu::VmSpec& spec, std::string_view event, std::string_view reason) {
  nlohmann::json data = {{"name", spec.name}, {"tenant", spec.tenant}, {"event", event}};
  if (!reason.empty()) data["reason"] = reason;
  events_.publish("vm", data);
}

void Vms::save(const Vm& vm) { store_.put("vm", vm.name(), to_json(vm.record())); }

std::optional<qemu::VmSpec> Vms::recorded_spec(const std::string& name) {
  const auto document = store_.find("vm", name);
  return document ? std::optional(vm_record(*document).spec) : std::nullopt;
}

Result<> Vms::set_nics(const std::string& name, std::vector<qemu::NicSpec> nics) {
  const auto document = store_.find("vm", name);
  if (!document) return fail("there is no vm '{}' on host {}", name, config_.name);
  VmRecord record = vm_record(*document);
  record.spec.nics = std::move(nics);
  if (auto done = store_.record("vm", name, to_json(record)); !done) return done;
  if (const auto found = vms_.find(name); found != vms_.end()) {
    found->second->record().spec.nics = std::move(record.spec.nics);
  }
  return {};
}

Result<qemu::VmSpec> Vms::spec_of(const nlohmann::json& request) {
  const auto name = text_field(request, "name");
  if (!name) return std::unexpected(name.error());
  if (store_.find("vm", *name))
    return fail("there is a vm '{}' already: choose another name", *name);
  const std::string tenant = text_field_or(request, "tenant", kDefaultTenant);

  nlohmann::json nics = nlohmann::json::array();
  for (const auto& nic : array_field(request, "nics")) {
    const auto port_name = text_field(nic, "port");
    if (!port_name) return std::unexpected(port_name.error());
    const auto port =
        network_.nic_for(*port_name, tenant, *name, text_field_or(request, "topology", ""));
    if (!port) return std::unexpected(port.error());
    nics.push_back({{"port", port->id.text()},
                    {"name", port->name},
                    {"mac", text_field_or(nic, "mac", qemu::default_mac(port->id))}});
  }
  qemu::VmSpec defaults;
  defaults.id = os::random_id<VmId>();
  defaults.name = *name;
  defaults.tenant = tenant;
  defaults.machine = qemu::newest_machine(host_);
  defaults.accelerator = host_.accelerator;
  nlohmann::json spec = qemu::to_json(defaults);
  if (request.contains("memory")) {
    const auto memory = parse_byte_count(text_field_or(request, "memory", ""));
    if (!memory) return std::unexpected(memory.error());
    spec["memory_bytes"] = memory->bytes;
  }
  spec["nic_slots"] = qemu::kDefaultNicSlots;
  for (const char* key :
       {"nic_slots", "cpus", "kernel", "initrd", "append", "image", "cpu_model", "guest_agent"}) {
    if (request.contains(key) && !request[key].is_null()) spec[key] = request[key];
  }
  spec["nics"] = nics;
  spec["disks"] = nlohmann::json::array();
  nlohmann::json asked = array_field(request, "disks");
  const auto volumes = volumes_of(asked);
  if (!volumes) return std::unexpected(volumes.error());
  for (const auto& volume : *volumes) spec["volumes"].push_back(qemu::to_json(volume));
  std::erase_if(asked.get_ref<nlohmann::json::array_t&>(), is_volume);
  const auto disks = disks_.specs_of(asked, tenant);
  if (!disks) return std::unexpected(disks.error());
  for (const auto& disk : *disks) spec["disks"].push_back(qemu::to_json(disk));
  const auto tpm = flag_field(request, "tpm", false);
  if (!tpm) return std::unexpected(tpm.error());
  spec["tpm"] = *tpm;
  if (request.contains("firmware")) {
    const auto firmware = text_field(request, "firmware");
    if (!firmware) return std::unexpected(firmware.error());
    if (auto done = add_firmware(*firmware, spec); !done) return std::unexpected(done.error());
  }
  auto checked = qemu::vm_spec_from_json(spec);
  if (checked) checked->memory = qemu::trackable_memory(checked->memory, host_);
  return checked;
}

Result<Vm*> Vms::run(const nlohmann::json& request) {
  const auto spec = spec_of(request);
  if (!spec) return std::unexpected(spec.error());
  for (const std::string& path : {spec->kernel, spec->initrd, spec->image}) {
    if (!path.empty() && !is_readable(path)) {
      return fail("vm {}: host {} has no file {} that godwitd can read", spec->name, config_.name,
                  path);
    }
  }
  if (const auto reasons = qemu::refusals(*spec, host(), config_.name); !reasons.empty()) {
    return fail("vm {} cannot run here: {}", spec->name, fmt::join(reasons, "; "));
  }
  if (auto made = disks_.make(*spec); !made) return std::unexpected(made.error());
  const auto launched = launch(*spec, std::nullopt);
  if (launched) return launched->vm;
  store_.erase("vm", spec->name);
  disks_.remove(spec->id);
  return std::unexpected(launched.error());
}

Result<Vm*> Vms::start(const std::string& name) {
  const auto document = store_.find("vm", name);
  if (!document) return fail("there is no vm '{}' on host {}", name, config_.name);
  if (Vm* running = find(name)) return running;
  VmRecord record = vm_record(*document);
  if (record.arriving) return fail("vm {} has not come whole: it runs at its source", name);
  // It boots with what its host has by now.
  if (record.spec.uefi.bytes != 0) {
    const auto firmware = qemu::find_uefi(record.spec.machine);
    if (firmware) record.spec.uefi = firmware->code_size;
  }
  const auto launched = launch(record.spec, std::nullopt);
  if (launched) return launched->vm;
  store_.put("vm", name, to_json(record));
  return std::unexpected(launched.error());
}

Result<Vms::Incoming> Vms::run_incoming(const qemu::VmSpec& spec, const MigrationId& migration,
                                        const std::optional<std::string>& from) {
  if (store_.find("vm", spec.name) || disks_.is_here(spec.id)) {
    return fail("host {} has a vm '{}' of its own", config_.name, spec.name);
  }
  if (from) {
    if (auto made = disks_.receive(spec, *from); !made) return std::unexpected(made.error());
  }
  os::SocketPair pair = os::make_socket_pair();
  os::set_send_buffer(pair.ours, kUnreadByQemu);
  auto launched =
      launch(spec, Arrival{.incoming_fd = pair.theirs.number(), .migration = migration});
  if (!launched) {
    store_.erase("vm", spec.name);
    disks_.break_off(spec.id);
    return launched;
  }
  launched->stream = std::move(pair.ours);
  return launched;
}

bool Vms::is_arriving(const std::string& name, const MigrationId& migration) {
  const auto document = store_.find("vm", name);
  return document && vm_record(*document).arriving == migration;
}

void Vms::arrived(const std::string& name) {
  const auto found = vms_.find(name);
  if (found == vms_.end() || !found->second->record().arriving) return;
  disks_.arrived(found->second->spec().id);
  found->second->record().arriving.reset();
  save(*found->second);
}

bool Vms::is_process(const std::string& name, const os::ProcessIdentity& process) {
  const auto document = store_.find("vm", name);
  return document && vm_record(*document).process == process;
}

Result<Vms::Incoming> Vms::launch(const qemu::VmSpec& spec, const std::optional<Arrival>& arrival) {
  // One that left a moment ago still holds the TAPs of ports that come back now.
  for (auto& [vm, ending] : ending_) {
    if (ending.first->name() != spec.name) continue;
    ending.first->kill();
    (void)ending.first->process().wait(kLastMoments);
  }
  std::vector<int> fds;
  const auto give_back = [&] {
    for (const auto& nic : spec.nics) network_.release_nic(nic.port);
  };
  for (const auto& nic : spec.nics) {
    const auto fd = network_.attach_nic(nic.port, spec.name);
    if (!fd) return give_back(), std::unexpected(fd.error());
    fds.push_back((*fd)->number());
  }
  const auto incoming_fd = arrival ? std::optional(arrival->incoming_fd) : std::nullopt;
  try {
    VmRecord record{.spec = spec, .process = {}, .stopped = {}, .arriving = {}};
    if (arrival) record.arriving = arrival->migration;
    qemu::Launched launched =
        qemu::launch(spec, {.paths = {config_.vm_dir(spec.name)},
                            .tap_fds = fds,
                            .disks = disks_.paths(spec),
                            .tpm = disks_.tpm(spec.id),
                            .incoming_fd = incoming_fd,
                            .before_start = [&](const os::ProcessIdentity& process) {
                              fault_point("vm", "starting", "record", Moment::before);
                              record.process = process;
                              const auto done = store_.record("vm", spec.name, to_json(record));
                              if (!done) fail_setup("{}", done.error().text);
                              fault_point("vm", "starting", "record", Moment::after);
                            }});
    fault_point("vm", "starting", "launch", Moment::after);
    for (const auto& notice : launched.notices) spdlog::warn("vm {}: {}", spec.name, notice);
    Vm* vm = keep(std::move(record), std::move(launched.child));
    publish(spec, arrival ? "incoming" : "started");
    return Incoming{.vm = vm, .stream = {}, .uri = launched.incoming_uri};
  } catch (const SetupError& error) {
    qemu::remove_files({config_.vm_dir(spec.name)});
    give_back();
    return fail("cannot start vm {}: {}", spec.name, error.what());
  }
}

void kill_qemu(const os::ProcessIdentity& process) {
  if (auto qemu = os::Child::adopt(process)) {
    qemu->detach();
    (void)qemu->kill(SIGKILL);
  }
}

Vm* Vms::find(const std::string& name) {
  const auto found = vms_.find(name);
  return found == vms_.end() || !found->second->alive() ? nullptr : found->second.get();
}

void Vms::stop(const std::string& name, bool force, std::function<void(Result<>)> done) {
  if (!store_.find("vm", name)) {
    return done(fail("there is no vm '{}' on host {}", name, config_.name));
  }
  Vm* vm = find(name);
  if (vm == nullptr) return done({});  // stopped already
  if (!force) return qemu::system_powerdown(vm->qmp(), std::move(done));
  stopping_[name].push_back(std::move(done));
  vm->kill();
}

void Vms::ended(const std::string& name) {
  const auto waiting = stopping_.extract(name);
  if (waiting.empty()) return;
  for (const auto& done : waiting.mapped()) done({});
}

Result<> Vms::remove(const std::string& name, std::optional<bool> with_disks) {
  if (!store_.find("vm", name)) return fail("there is no vm '{}' on host {}", name, config_.name);
  if (find(name) != nullptr) {
    return fail("vm {} is running: stop it first (godwit vm stop {})", name, name);
  }
  const auto document = store_.find("vm", name);
  const qemu::VmSpec spec = vm_record(*document).spec;
  if (!spec.disks.empty() && !with_disks) {
    return fail(
        "vm {} has {} disks: remove them too (godwit vm purge {}), or keep their files "
        "(godwit vm rm {} --keep-disks)",
        name, spec.disks.size(), name, name);
  }
  for (const auto& nic : spec.nics) network_.release_nic(nic.port);
  forget(name);
  if (with_disks == true) disks_.remove(spec.id);
  if (with_disks == false) disks_.leave(spec, "");
  return {};
}

void Vms::moved_away(const std::string& name, const std::string& to, PastDisks past) {
  const auto document = store_.find("vm", name);
  if (!document) return;
  const qemu::VmSpec spec = vm_record(*document).spec;
  // Even if they are about to go: whoever finds files knows of what they are.
  if (past != PastDisks::shared) disks_.leave(spec, to);
  forget(name, Teardown::by_caller);
  if (past == PastDisks::go) disks_.remove(spec.id);
}

void Vms::forget(const std::string& name, Teardown teardown) {
  const auto document = store_.find("vm", name);
  if (!document) return;
  subscriptions_.erase(name);
  const auto found = vms_.find(name);
  if (found != vms_.end()) {
    const Vm* vm = found->second.get();
    // Who uses it is told of its end first.
    if (vm->record().stopped.empty()) {
      auto reaped = found->second->subscribe({.event = {}, .died = [this, vm](const std::string&) {
                                                loop_.post([this, vm] { ending_.erase(vm); });
                                              }});
      if (teardown == Teardown::now) found->second->kill();
      ending_[vm] = {std::move(found->second), std::move(reaped)};
    }
    vms_.erase(found);
  }
  ended(name);
  store_.erase("vm", name);
  qemu::remove_files({config_.vm_dir(name)});
  if (const VmRecord record = vm_record(*document); record.arriving) {
    disks_.break_off(record.spec.id);
  }
  publish(vm_record(*document).spec, "removed");
}

const qemu::HostCapabilities& Vms::host() {
  qemu::refresh_memory(host_);
  return host_;
}

nlohmann::json Vms::describe(const VmRecord& record, Vm* vm) {
  nlohmann::json json = qemu::to_json(record.spec);
  nlohmann::json nics = nlohmann::json::array();
  for (const auto& nic : record.spec.nics) {
    nics.push_back(describe_nic(nic));
  }
  json["nics"] = nics;
  json["disks"] = disks_.list_of(record.spec);
  for (const auto& volume : record.spec.volumes) {
    nlohmann::json disk = qemu::to_json(volume);
    disk.update({{"vm", record.spec.name}, {"tenant", record.spec.tenant}});
    json["disks"].push_back(std::move(disk));
  }
  json.erase("volumes");
  json["memory"] = record.spec.memory.bytes;
  json["host"] = config_.name;
  json["state"] = vm != nullptr ? vm->state() : "stopped";
  json["pid"] = vm != nullptr ? vm->process().pid() : 0;
  json["uptime_s"] =
      vm != nullptr ? static_cast<double>((loop_.now() - vm->since()).count()) / 1e9 : 0.0;
  if (!record.stopped.empty()) json["reason"] = record.stopped;
  return json;
}

std::vector<nlohmann::json> Vms::list() {
  std::vector<nlohmann::json> all;
  for (const auto& document : store_.list("vm")) {
    all.push_back(describe(vm_record(document.body), find(document.key)));
  }
  return all;
}

std::optional<nlohmann::json> Vms::show(const std::string& name) {
  const auto document = store_.find("vm", name);
  if (!document) return std::nullopt;
  return describe(vm_record(*document), find(name));
}

}  // namespace godwit::agent
