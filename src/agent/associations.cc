#include "agent/associations.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "crypto/keyed_hash.hh"
#include "os/segment.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr const char* kAssociationKind = "association";
constexpr std::size_t kMostAsked = 20000;  // addresses, at once

std::string owner_of(const std::string& key) { return "association " + key; }

// {host: addresses}
nlohmann::json by_host(const std::map<std::string, std::set<Ip>>& passed) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [host, addresses] : passed) json[host] = agent::to_json(addresses);
  return json;
}

// An answer, with the hosts that are to be asked, too.
nlohmann::json with_passed(nlohmann::json answer,
                           const std::map<std::string, std::set<Ip>>& passed) {
  if (!passed.empty()) answer["passed"] = by_host(passed);
  return answer;
}

std::set<Ip> both(const std::set<Ip>& a, const std::set<Ip>& b) {
  std::set<Ip> both;
  std::ranges::set_intersection(a, b, std::inserter(both, both.end()));
  return both;
}

}  // namespace

void Associations::start() {
  for (const auto& document : context_.store.list(kAssociationKind)) {
    Association known = association(document.body);
    if (known.with.empty()) known.with = context_.config.name;
    if (const auto done = lead(known); !done) {
      spdlog::error("correspondents of guest {}: {}", known.name, done.error().text);
    }
    associations_[document.key] = std::move(known);
  }
}

Result<nlohmann::json> Associations::answer(const std::string& peer, const std::string& method,
                                            const nlohmann::json& body) {
  if (method == "flow.serves") return serves(body);
  if (method == "flow.stage") return stage(peer, body);
  if (method == "flow.update") return update(peer, body);
  if (method == "flow.end") return end(peer, body);
  if (method == "flow.undo") return undo(peer, body);
  return fail("unknown request {}", method);
}

// ---- what is here ----

std::set<Ip> Associations::here() const {
  std::set<Ip> addresses = context_.network.guests();
  addresses.merge(os::own_addresses());
  std::erase_if(addresses, [this](const Ip& address) { return left_.contains(address); });
  return addresses;
}

// Its packets have its own address on their way, and will have until its next host has heard from
// the guest's.
bool Associations::stays(const Ip& correspondent) const {
  return !leaving_.contains(correspondent) && !context_.kernel.is_on_its_way(correspondent);
}

std::string Associations::key_of(const std::string& guest, const std::string& with) const {
  return with.empty() || with == context_.config.name ? guest : guest + " " + with;
}

std::string Associations::key_of(const nlohmann::json& body) const {
  return key_of(text_field_or(body, "guest", ""), text_field_or(body, "with", ""));
}

Result<nlohmann::json> Associations::serves(const nlohmann::json& body) const {
  const nlohmann::json& asked = array_field(body, "addresses");
  if (asked.size() > kMostAsked) return fail("at most {} addresses at once", kMostAsked);
  const std::set<Ip> known = here();
  std::set<Ip> served = addresses_in(asked);
  std::erase_if(served, [&](const Ip& address) { return !known.contains(address); });
  return nlohmann::json{{"addresses", agent::to_json(served)}};
}

// ---- agreeing ----

// By the operator's own word, or by what was proved before; of itself this host knows.
bool Associations::speaks_for(const std::string& peer, const std::string& guest,
                              const Ip& address) const {
  if (peer == context_.config.name) return true;
  const auto fabric = context_.fabrics.get();
  const auto host = fabric ? fabric->find(peer) : std::nullopt;
  if (host && fabric->is_home(*host, address)) return true;
  return std::ranges::any_of(associations_, [&](const auto& known) {
    const Association& each = known.second;
    return each.guest == guest && each.holder == peer && each.current &&
           each.current->on_the_way.contains(address);
  });
}

// Nobody says by a guest's name what others agreed about it.
Result<> Associations::may_stage(const std::string& peer, const std::string& guest,
                                 const std::map<Ip, Ip>& on_the_way) const {
  std::set<Ip> addresses;
  const auto add = [&](const std::map<Ip, Ip>& ways) {
    for (const auto& [address, way] : ways) addresses.insert(address);
  };
  add(on_the_way);
  if (const auto known = associations_.find(guest); known != associations_.end()) {
    if (known->second.staged) add(known->second.staged->on_the_way);
    if (known->second.current) add(known->second.current->on_the_way);
  }
  for (const Ip& address : addresses) {
    if (!speaks_for(peer, guest, address)) {
      return fail("host {} does not speak for {}, which is at home elsewhere (godwit fabric show)",
                  peer, address.text());
    }
  }
  return {};
}

