// godwit vm run|ls|show|console|stop|rm; its NICs: vm_nic.cc
#include <optional>
#include <ostream>

#include "base/units.hh"
#include "cli/console.hh"
#include "cli/disk.hh"
#include "cli/options.hh"
#include "cli/table.hh"
#include "cli/vm_nic.hh"

namespace godwit::cli {
namespace {

struct NewVm {
  std::string name, memory = "512MiB", kernel, initrd, append, image, firmware, tenant;
  unsigned cpus = 1;
  std::optional<unsigned> nic_slots;
  bool guest_agent = false, tpm = false;
  std::vector<std::string> nics;   // "PORT" or "PORT,mac=52:54:00:..."
  std::vector<std::string> disks;  // "NAME,size=8GiB", "NAME,image=debian,bus=scsi"
};

std::string uptime(const json& vm) {
  const double up = number_of(vm, "uptime_s");
  return up > 0 ? to_text(Nanoseconds(std::chrono::seconds(static_cast<long>(up)))) : "-";
}

void list_vms(Context& context) {
  const json vms = context.fetch("/v1/vms");
  if (context.as_json) return context.print_json(vms);
  Table table({{"VM"},
               {"HOST"},
               {"STATE"},
               {"MEMORY", Align::right},
               {"CPUS", Align::right},
               {"ACCEL"},
               {"UPTIME", Align::right},
               {"TENANT"}});
  for (const json& vm : vms) {
    table.row({text_of(vm, "name"), text_of(vm, "host"), text_of(vm, "state"),
               bytes_of(vm, "memory"), text_of(vm, "cpus"), text_of(vm, "accelerator"), uptime(vm),
               text_of(vm, "tenant")});
  }
  context.io.out << table.text("no vms");
}

void show_vm(Context& context, const std::string& name) {
  const json vm = context.fetch(path_of("vms", name));
  if (context.as_json) return context.print_json(vm);
  context.io.out << pairs({{"vm", text_of(vm, "name")},
                           {"id", text_of(vm, "id")},
                           {"tenant", text_of(vm, "tenant")},
                           {"host", text_of(vm, "host")},
                           {"state", text_of(vm, "state")},
                           {"memory", bytes_of(vm, "memory")},
                           {"cpus", text_of(vm, "cpus")},
                           {"accelerator", text_of(vm, "accelerator")},
                           {"firmware", number_of(vm, "uefi_bytes") > 0 ? "uefi" : "bios"},
                           {"tpm", vm.value("tpm", false) ? "2.0" : "none"},
                           {"pid", text_of(vm, "pid")},
                           {"uptime", uptime(vm)}});
  context.io.out << '\n' << nic_table(vm.value("nics", json::array())).text("no NICs");
  const json disks = vm.value("disks", json::array());
  if (!disks.empty()) context.io.out << '\n' << disk_table(disks).text("");
}

json nic_of(const std::string& text) {
  constexpr std::string_view kMac = ",mac=";
  const std::size_t comma = text.find(kMac);
  json nic = {{"port", text.substr(0, comma)}};
  if (comma != std::string::npos) nic["mac"] = text.substr(comma + kMac.size());
  return nic;
}

void run_vm(Context& context, const NewVm& vm) {
  json body = {{"name", vm.name}, {"memory", vm.memory}, {"cpus", vm.cpus}};
  body["nics"] = json::array();
  for (const std::string& nic : vm.nics) body["nics"].push_back(nic_of(nic));
  for (const std::string& disk : vm.disks) body["disks"].push_back(disk_of(disk));
  set_path(context, body, "kernel", vm.kernel);
  set_path(context, body, "initrd", vm.initrd);
  set_path(context, body, "image", vm.image);
  set_if_given(body, "append", vm.append);
  set_if_given(body, "tenant", vm.tenant);
  if (vm.guest_agent) body["guest_agent"] = true;
  if (vm.nic_slots) body["nic_slots"] = *vm.nic_slots;
  set_if_given(body, "firmware", vm.firmware);
  if (vm.tpm) body["tpm"] = true;
  const json made = context.post("/v1/vms", body);
  if (context.as_json) return context.print_json(made);
  context.say(fmt::format("vm {} is {} ({})", vm.name, text_of(made, "state"),
                          text_of(made, "accelerator")));
  if (made.value("notice", "") != "") context.io.err << made.value("notice", "") << '\n';
}

void add_run(CLI::App& noun, Context& context) {
  auto* run = noun.add_subcommand("run", "Start a new vm on this agent's host");
  auto vm = std::make_shared<NewVm>();
  add_name(*run, "NAME", vm->name, "Name of the new vm")->required();
  add_size(*run, "--memory", vm->memory, "Memory, like 512MiB")->capture_default_str();
  run->add_option("--cpus", vm->cpus, "Virtual CPUs")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  auto* kernel = run->add_option("--kernel", vm->kernel, "Kernel to boot")->type_name("FILE");
  run->add_option("--initrd", vm->initrd, "Initial RAM file system")
      ->type_name("FILE")
      ->needs(kernel);
  run->add_option("--append", vm->append, "Kernel command line")->needs(kernel);
  run->add_option(
         "--disk", vm->disks,
         "A disk: NAME,size=SIZE, NAME,image=IMAGE (see godwit image), or NAME,uri=URI (at a "
         "server that all its hosts reach, where it stays: nbd://HOST/EXPORT, "
         "iscsi://HOST/TARGET/LUN, "
         "nfs://HOST/EXPORT/FILE, rbd:POOL/IMAGE); and format=qcow2 or raw, bus=virtio, scsi or "
         "cdrom (with an image: cloud-init's seed, say); repeat for more, the first is booted from")
      ->type_name("DISK")
      ->allow_extra_args(false);
  run->add_option("--image", vm->image, "Raw disk image to boot, read-only, the same on each host")
      ->type_name("FILE");
  run->add_option("--nic", vm->nics, "Port for a NIC: PORT[,mac=MAC]; repeat for more")
      ->type_name("PORT")
      ->allow_extra_args(false);
  run->add_option(
         "--firmware", vm->firmware,
         "bios (default), or uefi, whose variables are a disk of the vm's and move with it")
      ->check(CLI::IsMember({"bios", "uefi"}));
  run->add_flag("--tpm", vm->tpm, "A TPM 2.0, whose state is kept beside the disks and moves");
  run->add_flag("--guest-agent", vm->guest_agent,
                "A channel to qemu-guest-agent in the vm, which corrects its clock after a move, "
                "and configures NICs that are plugged in");
  run->add_option("--nic-slots", vm->nic_slots,
                  "So many NICs can be plugged in while it runs: 0 to 4 (default 2)")
      ->check(CLI::Range(0, 4));
  add_name(*run, "--tenant", vm->tenant, "Tenant (default: default)")->type_name("TENANT");
  add_json(*run, context);
  run->callback([&context, vm] {
    if (vm->kernel.empty() && vm->image.empty() && vm->disks.empty()) {
      throw CLI::ValidationError("vm run", "nothing to boot: give --kernel, --disk or --image");
    }
    run_vm(context, *vm);
  });
}

// A command on one vm: its name is filled in before the callback runs.
CLI::App* add_on_vm(CLI::App& noun, const char* verb, const char* help,
                    const std::shared_ptr<std::string>& name) {
  auto* app = noun.add_subcommand(verb, help);
  add_name(*app, "VM", *name, "Its name")->required();
  return app;
}

}  // namespace

void add_vm(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("vm", "Virtual machines")->require_subcommand(1);
  const auto name = std::make_shared<std::string>();
  add_run(*noun, context);

  auto* ls = noun->add_subcommand("ls", "List the vms this agent knows");
  add_json(*ls, context);
  ls->callback([&context] { list_vms(context); });

  auto* show = add_on_vm(*noun, "show", "Show one vm", name);
  add_json(*show, context);
  show->callback([&context, name] { show_vm(context, *name); });

  add_on_vm(*noun, "console", "Attach to its serial console (Ctrl-] leaves)", name)
      ->callback([&context, name] { attach_console(context, path_of("vms", *name, "console")); });

  add_vm_nic(*noun, context);

  auto* stop = add_on_vm(*noun, "stop", "Shut a vm down", name);
  const auto force = std::make_shared<bool>(false);
  stop->add_flag("--force", *force, "Pull the plug instead of asking the guest");
  stop->callback([&context, name, force] {
    context.post(path_of("vms", *name, "stop"), {{"force", *force}});
    context.say(fmt::format("vm {} {}", *name, *force ? "stopped" : "was asked to shut down"));
  });

  add_on_vm(*noun, "start", "Start one again that has stopped", name)->callback([&context, name] {
    const json vm = context.post(path_of("vms", *name, "start"), json::object());
    context.say(fmt::format("vm {} is {}", *name, text_of(vm, "state")));
  });

  auto* rm = add_on_vm(*noun, "rm", "Remove a stopped vm", name);
  const auto keep_disks = std::make_shared<bool>(false);
  rm->add_flag("--keep-disks", *keep_disks, "Leave its disks' files where they are");
  rm->callback([&context, name, keep_disks] {
    context.remove(path_of("vms", *name) + (*keep_disks ? "?disks=keep" : ""));
    context.say(fmt::format("vm {} removed", *name));
  });

  add_on_vm(*noun, "purge",
            "Remove the disks that it left when it moved away; else a stopped vm with its disks",
            name)
      ->callback([&context, name] {
        context.post(path_of("vms", *name, "purge"), json::object());
        context.say(fmt::format("disks of vm {} removed", *name));
      });
}

}  // namespace godwit::cli
