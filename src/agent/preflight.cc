#include "agent/preflight.hh"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include "agent/relocations.hh"
#include "base/host_name.hh"
#include "os/random.hh"
#include "qemu/devices.hh"
#include "qemu/disk_snapshots.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr Nanoseconds kPreflightTimeout = seconds(15);
// Agents of the version before compare it with theirs, which had this default. We probe.
constexpr std::uint16_t kAskedPathMtu = 1400;

Check passed(std::string name, std::string detail) {
  return {.name = std::move(name), .ok = true, .detail = std::move(detail)};
}
Check failed(std::string name, std::string detail) {
  return {.name = std::move(name), .ok = false, .detail = std::move(detail)};
}

nlohmann::json foreign_wires_of(const SourceMove::Context& context, const Vm& vm) {
  std::vector<PortId> ports;
  for (const auto& nic : vm.spec().nics) ports.push_back(nic.port);
  return context.network.foreign_wires(ports);
}

// Uplinks that may follow the vm.
nlohmann::json uplinks_of(const SourceMove::Context& context, const Vm& vm, const Wish& wish) {
  nlohmann::json uplinks = nlohmann::json::array();
  if (wish.strategy == Strategy::wire) return uplinks;
  std::vector<PortId> nics;
  for (const auto& nic : vm.spec().nics) nics.push_back(nic.port);
  for (const PortId& uplink : context.network.guest_uplinks(nics)) {
    if (auto described = context.network.describe_nic(uplink)) uplinks.push_back(*described);
  }
  return uplinks;
}

Check strategy_check(const SourceMove::Context& context, const Vm& vm, const std::string& to,
                     const Wish& wish) {
  if (uplinks_of(context, vm, wish).empty()) {
    return failed("network",
                  fmt::format("no NIC of vm {} is wired to a guest's uplink on this host (godwit "
                              "port add NAME --uplink --guest IP): strategy {} has nothing to do",
                              vm.name(), to_text(wish.strategy)));
  }
  const unsigned needed = leaves_address(wish.strategy) ? kEndpointProtocol : kRulesProtocol;
  if (context.peers.is_up(to) && context.peers.protocol(to) < needed) {
    return failed("network", fmt::format("the agent of host {} is too old for strategy {}: "
                                         "upgrade it, or --strategy wire",
                                         to, to_text(wish.strategy)));
  }
  return passed("network", "guests' uplinks can follow it");
}

Check second_nic_check(const Network& network, const Vm& vm, const std::string& to,
                       const nlohmann::json& plans) {
  const qemu::NicSpec* nic = way_out_at(network, vm, to, plans);
  if (nic != nullptr) {
    return passed("second NIC",
                  fmt::format("NIC {} has an address of host {}'s network", nic->name, to));
  }
  return failed("second NIC",
                fmt::format("vm {} has no NIC that is configured and wired to host {}: godwit "
                            "migrate --strategy secondary-nic makes one; or godwit vm nic add, "
                            "godwit connect, godwit vm nic configure",
                            vm.name(), to));
}

// What the target answered of them.
void conclude_strategy(const SourceMove::Context& context, const Vm* vm, const std::string& to,
                       const Wish& wish, const nlohmann::json& reply, Findings& findings) {
  findings.network = qemu::member(reply, "network");
  if (!findings.network.is_null()) {
    if (wish.strategy == Strategy::secondary_nic && vm != nullptr) {
      findings.checks.push_back(second_nic_check(context.network, *vm, to, findings.network));
    }
    return;
  }
  const std::string why = text_field_or(reply, "no_network", "its agent is too old");
  findings.checks.push_back(
      wish.strategy != Strategy::automatic
          ? failed("network", fmt::format("strategy {}: {}", to_text(wish.strategy), why))
          : passed("network",
                   fmt::format("its wires are stretched, as for strategy nat: {}", why)));
}

// Of strategies that leave the address: which connections would be direct there, and which relayed.
std::function<void(Findings)> with_connections(const SourceMove::Context& context, const Wish& wish,
                                               std::function<void(Findings)> done) {
  if (!leaves_address(wish.strategy)) return done;
  return [context, done = std::move(done)](Findings findings) {
    if (!findings.network.is_array()) return done(std::move(findings));
    context.relocations.survey(std::move(findings.network),
                               [findings, done](nlohmann::json network) mutable {
                                 findings.network = std::move(network);
                                 done(std::move(findings));
                               });
  };
}