// What comes from there is taken for the guest's: it is nobody else's address.
Result<> Associations::may_lead(const std::string& guest,
                                const std::map<Ip, Ip>& on_the_way) const {
  if (on_the_way.empty() || on_the_way.size() > kMostGuestAddresses) {
    return fail("a guest on the way has 1 to {} addresses", kMostGuestAddresses);
  }
  const auto fabric = context_.fabrics.get();
  std::set<Ip> ways;
  for (const auto& [address, way] : on_the_way) {
    if (!ways.insert(way).second || !fabric || !fabric->is_locator(way)) {
      return fail("{} is no locator of its own for {} (godwit fabric show)", way.text(),
                  address.text());
    }
  }
  for (const auto& [key, each] : associations_) {
    if (each.guest == guest) continue;
    for (const auto* agreed : {&each.staged, &each.current}) {
      if (!*agreed) continue;
      for (const auto& [address, way] : (*agreed)->on_the_way) {
        if (ways.contains(way)) return fail("{} is guest {}'s locator", way.text(), each.name);
        if (on_the_way.contains(address))
          return fail("{} is guest {}'s", address.text(), each.name);
      }
    }
  }
  return {};
}

// Those of the guest that end here, as their peers see them.
std::vector<os::Connection> Associations::ours(const std::vector<os::Connection>& connections,
                                               const std::map<Ip, Ip>& on_the_way) const {
  const std::set<Ip> known = here();
  std::vector<os::Connection> ours;
  for (const auto& each : connections) {
    if (on_the_way.contains(each.guest) && known.contains(each.peer)) {
      ours.push_back(seen_by_peer(each));
    }
  }
  return ours;
}

void Associations::label(const Association& association, const std::vector<os::Connection>& ours) {
  if (ours.empty()) return;
  if (const auto done = EndpointKernel::mark(ours, os::kLabelledMark); !done) {
    spdlog::warn("connections with guest {}: {}", association.name, done.error().text);
  }
}

Result<nlohmann::json> Associations::stage(const std::string& peer, const nlohmann::json& body) {
  const auto guest = text_field(body, "guest");
  if (!guest) return std::unexpected(guest.error());
  const auto on_the_way = parse_addresses(qemu::member(body, "on_the_way"));
  if (!on_the_way) return std::unexpected(on_the_way.error());
  const auto found = associations_.find(*guest);
  const Association* known = found == associations_.end() ? nullptr : &found->second;
  auto may = may_stage(peer, *guest, *on_the_way);
  if (may) may = may_lead(*guest, *on_the_way);
  if (!may) return std::unexpected(may.error());
  Agreed agreed{.epoch = epoch_field(body, "epoch", 0),
                .by = peer,
                .secret = from_hex(text_field_or(body, "secret", "")),
                .on_the_way = *on_the_way};
  if (agreed.secret.size() != crypto::KeyedHash::kKeySize) return fail("the secret is no key");
  const auto connections = parse_connections(qemu::member(body, "connections"), agreed.secret);
  if (!connections) return std::unexpected(connections.error());
  Association next = known == nullptr ? Association{} : *known;
  if (next.current && next.current->epoch >= agreed.epoch) {
    return fail("guest {} has moved again since", *guest);
  }
  next.guest = *guest;
  next.with = context_.config.name;
  next.name = text_field_or(body, "name", *guest);
  if (next.holder.empty()) next.holder = peer;
  const auto here = ours(*connections, agreed.on_the_way);
  if (here.empty()) return fail("none of these connections ends at host {}", context_.config.name);
  for (const auto& each : here) next.correspondents.insert(each.guest);
  next.staged = std::move(agreed);
  if (auto done = take(next); !done) return std::unexpected(done.error());
  label(next, here);
  return nlohmann::json{{"labelled", here.size()}, {"knows_early", true}};
}

