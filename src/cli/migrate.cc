// godwit migrate: the everyday verb, and the main job.
#include <ctime>
#include <ostream>
#include <set>

#include "base/utc_text.hh"
#include "cli/follow.hh"
#include "cli/options.hh"
#include "cli/report.hh"
#include "cli/second_nic.hh"
#include "cli/when.hh"

namespace godwit::cli {
namespace {

struct Move {
  std::vector<std::string> vms;
  std::string topology;
  std::string to, max_downtime, bandwidth, on_diverge, stop_policy, on_restart, cache, at;
  unsigned lanes = 0;
  std::string disk_mode, max_write_latency, strategy, relay_for, configure;
  std::vector<std::string> resolvers;
  bool delete_source = false;
  bool dry_run = false, hold = false, background = false, detach = false, wait = false;
  bool no_compact = false, no_known = false, in_order = false;
};

json body_of(const Move& move) {
  json body = {{"to", move.to}};
  if (move.vms.size() == 1) {
    body["vm"] = move.vms.front();
  } else {
    body["vms"] = move.vms;
    if (move.in_order) body["in_order"] = true;
  }
  set_if_given(body, "max_downtime", move.max_downtime);
  set_if_given(body, "bandwidth", move.bandwidth);
  set_if_given(body, "on_diverge", move.on_diverge);
  set_if_given(body, "stop_policy", move.stop_policy);
  set_if_given(body, "on_restart", move.on_restart);
  if (move.dry_run) body["dry_run"] = true;
  if (move.hold) body["hold"] = true;
  set_if_given(body, "cache", move.cache);
  if (move.no_compact) body["compact"] = false;
  if (move.no_known) body["known"] = false;
  if (move.background) body["background"] = true;
  if (move.delete_source) body["delete_source"] = true;
  if (move.lanes != 0) body["lanes"] = move.lanes;
  set_if_given(body, "strategy", move.strategy);
  set_if_given(body, "relay_for", move.relay_for);
  set_if_given(body, "disk_mode", move.disk_mode);
  set_if_given(body, "max_write_latency", move.max_write_latency);
  if (!move.at.empty()) body["at"] = utc_text(parse_when(move.at, std::time(nullptr)).value());
  return body;
}

// What `apply` made of it, and what has its ports, at this host.
std::vector<std::string> members_of(const Context& context, const std::string& topology) {
  std::set<std::string> names;
  for (const json& component : context.fetch("/v1/components")) {
    if (component.value("topology", "") == topology) {
      names.insert("component/" + component.value("name", ""));
    }
  }
  for (const json& port : context.fetch("/v1/ports")) {
    const std::string vm = port.value("vm", "");
    if (port.value("topology", "") == topology && !vm.empty()) names.insert(vm);
  }
  if (names.empty()) {
    throw Failure(ExitStatus::refused,
                  fmt::format("there is no vm and no component of topology '{}' on this host; see "
                              "godwit export --topology {}",
                              topology, topology));
  }
  return {names.begin(), names.end()};
}

ExitStatus print_dry_run(const Context& context, const json& report) {
  if (context.as_json) {
    context.print_json(report);
  } else {
    context.io.out << preflight_text(report);
  }
  return report.value("ok", false) ? ExitStatus::done : ExitStatus::refused;
}

ExitStatus watch(const Context& context, const Move& move, const json& started) {
  FollowOptions options;
  options.on_interrupt = FollowOptions::OnInterrupt::abort_move;
  options.until_ready = move.hold && !move.wait;
  return conclude(context, follow(context, started.at("id").get<std::string>(), options));
}

ExitStatus start_and_watch(const Context& context, const Move& move) {
  return watch(context, move, context.post("/v1/migrations", body_of(move)));
}

std::string text_of_plan(const SecondNic& nic) {
  if (!nic.way.empty()) {
    return fmt::format(
        "{} is at home at host {}: after the move it is the vm's way out, and "
        "nothing is plugged in",
        nic.way, nic.host);
  }
  return fmt::format(
      "before it, {} is plugged into the vm and configured for a free address of "
      "host {}; after it, that is its way out",
      nic.port(), nic.host);
}

// With an address of the target's network before it moves; or, in the naive order, after that.
ExitStatus migrate_with_second_nic(const Context& context, Move move) {
  if (move.vms.size() != 1 || move.detach || move.hold || !move.at.empty()) {
    throw Failure(ExitStatus::usage,
                  "--strategy secondary-nic is for one vm that is watched on its way: without "
                  "--detach, --hold and --at");
  }
  // What would refuse it does so before anything is made.
  Move as_endpoint = move;
  as_endpoint.strategy = "endpoint";
  as_endpoint.dry_run = true;
  const json checked = context.post("/v1/migrations", body_of(as_endpoint));
  const SecondNic nic =
      plan_second_nic(context, move.vms.front(), move.to, move.resolvers, checked);
  if (!nic.way.empty() && (move.configure == "after" || !move.resolvers.empty())) {
    throw Failure(ExitStatus::refused,
                  fmt::format("NIC {} is at home at host {}, with all its settings: without "
                              "--configure and --resolver",
                              nic.way, nic.host));
  }
  if (move.dry_run) {
    const ExitStatus status = print_dry_run(context, checked);
    if (status == ExitStatus::done) context.say(text_of_plan(nic));
    return status;
  }
  if (!checked.value("ok", false)) {
    throw Failure(ExitStatus::refused, "refused, nothing was changed:\n" + preflight_text(checked));
  }
  if (!nic.way.empty()) return start_and_watch(context, move);
  if (move.configure == "after") {
    as_endpoint.dry_run = false;
    const ExitStatus status = start_and_watch(context, as_endpoint);
    if (status == ExitStatus::done) make_second_nic_there(context, nic);
    return status;
  }
  make_second_nic(context, nic);
  try {
    const ExitStatus status = start_and_watch(context, move);
    if (status == ExitStatus::aborted) take_back_second_nic(context, nic);
    return status;
  } catch (const Failure& failure) {
    if (failure.status() == ExitStatus::refused) take_back_second_nic(context, nic);
    throw;
  }
}

ExitStatus migrate(const Context& context, Move move) {
  if (!move.topology.empty()) move.vms = members_of(context, move.topology);
  if (move.strategy == "secondary-nic") return migrate_with_second_nic(context, std::move(move));
  const json started = context.post("/v1/migrations", body_of(move));
  if (move.dry_run) return print_dry_run(context, started);
  if (!move.detach) return watch(context, move, started);
  if (context.as_json) context.print_json(started);
  context.say(started.at("id").get<std::string>());
  return ExitStatus::done;
}

}  // namespace

void add_migrate(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand(
      "migrate", "Move running vms and components to another host, several as one group");
  auto move = std::make_shared<Move>();
  auto* names = add_vms(
      *verb, "MOVABLE", move->vms,
      "A vm, component/NAME, or libvirt:DOMAIN, of this host's libvirt; several are copied, and "
      "handed over once all are ready: whole or not at all");
  add_name(*verb, "--topology", move->topology,
           "All vms and components of this host that are of this topology (godwit apply)")
      ->type_name("TOPOLOGY")
      ->excludes(names);
  add_name(*verb, "--to", move->to, "Host, or site: its first host that can take it")
      ->type_name("DESTINATION")
      ->required();
  add_duration(*verb, "--max-downtime", move->max_downtime,
               "Longest pause of the guest (default 300ms)");
  add_rate(*verb, "--bandwidth", move->bandwidth,
           "Cap of the transfer, of all vms together (default: the link's rate)");
  verb->add_flag("--order", move->in_order,
                 "Hand several over one after the other, as they are named (default: at once)");
  verb->add_option(
          "--on-diverge", move->on_diverge,
          "When the guest changes memory faster than the link carries it: abort (default), "
          "pause it anyway, throttle its CPUs step by step, then abort, or postcopy: go on at the "
          "target at once, where it waits for pages that have not followed yet; until they all "
          "have, it needs both hosts")
      ->check(CLI::IsMember({"abort", "pause", "throttle", "postcopy"}));
  verb->add_option("--stop-policy", move->stop_policy,
                   "When the guest is paused: as soon as the pause fits (downtime, the default), "
                   "when further rounds do not shorten it (smart: more bytes, a shorter pause), or "
                   "by Xen's rule, to compare with (stock)")
      ->check(CLI::IsMember({"downtime", "smart", "stock"}));
  verb->add_option(
          "--on-restart", move->on_restart,
          "When an agent is restarted while memory is copied, this host's or the other's: go "
          "on with another move, which sends what is not there yet (resume, the default), "
          "or abort")
      ->check(CLI::IsMember({"resume", "abort"}));
  verb->add_option(
          "--strategy", move->strategy,
          "How the vm keeps its addresses: its wires are stretched (wire), or its guests' "
          "uplinks follow it and the fabric's devices lead its packets there (nat; see "
          "godwit fabric, godwit port add --guest), or the latter where it can be (auto, "
          "the default). Or it has new ones there, and its connections live on (endpoint); "
          "and its guest a NIC of that network before it moves (secondary-nic; needs "
          "qemu-guest-agent in the guest)")
      ->check(CLI::IsMember({"nat", "endpoint", "secondary-nic", "wire", "auto"}));
  verb->add_option("--configure", move->configure,
                   "With --strategy secondary-nic: before the move (default), or after it, to "
                   "compare with")
      ->check(CLI::IsMember({"before", "after"}));
  verb->add_option("--resolver", move->resolvers,
                   "With --strategy secondary-nic: a DNS server for the guest from then on; again "
                   "for more (default: those it has)")
      ->type_name("IP")
      ->allow_extra_args(false);
  verb->add_option("--relay-for", move->relay_for,
                   "With --strategy endpoint or secondary-nic: how long this host serves "
                   "connections whose other "
                   "end has no agent (24h)")
      ->type_name("TIME");
  verb->add_flag(
      "--background", move->background,
      "Take a quarter of the path: the vm and its wires come first, the move takes longer");
  verb->add_option(
          "--lanes", move->lanes,
          "Connections that share the transfer (default: 1 where the kernel has BBR, else 8); "
          "two fill a long path a little better, and keep a queue in it that wires feel")
      ->check(CLI::Range(1, 16));
  verb->add_option(
          "--disk-mode", move->disk_mode,
          "When a guest's writes to its disks are done: here while most is copied, then at "
          "both hosts but for the last 128 KiB (async-then-sync, the default), at both from the "
          "start (sync), or here until it is paused (async: no write waits for the link)")
      ->check(CLI::IsMember({"async-then-sync", "sync", "async"}));
  add_duration(
      *verb, "--max-write-latency", move->max_write_latency,
      "Hold the move back, to a quarter at most, while the guest's writes, answered at both hosts, "
      "take longer on average; less than a round trip cannot be had");
  verb->add_flag(
      "--delete-source", move->delete_source,
      "Remove the vm's disks here once it runs there; without it they stay, as they were "
      "then, until godwit vm purge");
  add_size(*verb, "--cache", move->cache,
           "Memory for pages that were sent, at each end: what comes again is a few bytes "
           "(default 64MiB; the vms of a group divide it)");
  verb->add_flag("--no-compact", move->no_compact,
                 "Send memory as it is: for links faster than a core compresses");
  verb->add_flag("--no-known", move->no_known,
                 "Send also what the target still has of the vm from an earlier stay: to compare");
  auto* dry_run = verb->add_flag("--dry-run", move->dry_run, "Only check and estimate");
  auto* hold =
      verb->add_flag("--hold", move->hold, "Stay synchronised until `godwit migration cutover ID`");
  auto* at =
      verb->add_option("--at", move->at,
                       "Begin at this time, and hand over as soon as it is copied: +10min, 22:30, "
                       "2026-11-21T22:30:00Z")
          ->type_name("TIME");
  at->check([](const std::string& text) {
    const auto when = parse_when(text, std::time(nullptr));
    return when ? std::string() : when.error().text;
  });
  hold->excludes(at);
  auto* detach = verb->add_flag("--detach", move->detach, "Print the id and do not wait");
  verb->add_flag("--wait", move->wait, "Follow it to its end (default; with --hold until `ready`)")
      ->excludes(detach)
      ->excludes(dry_run);
  add_json(*verb, context);
  verb->callback([&context, move, names] {
    if (names->empty() && move->topology.empty()) {
      throw CLI::RequiredError("MOVABLE or --topology");
    }
    const bool is_of_second_nic = !move->configure.empty() || !move->resolvers.empty();
    if (is_of_second_nic && move->strategy != "secondary-nic") {
      throw CLI::ValidationError("migrate",
                                 "--configure and --resolver go with --strategy secondary-nic");
    }
    context.status = migrate(context, *move);
  });
}

}  // namespace godwit::cli
