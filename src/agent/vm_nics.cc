#include "agent/vm_nics.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/fault.hh"
#include "os/socket.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

auto find_nic(const qemu::VmSpec& vm, const std::string& port) {
  return std::ranges::find(vm.nics, port, &qemu::NicSpec::name);
}

Result<unsigned> free_slot(const qemu::VmSpec& vm) {
  for (unsigned slot = 0; slot < vm.nic_slots; ++slot) {
    if (std::ranges::find(vm.nics, std::optional(slot), &qemu::NicSpec::slot) == vm.nics.end()) {
      return slot;
    }
  }
  if (vm.nic_slots == 0) {
    return fail("vm {} has no slots for more NICs: run it with --nic-slots 1 or more", vm.name);
  }
  return fail("all {} slots of vm {} for NICs are taken: godwit vm nic rm", vm.nic_slots, vm.name);
}

// For QEMU; ours stays with the port.
Result<os::Fd> attach(Network& network, const qemu::NicSpec& nic, const std::string& vm) {
  const auto fd = network.attach_nic(nic.port, vm);
  if (!fd) return std::unexpected(fd.error());
  try {
    return (*fd)->duplicate();
  } catch (const SetupError& error) {
    return fail("NIC {}: {}", nic.name, error.what());
  }
}

using Report = qemu::GuestNetworkReport;

Report together(Report first, const Report& then) {
  std::ranges::copy(then.notes, std::back_inserter(first.notes));
  for (const auto& step : then.steps) {
    first.steps.push_back({.name = step.name, .at = first.took + step.at});
  }
  first.dropped = then.dropped;
  first.took += then.took;
  return first;
}

}  // namespace

// ---- in and out ----

void VmNics::start() {
  for (const auto& described : vms_.list()) {
    Vm* vm = vms_.find(described.at("name"));
    if (vm == nullptr) continue;
    for (const auto& nic : vm->spec().nics) {
      if (!nic.slot) continue;
      qemu::has_nic(vm->qmp(), nic, [this, name = vm->name(), nic](const Result<bool>& is_there) {
        if (!is_there || *is_there) return;
        spdlog::warn("vm {}: NIC {} is not in it any more", name, nic.name);
        unplug(name, nic.name, [](const Result<nlohmann::json>&) {});
      });
    }
  }
}

Result<Vm*> VmNics::running(const std::string& name) {
  Vm* vm = vms_.find(name);
  if (vm == nullptr || vm->record().arriving || vm->state() == "leaving") {
    return fail("vm {} does not run on host {}: start it first", name, config_.name);
  }
  if (vm->nics_change()) return fail("another NIC of vm {} is on its way: wait for it", name);
  return vm;
}

Result<qemu::NicSpec> VmNics::free_nic(Vm& vm, const nlohmann::json& request) {
  const auto name = text_field(request, "port");
  if (!name) return std::unexpected(name.error());
  const qemu::VmSpec& spec = vm.spec();
  if (spec.nics.size() == qemu::kMaxNics) {
    return fail("vm {} has {} NICs: more cannot be", spec.name, qemu::kMaxNics);
  }
  const auto slot = free_slot(spec);
  if (!slot) return std::unexpected(slot.error());
  const auto port = network_.nic_for(*name, spec.tenant, spec.name, "");
  if (!port) return std::unexpected(port.error());
  qemu::NicSpec nic{.port = port->id,
                    .name = port->name,
                    .mac = text_field_or(request, "mac", qemu::default_mac(port->id)),
                    .slot = *slot};
  qemu::VmSpec with = spec;
  with.nics.push_back(nic);
  if (auto good = qemu::check(with); !good) return std::unexpected(good.error());
  return nic;
}

