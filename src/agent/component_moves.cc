#include "agent/component_moves.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/preflight_target.hh"
#include "base/host_name.hh"
#include "os/random.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"

namespace godwit::agent {

using migrate::SourceState;

namespace {

constexpr Nanoseconds kPreflightTimeout = seconds(15);
constexpr std::size_t kKeptComponentMoves = 200;  // finished ones that stay listed, of each end

}  // namespace

std::set<ComponentId> ComponentMoves::left(store::Store& store) {
  std::set<ComponentId> left;
  for (const auto& document : store.list("component-source")) {
    const SourceRecord record = source_record(document.body);
    const bool may_run_there = record.state == SourceState::released ||
                               record.state == SourceState::committed ||
                               record.state == SourceState::draining;
    if (may_run_there) left.insert(record.component);
  }
  return left;
}

void ComponentMoves::start(const std::function<void(Move&)>& found) {
  for (const auto& document : context_.store.list("component-source")) {
    auto move = std::make_unique<ComponentSource>(context_, source_record(document.body));
    ComponentSource* raw = move.get();
    sources_[raw->record().id] = std::move(move);
    found(*raw);
  }
  for (const auto& document : context_.store.list("component-target")) {
    auto move = std::make_unique<ComponentTarget>(context_, component_target_record(document.body));
    ComponentTarget* raw = move.get();
    targets_[raw->record().id] = std::move(move);
    raw->restart();
  }
}

// ---- the API ----

Result<SourceRecord> ComponentMoves::plan(const std::string& name, const nlohmann::json& request,
                                          const http::Caller& caller) const {
  const std::string own = name.substr(kComponentPrefix.size());
  const fabric::ComponentRecord* component = context_.components.find(own);
  if (component == nullptr || !caller.sees(component->tenant)) {
    return fail("there is no component '{}' on host {}; see godwit component ls", own,
                context_.config.name);
  }
  if (is_moving(own)) return fail("{} is migrating already; see godwit migration ls", name);
  if (component->ports.empty()) return fail("{} has no port: add it at the other host", name);
  SourceRecord record;
  if (auto read = read_options(request, record); !read) return std::unexpected(read.error());
  record.by = caller.name;
  if (auto done = refer_to(*component, record); !done) return std::unexpected(done.error());
  return record;
}

Result<> ComponentMoves::refer_to(const fabric::ComponentRecord& component,
                                  SourceRecord& record) const {
  record.id = os::random_id<MigrationId>();
  record.started = os::wall_clock_seconds();
  record.vm = std::string(kComponentPrefix) + component.name;
  record.tenant = component.tenant;
  record.component = component.id;
  record.ports.clear();
  for (const auto& port : component.ports) {
    record.ports.push_back(port.id);
    const auto described = context_.network.describe_nic(port.id);
    if (!described) return std::unexpected(described.error());
    record.epoch = std::max(record.epoch, epoch_field(described->at("port"), "epoch", 1));
  }
  for (const auto& [id, move] : sources_) {
    if (move->record().component == component.id) {
      record.epoch = std::max(record.epoch, move->record().epoch);
    }
  }
  ++record.epoch;
  return {};
}

void ComponentMoves::preflight(const SourceRecord& record, const std::string& host,
                               HostSearch::Checked done) {
  const auto* component = context_.components.find(record.component);
  if (component == nullptr) return done(fail("{} is gone", record.vm));
  if (context_.peers.protocol(host) < kComponentProtocol) {
    return done(
        Findings{.checks = {failed(
                     "target", fmt::format("the agent of host {} is too old to take components: "
                                           "upgrade it",
                                           host))}});
  }
  std::set<std::string> peers;
  for (const PortId& port : record.ports) {
    for (const auto& peer : context_.network.peers_of(port)) {
      if (!is_foreign(peer)) peers.insert(peer);
    }
  }
  const auto foreign = context_.network.foreign_wires(record.ports);
  if (!foreign.empty() && context_.peers.protocol(host) < kTrustProtocol) {
    return done(Findings{
        .checks = {failed("wires", fmt::format("the agent of host {} is too old for wires to other "
                                               "fleets: upgrade it, or disconnect them first",
                                               host))}});
  }
  context_.peers.request(
      host, "component.preflight",
      {{"id", record.id.text()},
       {"component", fabric::to_json(*component)},
       {"peers", peers},
       {"foreign_wires", foreign}},
      [host, done = std::move(done)](const Result<nlohmann::json>& reply) {
        if (reply) return done(parse_findings(*reply));
        done(Findings{.checks = {failed("target", reply.error().text)}});
      },
      kPreflightTimeout);
}

Result<ComponentSource*> ComponentMoves::add(SourceRecord record) {
  const MigrationId id = record.id;
  // Old ones make room: their reports are history.
  while (sources_.size() >= kKeptComponentMoves) {
    const auto old = std::ranges::find_if(sources_, [](const auto& s) { return s.second->over(); });
    if (old == sources_.end()) break;
    context_.store.erase("component-source", old->first.text());
    sources_.erase(old);
  }
  auto move = std::make_unique<ComponentSource>(context_, std::move(record));
  if (const auto accepted = move->accept(); !accepted) return std::unexpected(accepted.error());
  return (sources_[id] = std::move(move)).get();
}

bool ComponentMoves::is_moving(const std::string& name) const {
  return std::ranges::any_of(sources_, [&](const auto& each) {
    const SourceState state = each.second->state();
    return each.second->record().vm.substr(kComponentPrefix.size()) == name &&
           !migrate::is_final(state) && state != SourceState::draining;
  });
}

std::vector<nlohmann::json> ComponentMoves::list() const {
  std::vector<nlohmann::json> all;
  for (const auto& [id, move] : sources_) all.push_back(move->describe());
  for (const auto& [id, move] : targets_) all.push_back(move->describe());
  return all;
}

std::vector<ComponentSource*> ComponentMoves::sources() const {
  std::vector<ComponentSource*> all;
  for (const auto& [id, move] : sources_) all.push_back(move.get());
  return all;
}

ComponentSource* ComponentMoves::find_source(const MigrationId& id) const {
  const auto found = sources_.find(id);
  return found == sources_.end() ? nullptr : found->second.get();
}

ComponentTarget* ComponentMoves::find_target(const MigrationId& id) const {
  const auto found = targets_.find(id);
  return found == targets_.end() ? nullptr : found->second.get();
}

// ---- peers ----

void ComponentMoves::on_request(PeerRequest request, const nlohmann::json& body) {
  const auto id = id_field<MigrationId>(body, "id");
  if (!id) return request.answer(std::unexpected(id.error()));
  if (request.method == "component.preflight") return answer_preflight(request, body);
  if (request.method == "component.prepare") return prepare_target(std::move(request), *id, body);
  ComponentTarget* target = find_target(*id);
  if (target == nullptr || target->record().from != request.peer) {
    // Nothing to undo; the next abort need not be sent.
    if (request.method == "component.abort") return request.answer(nlohmann::json::object());
    // Not a refusal: that must be read in a journal, and old entries of owners leave ours.
    return request.answer(
        fail("host {} does not know migration {}", context_.config.name, id->text()));
  }
  if (request.method == "component.state") return target->learn(std::move(request), body);
  if (request.method == "component.commit") return target->commit(std::move(request));
  if (request.method == "component.abort") {
    return target->abort(std::move(request), text_field_or(body, "reason", "aborted"));
  }
  request.answer(fail("unknown request {}", request.method));
}

void ComponentMoves::answer_preflight(const PeerRequest& request,
                                      const nlohmann::json& body) const {
  const std::string& self = context_.config.name;
  const auto component = fabric::component_record(qemu::member(body, "component"));
  if (!component) {
    return request.answer(
        fail("host {} cannot read the component: {}", self, component.error().text));
  }
  std::vector<Check> checks;
  const auto may = context_.components.may_arrive(*component);
  checks.push_back(may ? passed("name", fmt::format("host {} has a place for it", self))
                       : failed("name", may.error().text));
  for (const auto& port : component->ports) {
    const std::string called = component->name + "-" + port.name;
    if (!context_.network.has_other_port(called, port.id)) continue;
    checks.push_back(failed(
        "port", fmt::format("host {} has another port '{}': remove or rename it", self, called)));
  }
  for (const auto& peer : texts_field(body, "peers")) {
    const bool is_up = peer == self || peer == request.peer || context_.peers.is_up(peer);
    checks.push_back(
        is_up ? passed("peers", fmt::format("host {} reaches {}", self, peer))
              : failed("peers", fmt::format("host {} has no session with {}, the other end of one "
                                            "of its wires",
                                            self, peer)));
  }
  std::ranges::move(foreign_checks(context_.network, body), std::back_inserter(checks));
  request.answer(to_json(Findings{.checks = std::move(checks)}));
}

void ComponentMoves::prepare_target(PeerRequest request, const MigrationId& id,
                                    const nlohmann::json& body) {
  auto component = fabric::component_record(qemu::member(body, "component"));
  if (!component) return request.answer(std::unexpected(component.error()));
  const Epoch epoch = epoch_field(body, "epoch", 0);
  if (epoch == 0) return request.answer(fail("migration {} has no epoch", id.text()));
  if (targets_.contains(id)) {
    return request.answer(fail("migration {} was begun here before", id.text()));
  }
  while (targets_.size() >= kKeptComponentMoves) {
    const auto old =
        std::ranges::find_if(targets_, [](const auto& t) { return t.second->settled(); });
    if (old == targets_.end()) return request.answer(fail("too many migrations arrive here"));
    context_.store.erase("component-target", old->first.text());
    targets_.erase(old);
  }
  auto& target = targets_[id] = std::make_unique<ComponentTarget>(
      context_, ComponentTargetRecord{.id = id,
                                      .from = request.peer,
                                      .started = os::wall_clock_seconds(),
                                      .by = text_field_or(body, "by", ""),
                                      .component = *std::move(component),
                                      .ports = array_field(body, "ports"),
                                      .epoch = epoch});
  target->prepare(std::move(request));
}

// What is wrong with it is told to who asks for it to be taken.
void ComponentMoves::on_state(const std::string& peer, BytesView push) {
  auto message = state_message(push);
  if (!message) return spdlog::warn("host {}: {}", peer, message.error().text);
  ComponentTarget* target = find_target(message->id);
  if (target != nullptr && target->record().from == peer) target->keep(*std::move(message));
}

void ComponentMoves::on_session_up(const std::string& peer) {
  for (const auto& [id, move] : sources_) {
    if (move->record().to == peer && !move->over()) move->session_up();
  }
  for (const auto& [id, move] : targets_) {
    if (move->record().from == peer) move->on_session_up();
  }
}

}  // namespace godwit::agent