// What is known here, without asking anyone.
std::vector<Check> local_checks(const SourceMove::Context& context, Vm& vm, const std::string& to,
                                Wish wish) {
  std::vector<Check> checks;
  checks.push_back(
      vm.state() == "running" || vm.state() == "paused"
          ? passed("vm", fmt::format("vm {} is {}", vm.name(), vm.state()))
          : failed("vm", fmt::format("vm {} is {}: start it first", vm.name(), vm.state())));
  checks.push_back(context.peers.is_up(to)
                       ? passed("session", fmt::format("session with {}, RTT {}", to,
                                                       to_text(context.peers.rtt(to))))
                       : failed("session", fmt::format("no session with host {}: is its agent "
                                                       "running, is TCP port {} open?",
                                                       to, context.config.port)));
  const bool knows_disks = context.peers.is_up(to) && context.peers.protocol(to) >= kDiskProtocol;
  if (!vm.spec().disks.empty() && !knows_disks) {
    checks.push_back(failed(
        "disks", fmt::format("the agent of host {} is too old to take disks: upgrade it", to)));
  }
  const bool knows_volumes =
      context.peers.is_up(to) && context.peers.protocol(to) >= kVolumesProtocol;
  if (!vm.spec().volumes.empty() && !knows_volumes) {
    checks.push_back(failed(
        "volumes",
        fmt::format("the agent of host {} is too old for disks at servers: upgrade it", to)));
  }
  if (!foreign_wires_of(context, vm).empty() && context.peers.is_up(to) &&
      context.peers.protocol(to) < kTrustProtocol) {
    checks.push_back(failed(
        "wires", fmt::format("the agent of host {} is too old for the vm's wires to other fleets: "
                             "upgrade it, or disconnect them first",
                             to)));
  }
  if (vm.spec().nic_slots > 0 && context.peers.is_up(to) &&
      context.peers.protocol(to) < kNicSlotsProtocol) {
    checks.push_back(
        failed("slots", fmt::format("the agent of host {} is too old for a vm with slots for NICs: "
                                    "upgrade it",
                                    to)));
  }
  if (wish.strategy == Strategy::nat || leaves_address(wish.strategy)) {
    checks.push_back(strategy_check(context, vm, to, wish));
  }
  if (!wish.postcopy) return checks;
  if (!wish.compact) {
    checks.push_back(failed("postcopy",
                            "post-copy needs the compact encoding, whose sums tell "
                            "that what the vm needs has come whole: leave out "
                            "--no-compact"));
  } else if (context.peers.is_up(to) && context.peers.protocol(to) < kPostcopyProtocol) {
    checks.push_back(failed(
        "postcopy", fmt::format("the agent of host {} is too old for post-copy: upgrade it", to)));
  }
  return checks;
}

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

// A vm's volumes as this host sees them, and the key of their digests.
struct Seen {
  Bytes key;
  VolumeSights sights{};
};

// After the target has looked: what it saw is what there is here.
void compare_volumes(const SourceMove::Context& context, const std::string& to,
                     const std::vector<qemu::VolumeSpec>& volumes, const Seen& seen,
                     Findings findings, std::function<void(Findings)> done) {
  context.volumes.look(
      volumes, seen.key, seen.sights,
      [to, volumes, before = seen.sights, findings = std::move(findings),
       done = std::move(done)](const Result<VolumeSights>& after) mutable {
        auto& checks = findings.checks;
        if (!after) checks.push_back(failed("volumes", after.error().text));
        for (std::size_t i = 0; after && i < volumes.size(); ++i) {
          const auto& [name, bus, uri] = volumes[i];
          const std::string other = difference(before[i], (*after)[i], findings.volumes[i]);
          checks.push_back(
              other.empty()
                  ? passed("volumes",
                           fmt::format("volume {}: host {} sees the same at {}: it is not copied",
                                       name, to, uri))
                  : failed("volumes",
                           fmt::format("volume {}: at {} host {} does not find the same: {}", name,
                                       uri, to, other)));
        }
        done(std::move(findings));
      });
}

