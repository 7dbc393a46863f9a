#include "agent/endpoint_source.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "agent/source_record.hh"
#include "crypto/keyed_hash.hh"
#include "os/guest_route.hh"
#include "os/random.hh"
#include "os/relay_route.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr const char* kRelayKind = "relay";
constexpr const char* kPartingKind = "parting relay";  // by port
constexpr Nanoseconds kFlowTimeout = seconds(3);

constexpr std::int64_t kGrace = 60;  // seconds, for the guest's host
constexpr std::int64_t kRefusing = 120;
constexpr Nanoseconds kSweepInterval = seconds(10);

std::int64_t count_field(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  const bool is_one = found != object.end() && found->is_number_integer();
  return is_one ? std::clamp<std::int64_t>(found->get<std::int64_t>(), 0, UINT32_MAX) : 0;
}

// Calls `done` once as many have answered.
class Gathering final {
 public:
  Gathering(std::size_t count, std::function<void()> done) : left_(count), done_(std::move(done)) {
    if (left_ == 0) done_();
  }
  void one() {
    if (--left_ == 0) done_();
  }

 private:
  std::size_t left_;
  std::function<void()> done_;
};

std::set<Ip> guest_of(const PortRecord& uplink) {
  const auto addresses = addresses_of(uplink.guest);
  return {addresses.begin(), addresses.end()};
}

std::string owner_of(const auto& relay) { return "relay " + relay.guest.text(); }

}  // namespace

void EndpointSource::ask(const std::string& agent, const std::string& method,
                         const nlohmann::json& body, Answer answer) {
  if (agent != context_.config.name) {
    return context_.peers.request(agent, method, body, std::move(answer), kFlowTimeout);
  }
  context_.loop.post(
      [&associations = context_.associations, agent, method, body, answer = std::move(answer)] {
        answer(associations.answer(agent, method, body));
      });
}

void EndpointSource::start() {
  lent_.start();
  for (const auto& left : context_.store.list(kPartingKind)) {
    part(left.key, text_field_or(left.body, "other", ""));
  }
  for (const auto& document : context_.store.list(kRelayKind)) {
    Relay known = relay(document.body);
    try {
      os::be_relay(known.interface);
      if (known.forwards && !is_back(known)) route(known);
      serve(known);
    } catch (const SetupError& error) {
      spdlog::error("the relay for guest {} is broken: {}", known.name, error.what());
    }
    relays_.emplace(known.guest, std::move(known));
  }
  keep_routed();
  sweep();
}

void EndpointSource::on_request(PeerRequest request, const nlohmann::json& body) {
  const auto uplink = id_field<PortId>(body, "port");
  if (!uplink) return request.answer(std::unexpected(uplink.error()));
  if (request.method == "endpoint.stage") {
    return stage(request.peer, body, std::move(request.answer));
  }
  const auto known = relays_.find(*uplink);
  if (known == relays_.end()) return request.answer(nlohmann::json::object());  // done before
  if (known->second.to != request.peer) {
    return request.answer(fail("guest {} goes to host {}", known->second.name, known->second.to));
  }
  if (request.method == "endpoint.end")
    return request.answer(end(*uplink, count_field(body, "reset") > 0));
  if (request.method == "endpoint.home") {
    known->second.goes_home = true;
    save(known->second);
    return request.answer(nlohmann::json::object());
  }
  if (request.method == "endpoint.undo") {
    undo(*uplink);
    return request.answer(nlohmann::json::object());
  }
  request.answer(fail("unknown request {}", request.method));
}

// ---- who is at the other ends ----

bool EndpointSource::is_of_fabric(const Ip& address) const {
  const auto fabric = context_.fabrics.get();
  return fabric && !fabric->homes_of(address).empty();
}

// An address of the fabric is served where it is at home, or where its guest proved to be since;
// all others by whoever says so.
bool EndpointSource::may_serve(const std::string& host, const Ip& address) const {
  if (context_.associations.holder_of(address) == host || !is_of_fabric(address)) return true;
  const auto fabric = context_.fabrics.get();
  const auto at = fabric->find(host);
  return at && fabric->is_home(*at, address);
}

