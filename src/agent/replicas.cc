#include "agent/replicas.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/findings.hh"
#include "agent/source_record.hh"
#include "os/wall_clock.hh"
#include "qemu/dirty_bitmaps.hh"
#include "qemu/json.hh"
#include "qemu/make_disk.hh"

namespace godwit::agent {
namespace {

constexpr const char* kKind = "replica";
constexpr Nanoseconds kLook = seconds(1);
constexpr Nanoseconds kCountEvery = seconds(5);
constexpr Nanoseconds kRetry = seconds(10);
constexpr Nanoseconds kAskTimeout = seconds(15);
constexpr double kNanoseconds = 1e9;

nlohmann::json to_json(const ReplicaRecord& record) {
  return {{"vm_id", record.vm_id.text()},     {"vm", record.vm},
          {"tenant", record.tenant},          {"to", record.to},
          {"every_ns", record.every.count()}, {"rate_bps", record.rate.bits_per_second},
          {"synced", record.synced},          {"synced_at", record.synced_at}};
}

ReplicaRecord replica_record(const nlohmann::json& json) {
  const auto id = id_field<VmId>(json, "vm_id");
  if (!id) fail_setup("the agent's store holds a damaged replica: {}", json.dump());
  return {.vm_id = *id,
          .vm = text_field_or(json, "vm", ""),
          .tenant = text_field_or(json, "tenant", ""),
          .to = text_field_or(json, "to", ""),
          .every = Nanoseconds(qemu::unsigned_at(json, "every_ns")),
          .rate = {qemu::unsigned_at(json, "rate_bps")},
          .synced = text_field_or(json, "synced", ""),
          .synced_at = static_cast<std::int64_t>(qemu::unsigned_at(json, "synced_at"))};
}

double to_seconds(Nanoseconds time) { return static_cast<double>(time.count()) / kNanoseconds; }

Result<> read_settings(const nlohmann::json& request, ReplicaRecord& record) {
  if (request.contains("every")) {
    const auto every = parse_duration(text_field_or(request, "every", ""));
    if (!every) return std::unexpected(every.error());
    if (*every < kLeastEvery || *every > kMostEvery) {
      return fail("every {}: from {} to {} can be", to_text(*every), to_text(kLeastEvery),
                  to_text(kMostEvery));
    }
    record.every = *every;
  }
  if (!request.contains("rate")) return {};
  const auto rate = parse_bit_rate(text_field_or(request, "rate", ""));
  if (!rate) return std::unexpected(rate.error());
  record.rate = *rate;
  return {};
}

nlohmann::json to_json(const DiskSource::Progress& progress) {
  return {
      {"total_bytes", progress.total_bytes},       {"remaining_bytes", progress.remaining_bytes},
      {"sent_bytes", progress.sent_bytes},         {"same_bytes", progress.same_bytes},
      {"rate_bps", progress.rate.bits_per_second}, {"eta_s", to_seconds(progress.eta)}};
}

}  // namespace

Replicas::Replicas(const Context& context, HostSearch::HostsCalled hosts_called)
    : context_(context), search_(context.loop, context.peers, std::move(hosts_called)) {}

void Replicas::start() {
  for (const auto& document : context_.store.list(kKind)) {
    replicas_[document.key].record = replica_record(document.body);
  }
  look();
}

std::string Replicas::key_of(const VmId& vm, const std::string& to) { return vm.text() + " " + to; }

void Replicas::save(const ReplicaRecord& record) {
  context_.store.put(kKind, key_of(record.vm_id, record.to), to_json(record));
}

Replicas::Replica* Replicas::find(const std::string& vm, const std::string& to) {
  const auto found = std::ranges::find_if(replicas_, [&](const auto& each) {
    return each.second.record.vm == vm && each.second.record.to == to;
  });
  return found == replicas_.end() ? nullptr : &found->second;
}

bool Replicas::has(const std::string& vm) const {
  return std::ranges::any_of(replicas_,
                             [&](const auto& each) { return each.second.record.vm == vm; });
}

// ---- what operators ask for ----

void Replicas::add(const nlohmann::json& request, const std::string& tenant,
                   http::Responder responder) {
  const auto name = text_field(request, "vm");
  if (!name) return responder.error(400, name.error().text, 2);
  const auto to = text_field(request, "to");
  if (!to) return responder.error(400, to.error().text, 2);
  Vm* vm = context_.vms.find(*name);
  if (vm == nullptr || vm->record().arriving || (!tenant.empty() && vm->spec().tenant != tenant)) {
    return responder.error(
        404, fmt::format("there is no running vm '{}' on host {}; see godwit vm ls", *name,
                         context_.config.name));
  }
  if (vm->spec().disks.empty()) {
    return responder.error(409, fmt::format("vm {} has no disks to replicate", *name), 3);
  }
  ReplicaRecord wanted;
  wanted.vm_id = vm->spec().id;
  wanted.vm = *name;
  wanted.tenant = vm->spec().tenant;
  if (auto read = read_settings(request, wanted); !read) {
    return responder.error(400, read.error().text, 2);
  }
  const auto body = nlohmann::json{{"spec", qemu::to_json(vm->spec())},
                                   {"disk_bytes", context_.disks.used_bytes(vm->spec()).bytes}};
  search_.start(
      *to,
      [this, body](const std::string& host, HostSearch::Checked checked) {
        if (context_.peers.protocol(host) < kDiskProtocol) {
          return checked(Findings{
              .checks = {{.name = "agent",
                          .ok = false,
                          .detail = fmt::format(
                              "the agent of host {} is too old for replicas: upgrade it", host)}}});
        }
        context_.peers.request(
            host, "replica.check", body,
            [checked](const Result<nlohmann::json>& reply) {
              if (!reply) return checked(std::unexpected(reply.error()));
              checked(parse_findings(*reply));
            },
            kAskTimeout);
      },
      [this, wanted, settings = request,
       to = std::make_shared<http::Responder>(std::move(responder))](
          Result<HostSearch::Outcome> found) mutable {
        if (!found) return to->error(409, found.error().text, 3);
        wanted.to = found->host;
        accept(wanted, settings, found->findings.checks, *to);
      });
}

void Replicas::accept(ReplicaRecord wanted, const nlohmann::json& settings,
                      const std::vector<Check>& checks, http::Responder& responder) {
  if (!all_ok(checks)) {
    return responder.json(409, {{"error", "refused, nothing was changed: " + failures(checks)},
                                {"exit", 3},
                                {"checks", godwit::agent::to_json(checks)}});
  }
  const std::string key = key_of(wanted.vm_id, wanted.to);
  const auto before = replicas_.find(key);
  const bool is_new = before == replicas_.end();
  if (!is_new) {
    wanted = before->second.record;
    (void)read_settings(settings, wanted);  // which were read before
  }
  if (auto done = context_.store.record(kKind, key, to_json(wanted)); !done) {
    return responder.error(409, done.error().text);
  }
  replicas_[key].record = wanted;
  context_.events.publish("replica", {{"vm", wanted.vm},
                                      {"tenant", wanted.tenant},
                                      {"to", wanted.to},
                                      {"event", is_new ? "added" : "changed"}});
  responder.json(is_new ? 201 : 200, describe(replicas_[key]));
  look(key, replicas_[key]);
}

nlohmann::json Replicas::describe(const Replica& replica) const {
  const ReplicaRecord& record = replica.record;
  const char* state = !replica.run              ? (replica.reason.empty() ? "waiting" : "hindered")
                      : replica.run->compares() ? "copying"
                                                : "updating";
  nlohmann::json json = {{"vm", record.vm},      {"tenant", record.tenant},
                         {"to", record.to},      {"every_s", to_seconds(record.every)},
                         {"runs", replica.runs}, {"state", state}};
  if (record.rate.bits_per_second != 0) json["rate_bps"] = record.rate.bits_per_second;
  if (!replica.reason.empty()) json["reason"] = replica.reason;
  if (record.synced_at != 0) {
    json["synced_at"] = record.synced_at;
    json["behind_s"] = os::wall_clock_seconds() - record.synced_at;
  }
  if (replica.behind_bytes) json["behind_bytes"] = *replica.behind_bytes;
  if (replica.run) {
    if (const auto progress = replica.run->progress()) json["progress"] = to_json(*progress);
  }
  if (!replica.last.is_null()) json["last_run"] = replica.last;
  return json;
}

std::vector<nlohmann::json> Replicas::list() const {
  std::vector<nlohmann::json> all;
  for (const auto& [key, replica] : replicas_) all.push_back(describe(replica));
  return all;
}

std::optional<nlohmann::json> Replicas::show(const std::string& vm, const std::string& to) {
  const Replica* replica = find(vm, to);
  return replica != nullptr ? std::optional(describe(*replica)) : std::nullopt;
}

Result<> Replicas::sync(const std::string& vm, const std::string& to) {
  Replica* replica = find(vm, to);
  if (replica == nullptr) return fail("there is no replica of vm {} at host {}", vm, to);
  if (replica->run) return {};
  if (const std::string why = hindrance(*replica); !why.empty()) return fail("{}", why);
  replica->due = {};
  look(key_of(replica->record.vm_id, to), *replica);
  return {};
}

void Replicas::remove(const std::string& vm, const std::string& to, bool force,
                      std::function<void(Result<>)> done) {
  Replica* replica = find(vm, to);
  if (replica == nullptr) return done(fail("there is no replica of vm {} at host {}", vm, to));
  const ReplicaRecord record = replica->record;
  if (is_held(record.vm_id)) return done(fail("vm {} is migrating: wait until it has", vm));
  replica->run.reset();
  replica->due = context_.loop.now() + 2 * kAskTimeout;  // no run until the answer is there
  context_.peers.request(
      to, "replica.remove", {{"vm_id", record.vm_id.text()}},
      [this, record, force, done = std::move(done)](const Result<nlohmann::json>& reply) {
        if (!reply && !force) {
          if (Replica* still = find(record.vm, record.to)) still->due = {};
          return done(
              fail("host {}: {}; what is there stays, nothing was changed (--force forgets "
                   "it here)",
                   record.to, reply.error().text));
        }
        if (is_held(record.vm_id)) return done(fail("vm {} migrates by now", record.vm));
        forget(key_of(record.vm_id, record.to));
        forget_bitmaps(record, [done] { done({}); });
      },
      kAskTimeout);
}

// `done`: they are gone, or QEMU is.
void Replicas::forget_bitmaps(const ReplicaRecord& record, std::function<void()> done) {
  const std::string bitmap = ReplicaSource::bitmap(record.to);
  Vm* vm = context_.vms.find(record.vm);
  if (vm != nullptr && vm->spec().id == record.vm_id) {
    return qemu::forget_changes(vm->qmp(), vm->spec().disks.size(), bitmap,
                                [done = std::move(done)](const Result<>&) { done(); });
  }
  const auto document = context_.store.find("vm", record.vm);
  if (!document) return done();
  const qemu::VmSpec spec = vm_record(*document).spec;
  if (spec.id != record.vm_id) return done();
  const auto paths = context_.disks.paths(spec);
  for (std::size_t i = 0; i < paths.size(); ++i) {
    for (const auto& name : {bitmap, qemu::taken_bitmap(bitmap)}) {
      qemu::remove_bitmap(spec.disks[i], paths[i], name);
    }
  }
  done();
}

void Replicas::forget(const std::string& key) {
  const auto found = replicas_.find(key);
  if (found == replicas_.end()) return;
  const ReplicaRecord& record = found->second.record;
  context_.events.publish(
      "replica",
      {{"vm", record.vm}, {"tenant", record.tenant}, {"to", record.to}, {"event", "removed"}});
  replicas_.erase(found);
  context_.store.erase(kKind, key);
}

// ---- run after run ----

Replicas::Hold Replicas::hold(const VmId& vm) {
  for (auto& [key, replica] : replicas_) {
    if (replica.record.vm_id == vm) replica.run.reset();
  }
  auto word = std::make_shared<const bool>(true);
  held_[vm] = word;
  return word;
}

bool Replicas::is_held(const VmId& vm) const {
  const auto found = held_.find(vm);
  return found != held_.end() && !found->second.expired();
}

void Replicas::look() {
  std::erase_if(held_, [](const auto& each) { return each.second.expired(); });
  std::vector<std::string> keys;
  for (const auto& [key, replica] : replicas_) keys.push_back(key);
  for (const auto& key : keys) {
    if (const auto found = replicas_.find(key); found != replicas_.end()) look(key, found->second);
  }
  timer_ = context_.loop.after(kLook, [this] { look(); });
}

// Why no run can begin; empty: it can.
std::string Replicas::hindrance(const Replica& replica) {
  const ReplicaRecord& record = replica.record;
  Vm* vm = context_.vms.find(record.vm);
  if (vm == nullptr || !vm->alive()) return fmt::format("vm {} is stopped", record.vm);
  if (vm->record().arriving || is_held(record.vm_id)) {
    return fmt::format("vm {} is migrating", record.vm);
  }
  if (!context_.peers.is_up(record.to)) return fmt::format("no session with host {}", record.to);
  const bool has_run = std::ranges::any_of(replicas_, [&](const auto& each) {
    return each.second.run && each.second.record.vm_id == record.vm_id;
  });
  return has_run ? fmt::format("another replica of vm {} is being written", record.vm) : "";
}

void Replicas::look(const std::string& key, Replica& replica) {
  const ReplicaRecord& record = replica.record;
  const auto document = context_.store.find("vm", record.vm);
  if (!document || vm_record(*document).spec.id != record.vm_id) return end_of_vm(key, replica);
  if (replica.run) return;
  Vm* vm = context_.vms.find(record.vm);
  const Instant now = context_.loop.now();
  if (vm != nullptr && vm->alive() && now - replica.counted >= kCountEvery)
    count(key, replica, *vm);
  if (now < replica.due) return;
  replica.reason = hindrance(replica);
  if (replica.reason.empty()) run(key, replica, *vm);
}

void Replicas::count(const std::string& key, Replica& replica, Vm& vm) {
  replica.counted = context_.loop.now();
  qemu::count_changes(vm.qmp(), vm.spec().disks.size(), ReplicaSource::bitmap(replica.record.to),
                      [this, key](const Result<std::optional<std::uint64_t>>& bytes) {
                        const auto found = replicas_.find(key);
                        if (found == replicas_.end() || !bytes) return;
                        const bool known = !found->second.record.synced.empty();
                        found->second.behind_bytes = known ? *bytes : std::nullopt;
                      });
}

void Replicas::run(const std::string& key, Replica& replica, Vm& vm) {
  replica.began = context_.loop.now();
  replica.run_began = os::wall_clock_seconds();
  replica.run = std::make_unique<ReplicaSource>(
      context_.loop, vm, context_.peers,
      ReplicaSource::Settings{.to = replica.record.to,
                              .synced = replica.record.synced,
                              .bandwidth = replica.record.rate},
      ReplicaSource::Events{.lost =
                                [this, key] {
                                  ReplicaRecord& record = replicas_.at(key).record;
                                  record.synced.clear();
                                  save(record);
                                },
                            .ended = [this, key](const Result<>& result) { ended(key, result); }});
  replica.run->start();
}

void Replicas::ended(const std::string& key, const Result<>& result) {
  Replica& replica = replicas_.at(key);
  ReplicaRecord& record = replica.record;
  const Instant now = context_.loop.now();
  replica.counted = {};
  if (result) {
    record.synced = replica.run->word();
    record.synced_at = replica.run_began;
    save(record);
    ++replica.runs;
    replica.last = to_json(*replica.run->progress());
    replica.last["seconds"] = to_seconds(now - replica.began);
    replica.reason.clear();
    replica.due = replica.began + record.every;
  } else {
    replica.reason = result.error().text;
    replica.due = now + std::min(kRetry, record.every);
    spdlog::warn("replica of vm {} at {}: {}; trying again", record.vm, record.to, replica.reason);
  }
  // It is telling us.
  context_.loop.post([gone = std::shared_ptr<ReplicaSource>(std::move(replica.run))] {});
}

// It has moved away, where this is its replica or not, or was removed.
void Replicas::end_of_vm(const std::string& key, Replica& replica) {
  const ReplicaRecord& record = replica.record;
  const Instant now = context_.loop.now();
  if (!context_.peers.is_up(record.to) || now < replica.ask_again) return;
  replica.run.reset();
  replica.ask_again = now + kRetry;
  context_.peers.request(
      record.to, "replica.remove", {{"vm_id", record.vm_id.text()}},
      [this, key](const Result<nlohmann::json>& reply) {
        if (reply) forget(key);
      },
      kAskTimeout);
}

}  // namespace godwit::agent