Result<nlohmann::json> Associations::update(const std::string& peer, const nlohmann::json& body) {
  const std::string guest = text_field_or(body, "guest", "");
  const Epoch epoch = epoch_field(body, "epoch", 0);
  const auto known = associations_.find(key_of(body));
  if (known == associations_.end()) return fail("nothing is agreed about guest {}", guest);
  Association next = known->second;
  const bool is_repeated = next.current && next.current->epoch == epoch;
  const auto& agreed = is_repeated ? next.current : next.staged;
  if (!agreed || agreed->epoch != epoch) return fail("nothing is agreed for move {}", epoch);
  const std::string proof =
      proof_of(agreed->secret, "update", guest, epoch, peer, agreed->on_the_way);
  if (!is_same_proof(text_field_or(body, "proof", ""), proof)) {
    spdlog::warn("host {} wants the connections of guest {} without proof", peer, next.name);
    return fail("this is not proved to come from where guest {} is", next.name);
  }
  const bool all_stay =
      next.passed.empty() &&
      std::ranges::all_of(next.correspondents, [this](const Ip& each) { return stays(each); });
  if (qemu::flag_at(body, "early") && !all_stay) return nlohmann::json{{"too_early", true}};
  const auto connections = parse_connections(qemu::member(body, "connections"), agreed->secret);
  if (!connections) return std::unexpected(connections.error());
  const auto its = ours(*connections, agreed->on_the_way);
  for (const auto& each : its) next.correspondents.insert(each.guest);
  if (!is_repeated) next.current = std::exchange(next.staged, std::nullopt);
  next.holder = peer;
  if (auto done = take(next); !done) return std::unexpected(done.error());
  label(next, its);
  context_.events.publish("association", {{"guest", next.name}, {"host", peer}});
  return with_passed({{"correspondents", agent::to_json(both(next.correspondents, here()))}},
                     next.passed);
}

Result<nlohmann::json> Associations::end(const std::string& peer, const nlohmann::json& body) {
  const std::string guest = text_field_or(body, "guest", "");
  const auto known = associations_.find(key_of(body));
  if (known == associations_.end()) return nlohmann::json::object();
  const auto& current = known->second.current;
  const auto& staged = known->second.staged;
  const Epoch epoch = epoch_field(body, "epoch", current ? current->epoch : 0);
  // Of a move before: the next one has told of another way since.
  if (current && current->epoch > epoch) return nlohmann::json::object();
  // It may end before this host has heard that it began.
  const bool is_staged = staged && staged->epoch == epoch;
  const auto& agreed = is_staged ? staged : current;
  if (!agreed || !is_same_proof(text_field_or(body, "proof", ""),
                                proof_of(agreed->secret, "end", guest, agreed->epoch, peer,
                                         agreed->on_the_way))) {
    return fail("this is not proved to come from where guest {} is", known->second.name);
  }
  Association next = known->second;
  // Nobody would know any more whom it has to be said to besides.
  const auto ended = texts_field(body, "ended");
  const bool is_everywhere = std::ranges::all_of(next.passed, [&](const auto& to) {
    return std::ranges::find(ended, to.first) != ended.end();
  });
  if (!is_everywhere) return with_passed(nlohmann::json::object(), next.passed);
  (is_staged ? next.staged : next.current).reset();
  if (!next.staged && !next.current) {
    forget(std::string(known->first));
  } else if (auto done = take(next); !done) {
    return std::unexpected(done.error());
  }
  return nlohmann::json::object();
}

Result<nlohmann::json> Associations::undo(const std::string& peer, const nlohmann::json& body) {
  const auto known = associations_.find(key_of(body));
  if (known == associations_.end()) return nlohmann::json::object();
  Association next = known->second;
  if (!next.staged || next.staged->by != peer) return nlohmann::json::object();
  next.staged.reset();
  if (!next.current) {
    forget(std::string(known->first));
  } else if (auto done = take(next); !done) {
    return std::unexpected(done.error());
  }
  return with_passed(nlohmann::json::object(), next.passed);
}

// ---- correspondents that move, too ----

std::optional<std::string> Associations::holder_of(const Ip& address) const {
  for (const auto& [key, each] : associations_) {
    if (each.current && each.current->on_the_way.contains(address)) return each.holder;
  }
  return std::nullopt;
}