void VmNics::plug(const std::string& name, const nlohmann::json& request, Answer answer) {
  const auto vm = running(name);
  if (!vm) return answer(std::unexpected(vm.error()));
  const auto same = find_nic((*vm)->spec(), text_field_or(request, "port", ""));
  if (same != (*vm)->spec().nics.end()) {
    const std::string mac = text_field_or(request, "mac", same->mac);
    if (mac == same->mac) return answer(describe_nic(*same));
    return answer(fail("NIC {} of vm {} has MAC {}", same->name, name, same->mac));
  }
  const std::string port = text_field_or(request, "port", "");
  const bool is_new = network_.find(port) == nullptr;
  const auto nic = free_nic(**vm, request);
  if (!nic) {
    if (is_new) (void)network_.remove_port(port, "");
    return answer(std::unexpected(nic.error()));
  }
  const auto take_back = [this, name, nic = *nic, is_new] {
    forget(name, nic);
    if (is_new) (void)network_.remove_port(nic.name, "");
  };
  auto nics = (*vm)->spec().nics;
  nics.push_back(*nic);
  auto tap = attach(network_, *nic, name);
  const auto recorded = tap ? vms_.set_nics(name, nics) : std::unexpected(tap.error());
  if (!recorded) {
    take_back();
    return answer(std::unexpected(recorded.error()));
  }
  fault_point("nic", "plugging", "record", Moment::after);
  const auto under_way = std::make_shared<const bool>(true);
  (*vm)->set_nics_change(under_way);
  qemu::plug_nic((*vm)->qmp(), *nic, *std::move(tap),
                 [this, name, nic = *nic, under_way, take_back,
                  answer = std::move(answer)](const Result<>& done) mutable {
                   if (!done) {
                     take_back();
                     return answer(std::unexpected(done.error()));
                   }
                   if (const auto spec = vms_.recorded_spec(name)) vms_.publish(*spec, "changed");
                   answer(describe_nic(nic));
                 });
}

void VmNics::unplug(const std::string& name, const std::string& port, Answer answer) {
  const auto spec = vms_.recorded_spec(name);
  if (!spec) return answer(fail("there is no vm '{}' on host {}", name, config_.name));
  const auto nic = find_nic(*spec, port);
  if (nic == spec->nics.end()) return answer(nlohmann::json::object());
  if (!nic->slot) {
    return answer(fail("NIC {} is in no slot: vm {} was made with it, and keeps it", port, name));
  }
  if (vms_.find(name) == nullptr) {
    forget(name, *nic);
    return answer(nlohmann::json::object());
  }
  const auto vm = running(name);
  if (!vm) return answer(std::unexpected(vm.error()));
  const auto under_way = std::make_shared<const bool>(true);
  (*vm)->set_nics_change(under_way);
  auto done = [this, name, nic = *nic, answer = std::move(answer)](const Result<>& result) mutable {
    const auto over = unplugging_.extract(name);
    if (!result) return answer(std::unexpected(result.error()));
    forget(name, nic);
    answer(nlohmann::json::object());
  };
  Unplugging& unplugging = unplugging_[name];
  unplugging.under_way = under_way;
  unplugging.qemu = std::make_unique<qemu::NicUnplug>((*vm)->qmp(), *nic, std::move(done));
  unplugging.events = (*vm)->subscribe({.event =
                                            [this, name](const qemu::QmpEvent& event) {
                                              const auto found = unplugging_.find(name);
                                              if (found != unplugging_.end()) {
                                                found->second.qemu->on_event(event);
                                              }
                                            },
                                        .died = {}});
}

// QEMU has it no more, or never had.
void VmNics::forget(const std::string& vm, const qemu::NicSpec& nic) {
  auto spec = vms_.recorded_spec(vm);
  if (!spec) return;
  std::erase_if(spec->nics, [&](const auto& each) { return each.port == nic.port; });
  if (const auto done = vms_.set_nics(vm, spec->nics); !done) {
    spdlog::error("vm {}: {}", vm, done.error().text);
  }
  network_.release_nic(nic.port);
  vms_.publish(*spec, "changed");
}

// ---- what the guest is told ----

// One conversation of a vm at a time: QEMU's channel has one client.
Result<qemu::GuestAgent*> VmNics::ask_guest(Vm& vm) {
  if (!vm.spec().guest_agent) {
    return fail("vm {} has no channel to qemu-guest-agent: run it with --guest-agent", vm.name());
  }
  auto& talking = talking_[vm.name()];
  if (talking) return fail("the guest of vm {} is being asked already: wait for it", vm.name());
  talking = std::make_unique<qemu::GuestAgent>(
      loop_, os::unix_connect(loop_, vm.paths().guest_agent().string()));
  return talking.get();
}