void ask_target(const SourceMove::Context& context, Vm& vm, const std::string& to, Wish wish,
                const Seen& seen, std::vector<Check> checks, std::function<void(Findings)> done) {
  nlohmann::json peers = nlohmann::json::array();
  for (const auto& nic : vm.spec().nics) {
    for (const auto& peer : context.network.peers_of(nic.port)) {
      if (!is_foreign(peer)) peers.push_back(peer);
    }
  }
  const auto marker = context.disks.mark(vm.spec());
  nlohmann::json body = {{"spec", qemu::to_json(vm.spec())},
                         {"marker", marker ? marker->id().text() : ""},
                         {"peers", peers},
                         {"foreign_wires", foreign_wires_of(context, vm)},
                         {"path_mtu", kAskedPathMtu},
                         {"disk_bytes", context.disks.used_bytes(vm.spec()).bytes},
                         {"postcopy", wish.postcopy}};
  const nlohmann::json uplinks = uplinks_of(context, vm, wish);
  if (!uplinks.empty()) {
    body.update({{"uplinks", uplinks}, {"epoch", wish.epoch}, {"leading", to_json(wish.leading)}});
  }
  const auto& volumes = vm.spec().volumes;
  if (!volumes.empty()) {
    body["volumes"] = {{"key", to_hex(seen.key)}, {"seen", to_json(seen.sights)}};
  }
  context.peers.request(
      to, "migration.preflight", body,
      [context, name = vm.name(), to, wish, marker, volumes, seen, has_uplinks = !uplinks.empty(),
       checks = std::move(checks),
       done = std::move(done)](const Result<nlohmann::json>& reply) mutable {
        Findings findings = reply ? parse_findings(*reply) : Findings{};
        if (reply && has_uplinks) {
          conclude_strategy(context, context.vms.find(name), to, wish, *reply, findings);
        }
        done = with_connections(context, wish, std::move(done));
        if (!reply) {
          checks.push_back(failed("target", fmt::format("host {}: {}", to, reply.error().text)));
        }
        findings.checks.insert(findings.checks.begin(), std::move_iterator(checks.begin()),
                               std::move_iterator(checks.end()));
        if (findings.volumes.size() == volumes.size() && !volumes.empty()) {
          return compare_volumes(context, to, volumes, seen, std::move(findings), std::move(done));
        }
        if (!volumes.empty() && all_ok(findings.checks)) {
          findings.checks.push_back(
              failed("volumes", fmt::format("host {} does not say what it sees of them", to)));
        }
        done(std::move(findings));
      },
      kPreflightTimeout);
}

void look_and_ask(const SourceMove::Context& context, Vm& vm, const std::string& to, Wish wish,
                  std::vector<Check> checks, std::function<void(Findings)> done) {
  Seen seen{.key = Bytes(crypto::KeyedHash::kKeySize)};
  os::fill_random(seen.key);
  if (vm.spec().volumes.empty()) {
    return ask_target(context, vm, to, wish, seen, std::move(checks), std::move(done));
  }
  const Bytes key = seen.key;
  context.volumes.look(
      vm.spec().volumes, key, {},
      [context, name = vm.name(), to, wish, seen = std::move(seen), checks = std::move(checks),
       done = std::move(done)](Result<VolumeSights> sights) mutable {
        Vm* still = context.vms.find(name);
        if (!sights || still == nullptr) {
          checks.push_back(failed("volumes", sights ? "QEMU ended" : sights.error().text));
          return done({.checks = std::move(checks)});
        }
        seen.sights = *std::move(sights);
        ask_target(context, *still, to, wish, seen, std::move(checks), std::move(done));
      });
}

// Those inside of the files of the vm's disks cross before the disks do.
std::vector<Check> snapshot_checks(const std::vector<qemu::DiskSnapshots>& snapshots,
                                   const std::vector<qemu::DiskSpec>& disks, const std::string& to,
                                   unsigned protocol) {
  std::vector<Check> checks;
  for (const auto& each : snapshots) {
    const std::string has = fmt::format("disk {} has snapshots in its file ({})",
                                        disks[each.disk].name, qemu::names_of(each.snapshots));
    checks.push_back(
        protocol >= kSnapshotsProtocol
            ? passed("snapshots", has + ": they move with it")
            : failed("snapshots",
                     fmt::format("{}: the agent of host {} is too old for them: upgrade it, or "
                                 "remove them while the vm is stopped (qemu-img snapshot -d)",
                                 has, to)));
  }
  return checks;
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

void find_snapshots(const SourceMove::Context& context, Vm& vm, const std::string& to, Wish wish,
                    std::vector<Check> checks, std::function<void(Findings)> done) {
  if (vm.spec().disks.empty()) {
    return look_and_ask(context, vm, to, wish, std::move(checks), std::move(done));
  }
  qemu::query_snapshots(
      vm.qmp(), vm.spec().disks,
      [context, name = vm.name(), to, wish, checks = std::move(checks),
       done = std::move(done)](const Result<std::vector<qemu::DiskSnapshots>>& found) mutable {
        Vm* still = context.vms.find(name);
        if (!found || still == nullptr) {
          checks.push_back(failed("snapshots", found ? "QEMU ended" : found.error().text));
          return done({.checks = std::move(checks)});
        }
        std::ranges::move(
            snapshot_checks(*found, still->spec().disks, to, context.peers.protocol(to)),
            std::back_inserter(checks));
        look_and_ask(context, *still, to, wish, std::move(checks), std::move(done));
      });
}

}  // namespace