Result<nlohmann::json> Associations::pass_on(const std::set<Ip>& correspondents,
                                             const std::string& host) {
  nlohmann::json passed = nlohmann::json::array();
  for (const auto& [key, each] : std::map(associations_)) {
    Association going = each;
    going.correspondents = both(each.correspondents, correspondents);
    if (going.correspondents.empty() || (!each.staged && !each.current)) continue;
    going.passed.clear();
    passed.push_back(to_json(going));
    Association next = each;
    next.passed[host] = going.correspondents;
    if (next.passed == each.passed) continue;
    if (auto done = take(next); !done) return std::unexpected(done.error());
  }
  return passed;
}

void Associations::take_back(const std::set<Ip>& correspondents) {
  for (auto [key, each] : std::map(associations_)) {
    const auto passed = each.passed;
    here_again(each, correspondents);
    if (each.passed == passed) continue;
    if (const auto done = take(each); !done) {
      spdlog::warn("correspondents of guest {}: {}", each.name, done.error().text);
    }
  }
}

void Associations::here_again(Association& association, const std::set<Ip>& correspondents) {
  for (auto& [host, gone] : association.passed) {
    std::erase_if(gone, [&](const Ip& one) { return correspondents.contains(one); });
  }
  std::erase_if(association.passed, [](const auto& to) { return to.second.empty(); });
}

// Whoever had them could have led their packets elsewhere before; more it cannot do by this.
Result<> Associations::may_adopt(const Association& passed,
                                 const std::set<Ip>& correspondents) const {
  if (!PortId::parse(passed.guest) || passed.with.empty()) {
    return fail("'{}' is no guest that anything was agreed about", passed.guest);
  }
  if (!std::ranges::includes(correspondents, passed.correspondents)) {
    return fail("guest {} has correspondents that do not come", passed.name);
  }
  for (const auto* agreed : {&passed.staged, &passed.current}) {
    if (!*agreed) continue;
    if ((*agreed)->secret.size() != crypto::KeyedHash::kKeySize)
      return fail("the secret is no key");
    if (auto may = may_lead(passed.guest, (*agreed)->on_the_way); !may) return may;
  }
  return {};
}

// Of what one has heard and the other has not the newer is true.
void Associations::merge(Association& known, const Association& passed) {
  known.correspondents.insert(passed.correspondents.begin(), passed.correspondents.end());
  const auto is_newer = [](const auto& a, const auto& b) {
    return a && (!b || a->epoch > b->epoch);
  };
  if (is_newer(passed.current, known.current)) {
    known.current = passed.current;
    known.holder = passed.holder;
  }
  if (is_newer(passed.staged, known.staged)) known.staged = passed.staged;
  if (!is_newer(known.staged, known.current)) known.staged.reset();
}

