#include "translate/rule_json.hh"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace godwit::translate {
namespace {

constexpr std::array kKinds{RuleKind::depart, RuleKind::arrive, RuleKind::claim, RuleKind::answer};
constexpr std::array kPhases{Phase::before,  Phase::staged,  Phase::forwarded, Phase::flipped,
                             Phase::drained, Phase::settled, Phase::undone};

Result<Ip> ip_of(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_string()) return fail("a rule has no '{}'", key);
  auto ip = parse_ip(found->get_ref<const std::string&>());
  if (!ip) return ip;
  if (ip->is_unspecified() || ip->is_multicast() || ip->is_loopback() || ip->is_link_local()) {
    return fail("a rule's '{}' is no address of a host: {}", key, ip->text());
  }
  return ip;
}

Result<Rule> rule_of(const nlohmann::json& json) {
  if (!json.is_object()) return fail("a rule is an object");
  const auto kind = json.find("kind");
  const auto known = std::ranges::find_if(
      kKinds, [&](RuleKind each) { return kind != json.end() && *kind == to_text(each); });
  if (known == kKinds.end()) return fail("a rule has no kind that is known");
  Rule rule{.kind = *known};
  const auto match = ip_of(json, "match");
  if (!match) return std::unexpected(match.error());
  rule.match = *match;
  if (rewrites(rule.kind)) {
    const auto becomes = ip_of(json, "becomes");
    if (!becomes) return std::unexpected(becomes.error());
    if (becomes->is4() != match->is4() || *becomes == *match) {
      return fail("{} cannot become {}", match->text(), becomes->text());
    }
    rule.becomes = *becomes;
  }
  const auto staged = json.find("staged");
  if (staged != json.end() && !staged->is_boolean()) return fail("'staged' is true or false");
  rule.is_active = staged == json.end() || !staged->get<bool>();
  return rule;
}

}  // namespace

nlohmann::json to_json(const Rules& rules) {
  nlohmann::json list = nlohmann::json::array();
  for (const Rule& rule : rules) {
    nlohmann::json one = {{"kind", to_text(rule.kind)}, {"match", rule.match.text()}};
    if (rewrites(rule.kind)) one["becomes"] = rule.becomes.text();
    if (!rule.is_active) one["staged"] = true;
    list.push_back(std::move(one));
  }
  return list;
}

Result<Rules> parse_rules(const nlohmann::json& json) {
  if (!json.is_array()) return fail("rules are an array");
  Rules rules;
  for (const auto& each : json) {
    const auto rule = rule_of(each);
    if (!rule) return std::unexpected(rule.error());
    rules.push_back(*rule);
  }
  std::ranges::sort(rules);
  rules.erase(std::ranges::unique(rules).begin(), rules.end());
  return rules;
}

Result<Phase> parse_phase(std::string_view text) {
  const auto found =
      std::ranges::find_if(kPhases, [&](Phase each) { return to_text(each) == text; });
  if (found == kPhases.end()) return fail("'{}' is no phase of a move", text);
  return *found;
}

}  // namespace godwit::translate
