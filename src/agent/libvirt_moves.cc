#include "agent/libvirt_moves.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>

#include "agent/findings.hh"
#include "agent/move_options.hh"
#include "os/random.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr Nanoseconds kPreflightTimeout = seconds(20);
constexpr std::size_t kKeptLibvirtMoves = 100;  // finished ones that stay listed, of each end

// Of the API's; the others are about what libvirt decides for its domains.
constexpr std::array<std::string_view, 10> kOptions = {
    "vm",      "to",    "dry_run", "max_downtime", "bandwidth", "on_diverge", "delete_source",
    "compact", "cache", "lanes"};

}  // namespace

// What a request asks for, on its way to be begun.
struct LibvirtMoves::Wanted {
  LibvirtSourceRecord record;
  std::string name;  // of the domain
  std::string to;
  bool dry_run = false;
  std::vector<Check> checks{};  // of this host
  std::optional<http::Responder> responder{};
};

LibvirtMoves::LibvirtMoves(const SourceMove::Context& context, HostSearch::HostsCalled hosts_called)
    : context_(context), search_(context.loop, context.peers, std::move(hosts_called)) {}

void LibvirtMoves::start() {
  for (const auto& document : context_.store.list("libvirt-source")) {
    auto move = std::make_unique<LibvirtSource>(context_, libvirt_source_record(document.body));
    LibvirtSource* raw = move.get();
    sources_[raw->record().move.id] = std::move(move);
    raw->restart();
  }
  for (const auto& document : context_.store.list("libvirt-target")) {
    auto record = libvirt_target_record(document.body);
    const MigrationId id = record.id;
    targets_[id] = std::make_unique<LibvirtTarget>(context_, std::move(record));
  }
}

// ---- the API ----

bool LibvirtMoves::is_for_one(const nlohmann::json& request) {
  const auto is_one = [](const std::string& name) { return name.starts_with(kLibvirtPrefix); };
  return is_one(text_field_or(request, "vm", "")) ||
         std::ranges::any_of(texts_field(request, "vms"), is_one);
}

Result<LibvirtMoves::Ask> LibvirtMoves::want(const nlohmann::json& request,
                                             const http::Caller& caller) const {
  if (request.contains("vms")) return fail("libvirt's domains move one at a time");
  for (const auto& [key, value] : request.items()) {
    if (std::ranges::count(kOptions, key) == 0) {
      return fail("'{}' is nothing that a libvirt domain's move knows: libvirt decides that", key);
    }
  }
  auto wanted = std::make_shared<Wanted>();
  const auto to = text_field(request, "to");
  const auto dry_run = flag_field(request, "dry_run", false);
  if (!to) return std::unexpected(to.error());
  if (!dry_run) return std::unexpected(dry_run.error());
  SourceRecord& move = wanted->record.move;
  if (auto read = read_options(request, move); !read) return std::unexpected(read.error());
  if (move.on_diverge != migrate::OnDiverge::abort &&
      move.on_diverge != migrate::OnDiverge::throttle) {
    return fail("a libvirt domain that does not converge can be throttled (--on-diverge throttle)");
  }
  move.id = os::random_id<MigrationId>();
  move.started = os::wall_clock_seconds();
  move.by = caller.name;
  move.tenant = kNoTenant;
  move.vm = text_field_or(request, "vm", "");
  wanted->name = move.vm.substr(kLibvirtPrefix.size());
  wanted->to = *to;
  wanted->dry_run = *dry_run;
  return wanted;
}

void LibvirtMoves::add(const nlohmann::json& request, const http::Caller& caller,
                       http::Responder responder) {
  if (!caller.tenant.empty()) {
    return responder.error(403, "libvirt's domains are of no tenant: a fleet's operator moves them",
                           3);
  }
  const auto wanted = want(request, caller);
  if (!wanted) return responder.error(409, wanted.error().text, 3);
  (*wanted)->responder.emplace(std::move(responder));
  const std::uint64_t look = next_look_++;
  looks_[look] = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config, std::vector<std::string>{"describe", (*wanted)->name},
      [this, look, wanted = *wanted](const Result<nlohmann::json>& found) {
        const auto gone = looks_.extract(look);
        described(wanted, found);
      });
}

void LibvirtMoves::described(const Ask& wanted, const Result<nlohmann::json>& found) {
  http::Responder& responder = *wanted->responder;
  if (!found) return responder.error(409, found.error().text, 3);
  if (!found->contains("domain")) {
    return responder.error(409,
                           fmt::format("there is no running libvirt domain '{}' on host {}; see "
                                       "virsh list",
                                       wanted->name, context_.config.name),
                           3);
  }
  auto domain = libvirt::domain_from_json((*found)["domain"]);
  if (!domain) return responder.error(409, domain.error().text, 3);
  const auto state = found->value("state", nlohmann::json::object());
  const bool runs = !qemu::flag_at(state, "paused") && !qemu::flag_at(state, "job");
  const char* const how = runs ? "runs"
                          : qemu::flag_at(state, "paused")
                              ? "is paused: virsh resume it first"
                              : "is busy with another job of libvirt's";
  const std::string told = fmt::format("domain {} {}", domain->name, how);
  wanted->checks.push_back(runs ? passed("domain", told) : failed("domain", told));
  for (const std::string& obstacle : domain->obstacles) {
    wanted->checks.push_back(failed("domain", obstacle));
  }
  for (const std::string& warning : domain->warnings) {
    wanted->checks.push_back(passed("warning", warning));
    spdlog::warn("libvirt domain {}: {}", domain->name, warning);
  }
  wanted->record.move.vm = std::string(kLibvirtPrefix) + domain->name;
  wanted->record.domain = *std::move(domain);
  search_.start(
      wanted->to,
      [this, wanted](const std::string& host, HostSearch::Checked done) {
        preflight(wanted, host, std::move(done));
      },
      [this, wanted](Result<HostSearch::Outcome> outcome) {
        conclude(wanted, std::move(outcome));
      });
}