const qemu::NicSpec* way_out_at(const Network& network, const Vm& vm, const std::string& host,
                                const nlohmann::json& plans) {
  std::set<PortId> at_home;
  for (const auto& plan : plans) {
    const auto& addresses = array_field(plan, "addresses");
    if (addresses.empty() || addresses[0].contains("new_address")) continue;
    at_home.insert(id_field<PortId>(plan, "id").value_or(PortId{}));
  }
  for (const auto& nic : vm.spec().nics) {
    for (const PortId& uplink : network.guest_uplinks({nic.port})) {
      if (at_home.contains(uplink)) return &nic;
    }
  }
  for (const auto& nic : vm.spec().nics) {
    const auto peers = network.peers_of(nic.port);
    if (nic.network && std::ranges::find(peers, host) != peers.end()) return &nic;
  }
  return nullptr;
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

bool is_readable(const std::string& path) { return ::access(path.c_str(), R_OK) == 0; }

nlohmann::json to_json(const std::vector<Check>& checks) {
  nlohmann::json array = nlohmann::json::array();
  for (const Check& check : checks) {
    array.push_back({{"name", check.name}, {"ok", check.ok}, {"detail", check.detail}});
  }
  return array;
}

Findings parse_findings(const nlohmann::json& reply) {
  Findings findings{.checks = {},
                    .shared_disks = qemu::flag_at(reply, "shared_disks"),
                    .volumes = {},
                    .disks_there = {qemu::unsigned_at(reply, "disks_there")}};
  if (reply.contains("volumes")) {
    if (auto seen = volume_sights(reply["volumes"])) findings.volumes = *std::move(seen);
  }
  for (const auto& check : array_field(reply, "checks")) {
    findings.checks.push_back({.name = text_field_or(check, "name", "?"),
                               .ok = qemu::flag_at(check, "ok"),
                               .detail = text_field_or(check, "detail", "")});
  }
  return findings;
}

nlohmann::json to_json(const Findings& findings) {
  nlohmann::json json = {{"checks", to_json(findings.checks)},
                         {"shared_disks", findings.shared_disks},
                         {"disks_there", findings.disks_there.bytes}};
  if (!findings.volumes.empty()) json["volumes"] = to_json(findings.volumes);
  return json;
}

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

bool all_ok(const std::vector<Check>& checks) {
  return std::ranges::all_of(checks, [](const Check& check) { return check.ok; });
}

std::string failures(const std::vector<Check>& checks) {
  std::string text;
  for (const Check& check : checks) {
    if (check.ok) continue;
    if (!text.empty()) text += "; ";
    text += check.detail;
  }
  return text;
}

void preflight(const SourceMove::Context& context, Vm& vm, const std::string& to, Wish wish,
               std::function<void(Findings)> done) {
  auto checks = local_checks(context, vm, to, wish);
  if (!all_ok(checks)) {
    return context.loop.post([checks = std::move(checks), done = std::move(done)]() mutable {
      done({.checks = std::move(checks)});
    });
  }
  const std::string name = vm.name();
  qemu::unsupported_devices(
      vm.qmp(), vm.spec(),
      [context, name, to, wish, checks = std::move(checks),
       done = std::move(done)](const Result<std::vector<std::string>>& found) mutable {
        Vm* still = context.vms.find(name);
        if (!found || still == nullptr) {
          checks.push_back(failed("devices", found ? "QEMU ended" : found.error().text));
          return done({.checks = std::move(checks)});
        }
        for (const auto& device : *found) checks.push_back(failed("devices", device));
        if (found->empty()) checks.push_back(passed("devices", "every device can migrate"));
        find_snapshots(context, *still, to, wish, std::move(checks), std::move(done));
      });
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
