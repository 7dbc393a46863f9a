#include "agent/preflight.hh"

#include <algorithm>

#include "agent/preflight_network.hh"
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

nlohmann::json foreign_wires_of(const SourceMove::Context& context, const Vm& vm) {
  std::vector<PortId> ports;
  for (const auto& nic : vm.spec().nics) ports.push_back(nic.port);
  return context.network.foreign_wires(ports);
}

// What an agent has to be new enough for.
struct Need {
  bool is_there;
  unsigned protocol;
  const char* name;
  const char* what;
  const char* instead = "";
};

std::vector<Need> needs_of(const SourceMove::Context& context, const Vm& vm, const Wish& wish) {
  const qemu::VmSpec& spec = vm.spec();
  return {{!spec.disks.empty(), kDiskProtocol, "disks", "disks"},
          {!spec.volumes.empty(), kVolumesProtocol, "volumes", "disks at servers"},
          {!foreign_wires_of(context, vm).empty(), kTrustProtocol, "wires",
           "the vm's wires to other fleets", ", or disconnect them first"},
          {spec.nic_slots > 0, kNicSlotsProtocol, "slots", "a vm with slots for NICs"},
          {wish.postcopy, kPostcopyProtocol, "postcopy", "post-copy"}};
}

// What is known here, without asking anyone.
std::vector<Check> local_checks(const SourceMove::Context& context, Vm& vm, const std::string& to,
                                const Wish& wish) {
  std::vector<Check> checks;
  checks.push_back(
      vm.state() == "running" || vm.state() == "paused"
          ? passed("vm", fmt::format("vm {} is {}", vm.name(), vm.state()))
          : failed("vm", fmt::format("vm {} is {}: start it first", vm.name(), vm.state())));
  if (context.peers.is_up(to)) {
    checks.push_back(passed(
        "session", fmt::format("session with {}, RTT {}", to, to_text(context.peers.rtt(to)))));
    for (const Need& need : needs_of(context, vm, wish)) {
      if (!need.is_there || context.peers.protocol(to) >= need.protocol) continue;
      checks.push_back(
          failed(need.name, fmt::format("the agent of host {} is too old for {}: upgrade it{}", to,
                                        need.what, need.instead)));
    }
  } else {
    checks.push_back(failed("session", fmt::format("no session with host {}: is its agent "
                                                   "running, is TCP port {} open?",
                                                   to, context.config.port)));
  }
  if (wish.strategy == Strategy::nat || leaves_address(wish.strategy)) {
    checks.push_back(strategy_check(context, vm, to, wish));
  }
  if (wish.postcopy && !wish.compact) {
    checks.push_back(failed("postcopy",
                            "post-copy needs the compact encoding, whose sums tell "
                            "that what the vm needs has come whole: leave out "
                            "--no-compact"));
  }
  return checks;
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

}  // namespace godwit::agent