void LibvirtMoves::preflight(const Ask& wanted, const std::string& host, HostSearch::Checked done) {
  Findings findings{.checks = wanted->checks};
  if (context_.peers.protocol(host) < kLibvirtProtocol) {
    findings.checks.push_back(failed(
        "target",
        fmt::format("the agent of host {} is too old to take libvirt domains: upgrade it", host)));
    return done(std::move(findings));
  }
  context_.peers.request(
      host, "libvirt.preflight",
      {{"id", wanted->record.move.id.text()},
       {"run_dir", context_.config.run_dir.string()},
       {"domain", to_json(wanted->record.domain)}},
      [host, findings = std::move(findings),
       done = std::move(done)](const Result<nlohmann::json>& reply) mutable {
        const auto obstacles =
            reply ? texts_field(*reply, "obstacles") : std::vector<std::string>{reply.error().text};
        for (const std::string& each : obstacles) {
          findings.checks.push_back(failed("target", fmt::format("host {}: {}", host, each)));
        }
        if (obstacles.empty()) {
          findings.checks.push_back(
              passed("target", fmt::format("the libvirt of host {} can take it", host)));
        }
        done(std::move(findings));
      },
      kPreflightTimeout);
}

nlohmann::json LibvirtMoves::estimate(const Ask& wanted, const Findings& findings) const {
  const libvirt::Domain& domain = wanted->record.domain;
  std::uint64_t disks = 0;
  for (const auto& disk : domain.moving_disks()) disks += disk.used.bytes;
  const bool ok = all_ok(findings.checks);
  return {{"ok", ok},
          {"vm", wanted->record.move.vm},
          {"to", wanted->record.move.to},
          {"checks", to_json(findings.checks)},
          {"estimate",
           {{"rtt_ms", to_ms(context_.peers.rtt(wanted->record.move.to))},
            {"memory_bytes", domain.memory.bytes},
            {"disk_bytes", disks},
            {"bytes", domain.memory.bytes + disks}}},
          {"exit", ok ? 0 : 3}};
}

void LibvirtMoves::conclude(const Ask& wanted, Result<HostSearch::Outcome> found) {
  http::Responder& responder = *wanted->responder;
  if (!found) return responder.error(409, found.error().text, 3);
  SourceRecord& move = wanted->record.move;
  move.to = found->host;
  const auto& checks = found->findings.checks;
  if (wanted->dry_run) return responder.json(200, estimate(wanted, found->findings));
  if (!all_ok(checks)) {
    return responder.json(409, {{"error", "refused, nothing was changed: " + failures(checks)},
                                {"exit", 3},
                                {"checks", to_json(checks)}});
  }
  if (is_moving(wanted->record.domain.uuid)) {
    return responder.error(409, fmt::format("{} is migrating already", move.vm), 3);
  }
  while (sources_.size() >= kKeptLibvirtMoves) {
    const auto old = std::ranges::find_if(sources_, [](const auto& s) { return s.second->over(); });
    if (old == sources_.end()) break;
    context_.store.erase("libvirt-source", old->first.text());
    sources_.erase(old);
  }
  const MigrationId id = move.id;
  auto source = std::make_unique<LibvirtSource>(context_, std::move(wanted->record));
  if (auto accepted = source->accept(); !accepted) {
    return responder.error(409, accepted.error().text, 3);
  }
  LibvirtSource& begun = *(sources_[id] = std::move(source));
  responder.json(202, begun.describe());
  begun.begin();
}

bool LibvirtMoves::is_moving(const std::string& uuid) const {
  return std::ranges::any_of(sources_, [&](const auto& each) {
    return each.second->record().domain.uuid == uuid &&
           !migrate::is_final(each.second->record().move.state);
  });
}

std::vector<nlohmann::json> LibvirtMoves::list() const {
  std::vector<nlohmann::json> all;
  for (const auto& [id, move] : sources_) all.push_back(move->describe());
  for (const auto& [id, move] : targets_) all.push_back(move->describe());
  return all;
}

std::optional<nlohmann::json> LibvirtMoves::show(const MigrationId& id) const {
  if (const LibvirtSource* source = find_source(id)) return source->describe();
  const auto target = targets_.find(id);
  return target == targets_.end() ? std::nullopt : std::optional(target->second->describe());
}

