#include "qemu/devices.hh"

#include <memory>

#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

struct Unsupported {
  std::string_view type_prefix;
  std::string_view why;
};

constexpr Unsupported kUnsupported[] = {
    {"vfio-", "a passed-through device (VFIO) stays on its host"},
    {"tpm-", "a vTPM's secrets are kept outside QEMU"},
    {"vhost-user-", "its state is kept in another process"},
    {"vhost-vsock", "its connections end at this host's kernel"},
    {"vhost-scsi", "its state is kept in this host's kernel"},
    {"virtio-9p", "it shares a directory of this host"},
    {"usb-host", "a passed-through USB device stays on its host"},
    {"ivshmem", "its memory is shared with other processes of this host"},
    {"sev-", "encrypted guest memory cannot be read"},
    {"pc-dimm", "hot-plugged memory is not part of the vm's description"},
    {"nvdimm", "hot-plugged memory is not part of the vm's description"},
    {"virtio-mem", "hot-plugged memory is not part of the vm's description"},
    {"virtio-pmem", "hot-plugged memory is not part of the vm's description"},
};

// Collects the answers of several commands; the last one reports.
struct Survey {
  Answer<std::vector<std::string>> answer;
  std::vector<std::string> obstacles;
  int waiting = 0;

  void fail_with(const Error& error) {
    if (answer) std::exchange(answer, nullptr)(std::unexpected(error));
  }
  void one_done() {
    if (--waiting == 0 && answer) std::exchange(answer, nullptr)(std::move(obstacles));
  }
};

void add_peripherals(const json& reply, bool own_tpm, Survey& survey) {
  for (const json& item : reply) {
    const std::string type = text_at(item, "type");  // "child<virtio-net-pci>", "string", ...
    constexpr std::string_view kChild = "child<";
    if (!type.starts_with(kChild) || !type.ends_with('>')) continue;
    const std::string device = type.substr(kChild.size(), type.size() - kChild.size() - 1);
    if (own_tpm && device.starts_with("tpm-")) continue;
    if (const auto why = why_unsupported(device); !why.empty()) {
      survey.obstacles.push_back(
          fmt::format("device {} ({}): {}", text_at(item, "name"), device, why));
    }
  }
}

void add_tpms(const json& reply, Survey& survey) {
  for (const json& tpm : reply) {
    survey.obstacles.push_back(
        fmt::format("vTPM {} ({})", text_at(tpm, "id"), text_at(tpm, "model")));
  }
}

void add_disks(const json& reply, std::size_t own, Survey& survey) {
  for (const json& disk : reply) {
    const json& inserted = member(disk, "inserted");
    if (!inserted.is_object() || flag_at(inserted, "ro")) continue;
    const std::string node = text_at(inserted, "node-name");
    std::size_t index = 0;
    while (index < own && disk_node(index) != node) ++index;
    if (index < own) continue;
    survey.obstacles.push_back(
        fmt::format("disk {} is writable and not one of the vm's (vm run --disk)", node));
  }
}

void add_blocked(const json& reply, Survey& survey) {
  for (const json& reason : member(reply, "blocked-reasons")) {
    if (reason.is_string()) survey.obstacles.push_back("QEMU: " + reason.get<std::string>());
  }
}

}  // namespace

std::string_view why_unsupported(std::string_view qom_type) {
  for (const auto& [prefix, why] : kUnsupported) {
    if (qom_type.starts_with(prefix)) return why;
  }
  return {};
}

void unsupported_devices(Qmp& qmp, const VmSpec& vm, Answer<std::vector<std::string>> answer) {
  const auto survey = std::make_shared<Survey>();
  survey->answer = std::move(answer);
  const auto ask = [&qmp, &survey](std::string_view command, json arguments, auto take) {
    ++survey->waiting;
    qmp.execute(command, std::move(arguments), [survey, take](Result<json> reply) {
      if (!reply) return survey->fail_with(reply.error());
      take(*reply, *survey);
      survey->one_done();
    });
  };
  for (const char* path : {"/machine/peripheral", "/machine/peripheral-anon"}) {
    ask("qom-list", {{"path", path}},
        [tpm = vm.tpm](const json& reply, Survey& to) { add_peripherals(reply, tpm, to); });
  }
  if (!vm.tpm) ask("query-tpm", nullptr, add_tpms);
  ask("query-block", nullptr,
      [own = vm.disks.size() + vm.volumes.size()](const json& reply, Survey& to) {
        add_disks(reply, own, to);
      });
  ask("query-migrate", nullptr, add_blocked);
}

}  // namespace godwit::qemu