void EndpointSource::look_around(const std::set<Ip>& guests,
                                 std::function<void(Result<Survey>)> done) {
  auto connections = context_.kernel.named_connections_of(guests);
  if (!connections) return done(std::unexpected(connections.error()));
  if (connections->size() > kMostConnections) connections->resize(kMostConnections);
  auto survey = std::make_shared<Survey>();
  for (const auto& each : *connections) {
    (is_renamed(each) ? survey->renamed : survey->connections).push_back(each);
  }
  std::set<std::string> asked;
  for (const auto& each : survey->connections) asked.insert(each.peer.text());
  std::vector<std::string> agents{context_.config.name};
  for (const auto& peer : context_.peers.up()) {
    if (context_.peers.protocol(peer) >= kEndpointProtocol) agents.push_back(peer);
  }
  if (asked.empty()) return done(*survey);
  auto gathering = std::make_shared<Gathering>(agents.size(), [survey, done] { done(*survey); });
  for (const auto& agent : agents) {
    ask(agent, "flow.serves", {{"addresses", asked}},
        [this, survey, gathering, agent](const Result<nlohmann::json>& reply) {
          const auto served =
              reply ? addresses_in(array_field(*reply, "addresses")) : std::set<Ip>{};
          for (const Ip& address : served) {
            if (may_serve(agent, address)) survey->served[agent].insert(address);
          }
          gathering->one();
        });
  }
}

void EndpointSource::survey(const PortId& uplink, bool goes_home, Answer answer) {
  const PortRecord* record = context_.network.guest_uplink(uplink);
  if (record == nullptr) return answer(fail("port {} is no guest's uplink here", uplink.text()));
  look_around(
      guest_of(*record), [goes_home, answer = std::move(answer)](const Result<Survey>& survey) {
        if (!survey) return answer(std::unexpected(survey.error()));
        if (goes_home) {
          return answer(nlohmann::json{{"at_home", survey->connections.size()},
                                       {"relayed", survey->renamed.size()}});
        }
        nlohmann::json direct = nlohmann::json::array();
        std::size_t relayed = survey->connections.size() + survey->renamed.size();
        for (const auto& [host, addresses] : survey->served) {
          const auto count = std::ranges::count_if(
              survey->connections, [&](const auto& each) { return addresses.contains(each.peer); });
          direct.push_back({{"host", host}, {"connections", count}});
          relayed -= static_cast<std::size_t>(count);
        }
        answer(nlohmann::json{{"direct", direct}, {"relayed", relayed}});
      });
}

// ---- staging ----

void EndpointSource::stage(const std::string& peer, const nlohmann::json& body, Answer answer) {
  const auto uplink = id_field<PortId>(body, "port");
  const PortRecord* record = uplink ? context_.network.guest_uplink(*uplink) : nullptr;
  if (record == nullptr) return answer(fail("there is no such guest's uplink here"));
  const auto on_the_way = parse_addresses(qemu::member(body, "on_the_way"));
  if (!on_the_way) return answer(std::unexpected(on_the_way.error()));
  undo(*uplink);
  guest_is_back(*uplink);
  auto relay = std::make_shared<Relay>(Relay{.guest = *uplink,
                                             .name = record->name,
                                             .epoch = epoch_field(body, "epoch", 0),
                                             .to = peer,
                                             .addresses = guest_of(*record),
                                             .goes_home = on_the_way->empty(),
                                             .limit_s = count_field(body, "relay_s")});
  for (const GuestAddress& each : record->guest) {
    if (each.new_address) relay->names.emplace(each.address, *each.new_address);
  }
  const auto port = context_.network.add_port(
      {{"name", text_field_or(body, "relay", "")}, {"kind", "uplink"}, {"tenant", record->tenant}});
  if (!port) return answer(std::unexpected(port.error()));
  relay->port = text_field_or(*port, "name", "");
  relay->interface = text_field_or(*port, "interface", "");
  try {
    os::be_relay(relay->interface);
  } catch (const SetupError& error) {
    (void)context_.network.remove_port(relay->port, {});
    return answer(fail("{}", error.what()));
  }
  save(*relay);
  keep_routed();
  look_around(relay->addresses, [this, relay, on_the_way = *on_the_way,
                                 answer = std::move(answer)](const Result<Survey>& survey) {
    if (!survey) return answer(std::unexpected(survey.error()));
    agree(relay, *survey, on_the_way, answer);
  });
}