void VmNics::end_conversation(const std::string& vm) {
  loop_.post([this, vm] { talking_.erase(vm); });
}

Result<> VmNics::set_network(const std::string& vm, const std::string& port,
                             std::optional<qemu::NicNetwork> network) {
  auto spec = vms_.recorded_spec(vm);
  if (!spec) return fail("there is no vm '{}' on host {} any more", vm, config_.name);
  for (auto& nic : spec->nics) {
    if (nic.name == port) nic.network = std::move(network);
  }
  return vms_.set_nics(vm, std::move(spec->nics));
}

void VmNics::configure(const std::string& name, const std::string& port,
                       const nlohmann::json& request, Answer answer) {
  const auto vm = running(name);
  if (!vm) return answer(std::unexpected(vm.error()));
  auto nics = (*vm)->spec().nics;
  const auto nic = std::ranges::find(nics, port, &qemu::NicSpec::name);
  if (nic == nics.end()) return answer(fail("vm {} has no NIC {}", name, port));
  if (!nic->slot) {
    return answer(
        fail("vm {} was made with NIC {}, whose addresses are its guest's own matter: "
             "only those that were plugged in are configured",
             name, port));
  }
  const auto network = qemu::nic_network_from_json(request);
  const auto is_default = flag_field(request, "default", false);
  const auto drop_old = flag_field(request, "drop_old", false);
  if (!network) return answer(std::unexpected(network.error()));
  if (!is_default) return answer(std::unexpected(is_default.error()));
  if (!drop_old) return answer(std::unexpected(drop_old.error()));
  if (*drop_old && !*is_default) return answer(fail("drop_old goes with default"));
  if (nic->network && nic->network->addresses != network->addresses) {
    return answer(
        fail("NIC {0} of vm {1} has other addresses: take them back first (godwit vm nic "
             "deconfigure {1} {0})",
             port, name));
  }
  const auto agent = ask_guest(**vm);
  if (!agent) return answer(std::unexpected(agent.error()));
  const auto before = std::exchange(nic->network, *network);
  // Known before the guest has it: what is to be taken back is what it was told.
  if (auto done = vms_.set_nics(name, nics); !done) {
    end_conversation(name);
    return answer(std::unexpected(done.error()));
  }
  auto told = [this, name, answer = std::move(answer)](const Result<Report>& done) mutable {
    end_conversation(name);
    if (!done) return answer(std::unexpected(done.error()));
    answer(qemu::to_json(*done));
  };
  qemu::configure(**agent, *nic,
                  [this, name, before, agent = *agent, nic = *nic, is_default = *is_default,
                   drop_old = *drop_old, told = std::move(told)](const auto& done) mutable {
                    if (!done) (void)set_network(name, nic.name, before);
                    if (!done || !is_default) return told(done);
                    qemu::make_default(*agent, nic, drop_old,
                                       [report = *done, told = std::move(told)](
                                           const Result<Report>& flipped) mutable {
                                         if (!flipped) return told(flipped);
                                         told(together(report, *flipped));
                                       });
                  });
}

void VmNics::deconfigure(const std::string& name, const std::string& port, Answer answer) {
  const auto vm = running(name);
  if (!vm) return answer(std::unexpected(vm.error()));
  auto nics = (*vm)->spec().nics;
  const auto nic = std::ranges::find(nics, port, &qemu::NicSpec::name);
  if (nic == nics.end() || !nic->network) return answer(nlohmann::json::object());
  const auto agent = ask_guest(**vm);
  if (!agent) return answer(std::unexpected(agent.error()));
  qemu::deconfigure(**agent, *nic,
                    [this, name, port, answer = std::move(answer)](const auto& done) mutable {
                      end_conversation(name);
                      if (!done) return answer(std::unexpected(done.error()));
                      const auto saved = set_network(name, port, std::nullopt);
                      if (!saved) return answer(std::unexpected(saved.error()));
                      answer(qemu::to_json(*done));
                    });
}

}  // namespace godwit::agent
