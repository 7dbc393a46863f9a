#include "agent/preflight_target.hh"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "agent/relocations.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

// QEMU's user may be told of its guest's missing pages; what writes them for a device is the
// kernel (userfaultfd(2), UFFD_USER_MODE_ONLY).
Check postcopy_check(const std::string& self) {
  static constexpr const char* kSetting = "/proc/sys/vm/unprivileged_userfaultfd";
  std::ifstream file(kSetting);
  int value = 1;  // kernels before 5.2 do not ask
  file >> value;
  if (value == 1) return passed("postcopy", fmt::format("host {} can take post-copy moves", self));
  return failed("postcopy", fmt::format("QEMU may not wait for single pages at host {}: sysctl -w "
                                        "vm.unprivileged_userfaultfd=1 there, and in /etc/sysctl.d",
                                        self));
}

// What the vm's disks take at the source; more is written while they move. What is here of them
// already is written over.
Check room_check(const Config& config, ByteCount needed, ByteCount here) {
  std::error_code error;
  const auto space = std::filesystem::space(config.vm_disks(), error);
  const ByteCount free{error ? 0 : static_cast<std::uint64_t>(space.available)};
  const std::string figures =
      fmt::format("the vm's disks take {}, host {} has {} free in {}{}", to_text(needed),
                  config.name, to_text(free), config.vm_disks().string(),
                  here.bytes == 0 ? "" : fmt::format(", and {} of them already", to_text(here)));
  return needed.bytes < free.bytes + here.bytes ? passed("room", figures) : failed("room", figures);
}

// What this host can tell at once of a vm that is to come.
Findings find_out(const SourceMove::Context& context, const std::string& from,
                  const qemu::VmSpec& vm, const nlohmann::json& body) {
  const std::string& self = context.config.name;
  std::vector<Check> checks;
  const auto refused = qemu::refusals(vm, context.vms.host(), self);
  for (const auto& reason : refused) checks.push_back(failed("host", reason));
  if (refused.empty()) {
    checks.push_back(passed("host", fmt::format("{}, {} and {} of memory fit host {}", vm.machine,
                                                vm.cpu_model, to_text(vm.memory), self)));
  }
  if (context.vms.show(vm.name)) {
    checks.push_back(failed("name", fmt::format("host {} has a vm '{}' already", self, vm.name)));
  }
  for (const auto& nic : vm.nics) {
    if (context.network.has_other_port(nic.name, nic.port)) {
      checks.push_back(failed("port", fmt::format("host {} has another port '{}': remove or "
                                                  "rename it",
                                                  self, nic.name)));
    }
  }
  const ByteCount disk_bytes{qemu::unsigned_at(body, "disk_bytes")};
  Findings findings = find_out_on_disks(context.config, context.disks, vm, disk_bytes,
                                        id_field<StorageMarkerId>(body, "marker"));
  std::ranges::move(findings.checks, std::back_inserter(checks));
  for (const std::string& path : {vm.kernel, vm.initrd, vm.image}) {
    if (!path.empty() && !is_readable(path)) {
      checks.push_back(failed(
          "files", fmt::format("host {} has no file {} that its godwitd can read", self, path)));
    }
  }
  if (qemu::flag_at(body, "postcopy")) checks.push_back(postcopy_check(self));
  for (const auto& peer : texts_field(body, "peers")) {
    if (peer == self || peer == from || context.peers.is_up(peer)) {
      checks.push_back(passed("peers", fmt::format("host {} reaches {}", self, peer)));
    } else {
      checks.push_back(failed("peers", fmt::format("host {} has no session with {}, the other end "
                                                   "of one of the vm's wires",
                                                   self, peer)));
    }
  }
  std::ranges::move(foreign_checks(context.network, body), std::back_inserter(checks));
  findings.checks = std::move(checks);
  return findings;
}

// {network} or {no_network: why}; nothing if it was not asked.
nlohmann::json network_of(const SourceMove::Context& context, const std::string& from,
                          const nlohmann::json& body) {
  const nlohmann::json& uplinks = array_field(body, "uplinks");
  if (uplinks.empty()) return nlohmann::json::object();
  auto plan =
      context.relocations.plan(uplinks, from, epoch_field(body, "epoch", 1), leading_of(body));
  if (!plan) return {{"no_network", plan.error().text}};
  return {{"network", *std::move(plan)}};
}

}  // namespace

bool is_readable(const std::string& path) { return ::access(path.c_str(), R_OK) == 0; }

Findings find_out_on_disks(const Config& config, Disks& disks, const qemu::VmSpec& vm,
                           ByteCount needed, const Result<StorageMarkerId>& marker) {
  if (vm.disks.empty()) return {};
  Findings findings{.checks = {},
                    .shared_disks = marker && disks.sees(vm.id, *marker),
                    .disks_there = disks.there_already(vm)};
  const std::string obstacle =
      findings.shared_disks ? disks.obstacle_to_sharing(vm) : disks.obstacle_to_receiving(vm.id);
  auto reasons = disks.refusals(vm);
  if (!obstacle.empty()) reasons.push_back(obstacle);
  for (const auto& reason : reasons) findings.checks.push_back(failed("disks", reason));
  if (!findings.shared_disks) {
    findings.checks.push_back(room_check(config, needed, findings.disks_there));
  } else if (reasons.empty()) {
    findings.checks.push_back(
        passed("disks", fmt::format("host {} sees the vm's disks in {}: they are not copied",
                                    config.name, config.vm_disks().string())));
  }
  return findings;
}

std::vector<Check> foreign_checks(const Network& network, const nlohmann::json& body) {
  std::vector<Check> checks;
  for (const auto& wire : array_field(body, "foreign_wires")) {
    const auto may = network.may_take_foreign(wire);
    checks.push_back(may ? passed("wires", fmt::format("port {} may have its wire to {} here",
                                                       text_field_or(wire, "port", ""),
                                                       text_field_or(wire, "peer", "")))
                         : failed("wires", may.error().text));
  }
  return checks;
}

void answer_preflight(const SourceMove::Context& context, const std::string& from,
                      const nlohmann::json& body,
                      std::function<void(Result<nlohmann::json>)> answer) {
  const auto spec = qemu::vm_spec_from_json(qemu::member(body, "spec"));
  if (!spec) {
    return answer(to_json(
        Findings{.checks = {failed("spec", fmt::format("host {} cannot read the vm: {}",
                                                       context.config.name, spec.error().text))}}));
  }
  Findings findings = find_out(context, from, *spec, body);
  // Told beside the findings, whatever they are.
  answer = [network = network_of(context, from, body),
            answer = std::move(answer)](Result<nlohmann::json> told) {
    if (told) told->update(network);
    answer(std::move(told));
  };
  if (spec->volumes.empty()) return answer(to_json(findings));
  const nlohmann::json& asked = qemu::member(body, "volumes");
  const Bytes key = from_hex(qemu::text_at(asked, "key"));
  const auto where = volume_sights(qemu::member(asked, "seen"));
  if (!where || where->size() != spec->volumes.size() ||
      key.size() != crypto::KeyedHash::kKeySize) {
    return answer(fail("what host {} sees of the vm's volumes is not told", from));
  }
  context.volumes.look(spec->volumes, key, *where,
                       [findings = std::move(findings), answer = std::move(answer),
                        self = context.config.name](Result<VolumeSights> seen) mutable {
                         if (seen) {
                           findings.volumes = *std::move(seen);
                         } else {
                           findings.checks.push_back(failed(
                               "volumes", fmt::format("host {}: {}", self, seen.error().text)));
                         }
                         answer(to_json(findings));
                       });
}

}  // namespace godwit::agent