// A host that cannot be agreed with is as one without an agent: the relay serves it.
void EndpointSource::agree(std::shared_ptr<Relay> relay, const Survey& survey,
                           const std::map<Ip, Ip>& on_the_way, Answer answer) {
  auto all = survey.connections;
  all.insert(all.end(), survey.renamed.begin(), survey.renamed.end());
  auto told = std::make_shared<nlohmann::json>(lists_of(all));
  told->update({{"agreed", nlohmann::json::array()},
                {"port", relay->port},
                {"renames", context_.kernel.renames(relay->addresses)}});
  std::map<std::string, std::vector<os::Connection>> of_host;
  for (const auto& [host, addresses] : survey.served) {
    // There, and where they need no other address, nothing needs to be led.
    if (host == relay->to || relay->goes_home) continue;
    for (const auto& each : survey.connections) {
      if (addresses.contains(each.peer)) of_host[host].push_back(each);
    }
  }
  auto gathering = std::make_shared<Gathering>(of_host.size(), [this, relay, told, answer] {
    const auto still = relays_.find(relay->guest);
    if (still == relays_.end() || still->second.epoch != relay->epoch) {
      take_back(*relay);
      return answer(fail("the move was given up meanwhile"));
    }
    save(*relay);
    answer(*told);
  });
  for (const auto& [host, connections] : of_host) {
    Bytes secret(crypto::KeyedHash::kKeySize);
    os::fill_random(secret);
    ask(host, "flow.stage",
        {{"guest", relay->guest.text()},
         {"name", relay->name},
         {"epoch", relay->epoch},
         {"secret", to_hex(secret)},
         {"on_the_way", agent::to_json(on_the_way)},
         {"connections", agent::to_json(connections, secret)}},
        [relay, told, gathering, to = host, secret,
         count = connections.size()](const Result<nlohmann::json>& reply) {
          if (reply) {
            relay->agreed.push_back(to);
            (*told)["agreed"].push_back({{"host", to},
                                         {"secret", to_hex(secret)},
                                         {"connections", count},
                                         {"knows_early", qemu::flag_at(*reply, "knows_early")}});
          } else {
            spdlog::warn("guest {}: its connections with host {} go by the relay: {}", relay->name,
                         to, reply.error().text);
          }
          gathering->one();
        });
  }
}

// ---- the relay ----

Result<nlohmann::json> EndpointSource::list(const PortId& uplink) {
  const Relay& relay = relays_.at(uplink);
  auto connections = context_.kernel.named_connections_of(relay.addresses);
  if (!connections) return std::unexpected(connections.error());
  const std::size_t all = connections->size();
  connections->resize(std::min(all, kMostConnections));
  auto agreed = context_.associations.pass_on(relay.addresses, relay.to);
  if (!agreed) return std::unexpected(agreed.error());
  auto listed = lists_of(*connections);
  listed.update({{"left_out", all - connections->size()}, {"associations", *std::move(agreed)}});
  return listed;
}

nlohmann::json EndpointSource::last_connections(const PortId& uplink) {
  if (!relays_.contains(uplink)) return nlohmann::json::object();
  auto told = list(uplink);
  return told ? *std::move(told) : nlohmann::json::object();
}

// The guest's addresses stay this host's: it answers for them on their segment.
void EndpointSource::route(const Relay& relay) {
  for (const Ip& address : relay.addresses) os::route_guest(relay.interface, address);
  os::route_to_relay(relay.interface, relay.addresses);
}

Result<> EndpointSource::forward(const PortId& uplink, const std::string& peer) {
  const auto known = relays_.find(uplink);
  if (known == relays_.end()) return {};
  Relay& relay = known->second;
  if (relay.to != peer) return fail("guest {} goes to host {}", relay.name, relay.to);
  relay.forwards = true;
  relay.until = os::wall_clock_seconds() + relay.limit_s + kGrace;
  for (const Ip& address : relay.addresses) {
    if (!relay.names.contains(address)) lent_.lend(address, relay.until);
  }
  keep_routed();
  try {
    // It still sends by its uplink here.
    if (const PortRecord* guest = context_.network.guest_uplink(uplink)) {
      os::accept_detours(guest->interface);
    }
    route(relay);
  } catch (const SetupError& error) {
    return fail("{}", error.what());
  }
  serve(relay);
  save(relay);
  if (const auto stay = stays_.find(uplink); stay != stays_.end()) stay->second->guest_left();
  return {};
}