Result<> Associations::adopt(const nlohmann::json& passed, const std::set<Ip>& correspondents,
                             const std::vector<os::Connection>& connections) try {
  if (!passed.is_array()) return {};  // of an older agent
  for (const auto& json : passed) {
    const Association each = association(json);
    if (auto may = may_adopt(each, correspondents); !may) return may;
    const auto known = associations_.find(key_of(each.guest, each.with));
    Association next = known == associations_.end() ? each : known->second;
    merge(next, each);
    here_again(next, each.correspondents);  // they may have been here before
    if (auto done = take(next); !done) return done;
    std::vector<os::Connection> its;
    for (const auto& connection : connections) {
      for (const auto* agreed : {&next.staged, &next.current}) {
        if (*agreed && (*agreed)->on_the_way.contains(connection.peer)) its.push_back(connection);
      }
    }
    label(next, its);
  }
  return {};
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

void Associations::forget_adopted(const std::set<Ip>& correspondents) {
  for (auto [key, each] : std::map(associations_)) {
    if (each.with == context_.config.name || both(each.correspondents, correspondents).empty()) {
      continue;
    }
    std::erase_if(each.correspondents, [&](const Ip& one) { return correspondents.contains(one); });
    if (each.correspondents.empty()) {
      forget(key);
    } else if (const auto done = take(each); !done) {
      spdlog::warn("correspondents of guest {}: {}", each.name, done.error().text);
    }
  }
}

// ---- keeping ----

os::MovedRules Associations::rules_of(const Association& association) {
  os::MovedRules rules;
  for (const auto* agreed : {&association.staged, &association.current}) {
    if (!*agreed) continue;
    for (const auto& [guest, way] : (*agreed)->on_the_way) {
      for (const Ip& correspondent : association.correspondents) {
        if (correspondent.is4() != guest.is4()) continue;
        rules.coming[{way, correspondent}] = guest;
        if (agreed == &association.current) rules.moved[{correspondent, guest}] = way;
      }
    }
  }
  return rules;
}

Result<> Associations::lead(const Association& association) {
  return context_.kernel.set(owner_of(key_of(association.guest, association.with)),
                             rules_of(association));
}

// In the kernel, and in the store; or as it was.
Result<> Associations::take(const Association& association) {
  if (auto done = lead(association); !done) return done;
  const std::string key = key_of(association.guest, association.with);
  const auto before = associations_.find(key);
  nlohmann::json body = to_json(association);
  if (before != associations_.end()) {
    for (const auto& [host, addresses] : before->second.passed) {
      if (!association.passed.contains(host)) body["passed"][host] = nullptr;  // else it would stay
    }
  }
  auto kept = context_.store.record(kAssociationKind, key, body);
  if (kept) {
    associations_[key] = association;
    return kept;
  }
  if (before == associations_.end()) {
    context_.kernel.drop(owner_of(key));
  } else if (const auto back = lead(before->second); !back) {
    spdlog::error("correspondents of guest {}: {}", association.name, back.error().text);
  }
  return kept;
}

void Associations::forget(const std::string& key) {
  context_.kernel.drop(owner_of(key));
  context_.store.erase(kAssociationKind, key);
  associations_.erase(key);
}

nlohmann::json Associations::describe() const {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [key, each] : associations_) {
    nlohmann::json addresses = nlohmann::json::array();
    if (const auto& agreed = each.current ? each.current : each.staged) {
      for (const auto& [address, way] : agreed->on_the_way) addresses.push_back(address.text());
    }
    list.push_back({{"guest", each.name},
                    {"host", each.holder},
                    {"correspondents", agent::to_json(each.correspondents)},
                    {"addresses", addresses},
                    {"direct", each.current.has_value()}});
    if (each.with != context_.config.name) list.back()["agreed_with"] = each.with;
  }
  return list;
}

nlohmann::json Associations::to_json(const Agreed& agreed) {
  return {{"epoch", agreed.epoch},
          {"by", agreed.by},
          {"secret", to_hex(agreed.secret)},
          {"on_the_way", agent::to_json(agreed.on_the_way)}};
}

nlohmann::json Associations::to_json(const Association& association) {
  nlohmann::json json = {{"guest", association.guest},
                         {"name", association.name},
                         {"holder", association.holder},
                         {"with", association.with},
                         {"correspondents", agent::to_json(association.correspondents)},
                         {"passed", by_host(association.passed)},
                         {"staged", nullptr},  // takes the place of what was kept
                         {"current", nullptr}};
  if (association.staged) json["staged"] = to_json(*association.staged);
  if (association.current) json["current"] = to_json(*association.current);
  return json;
}

Associations::Agreed Associations::agreed(const nlohmann::json& json) {
  const auto on_the_way = parse_addresses(qemu::member(json, "on_the_way"));
  if (!on_the_way) fail_setup("association: {}", on_the_way.error().text);
  return {.epoch = epoch_field(json, "epoch", 0),
          .by = text_field_or(json, "by", ""),
          .secret = from_hex(text_field_or(json, "secret", "")),
          .on_the_way = *on_the_way};
}

Associations::Association Associations::association(const nlohmann::json& json) {
  Association known{.guest = text_field_or(json, "guest", ""),
                    .name = text_field_or(json, "name", ""),
                    .holder = text_field_or(json, "holder", ""),
                    .with = text_field_or(json, "with", ""),
                    .correspondents = addresses_in(array_field(json, "correspondents"))};
  for (const auto& [host, addresses] : qemu::member(json, "passed").items()) {
    if (!addresses.is_null()) known.passed[host] = addresses_in(addresses);
  }
  if (const auto& staged = qemu::member(json, "staged"); staged.is_object()) {
    known.staged = agreed(staged);
  }
  if (const auto& current = qemu::member(json, "current"); current.is_object()) {
    known.current = agreed(current);
  }
  return known;
}

}  // namespace godwit::agent
