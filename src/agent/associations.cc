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

bool Associations::is_here(const Ip& address) const {
  return context_.network.guests().contains(address) || os::is_own_address(address);
}

Result<nlohmann::json> Associations::serves(const nlohmann::json& body) const {
  const nlohmann::json& asked = array_field(body, "addresses");
  if (asked.size() > kMostAsked) return fail("at most {} addresses at once", kMostAsked);
  std::set<Ip> here;
  for (const Ip& address : addresses_in(asked)) {
    if (is_here(address)) here.insert(address);
  }
  return nlohmann::json{{"addresses", texts_of(here)}};
}

// ---- agreeing ----

// By the operator's own word, or by what was proved before.
Result<> Associations::may_speak_for(const std::string& peer, const std::string& guest,
                                     const std::map<Ip, Ip>& addresses) const {
  const auto known = associations_.find(guest);
  const bool is_holder = known != associations_.end() && known->second.holder == peer;
  const auto fabric = context_.fabrics.get();
  const auto host = fabric ? fabric->find(peer) : std::nullopt;
  for (const auto& [address, way] : addresses) {
    if (is_holder && known->second.current && known->second.current->on_the_way.contains(address)) {
      continue;
    }
    if (!host || !fabric->is_home(*host, address)) {
      return fail("host {} does not speak for {}, which is at home elsewhere (godwit fabric show)",
                  peer, address.text());
    }
  }
  return {};
}

std::size_t Associations::label(Association& association,
                                const std::vector<os::Connection>& connections) const {
  std::vector<os::Connection> ours;
  for (const auto& each : connections) {
    if (!is_here(each.peer)) continue;
    association.correspondents.insert(each.peer);
    ours.push_back(seen_by_peer(each));
  }
  if (ours.empty()) return 0;
  if (const auto done = EndpointKernel::mark(ours, os::kLabelledMark); !done) {
    spdlog::warn("connections with guest {}: {}", association.name, done.error().text);
  }
  return ours.size();
}

Result<nlohmann::json> Associations::stage(const std::string& peer, const nlohmann::json& body) {
  const auto guest = text_field(body, "guest");
  if (!guest) return std::unexpected(guest.error());
  const auto on_the_way = parse_addresses(qemu::member(body, "on_the_way"));
  if (!on_the_way) return std::unexpected(on_the_way.error());
  const auto may = may_speak_for(peer, *guest, *on_the_way);
  if (!may) return std::unexpected(may.error());
  Agreed agreed{.epoch = epoch_field(body, "epoch", 0),
                .by = peer,
                .secret = from_hex(text_field_or(body, "secret", "")),
                .on_the_way = *on_the_way};
  if (agreed.secret.size() != crypto::KeyedHash::kKeySize) return fail("the secret is no key");
  const auto connections = parse_connections(qemu::member(body, "connections"), agreed.secret);
  if (!connections) return std::unexpected(connections.error());
  const auto known = associations_.find(*guest);
  Association next = known == associations_.end() ? Association{} : known->second;
  if (next.current && next.current->epoch >= agreed.epoch) {
    return fail("guest {} has moved again since", *guest);
  }
  next.guest = *guest;
  next.name = text_field_or(body, "name", *guest);
  if (next.holder.empty()) next.holder = peer;
  next.staged = std::move(agreed);
  const std::size_t labelled = label(next, *connections);
  if (labelled == 0) return fail("none of these connections ends at host {}", context_.config.name);
  if (auto done = take(next); !done) return std::unexpected(done.error());
  return nlohmann::json{{"labelled", labelled}};
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
  label(next, *connections);
  if (!is_repeated) next.current = std::exchange(next.staged, std::nullopt);
  next.holder = peer;
  if (auto done = take(next); !done) return std::unexpected(done.error());
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