bool EndpointSource::relays(const PortId& uplink, const std::string& to) const {
  const auto known = relays_.find(uplink);
  return known != relays_.end() && known->second.to == to;
}

// The relay itself goes when the target says so; its addresses stay lent: some correspondent may
// have heard of the move.
void EndpointSource::stay(const PortId& uplink) {
  const PortRecord* guest = context_.network.guest_uplink(uplink);
  if (guest == nullptr || !gone(uplink)) return;
  Relay& relay = relays_.at(uplink);
  relay.forwards = false;
  context_.kernel.drop(owner_of(relay));
  try {
    for (const Ip& address : relay.addresses) os::route_guest(guest->interface, address);
  } catch (const SetupError& error) {
    spdlog::error("guest {} stays: {}", relay.name, error.what());
  }
  context_.associations.take_back(relay.addresses);
  save(relay);
  keep_routed();
  if (const auto stay = stays_.find(uplink); stay != stays_.end()) stay->second->guest_stays();
}

Result<nlohmann::json> EndpointSource::end(const PortId& uplink, bool is_to_refuse) {
  Relay& relay = relays_.at(uplink);
  const auto stay = stays_.find(uplink);
  const std::string who = stay == stays_.end() ? "" : stay->second->relay_needed_by();
  if (!is_to_refuse && !who.empty()) return fail("{}'s connections still come this way", who);
  if (!is_to_refuse || !relay.forwards) {
    remove(relay);
    return nlohmann::json::object();
  }
  relay.refuses = true;
  relay.until = os::wall_clock_seconds() + kRefusing;
  serve(relay);
  save(relay);
  return nlohmann::json::object();
}

// What has an address of this host goes on with it. Once it refuses, correspondents hear that it is
// over, rather than wait for answers.
void EndpointSource::serve(const Relay& relay) {
  if (!relay.forwards) return;
  os::MovedRules rules{.new_address = relay.names};
  if (relay.refuses) rules.refused = relay.addresses;
  if (const auto done = context_.kernel.set(owner_of(relay), rules); !done) {
    spdlog::warn("guest {}: {}", relay.name, done.error().text);
  }
}

void EndpointSource::undo(const PortId& uplink) {
  stay(uplink);  // who undoes it does not take the guest
  const auto known = relays_.find(uplink);
  if (known == relays_.end() || known->second.forwards) return;
  take_back(known->second);
  remove(known->second);
}

void EndpointSource::take_back(const Relay& relay) {
  for (const auto& host : relay.agreed) take_back(relay.guest, host, host);
}

void EndpointSource::take_back(const PortId& guest, const std::string& host,
                               const std::string& with) {
  ask(host, "flow.undo", {{"guest", guest.text()}, {"with", with}},
      [this, guest, with](const Result<nlohmann::json>& reply) {
        if (!reply) return;
        for (const auto& [next, addresses] : qemu::member(*reply, "passed").items()) {
          take_back(guest, next, with);
        }
      });
}

void EndpointSource::remove(const Relay& relay) {
  context_.kernel.drop(owner_of(relay));
  const bool guest_is_gone = relay.forwards && !is_back(relay);
  if (guest_is_gone) {
    if (!relay.names.empty()) {
      if (const auto gone = context_.device.forget(relay.guest.text()); !gone) {
        spdlog::warn("guest {}: {}", relay.name, gone.error().text);
      }
    }
    try {
      for (const Ip& address : relay.addresses) os::unroute_guest(address);
    } catch (const SetupError& error) {
      spdlog::warn("relay for guest {}: {}", relay.name, error.what());
    }
  }
  part(relay.port, relay.to);
  context_.store.erase(kRelayKind, relay.guest.text());
  const PortId guest = relay.guest;
  relays_.erase(guest);
  keep_routed();
  const auto stay = stays_.find(guest);
  if (guest_is_gone && stay != stays_.end()) stay->second->relay_ended();
}

void EndpointSource::part(const std::string& port, const std::string& other) {
  context_.store.put(kPartingKind, port, {{"other", other}});
  context_.network.disconnect(
      {.a = context_.config.name + "/" + port, .b = other + "/" + port, .tenant = {}},
      [&network = context_.network, &store = context_.store, port](const Result<>&) {
        if (const auto gone = network.remove_port(port, {}); !gone) {
          spdlog::warn("port {} stays: {}", port, gone.error().text);
        }
        store.erase(kPartingKind, port);
      });
}

