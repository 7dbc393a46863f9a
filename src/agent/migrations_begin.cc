// How a move begins: what is asked for, the host that takes it, and its record.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/migrations.hh"
#include "agent/move_options.hh"
#include "agent/preflight_network.hh"
#include "os/random.hh"
#include "os/wall_clock.hh"

namespace godwit::agent {

using migrate::SourceEvent;

namespace {

std::string is_recorded(const std::string& vm) {
  return fmt::format("vm {} is being recorded: end that first (godwit debug stream record)", vm);
}

std::string nics_change(const std::string& vm) {
  return fmt::format("a NIC of vm {} is being plugged or unplugged: wait until that is through",
                     vm);
}

// One vm, or several that move as a group: "web1", "vm/web1", "component/sw1".
std::string without_kind(std::string name) {
  constexpr std::string_view kVmPrefix = "vm/";
  return name.starts_with(kVmPrefix) ? name.substr(kVmPrefix.size()) : name;
}
Result<std::vector<std::string>> vms_of(const nlohmann::json& request) {
  if (!request.contains("vms")) {
    const auto name = text_field(request, "vm");
    if (!name) return std::unexpected(name.error());
    return std::vector{without_kind(*name)};
  }
  std::vector<std::string> names;
  for (const auto& name : array_field(request, "vms")) {
    if (!name.is_string()) return fail("'vms' is a list of names");
    names.push_back(without_kind(name.get<std::string>()));
    if (std::ranges::count(names, names.back()) > 1) {
      return fail("{}{} twice", ComponentMoves::is_one(names.back()) ? "" : "vm ", names.back());
    }
  }
  if (names.empty() || names.size() > migrate::kMostMembers) {
    return fail("'vms' names 1 to {} vms", migrate::kMostMembers);
  }
  return names;
}

Strategy chosen_strategy(const SourceRecord& record, const Findings& findings) {
  if (findings.network.is_null()) return Strategy::wire;
  return record.strategy == Strategy::automatic ? Strategy::nat : record.strategy;
}

}  // namespace

Result<SourceRecord> Migrations::plan_vm(const std::string& name, const nlohmann::json& request,
                                         const http::Caller& caller) {
  Vm* vm = context_.vms.find(name);
  if (vm == nullptr || !caller.sees(vm->spec().tenant)) {
    return fail("there is no running vm '{}' on host {}; see godwit vm ls", name,
                context_.config.name);
  }
  if (is_moving(name)) return fail("vm {} is migrating already; see godwit migration ls", name);
  if (vm->record().arriving) return fail("vm {} is still arriving here: wait until it runs", name);
  if (vm->recorded()) return fail("{}", is_recorded(name));
  if (vm->nics_change()) return fail("{}", nics_change(name));
  for (const auto& [id, move] : targets_) {
    if (move->memory_follows() && move->record().spec.id == vm->spec().id) {
      return fail(
          "vm {} runs here, but some of its memory is still at {}: wait until it has followed",
          name, move->record().from);
    }
  }
  SourceRecord record;
  record.by = caller.name;
  if (auto read = read_options(request, record); !read) return std::unexpected(read.error());
  if (auto done = refer_to(*vm, record); !done) return std::unexpected(done.error());
  return record;
}

// The vm as it is here now, its ports, and one epoch for all of them: above each of theirs, and
// above those burned by an abort.
Result<> Migrations::refer_to(Vm& vm, SourceRecord& record) {
  record.id = os::random_id<MigrationId>();
  record.started = os::wall_clock_seconds();
  record.vm = vm.name();
  record.tenant = vm.spec().tenant;
  record.process = vm.process().identity();
  record.ports.clear();
  for (const auto& nic : vm.spec().nics) {
    record.ports.push_back(nic.port);
    const auto described = context_.network.describe_nic(nic.port);
    if (!described) return std::unexpected(described.error());
    record.epoch = std::max(record.epoch, epoch_field(described->at("port"), "epoch", 1));
  }
  for (const PortId& uplink : context_.network.guest_uplinks(record.ports)) {
    record.epoch = std::max(record.epoch, context_.network.guest_uplink(uplink)->epoch);
  }
  for (const auto& [id, move] : sources_) {
    if (move->record().vm == record.vm) {
      record.epoch = std::max(record.epoch, move->record().epoch);
    }
  }
  ++record.epoch;
  return {};
}

Result<Migrations::Wanted> Migrations::want(const nlohmann::json& request,
                                            const http::Caller& caller) {
  Wanted wanted;
  const auto names = vms_of(request);
  if (!names) return std::unexpected(names.error());
  for (const std::string& name : *names) {
    auto record = ComponentMoves::is_one(name) ? components_.plan(name, request, caller)
                                               : plan_vm(name, request, caller);
    if (!record) return std::unexpected(record.error());
    wanted.moves.push_back(*std::move(record));
  }
  if (wanted.moves.size() == 1) return wanted;
  const auto in_order = flag_field(request, "in_order", false);
  if (!in_order) return std::unexpected(in_order.error());
  const auto id = os::random_id<MigrationId>();
  for (std::size_t i = 0; i < wanted.moves.size(); ++i) {
    SourceRecord& move = wanted.moves[i];
    // One cache, one cap: what one tenant's vm has must not tell on another's.
    if (move.tenant != wanted.moves[0].tenant) {
      return fail("{} and {} are of different tenants: a group has one",
                  spoken_name(wanted.moves[0]), spoken_name(move));
    }
    move.group = {.id = id,
                  .index = i,
                  .of = wanted.moves.size(),
                  .in_order = *in_order,
                  .hold = std::exchange(move.hold, true),
                  .cap = {move.bandwidth_bits_per_second}};
    move.bandwidth_bits_per_second /= wanted.moves.size();
  }
  return wanted;
}

void Migrations::add(const nlohmann::json& request, const http::Caller& caller,
                     http::Responder responder) {
  if (LibvirtMoves::is_for_one(request)) return libvirt_.add(request, caller, std::move(responder));
  auto wanted = want(request, caller);
  if (!wanted) return responder.error(409, wanted.error().text, 3);
  const auto to = text_field(request, "to");
  if (!to) return responder.error(400, to.error().text, 2);
  const auto dry_run = flag_field(request, "dry_run", false);
  if (!dry_run) return responder.error(400, dry_run.error().text, 2);
  const auto at = start_time(request);
  if (!at) return responder.error(400, at.error().text, 2);
  wanted->to = *to;
  wanted->dry_run = *dry_run;
  for (SourceRecord& record : wanted->moves) record.begins_at = *at;
  find_host(std::make_shared<Wanted>(*std::move(wanted)),
            std::make_shared<http::Responder>(std::move(responder)));
}

// Of a group all go to the host that takes the first.
void Migrations::find_host(std::shared_ptr<Wanted> wanted,
                           std::shared_ptr<http::Responder> responder) {
  const std::size_t next = wanted->findings.size();
  if (next == wanted->moves.size()) return conclude(*wanted, *responder);
  const SourceRecord& move = wanted->moves[next];
  const Wish wish{.compact = move.compact,
                  .postcopy = move.on_diverge == migrate::OnDiverge::postcopy,
                  .strategy = move.strategy,
                  .epoch = move.epoch,
                  .leading = leading_of(move)};
  search_.start(
      wanted->to,
      [this, wanted, next, name = move.vm, wish](const std::string& host,
                                                 HostSearch::Checked checked) {
        if (ComponentMoves::is_one(name)) {
          return components_.preflight(wanted->moves[next], host, std::move(checked));
        }
        Vm* vm = context_.vms.find(name);
        if (vm == nullptr) return checked(fail("vm {} has ended", name));
        preflight(context_, *vm, host, wish, std::move(checked));
      },
      [this, wanted, responder, next](Result<HostSearch::Outcome> found) {
        if (!found) return responder->error(409, found.error().text, 3);
        wanted->to = wanted->moves[next].to = std::move(found->host);
        wanted->findings.push_back(std::move(found->findings));
        find_host(wanted, responder);
      });
}

// What "auto" comes to, which uplinks follow then, and the NIC that is the vm's way there.
void Migrations::choose_strategy(SourceRecord& record, const Findings& findings) const {
  record.strategy = chosen_strategy(record, findings);
  record.uplinks.clear();
  record.second_nic = {};
  if (record.strategy != Strategy::wire) {
    record.uplinks = context_.network.guest_uplinks(record.ports);
  }
  if (record.strategy != Strategy::secondary_nic) return;
  const Vm* vm = context_.vms.find(record.vm);
  const auto* nic =
      vm == nullptr ? nullptr : way_out_at(context_.network, *vm, record.to, findings.network);
  if (nic != nullptr) record.second_nic = nic->port;
}

void Migrations::conclude(Wanted& wanted, http::Responder& responder) {
  if (wanted.dry_run) return answer_dry_run(wanted, responder);
  for (std::size_t i = 0; i < wanted.moves.size(); ++i) {
    const std::string& name = wanted.moves[i].vm;
    wanted.moves[i].shared_disks = wanted.findings[i].shared_disks;
    choose_strategy(wanted.moves[i], wanted.findings[i]);
    const std::string whose =
        wanted.moves.size() > 1 ? spoken_name(wanted.moves[i]) + ": " : std::string();
    const auto& checks = wanted.findings[i].checks;
    if (!all_ok(checks)) {
      return responder.json(409,
                            {{"error", "refused, nothing was changed: " + whose + failures(checks)},
                             {"exit", 3},
                             {"checks", to_json(checks)}});
    }
    if (is_moving(name)) {
      return responder.error(
          409, fmt::format("{} is migrating already", spoken_name(wanted.moves[i])), 3);
    }
    const Vm* vm = context_.vms.find(name);
    if (vm != nullptr && vm->recorded()) return responder.error(409, is_recorded(name), 3);
    if (vm != nullptr && vm->nics_change()) return responder.error(409, nics_change(name), 3);
  }
  launch(wanted, responder);
}

// At most: before anything is compared or compressed. The link's rate is known if it is said.
nlohmann::json Migrations::estimate(const SourceRecord& record, const Findings& findings) {
  const bool ok = all_ok(findings.checks);
  nlohmann::json estimate = {{"rtt_ms", to_ms(context_.peers.rtt(record.to))},
                             {"shared_disks", findings.shared_disks},
                             {"disk_there_bytes", findings.disks_there.bytes}};
  std::uint64_t bytes = 0;
  if (Vm* vm = context_.vms.find(record.vm)) {
    const std::uint64_t memory = vm->spec().memory.bytes;
    const std::uint64_t disks =
        findings.shared_disks ? 0 : context_.disks.used_bytes(vm->spec()).bytes;
    estimate["memory_bytes"] = memory;
    estimate["disk_bytes"] = disks;
    bytes = memory + disks;
  }
  estimate["bytes"] = bytes;
  if (record.bandwidth_bits_per_second != 0) {
    const double rate = static_cast<double>(record.bandwidth_bits_per_second) / 8;
    estimate["total_s"] = static_cast<double>(bytes) / rate;
  }
  return {{"ok", ok},
          {"vm", record.vm},
          {"to", record.to},
          {"checks", to_json(findings.checks)},
          {"estimate", estimate},
          {"strategy", to_text(chosen_strategy(record, findings))},
          {"network", findings.network.is_null() ? nlohmann::json::array() : findings.network},
          {"exit", ok ? 0 : 3}};
}

void Migrations::answer_dry_run(const Wanted& wanted, http::Responder& responder) {
  if (wanted.moves.size() == 1) {
    return responder.json(200, estimate(wanted.moves[0], wanted.findings[0]));
  }
  const bool ok = std::ranges::all_of(wanted.findings, all_ok, &Findings::checks);
  nlohmann::json members = nlohmann::json::array();
  for (std::size_t i = 0; i < wanted.moves.size(); ++i) {
    members.push_back(estimate(wanted.moves[i], wanted.findings[i]));
  }
  responder.json(200, {{"ok", ok}, {"members", members}, {"exit", ok ? 0 : 3}});
}

void Migrations::launch(Wanted& wanted, http::Responder& responder) {
  std::vector<Move*> begun;
  for (SourceRecord& record : wanted.moves) {
    const auto move = begin(std::move(record));
    if (!move) {
      for (Move* each : begun) each->feed(SourceEvent::abort_requested, move.error().text);
      return responder.error(409, move.error().text, 3);
    }
    begun.push_back(*move);
  }
  const auto& group = begun.front()->record().group;
  responder.json(202, group ? groups_.describe(group->id) : begun.front()->describe());
}

// Accepted: it is recorded, and begins when its time has come.
Result<Move*> Migrations::begin(SourceRecord record) {
  const MigrationId id = record.id;
  if (ComponentMoves::is_one(record.vm)) {
    const auto added = components_.add(std::move(record));
    if (!added) return std::unexpected(added.error());
    if ((*added)->record().group) groups_.add(**added);
    begin_in_time(**added);
    return *added;
  }
  // Old ones make room: their reports are history.
  while (sources_.size() >= kKeptMigrations) {
    const auto old = std::ranges::find_if(sources_, [](const auto& s) { return s.second->over(); });
    if (old == sources_.end()) break;
    context_.store.erase("migration-source", old->first.text());
    sources_.erase(old);
  }
  auto move = std::make_unique<SourceMove>(context_, std::move(record));
  if (const auto accepted = move->accept(); !accepted) return std::unexpected(accepted.error());
  SourceMove* raw = move.get();
  sources_[id] = std::move(move);
  if (raw->record().group) groups_.add(*raw);
  begin_in_time(*raw);
  return raw;
}

void Migrations::begin_in_time(const Move& move) {
  const MigrationId id = move.record().id;
  const std::int64_t wait = move.record().begins_at - os::wall_clock_seconds();
  scheduled_[id] = context_.loop.after(seconds(std::max<std::int64_t>(wait, 0)), [this, id] {
    if (Move* found = find_move(id)) found->begin();
    context_.loop.post([this, id] { scheduled_.erase(id); });
  });
}

}  // namespace godwit::agent