LibvirtSource* LibvirtMoves::find_source(const MigrationId& id) const {
  const auto found = sources_.find(id);
  return found == sources_.end() ? nullptr : found->second.get();
}

std::optional<std::string> LibvirtMoves::source_of(const MigrationId& id) const {
  if (sources_.contains(id)) return context_.config.name;
  const auto target = targets_.find(id);
  return target == targets_.end() ? std::nullopt : std::optional(target->second->record().from);
}

// ---- peers ----

void LibvirtMoves::on_request(PeerRequest request, const nlohmann::json& body) {
  const auto id = id_field<MigrationId>(body, "id");
  if (!id) return request.answer(std::unexpected(id.error()));
  if (request.method == "libvirt.preflight") return answer_preflight(std::move(request), body);
  if (request.method == "libvirt.prepare") return prepare_target(std::move(request), *id, body);
  if (request.method == "libvirt.failed") {
    LibvirtSource* source = find_source(*id);
    if (source != nullptr && source->record().move.to == request.peer) {
      source->target_failed(text_field_or(body, "reason", "the target failed"));
    }
    return request.answer(nlohmann::json::object());
  }
  const auto found = targets_.find(*id);
  const bool known = found != targets_.end() && found->second->record().from == request.peer;
  if (request.method == "libvirt.knows") {
    return request.answer(nlohmann::json{{"known", known && found->second->is_live()}});
  }
  if (request.method == "libvirt.abort") {
    if (!known) return request.answer(nlohmann::json::object());  // nothing to undo
    return found->second->abort(std::move(request), text_field_or(body, "reason", "aborted"));
  }
  if (request.method == "libvirt.commit") {
    if (known) return found->second->commit(std::move(request));
    return request.answer(
        fail("host {} does not know migration {}", context_.config.name, id->text()));
  }
  request.answer(fail("unknown request {}", request.method));
}

void LibvirtMoves::answer_preflight(PeerRequest request, const nlohmann::json& body) {
  const auto domain = libvirt::domain_from_json(qemu::member(body, "domain"));
  if (!domain) return request.answer(std::unexpected(domain.error()));
  const std::string run_dir = text_field_or(body, "run_dir", "");
  if (run_dir != context_.config.run_dir) {
    return request.answer(
        fail("its agent has its sockets in {}, the other's in {}: libvirt needs "
             "the same --run-dir at both",
             context_.config.run_dir.string(), run_dir));
  }
  const std::uint64_t look = next_look_++;
  looks_[look] = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config,
      std::vector<std::string>{"look", domain->uuid, to_json(*domain).dump()},
      [this, look, request, domain = *domain](const Result<nlohmann::json>& found) {
        const auto gone = looks_.extract(look);
        if (!found) return request.answer(std::unexpected(found.error()));
        request.answer(
            nlohmann::json{{"obstacles", obstacles_here(context_.store, domain, *found)}});
      });
}

void LibvirtMoves::prepare_target(PeerRequest request, const MigrationId& id,
                                  const nlohmann::json& body) {
  auto domain = libvirt::domain_from_json(qemu::member(body, "domain"));
  if (!domain) return request.answer(std::unexpected(domain.error()));
  const auto codec = parse_codec(qemu::member(body, "codec"));
  if (!codec) return request.answer(std::unexpected(codec.error()));
  if (targets_.contains(id)) {
    return request.answer(fail("migration {} was begun here before", id.text()));
  }
  while (targets_.size() >= kKeptLibvirtMoves) {
    const auto old = std::ranges::find_if(targets_, [](const auto& t) {
      return t.second->record().state != migrate::TargetState::preparing;
    });
    if (old == targets_.end()) return request.answer(fail("too many migrations arrive here"));
    context_.store.erase("libvirt-target", old->first.text());
    targets_.erase(old);
  }
  // What an earlier move of it may still be told must not touch this one.
  for (const auto& [other, target] : targets_) {
    if (target->record().domain.uuid == domain->uuid) target->supersede();
  }
  auto& target = targets_[id] = std::make_unique<LibvirtTarget>(
      context_, LibvirtTargetRecord{.id = id,
                                    .from = request.peer,
                                    .domain = *std::move(domain),
                                    .reason = {},
                                    .started = os::wall_clock_seconds(),
                                    .by = text_field_or(body, "by", ""),
                                    .new_disks = {}});
  target->prepare(std::move(request), *codec);
}

void LibvirtMoves::on_session_up(const std::string& peer) {
  search_.on_session_up(peer);
  for (const auto& [id, move] : sources_) {
    if (move->record().move.to == peer) move->on_session_up();
  }
}

void LibvirtMoves::doubt_lanes(const std::string& peer) {
  for (const auto& [id, move] : sources_) {
    if (move->record().move.to == peer) move->doubt_lanes();
  }
}

bool LibvirtMoves::use_lane(const std::string& peer, const stream::Hello& hello,
                            std::unique_ptr<os::ByteStream>& lane, BytesView early) {
  return std::ranges::any_of(targets_, [&](const auto& each) {
    return each.second->record().from == peer && each.second->use_lane(hello, lane, early);
  });
}

}  // namespace godwit::agent