// ---- guests that come back, or have been here by endpoint before ----

bool EndpointSource::is_back(const Relay& relay) const {
  const PortRecord* uplink = context_.network.guest_uplink(relay.guest);
  return uplink != nullptr && uplink->epoch >= relay.epoch;
}

void EndpointSource::guest_is_back(const PortId& uplink) {
  const auto known = relays_.find(uplink);
  if (known == relays_.end()) return;
  if (known->second.refuses || is_back(known->second)) remove(Relay(known->second));
}

std::optional<EndpointSource::Gone> EndpointSource::gone(const PortId& uplink) const {
  const auto known = relays_.find(uplink);
  if (known == relays_.end() || !known->second.forwards || is_back(known->second)) {
    return std::nullopt;
  }
  return Gone{.to = known->second.to, .is_home = known->second.goes_home};
}

std::set<Ip> EndpointSource::names() const {
  std::set<Ip> names;
  for (const auto& [guest, each] : relays_) {
    for (const auto& [address, name] : each.names) names.insert(name);
  }
  return names;
}

void EndpointSource::remove(const PortId& uplink, const EndpointStay& stay) {
  const auto known = stays_.find(uplink);
  if (known != stays_.end() && known->second == &stay) stays_.erase(known);
}

// Of hosts that do not end theirs, as they are gone.
void EndpointSource::sweep() {
  std::vector<Relay> late;
  for (const auto& [guest, each] : relays_) {
    if (each.forwards && os::wall_clock_seconds() > each.until) late.push_back(each);
  }
  for (const Relay& each : late) remove(each);
  sweep_ = context_.loop.after(kSweepInterval, [this] { sweep(); });
}

void EndpointSource::keep_routed() {
  std::set<Ip> kept, leaving;
  for (const auto& [guest, each] : relays_) {
    leaving.insert(each.addresses.begin(), each.addresses.end());
    if (each.forwards) kept.insert(each.addresses.begin(), each.addresses.end());
  }
  context_.associations.leave(std::move(leaving), kept);
  context_.network.keep_routed(std::move(kept));
}

void EndpointSource::save(const Relay& relay) {
  if (&relays_[relay.guest] != &relay) relays_[relay.guest] = relay;
  context_.store.put(kRelayKind, relay.guest.text(), to_json(relay));
}

nlohmann::json EndpointSource::describe() const {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [guest, each] : relays_) {
    list.push_back({{"guest", each.name},
                    {"to", each.to},
                    {"port", each.port},
                    {"addresses", agent::to_json(each.addresses)},
                    {"forwards", each.forwards && !each.refuses}});
  }
  return list;
}

nlohmann::json EndpointSource::to_json(const Relay& relay) {
  return {{"guest", relay.guest.text()},
          {"name", relay.name},
          {"epoch", relay.epoch},
          {"to", relay.to},
          {"addresses", agent::to_json(relay.addresses)},
          {"names", agent::to_json(relay.names)},
          {"goes_home", relay.goes_home},
          {"port", relay.port},
          {"interface", relay.interface},
          {"limit_s", relay.limit_s},
          {"until", relay.until},
          {"refuses", relay.refuses},
          {"agreed", relay.agreed},
          {"forwards", relay.forwards}};
}

EndpointSource::Relay EndpointSource::relay(const nlohmann::json& json) {
  const auto guest = id_field<PortId>(json, "guest");
  if (!guest) fail_setup("relay: {}", guest.error().text);
  const auto names = parse_addresses(qemu::member(json, "names"));  // none: of a version before
  return {.guest = *guest,
          .name = text_field_or(json, "name", ""),
          .epoch = epoch_field(json, "epoch", 0),
          .to = text_field_or(json, "to", ""),
          .addresses = addresses_in(array_field(json, "addresses")),
          .names = names.value_or(std::map<Ip, Ip>()),
          .goes_home = qemu::flag_at(json, "goes_home"),
          .port = text_field_or(json, "port", ""),
          .interface = text_field_or(json, "interface", ""),
          .agreed = texts_field(json, "agreed"),
          .forwards = qemu::flag_at(json, "forwards"),
          .refuses = qemu::flag_at(json, "refuses"),
          .limit_s = count_field(json, "limit_s"),
          .until = count_field(json, "until")};
}

}  // namespace godwit::agent
