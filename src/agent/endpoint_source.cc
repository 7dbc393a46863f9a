#include "agent/endpoint_source.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "agent/source_record.hh"
#include "crypto/keyed_hash.hh"
#include "os/random.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr Nanoseconds kFlowTimeout = seconds(3);

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

void EndpointSource::on_request(PeerRequest request, const nlohmann::json& body) {
  const auto uplink = id_field<PortId>(body, "port");
  if (!uplink) return request.answer(std::unexpected(uplink.error()));
  if (request.method == "endpoint.stage") {
    return stage(request.peer, body, std::move(request.answer));
  }
  const EndpointRelay* known = context_.relays.find(*uplink);
  if (known == nullptr) return request.answer(nlohmann::json::object());  // done before
  if (known->to != request.peer) {
    return request.answer(fail("guest {} goes to host {}", known->name, known->to));
  }
  if (request.method == "endpoint.end") {
    const auto done = context_.relays.end(*uplink, count_field(body, "reset") > 0);
    if (!done) return request.answer(std::unexpected(done.error()));
    return request.answer(nlohmann::json::object());
  }
  if (request.method == "endpoint.home") {
    context_.relays.goes_home(*uplink);
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
  context_.relays.guest_is_back(*uplink);
  auto relay =
      std::make_shared<EndpointRelay>(EndpointRelay{.guest = *uplink,
                                                    .name = record->name,
                                                    .epoch = epoch_field(body, "epoch", 0),
                                                    .to = peer,
                                                    .addresses = guest_of(*record),
                                                    .goes_home = on_the_way->empty(),
                                                    .limit_s = count_field(body, "relay_s")});
  for (const GuestAddress& each : record->guest) {
    if (each.new_address) relay->names.emplace(each.address, *each.new_address);
  }
  const auto opened =
      context_.relays.open(*relay, text_field_or(body, "relay", ""), record->tenant);
  if (!opened) return answer(std::unexpected(opened.error()));
  look_around(relay->addresses, [this, relay, on_the_way = *on_the_way,
                                 answer = std::move(answer)](const Result<Survey>& survey) {
    if (!survey) return answer(std::unexpected(survey.error()));
    agree(relay, *survey, on_the_way, answer);
  });
}

// A host that cannot be agreed with is as one without an agent: the relay serves it.
void EndpointSource::agree(std::shared_ptr<EndpointRelay> relay, const Survey& survey,
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
    const EndpointRelay* still = context_.relays.find(relay->guest);
    if (still == nullptr || still->epoch != relay->epoch) {
      take_back(*relay);
      return answer(fail("the move was given up meanwhile"));
    }
    context_.relays.save(*relay);
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

// ---- as it leaves ----

nlohmann::json EndpointSource::last_connections(const PortId& uplink) {
  const EndpointRelay* relay = context_.relays.find(uplink);
  if (relay == nullptr) return nlohmann::json::object();
  auto told = list(*relay);
  return told ? *std::move(told) : nlohmann::json::object();
}

Result<nlohmann::json> EndpointSource::list(const EndpointRelay& relay) {
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

// ---- it stays after all ----

void EndpointSource::undo(const PortId& uplink) {
  context_.relays.stay(uplink);  // who undoes it does not take the guest
  const EndpointRelay* known = context_.relays.find(uplink);
  if (known == nullptr || known->forwards) return;
  take_back(*known);
  context_.relays.remove(uplink);
}

void EndpointSource::take_back(const EndpointRelay& relay) {
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

}  // namespace godwit::agent
