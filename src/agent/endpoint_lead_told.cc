// What a move by endpoint tells, and what is kept of it.
#include "agent/endpoint_lead.hh"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "qemu/json.hh"

namespace godwit::agent {

using translate::Phase;

std::string EndpointLead::missing() const {
  std::vector<std::string> hosts;
  for (const auto& each : correspondents_) {
    const bool is_awaited = !each.has_answered || !each.awaited.empty();
    if (reached_ >= Phase::forwarded && is_awaited) hosts.push_back("host " + each.host);
  }
  return fmt::format("{}", fmt::join(hosts, "; "));
}

nlohmann::json EndpointLead::describe() const {
  nlohmann::json hosts = nlohmann::json::array();
  for (const auto& each : correspondents_) hosts.push_back(each.host);
  nlohmann::json json = {{"strategy", "endpoint"},
                         {"addresses", agent::to_json(guest())},
                         {"on_the_way", agent::to_json(on_the_way_)},
                         {"correspondents", hosts},
                         {"connections", inherited_.size()}};
  if (const auto gone = parts_.relays.gone(owner_.record.port)) json["went_on_to"] = gone->to;
  if (reached_ >= Phase::forwarded) {
    json["alive"] = {{"direct", alive_now_.direct}, {"relayed", alive_now_.relayed}};
    json["reset"] = cut_;
    if (!relay_.empty()) json["relay"] = {{"port", relay_}, {"until", relay_until_}};
  }
  return json;
}

nlohmann::json EndpointLead::to_json() const {
  nlohmann::json correspondents = nlohmann::json::array();
  for (const auto& each : correspondents_) {
    correspondents.push_back({{"host", each.host},
                              {"with", each.with},
                              {"secret", to_hex(each.secret)},
                              {"direct", agent::to_json(each.direct)},
                              {"awaited", agent::to_json(each.awaited)},
                              {"answered", each.has_answered},
                              {"ended", each.is_ended}});
  }
  return {{"on_the_way", agent::to_json(on_the_way_)},
          {"correspondents", correspondents},
          {"left_out", left_out_},
          {"renames", renames_},
          {"has_left", has_left_},
          {"relay", relay_},
          {"interface", interface_},
          {"relay_limit_s", relay_limit_s_},
          {"relay_until", relay_until_}};
}

void EndpointLead::load(const nlohmann::json& json) {
  const auto on_the_way = parse_addresses(qemu::member(json, "on_the_way"));
  if (!on_the_way) fail_setup("relocation: {}", on_the_way.error().text);
  on_the_way_ = *on_the_way;
  for (const auto& each : array_field(json, "correspondents")) {
    const std::string host = text_field_or(each, "host", "");
    Correspondents known{.host = host,
                         .with = text_field_or(each, "with", host),
                         .secret = from_hex(text_field_or(each, "secret", "")),
                         .direct = addresses_in(array_field(each, "direct")),
                         .awaited = addresses_in(array_field(each, "awaited")),
                         .has_answered = qemu::flag_at(each, "answered"),
                         .is_ended = qemu::flag_at(each, "ended")};
    known.has_answered |= !known.direct.empty();  // of a version that kept no more
    known.was_told = known.has_answered && known.awaited.empty();
    correspondents_.push_back(std::move(known));
  }
  const auto kept = context_.store.find(kConnectionsKind, owner_.record.port.text());
  const auto inherited = parse_lists(kept.value_or(json));
  if (inherited) inherited_ = *inherited;
  left_out_ = json.value("left_out", left_out_);
  renames_ = qemu::flag_at(json, "renames");
  has_left_ = qemu::flag_at(json, "has_left");
  relay_ = text_field_or(json, "relay", "");
  interface_ = text_field_or(json, "interface", "");
  relay_limit_s_ = json.value("relay_limit_s", relay_limit_s_);
  relay_until_ = json.value("relay_until", relay_until_);
}

}  // namespace godwit::agent
