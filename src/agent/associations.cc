#include "agent/associations.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "crypto/keyed_hash.hh"
#include "os/segment.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr const char* kAssociationKind = "association";
constexpr std::size_t kMostAsked = 20000;  // addresses, at once

std::string owner_of(const std::string& guest) { return "association " + guest; }

std::set<Ip> addresses_in(const nlohmann::json& list) {
  std::set<Ip> addresses;
  for (const auto& text : list) {
    const auto parsed = text.is_string() ? parse_ip(text.get_ref<const std::string&>())
                                         : Result<Ip>(fail("no text"));
    if (parsed) addresses.insert(*parsed);
  }
  return addresses;
}

nlohmann::json texts_of(const std::set<Ip>& addresses) {
  nlohmann::json texts = nlohmann::json::array();
  for (const Ip& address : addresses) texts.push_back(address.text());
  return texts;
}

}  // namespace

void Associations::start() {
  for (const auto& document : context_.store.list(kAssociationKind)) {
    Association known = association(document.body);
    if (const auto done = lead(known); !done) {
      spdlog::error("correspondents of guest {}: {}", known.name, done.error().text);
    }
    associations_[known.guest] = std::move(known);
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
  return addresses;
}

Result<nlohmann::json> Associations::serves(const nlohmann::json& body) const {
  const nlohmann::json& asked = array_field(body, "addresses");
  if (asked.size() > kMostAsked) return fail("at most {} addresses at once", kMostAsked);
  const std::set<Ip> known = here();
  std::set<Ip> served = addresses_in(asked);
  std::erase_if(served, [&](const Ip& address) { return !known.contains(address); });
  return nlohmann::json{{"addresses", texts_of(served)}};
}

// ---- agreeing ----

// By the operator's own word, or by what was proved before.
bool Associations::speaks_for(const std::string& peer, const Association* known,
                              const Ip& address) const {
  if (known != nullptr && known->holder == peer && known->current &&
      known->current->on_the_way.contains(address)) {
    return true;
  }
  const auto fabric = context_.fabrics.get();
  const auto host = fabric ? fabric->find(peer) : std::nullopt;
  return host && fabric->is_home(*host, address);
}

// Nobody says by a guest's name what others agreed about it.
Result<> Associations::may_stage(const std::string& peer, const Association* known,
                                 const std::map<Ip, Ip>& on_the_way) const {
  std::set<Ip> addresses;
  for (const auto* ways :
       {&on_the_way, known != nullptr && known->staged ? &known->staged->on_the_way : nullptr,
        known != nullptr && known->current ? &known->current->on_the_way : nullptr}) {
    if (ways == nullptr) continue;
    for (const auto& [address, way] : *ways) addresses.insert(address);
  }
  for (const Ip& address : addresses) {
    if (!speaks_for(peer, known, address)) {
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
  for (const auto& [other, each] : associations_) {
    if (other == guest) continue;
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
  auto may = may_stage(peer, known, *on_the_way);
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
  next.name = text_field_or(body, "name", *guest);
  if (next.holder.empty()) next.holder = peer;
  const auto here = ours(*connections, agreed.on_the_way);
  if (here.empty()) return fail("none of these connections ends at host {}", context_.config.name);
  for (const auto& each : here) next.correspondents.insert(each.guest);
  next.staged = std::move(agreed);
  if (auto done = take(next); !done) return std::unexpected(done.error());
  label(next, here);
  return nlohmann::json{{"labelled", here.size()}};
}

Result<nlohmann::json> Associations::update(const std::string& peer, const nlohmann::json& body) {
  const std::string guest = text_field_or(body, "guest", "");
  const Epoch epoch = epoch_field(body, "epoch", 0);
  const auto known = associations_.find(guest);
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
  const auto connections = parse_connections(qemu::member(body, "connections"), agreed->secret);
  if (!connections) return std::unexpected(connections.error());
  const auto here = ours(*connections, agreed->on_the_way);
  for (const auto& each : here) next.correspondents.insert(each.guest);
  if (!is_repeated) next.current = std::exchange(next.staged, std::nullopt);
  next.holder = peer;
  if (auto done = take(next); !done) return std::unexpected(done.error());
  label(next, here);
  context_.events.publish("association", {{"guest", next.name}, {"host", peer}});
  return nlohmann::json{{"correspondents", texts_of(next.correspondents)}};
}

Result<nlohmann::json> Associations::end(const std::string& peer, const nlohmann::json& body) {
  const std::string guest = text_field_or(body, "guest", "");
  const auto known = associations_.find(guest);
  if (known == associations_.end()) return nlohmann::json::object();
  const auto& current = known->second.current;
  if (!current || !is_same_proof(text_field_or(body, "proof", ""),
                                 proof_of(current->secret, "end", guest, current->epoch, peer,
                                          current->on_the_way))) {
    return fail("this is not proved to come from where guest {} is", known->second.name);
  }
  Association next = known->second;
  next.current.reset();
  if (!next.staged) {
    forget(guest);
  } else if (auto done = take(next); !done) {
    return std::unexpected(done.error());
  }
  return nlohmann::json::object();
}

Result<nlohmann::json> Associations::undo(const std::string& peer, const nlohmann::json& body) {
  const std::string guest = text_field_or(body, "guest", "");
  const auto known = associations_.find(guest);
  if (known == associations_.end()) return nlohmann::json::object();
  Association next = known->second;
  if (!next.staged || next.staged->by != peer) return nlohmann::json::object();
  next.staged.reset();
  if (!next.current) {
    forget(guest);
  } else if (auto done = take(next); !done) {
    return std::unexpected(done.error());
  }
  return nlohmann::json::object();
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
  return context_.kernel.set(owner_of(association.guest), rules_of(association));
}

// In the kernel, and in the store; or as it was.
Result<> Associations::take(const Association& association) {
  if (auto done = lead(association); !done) return done;
  auto kept = context_.store.record(kAssociationKind, association.guest, to_json(association));
  if (kept) {
    associations_[association.guest] = association;
    return kept;
  }
  const auto before = associations_.find(association.guest);
  if (before == associations_.end()) {
    context_.kernel.drop(owner_of(association.guest));
  } else if (const auto back = lead(before->second); !back) {
    spdlog::error("correspondents of guest {}: {}", association.name, back.error().text);
  }
  return kept;
}

void Associations::forget(const std::string& guest) {
  associations_.erase(guest);
  context_.kernel.drop(owner_of(guest));
  context_.store.erase(kAssociationKind, guest);
}

nlohmann::json Associations::describe() const {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [guest, each] : associations_) {
    list.push_back({{"guest", each.name},
                    {"host", each.holder},
                    {"correspondents", texts_of(each.correspondents)},
                    {"direct", each.current.has_value()}});
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
                         {"correspondents", texts_of(association.correspondents)},
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
                    .correspondents = addresses_in(array_field(json, "correspondents"))};
  if (const auto& staged = qemu::member(json, "staged"); staged.is_object()) {
    known.staged = agreed(staged);
  }
  if (const auto& current = qemu::member(json, "current"); current.is_object()) {
    known.current = agreed(current);
  }
  return known;
}

}  // namespace godwit::agent
