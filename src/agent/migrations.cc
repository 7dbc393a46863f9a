#include "agent/migrations.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "agent/move_options.hh"
#include "agent/preflight_target.hh"
#include "agent/relocations.hh"
#include "agent/replicas.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"

namespace godwit::agent {

using migrate::SourceEvent;
using migrate::SourceState;

namespace {

constexpr std::size_t kMaxNewLanes = 64;  // accepted, transfer not yet named
constexpr Nanoseconds kNewLaneTimeout = seconds(10);

// How long the vm's clock has stood still; nothing from a source that does not know.
std::optional<Nanoseconds> behind_field(const nlohmann::json& body) {
  if (!body.contains("behind_ns")) return std::nullopt;
  return Nanoseconds(qemu::unsigned_at(body, "behind_ns"));
}

}  // namespace

Migrations::Migrations(SourceMove::Context context,
                       std::function<std::vector<std::string>(const std::string&)> hosts_called)
    : context_(context),
      search_(context.loop, context.peers, hosts_called),
      libvirt_(context, std::move(hosts_called)),
      components_(context),
      groups_(context.loop, context.events,
              [this](const MigrationId& id) { return find_move(id); }),
      resumption_(
          context.loop, context.peers, context.events, [this] { return sources(); },
          [this](const Move& old) { return begin_again(old); }) {}

void Migrations::start() {
  components_.start([this](Move& move) { found_again(move); });
  for (const auto& document : context_.store.list("migration-source")) {
    auto move = std::make_unique<SourceMove>(context_, source_record(document.body));
    SourceMove* raw = move.get();
    sources_[raw->record().id] = std::move(move);
    found_again(*raw);
  }
  for (const auto& document : context_.store.list("migration-target")) {
    auto move = std::make_unique<TargetMove>(context_, target_record(document.body));
    TargetMove* raw = move.get();
    targets_[raw->record().id] = std::move(move);
    raw->restart();
  }
  std::set<PortId> awaited;
  for (const auto& [id, move] : targets_) {
    if (move->settled()) continue;
    for (const PortId& uplink : move->uplinks()) awaited.insert(uplink);
  }
  context_.relocations.undo_strays(awaited);
  resumption_.start();
  libvirt_.start();
}

void Migrations::found_again(Move& move) {
  if (move.record().group && move.record().resumed_as.empty()) groups_.add(move);
  if (waits(move.record(), os::wall_clock_seconds())) return begin_in_time(move);
  if (!move.over()) move.restart();
}

Result<Move*> Migrations::begin_again(const Move& old) {
  SourceRecord record = old.record();
  if (is_moving(record.vm)) return fail("{} is migrating already", spoken_name(record));
  record.state = SourceState::planned;
  record.reason.clear();
  record.broken_off = false;
  record.resumes = record.id.text();
  ++record.times_resumed;
  record.report = record.clock = record.hooks = nullptr;
  Result<> referred = fail("{} is gone", spoken_name(record));
  if (ComponentMoves::is_one(record.vm)) {
    const auto* component = context_.components.find(record.component);
    if (component != nullptr) referred = components_.refer_to(*component, record);
  } else if (Vm* vm = context_.vms.find(record.vm)) {
    referred = refer_to(*vm, record);
  }
  if (!referred) return std::unexpected(referred.error());
  return begin(std::move(record));
}

bool Migrations::is_moving(const std::string& vm) const {
  if (ComponentMoves::is_one(vm)) {
    return components_.is_moving(vm.substr(kComponentPrefix.size()));
  }
  for (const auto& [id, move] : sources_) {
    const auto state = move->state();
    if (move->record().vm == vm && !migrate::is_final(state) &&
        (state != SourceState::draining || move->record().memory_follows)) {
      return true;
    }
  }
  return false;
}

std::vector<nlohmann::json> Migrations::list() {
  std::vector<nlohmann::json> all;
  for (const auto& [id, move] : sources_) all.push_back(move->describe());
  for (const auto& [id, move] : targets_) all.push_back(move->describe());
  std::ranges::move(libvirt_.list(), std::back_inserter(all));
  std::ranges::move(components_.list(), std::back_inserter(all));
  std::ranges::sort(all, {}, [](const nlohmann::json& m) { return m.value("started", 0L); });
  return all;
}

std::optional<nlohmann::json> Migrations::show(const std::string& text) {
  const auto id = MigrationId::parse(text);
  if (!id) return std::nullopt;
  if (groups_.knows(*id)) return groups_.describe(*id);
  if (const Move* move = find_move(*id)) return move->describe();
  if (const auto found = targets_.find(*id); found != targets_.end()) {
    return found->second->describe();
  }
  if (const ComponentTarget* target = components_.find_target(*id)) return target->describe();
  return libvirt_.show(*id);
}

LibvirtSource* Migrations::find_libvirt(const std::string& text) const {
  const auto id = MigrationId::parse(text);
  return id ? libvirt_.find_source(*id) : nullptr;
}

Move* Migrations::find_move(const MigrationId& id) const {
  const auto found = sources_.find(id);
  return found != sources_.end() ? found->second.get()
                                 : static_cast<Move*>(components_.find_source(id));
}

std::vector<Move*> Migrations::sources() const {
  std::vector<Move*> all;
  for (const auto& [id, move] : sources_) all.push_back(move.get());
  for (ComponentSource* move : components_.sources()) all.push_back(move);
  return all;
}

Result<Move*> Migrations::find_source(const std::string& text) {
  const auto id = MigrationId::parse(text);
  if (id) {
    if (Move* move = find_move(*id)) return move;
    const auto elsewhere = [&](const std::string& from) {
      return fail("migration {} is steered from its source, host {}", text, from);
    };
    if (const ComponentTarget* target = components_.find_target(*id)) {
      return elsewhere(target->record().from);
    }
    if (const auto found = targets_.find(*id); found != targets_.end()) {
      return elsewhere(found->second->record().from);
    }
    if (const auto from = libvirt_.source_of(*id)) {
      return fail(
          "migration {} is of a libvirt domain: it is steered from its source, host {}, and "
          "has no such step",
          text, *from);
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

ComponentTarget* Migrations::find_component_target(const std::string& text) const {
  const auto id = MigrationId::parse(text);
  return id ? components_.find_target(*id) : nullptr;
}

std::optional<MigrationId> Migrations::group_of(const std::string& text) const {
  const auto id = MigrationId::parse(text);
  return id && groups_.knows(*id) ? std::optional(*id) : std::nullopt;
}

Result<> Migrations::follow(const std::string& id, std::shared_ptr<http::EventStream> stream) {
  if (const auto group = group_of(id)) return groups_.follow(*group, std::move(stream)), Result<>{};
  if (const LibvirtSource* domain = find_libvirt(id)) {
    stream->push("progress", domain->progress());
    if (!migrate::is_final(domain->record().move.state)) {
      context_.events.follow(domain->record().move.id, std::move(stream));
      return {};
    }
    stream->push("done", domain->describe());
    stream->close();
    return {};
  }
  const auto move = find_source(id);
  if (!move) return std::unexpected(move.error());
  stream->push("progress", (*move)->progress());
  const bool is_over = migrate::is_final((*move)->state()) || (*move)->handed_over();
  if (is_over && !goes_on((*move)->record()) && !(*move)->network_follows()) {
    stream->push("done", (*move)->describe());
    stream->close();
    return {};
  }
  context_.events.follow((*move)->record().id, std::move(stream));
  return {};
}

Result<> Migrations::cutover(const std::string& id) {
  if (const auto group = group_of(id)) return groups_.cutover(*group);
  const auto move = find_source(id);
  if (!move) return std::unexpected(move.error());
  if (migrate::is_final((*move)->state())) return fail("migration {} is over", id);
  (*move)->feed(SourceEvent::cutover);
  return {};
}

Result<> Migrations::abort(const std::string& id) {
  if (const auto group = group_of(id)) return groups_.abort(*group);
  if (TargetMove* target = find_target(id)) return target->give_up();
  if (ComponentTarget* target = find_component_target(id)) return target->give_up();
  if (LibvirtSource* domain = find_libvirt(id)) return domain->abort("aborted on request");
  const auto move = find_source(id);
  if (!move) return std::unexpected(move.error());
  const SourceState state = (*move)->state();
  if (state == SourceState::aborting || state == SourceState::aborted) {
    if (goes_on((*move)->record())) (*move)->give_up();
    return {};
  }
  if (state == SourceState::released) {
    return fail(
        "migration {} has handed over and waits for host {}'s word: it cannot be "
        "aborted; see godwit migration resolve",
        id, (*move)->record().to);
  }
  if (state == SourceState::committed || state == SourceState::draining ||
      state == SourceState::done) {
    return fail("migration {} is done: migrate back instead", id);
  }
  (*move)->give_up();
  return {};
}

Result<> Migrations::set(const std::string& id, const nlohmann::json& request) {
  const auto changes = read_changes(request);
  if (!changes) return std::unexpected(changes.error());
  if (const auto group = group_of(id)) return groups_.set(*group, *changes);
  if (LibvirtSource* domain = find_libvirt(id)) return domain->set(*changes);
  const auto move = find_source(id);
  if (!move) return std::unexpected(move.error());
  return (*move)->set(*changes);
}

Result<> Migrations::resolve(const std::string& id, Destroyed destroyed) {
  TargetMove* target = find_target(id);
  if (target != nullptr && destroyed == Destroyed::source) return target->source_destroyed();
  ComponentTarget* component = find_component_target(id);
  if (component != nullptr && destroyed == Destroyed::source) return component->source_destroyed();
  const auto move = find_source(id);
  if (!move) return std::unexpected(move.error());
  if ((*move)->state() != SourceState::released) {
    const auto told = (*move)->describe();
    return fail("migration {} is not undecided: it is {}{}", id, told["state"].get<std::string>(),
                (*move)->stuck() ? ": " + told["reason"].get<std::string>() : "");
  }
  if (destroyed == Destroyed::source) {
    return fail("this is the source: --source-destroyed is said at {}, where it is to run",
                (*move)->record().to);
  }
  if (destroyed != Destroyed::target) return (*move)->feed(SourceEvent::session_up), Result<>{};
  (*move)->feed(SourceEvent::target_destroyed);
  if ((*move)->state() != SourceState::released) return {};
  return fail("migration {} stays undecided: {}", id, (*move)->reason());
}

void Migrations::on_request(PeerRequest request, const nlohmann::json& body) {
  if (request.method.starts_with("libvirt.")) {
    return libvirt_.on_request(std::move(request), body);
  }
  if (request.method == "component.failed" || request.method == "migration.failed") {
    return target_failed(std::move(request), body);
  }
  if (request.method.starts_with("component.")) {
    return components_.on_request(std::move(request), body);
  }
  if (request.method == "migration.preflight") {
    return answer_preflight(context_, request.peer, body, request.answer);
  }
  const auto id = id_field<MigrationId>(body, "id");
  if (!id) return request.answer(std::unexpected(id.error()));
  if (request.method == "migration.prepare") return prepare_target(std::move(request), body);
  if (request.method == "migration.after") {
    const auto found = sources_.find(*id);
    if (found != sources_.end() && found->second->record().to == request.peer) {
      if (body.contains("hooks")) found->second->hooks_ended(hook_outcome(body["hooks"]));
      if (body.contains("clock")) found->second->clock_corrected(clock_report(body["clock"]));
      if (body.contains("network")) found->second->network_moved(body["network"]);
      if (body.contains("flip")) found->second->flipped(flip_report(body["flip"]));
      if (body.contains("needs_memory")) found->second->target_needs_memory();
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
    return found->second->abort(std::move(request), text_field_or(body, "reason", "aborted"),
                                qemu::flag_at(body, "given_up"));
  }
  if (request.method == "migration.recover") {
    const auto transfer = id_field<stream::TransferId>(body, "transfer");
    if (!transfer) return request.answer(std::unexpected(transfer.error()));
    return found->second->recover(std::move(request), *transfer);
  }
  if (request.method == "migration.lost") {
    found->second->lost(text_field_or(body, "reason", "its memory is lost"));
    return request.answer(nlohmann::json::object());
  }
  request.answer(fail("unknown request {}", request.method));
}

void Migrations::target_failed(PeerRequest request, const nlohmann::json& body) {
  const auto id = id_field<MigrationId>(body, "id");
  if (!id) return request.answer(std::unexpected(id.error()));
  if (Move* move = find_move(*id); move != nullptr && move->record().to == request.peer) {
    if (qemu::flag_at(body, "restarted")) move->break_off();
    move->feed(SourceEvent::target_failed, text_field_or(body, "reason", ""));
  }
  request.answer(nlohmann::json::object());
}

void Migrations::prepare_target(PeerRequest request, const nlohmann::json& body) {
  const auto id = id_field<MigrationId>(body, "id");
  auto spec = qemu::vm_spec_from_json(qemu::member(body, "spec"));
  if (!spec) return request.answer(std::unexpected(spec.error()));
  const Epoch epoch = epoch_field(body, "epoch", 0);
  if (epoch == 0) return request.answer(fail("migration {} has no epoch", id->text()));
  const auto codec = parse_codec(qemu::member(body, "codec"));
  if (!codec) return request.answer(std::unexpected(codec.error()));
  const auto shared = parse_shared(qemu::member(body, "group"));
  if (!shared) return request.answer(std::unexpected(shared.error()));
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
  const auto marker = id_field<StorageMarkerId>(body, "marker");
  const bool shares_disks = marker && context_.disks.sees(spec->id, *marker);
  if (shares_disks != qemu::flag_at(body, "shared_disks")) {
    return request.answer(
        fail("host {} {} the vm's disks where they are, which was otherwise when "
             "the move was checked: begin it again",
             context_.config.name, shares_disks ? "sees" : "does not see"));
  }
  const auto snapshots = qemu::disk_snapshots(array_field(body, "snapshots"), spec->disks.size());
  if (!snapshots) return request.answer(std::unexpected(snapshots.error()));
  if (!context_.disks.has_snapshots(*spec, *snapshots)) {
    return request.answer(
        fail("host {} has not the snapshots of the vm's disks any more, which had come: begin the "
             "move again",
             context_.config.name));
  }
  TargetRecord record{.id = *id,
                      .from = request.peer,
                      .state = migrate::TargetState::planned,
                      .reason = {},
                      .started = os::wall_clock_seconds(),
                      .by = text_field_or(body, "by", ""),
                      .spec = *std::move(spec),
                      .ports = array_field(body, "ports"),
                      .uplinks = array_field(body, "uplinks"),
                      .leading = leading_of(body),
                      .epoch = epoch,
                      .second_nic = id_field<PortId>(body, "second_nic").value_or(PortId{}),
                      .postcopy = qemu::flag_at(body, "postcopy"),
                      .shared_disks = shares_disks};
  targets_[*id] = std::make_unique<TargetMove>(context_, std::move(record));
  std::shared_ptr<SharedReader> group;
  if (*shared) group = group_reader(request.peer, **shared);
  targets_[*id]->prepare(std::move(request), *codec, std::move(group),
                         qemu::flag_at(body, "elsewhere"));
}

// The first of a group makes its pages; they end with the last.
std::shared_ptr<SharedReader> Migrations::group_reader(const std::string& peer,
                                                       const SharedPlace& place) {
  std::erase_if(group_pages_, [](const auto& each) { return each.second.expired(); });
  auto& known = group_pages_[{peer, place.group}];
  auto pages = known.lock();
  if (!pages) known = pages = std::make_shared<SharedPages>(place.most_pages);
  return std::make_shared<SharedReader>(std::move(pages), place.member);
}

void Migrations::on_session_up(const std::string& peer) {
  search_.on_session_up(peer);
  libvirt_.on_session_up(peer);
  components_.on_session_up(peer);
  for (const auto& [id, move] : sources_) {
    if (move->record().to == peer && !move->over()) move->session_up();
  }
  for (const auto& [id, move] : targets_) {
    if (move->record().from == peer) move->on_session_up();
  }
}

void Migrations::doubt_lanes(const std::string& peer) {
  libvirt_.doubt_lanes(peer);
  for (const auto& [id, move] : sources_) {
    if (move->record().to == peer) move->doubt_lanes();
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
    const auto move = std::ranges::find_if(targets_, [&](const auto& each) {
      return *hello && each.second->carries((*hello)->transfer) &&
             each.second->record().from == lane.peer;
    });
    if (move != targets_.end()) {
      move->second->use_lane((*hello)->lane, std::move(lane.stream), lane.early);
    } else if (!*hello ||
               (!context_.replicas.use_lane(lane.peer, **hello, lane.stream, lane.early) &&
                !libvirt_.use_lane(lane.peer, **hello, lane.stream, lane.early))) {
      spdlog::warn("a lane from {} is for no migration here", lane.peer);
    }
    // The stream is calling us: it goes after it has returned.
    context_.loop.post([this, key] { new_lanes_.erase(key); });
    return;
  }
}

}  // namespace godwit::agent
