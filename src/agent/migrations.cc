#include "agent/migrations.hh"

#include <spdlog/spdlog.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "agent/move_options.hh"
#include "os/random.hh"
#include "qemu/json.hh"

namespace godwit::agent {

using migrate::SourceEvent;
using migrate::SourceState;

namespace {

constexpr std::size_t kMaxNewLanes = 64;  // accepted, transfer not yet named
constexpr Nanoseconds kNewLaneTimeout = seconds(10);
constexpr Nanoseconds kResumeInterval = milliseconds(200);
constexpr std::size_t kKeptMigrations = 200;  // finished ones that stay listed

std::int64_t wall_clock_seconds() {
  return duration_cast<seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

bool is_resumable(SourceState state) {
  return state == SourceState::preparing || state == SourceState::copying ||
         state == SourceState::ready;
}

// How long the vm's clock has stood still; nothing from a source that does not know.
std::optional<Nanoseconds> behind_field(const nlohmann::json& body) {
  if (!body.contains("behind_ns")) return std::nullopt;
  return Nanoseconds(qemu::unsigned_at(body, "behind_ns"));
}

}  // namespace

Migrations::Migrations(SourceMove::Context context,
                       std::function<std::vector<std::string>(const std::string&)> hosts_called)
    : context_(context),
      search_(context.loop, context.peers,
              {.hosts_called = std::move(hosts_called),
               .preflight = [this](const std::string& name, const std::string& host,
                                   HostSearch::Checked checked) {
                 Vm* vm = context_.vms.find(name);
                 if (vm == nullptr) return checked(fail("vm {} has ended", name));
                 preflight(context_, *vm, host, std::move(checked));
               }}) {}

void Migrations::start() {
  started_ = context_.loop.now();
  for (const auto& document : context_.store.list("migration-source")) {
    auto move = std::make_unique<SourceMove>(context_, source_record(document.body));
    SourceMove* raw = move.get();
    sources_[raw->record().id] = std::move(move);
    if (raw->record().resume && is_resumable(raw->state())) to_resume_.insert(raw->record().id);
    if (!raw->over()) raw->restart();
  }
  for (const auto& document : context_.store.list("migration-target")) {
    auto move = std::make_unique<TargetMove>(context_, target_record(document.body));
    TargetMove* raw = move.get();
    targets_[raw->record().id] = std::move(move);
    raw->restart();
  }
  resume_moves();
}

// A move that our restart broke off is over at both ends: another goes on with it, for which the
// target still has what came (KnownMemory).
void Migrations::resume_moves() {
  std::erase_if(to_resume_, [this](const MigrationId& id) {
    const auto found = sources_.find(id);
    if (found == sources_.end()) return true;
    SourceMove& old = *found->second;
    if (!old.over() || !context_.peers.is_up(old.record().to)) return false;
    resume(old);
    return true;
  });
  if (to_resume_.empty() || context_.loop.now() - started_ > stream::kLanePatience) return;
  resume_timer_ = context_.loop.after(kResumeInterval, [this] { resume_moves(); });
}

void Migrations::resume(SourceMove& old) {
  SourceRecord record = old.record();
  Vm* vm = context_.vms.find(record.vm);
  if (old.state() != SourceState::aborted || vm == nullptr || is_moving(record.vm)) return;
  record.state = SourceState::planned;
  record.reason.clear();
  record.resumes = old.record().id.text();
  record.report = record.clock = record.hooks = nullptr;
  const auto referred = refer_to(*vm, record);
  const auto begun = referred ? begin(std::move(record), 0) : std::unexpected(referred.error());
  if (!begun) {
    return spdlog::warn("vm {}: its move does not go on: {}", vm->name(), begun.error().text);
  }
  spdlog::info("vm {}: migration {} goes on as {}", vm->name(), old.record().id.text(),
               (*begun)->record().id.text());
  old.resumed_as((*begun)->record().id);
}

bool Migrations::is_moving(const std::string& vm) const {
  for (const auto& [id, move] : sources_) {
    const auto state = move->state();
    if (move->record().vm == vm && !migrate::is_final(state) && state != SourceState::draining) {
      return true;
    }
  }
  return false;
}

namespace {
std::string is_recorded(const std::string& vm) {
  return fmt::format("vm {} is being recorded: end that first (godwit debug stream record)", vm);
}
}  // namespace

Result<SourceRecord> Migrations::plan(const nlohmann::json& request, const http::Caller& caller) {
  const auto name = text_field(request, "vm");
  if (!name) return std::unexpected(name.error());
  Vm* vm = context_.vms.find(*name);
  if (vm == nullptr || !caller.sees(vm->spec().tenant)) {
    return fail("there is no running vm '{}' on host {}; see godwit vm ls", *name,
                context_.config.name);
  }
  if (is_moving(*name)) return fail("vm {} is migrating already; see godwit migration ls", *name);
  if (vm->record().arriving) return fail("vm {} is still arriving here: wait until it runs", *name);
  if (vm->recorded()) return fail("{}", is_recorded(*name));
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
  record.started = wall_clock_seconds();
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
  for (const auto& [id, move] : sources_) {
    if (move->record().vm == record.vm) {
      record.epoch = std::max(record.epoch, move->record().epoch);
    }
  }
  ++record.epoch;
  return {};
}

void Migrations::add(const nlohmann::json& request, const http::Caller& caller,
                     http::Responder responder) {
  auto record = plan(request, caller);
  if (!record) return responder.error(409, record.error().text, 3);
  const auto to = text_field(request, "to");
  if (!to) return responder.error(400, to.error().text, 2);
  const auto dry_run = flag_field(request, "dry_run", false);
  if (!dry_run) return responder.error(400, dry_run.error().text, 2);
  const auto at = start_time(request);
  if (!at) return responder.error(400, at.error().text, 2);
  const std::string vm = record->vm;
  search_.start(vm, *to,
                [this, record = *std::move(record), dry_run = *dry_run, at = *at,
                 responder = std::move(responder)](Result<HostSearch::Outcome> found) mutable {
                  if (!found) return responder.error(409, found.error().text, 3);
                  record.to = std::move(found->host);
                  if (dry_run) return answer_dry_run(record, found->checks, responder);
                  conclude(std::move(record), at, found->checks, std::move(responder));
                });
}

void Migrations::conclude(SourceRecord record, std::int64_t at, const std::vector<Check>& checks,
                          http::Responder responder) {
  if (!all_ok(checks)) {
    return responder.json(409, {{"error", "refused, nothing was changed: " + failures(checks)},
                                {"exit", 3},
                                {"checks", to_json(checks)}});
  }
  if (is_moving(record.vm)) {
    return responder.error(409, fmt::format("vm {} is migrating already", record.vm), 3);
  }
  if (const Vm* vm = context_.vms.find(record.vm); vm != nullptr && vm->recorded()) {
    return responder.error(409, is_recorded(record.vm), 3);
  }
  launch(std::move(record), at, std::move(responder));
}

void Migrations::answer_dry_run(const SourceRecord& record, const std::vector<Check>& checks,
                                http::Responder& responder) {
  Vm* vm = context_.vms.find(record.vm);
  // Without a measurement of the link only the memory and the round trips are known.
  const auto rtt = context_.peers.rtt(record.to);
  nlohmann::json estimate = {{"bytes", vm != nullptr ? vm->spec().memory.bytes : 0},
                             {"rtt_ms", to_ms(rtt)}};
  if (record.bandwidth_bits_per_second != 0 && vm != nullptr) {
    const double rate = static_cast<double>(record.bandwidth_bits_per_second) / 8;
    estimate["total_s"] = static_cast<double>(vm->spec().memory.bytes) / rate;
  }
  responder.json(200, {{"ok", all_ok(checks)},
                       {"vm", record.vm},
                       {"to", record.to},
                       {"checks", to_json(checks)},
                       {"estimate", estimate},
                       {"exit", all_ok(checks) ? 0 : 3}});
}

void Migrations::launch(SourceRecord record, std::int64_t at, http::Responder responder) {
  const auto begun = begin(std::move(record), at);
  if (!begun) return responder.error(409, begun.error().text, 3);
  responder.json(202, (*begun)->describe());
}

// Accepted: it is recorded, and begins when its time has come.
Result<SourceMove*> Migrations::begin(SourceRecord record, std::int64_t at) {
  const MigrationId id = record.id;
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
  begin_at(id, at);
  return raw;
}

void Migrations::begin_at(MigrationId id, std::int64_t at) {
  const std::int64_t wait = at - wall_clock_seconds();
  scheduled_[id] = context_.loop.after(seconds(std::max<std::int64_t>(wait, 0)), [this, id] {
    const auto move = sources_.find(id);
    if (move != sources_.end()) move->second->begin();
    context_.loop.post([this, id] { scheduled_.erase(id); });
  });
}

std::vector<nlohmann::json> Migrations::list() {
  std::vector<nlohmann::json> all;
  for (const auto& [id, move] : sources_) all.push_back(move->describe());
  for (const auto& [id, move] : targets_) all.push_back(move->describe());
  std::ranges::sort(all, {}, [](const nlohmann::json& m) { return m.value("started", 0L); });
  return all;
}

std::optional<nlohmann::json> Migrations::show(const std::string& text) {
  const auto id = MigrationId::parse(text);
  if (!id) return std::nullopt;
  if (const auto found = sources_.find(*id); found != sources_.end()) {
    return found->second->describe();
  }
  if (const auto found = targets_.find(*id); found != targets_.end()) {
    return found->second->describe();
  }
  return std::nullopt;
}

Result<SourceMove*> Migrations::find_source(const std::string& text) {
  const auto id = MigrationId::parse(text);
  if (id) {
    if (const auto found = sources_.find(*id); found != sources_.end()) return found->second.get();
    if (const auto found = targets_.find(*id); found != targets_.end()) {
      return fail("migration {} is steered from its source, host {}", text,
                  found->second->record().from);
    }
  }
  return fail("there is no migration '{}' on host {}; see godwit migration ls", text,
              context_.config.name);
}

TargetMove* Migrations::find_target(const std::string& text) {
  const auto id = MigrationId::parse(text);
  const auto found = id ? targets_.find(*id) : targets_.end();
  return found == targets_.end() ? nullptr : found->second.get();
}

Result<> Migrations::follow(const std::string& id, std::shared_ptr<http::EventStream> stream) {
  const auto move = find_source(id);
  if (!move) return std::unexpected(move.error());
  stream->push("progress", (*move)->progress());
  if (migrate::is_final((*move)->state()) || (*move)->state() == SourceState::draining) {
    stream->push("done", (*move)->describe());
    stream->close();
    return {};
  }
  context_.events.follow((*move)->record().id, std::move(stream));
  return {};
}

Result<> Migrations::cutover(const std::string& id) {
  const auto move = find_source(id);
  if (!move) return std::unexpected(move.error());
  if (migrate::is_final((*move)->state())) return fail("migration {} is over", id);
  (*move)->feed(SourceEvent::cutover);
  return {};
}

Result<> Migrations::abort(const std::string& id) {
  if (TargetMove* target = find_target(id)) return target->give_up();
  const auto move = find_source(id);
  if (!move) return std::unexpected(move.error());
  const SourceState state = (*move)->state();
  if (state == SourceState::aborting || state == SourceState::aborted) return {};
  if (state == SourceState::released) {
    return fail(
        "migration {} has handed the vm over and waits for host {}'s word: it cannot be "
        "aborted; see godwit migration resolve",
        id, (*move)->record().to);
  }
  if (state == SourceState::committed || state == SourceState::draining ||
      state == SourceState::done) {
    return fail("migration {} is done: migrate back instead", id);
  }
  (*move)->feed(SourceEvent::abort_requested, "aborted on request");
  return {};
}

Result<> Migrations::set(const std::string& id, const nlohmann::json& request) {
  const auto move = find_source(id);
  if (!move) return std::unexpected(move.error());
  const auto changes = read_changes(request);
  if (!changes) return std::unexpected(changes.error());
  const bool throttles = (*move)->record().on_diverge == migrate::OnDiverge::throttle;
  if (changes->on_diverge && throttles != (*changes->on_diverge == migrate::OnDiverge::throttle)) {
    return fail("whether a move throttles is said as it begins: QEMU cannot change it meanwhile");
  }
  (*move)->set(*changes);
  return {};
}

Result<> Migrations::resolve(const std::string& id, Destroyed destroyed) {
  TargetMove* target = find_target(id);
  if (target != nullptr && destroyed == Destroyed::source) return target->source_destroyed();
  const auto move = find_source(id);
  if (!move) return std::unexpected(move.error());
  if ((*move)->state() != SourceState::released) {
    return fail("migration {} is not undecided: it is {}", id, migrate::to_text((*move)->state()));
  }
  if (destroyed == Destroyed::source) {
    return fail("this is the source: --source-destroyed is said at {}, where the vm is to run",
                (*move)->record().to);
  }
  if (destroyed != Destroyed::target) return (*move)->feed(SourceEvent::session_up), Result<>{};
  (*move)->feed(SourceEvent::target_destroyed);
  if ((*move)->state() != SourceState::released) return {};
  return fail("migration {} stays undecided: {}", id, (*move)->reason());
}

void Migrations::on_request(PeerRequest request, const nlohmann::json& body) {
  if (request.method == "migration.preflight") {
    return request.answer(answer_preflight(context_, request.peer, body));
  }
  const auto id = id_field<MigrationId>(body, "id");
  if (!id) return request.answer(std::unexpected(id.error()));
  if (request.method == "migration.prepare") return prepare_target(std::move(request), body);
  if (request.method == "migration.failed") {
    const auto found = sources_.find(*id);
    if (found != sources_.end() && found->second->record().to == request.peer) {
      found->second->feed(SourceEvent::target_failed, text_field_or(body, "reason", ""));
    }
    return request.answer(nlohmann::json::object());
  }
  if (request.method == "migration.after") {
    const auto found = sources_.find(*id);
    if (found != sources_.end() && found->second->record().to == request.peer) {
      if (body.contains("hooks")) found->second->hooks_ended(hook_outcome(body["hooks"]));
      if (body.contains("clock")) found->second->clock_corrected(clock_report(body["clock"]));
    }
    return request.answer(nlohmann::json::object());
  }
  const auto found = targets_.find(*id);
  if (found == targets_.end()) {
    // Nothing to undo; the next abort need not be sent.
    if (request.method == "migration.abort") return request.answer(nlohmann::json::object());
    // Not a refusal: that must be read in a journal, and old entries of owners leave ours.
    return request.answer(
        fail("host {} does not know migration {}", context_.config.name, id->text()));
  }
  if (found->second->record().from != request.peer) {
    return request.answer(fail("migration {} is not from host {}", id->text(), request.peer));
  }
  if (request.method == "migration.commit") {
    return found->second->commit(std::move(request), behind_field(body));
  }
  if (request.method == "migration.abort") {
    return found->second->abort(std::move(request), text_field_or(body, "reason", "aborted"));
  }
  request.answer(fail("unknown request {}", request.method));
}

void Migrations::prepare_target(PeerRequest request, const nlohmann::json& body) {
  const auto id = id_field<MigrationId>(body, "id");
  auto spec = qemu::vm_spec_from_json(qemu::member(body, "spec"));
  if (!spec) return request.answer(std::unexpected(spec.error()));
  const Epoch epoch = epoch_field(body, "epoch", 0);
  if (epoch == 0) return request.answer(fail("migration {} has no epoch", id->text()));
  const auto codec = parse_codec(qemu::member(body, "codec"));
  if (!codec) return request.answer(std::unexpected(codec.error()));
  if (targets_.contains(*id)) {
    return request.answer(fail("migration {} was begun here before", id->text()));
  }
  while (targets_.size() >= kKeptMigrations) {
    const auto old =
        std::ranges::find_if(targets_, [](const auto& t) { return t.second->settled(); });
    if (old == targets_.end()) return request.answer(fail("too many migrations arrive here"));
    context_.store.erase("migration-target", old->first.text());
    targets_.erase(old);
  }
  TargetRecord record{.id = *id,
                      .from = request.peer,
                      .state = migrate::TargetState::planned,
                      .reason = {},
                      .started = wall_clock_seconds(),
                      .by = text_field_or(body, "by", ""),
                      .spec = *std::move(spec),
                      .ports = array_field(body, "ports"),
                      .epoch = epoch};
  targets_[*id] = std::make_unique<TargetMove>(context_, std::move(record));
  targets_[*id]->prepare(std::move(request), *codec);
}

void Migrations::on_session_up(const std::string& peer) {
  search_.on_session_up(peer);
  for (const auto& [id, move] : sources_) {
    if (move->record().to == peer && !move->over()) move->feed(SourceEvent::session_up);
  }
  for (const auto& [id, move] : targets_) {
    if (move->record().from == peer) move->on_session_up();
  }
}

void Migrations::doubt_lanes(const std::string& peer) {
  for (const auto& [id, move] : sources_) {
    if (move->record().to == peer) move->doubt_lane();
  }
}

void Migrations::on_lane(const std::string& peer, std::unique_ptr<os::ByteStream> lane) {
  if (new_lanes_.size() >= kMaxNewLanes) return;
  const std::uint64_t key = next_lane_++;
  NewLane& fresh = new_lanes_[key];
  fresh.stream = std::move(lane);
  fresh.peer = peer;
  fresh.timeout = context_.loop.after(
      kNewLaneTimeout, [this, key] { context_.loop.post([this, key] { new_lanes_.erase(key); }); });
  fresh.stream->start({.readable = [this, key] { read_lane(key); },
                       .writable = [] {},
                       .closed =
                           [this, key](const std::string&) {
                             context_.loop.post([this, key] { new_lanes_.erase(key); });
                           }});
}

void Migrations::read_lane(std::uint64_t key) {
  const auto found = new_lanes_.find(key);
  if (found == new_lanes_.end()) return;
  NewLane& lane = found->second;
  Bytes buffer(stream::kFrameHeader + stream::kMaxSmallPayload);
  while (const std::size_t count = lane.stream->read(buffer)) {
    append(lane.early, BytesView(buffer).first(count));
    const auto hello = stream::peek_hello(lane.early);
    if (!hello) continue;
    const auto move =
        *hello ? targets_.find(MigrationId::from((*hello)->transfer.bytes)) : targets_.end();
    if (move != targets_.end() && move->second->record().from == lane.peer) {
      move->second->use_lane(std::move(lane.stream), lane.early);
    } else {
      spdlog::warn("a lane from {} is for no migration here", lane.peer);
    }
    // The stream is calling us: it goes after it has returned.
    context_.loop.post([this, key] { new_lanes_.erase(key); });
    return;
  }
}

}  // namespace godwit::agent
